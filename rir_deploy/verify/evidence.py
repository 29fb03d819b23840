"""What images can prove: how many of them are distinct, and whether the reference knows anything of them.

Two models that guess agree about as often as one of them says the same class, and images of one class, or one image
again and again, say nothing of the others.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rir_deploy.verify.classes import upper_tail

# A reference is taken to know something where guessing would do as well with this probability, or less.
GUESSING = 0.05
# And to be asked about other labels than its own where guessing would do as badly with this one.
_WORSE = 1e-4


class Distinct:
    """Tells images that were not seen before from repeated ones."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def fresh(self, images: NDArray[np.generic], count: int) -> NDArray[np.bool_]:
        """[count]: whether each image [n, ...] is the first of its kind; all are where the images are not at hand."""
        if len(images) != count:
            return np.ones(count, dtype=np.bool_)
        found = []
        for image in images:
            digest = hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()
            found.append(digest not in self._seen)
            self._seen.add(digest)
        return np.array(found, dtype=np.bool_)


@dataclass(frozen=True)
class Answered:
    """What the reference made of the distinct images.

    ``labels`` counts the images of each class, None without labels; ``predictions`` those that are called so;
    ``outputs`` are the classes that it can answer with, ``right`` the images it has right, ``images`` all of them.
    """

    images: int
    distinct: int
    outputs: int
    labels: NDArray[np.int64] | None
    predictions: NDArray[np.int64]
    right: int

    @property
    def guessing(self) -> float:
        """The share that would be right by always answering with the most frequent class, or by chance."""
        assert self.labels is not None
        return max(float(self.labels.max()) / self.distinct, 1.0 / self.outputs)


def image_doubts(answered: Answered) -> tuple[str, ...]:
    """Why nothing can be proved on these images, whatever answers; a sentence each."""
    found, distinct, labels = [], answered.distinct, answered.labels
    if 2 * distinct <= answered.images:
        found.append(f"only {distinct} of the {answered.images} images {'are' if distinct > 1 else 'is'} distinct")
    if answered.outputs > 1 and labels is not None and np.count_nonzero(labels) == 1:
        found.append(f"all images are of one class ({int(labels.argmax())})")
    return tuple(found)


def reference_doubts(answered: Answered) -> tuple[str, ...]:
    """Why the predictions of this reference prove nothing: it does not know these images; a sentence each."""
    labels = answered.labels
    if answered.outputs < 2 or answered.distinct < 2 or (labels is not None and np.count_nonzero(labels) == 1):
        return ()
    if np.count_nonzero(answered.predictions) == 1:
        return (f"the reference calls all images the same ({int(answered.predictions.argmax())})",)
    return () if labels is None else tuple(_no_better_than_guessing(answered))


def _no_better_than_guessing(answered: Answered) -> list[str]:
    distinct, chance = answered.distinct, 1.0 / answered.outputs
    right = f"the reference has {answered.right / distinct:.1%} right"
    if upper_tail(distinct - answered.right, distinct, 1.0 - chance) < _WORSE:
        return [
            f"{right}, less than guessing gives ({chance:.1%}): the labels, the order of the classes or the "
            "preprocessing are not those that it was trained with"
        ]
    if upper_tail(answered.right, distinct, answered.guessing) > GUESSING:
        return [f"{right}, no more than guessing gives ({answered.guessing:.1%})"]
    return []
