"""A source seen through a preprocessing: batches that are decoded as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rir_deploy.data.preprocess import Preprocessing, Uint8Array
from rir_deploy.data.sources import Source
from rir_deploy.errors import InputError
from rir_deploy.notices import notice
from rir_deploy.plain_text import whole_number

IntArray = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]

# Parts of a data set, and folders of images in general; some are classes too (a train, in CIFAR-100).
_PARTS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "images", "data", "dataset"})


@dataclass(frozen=True)
class Batch:
    """Some images of a data set.

    Attributes:
        indices: (n,) positions in the source.
        images: (n, H, W, C) uint8, fitted to the preprocessing.
        labels: (n,), or None where there are none.
    """

    indices: IntArray
    images: Uint8Array
    labels: IntArray | None

    def __len__(self) -> int:
        return len(self.indices)

    def tensor(self, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
        """The network's input: (n, C, H, W) float32."""
        return preprocessing.normalize(self.images)


class Dataset:
    """``source`` seen through ``preprocessing``; labels are checked at once, images when they are decoded.

    Where both the source and the caller name the classes, labels are matched by name, so that a source that
    lacks a class or has them in another order keeps its meaning.

    Args:
        num_classes: labels must be under it; None for no limit, or for the number of ``classes``.
        classes: the class names that the network knows, in its order.

    Raises:
        InputError: a label that is not under ``num_classes``, or a class that ``classes`` does not have.
    """

    def __init__(
        self,
        source: Source,
        preprocessing: Preprocessing,
        num_classes: int | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.source = source
        self.preprocessing = preprocessing
        self.labels = source.labels if classes is None else _match_by_name(source, classes)
        limit = num_classes if num_classes is not None or classes is None else len(classes)
        if limit is not None:
            _check_labels(self.labels, limit, source)

    def __len__(self) -> int:
        return len(self.source)

    def batches(
        self, size: int, indices: npt.ArrayLike | None = None, progress: Progress | None = None
    ) -> Iterator[Batch]:
        """Batches of ``size`` images (the last may be smaller), in order, or in that of ``indices``.

        One batch is held at a time. ``progress`` is called with (images done, images in all) after each.

        Raises:
            InputError: a size under 1, an index out of range and, while iterating, an image that is
                malformed or does not fit.
        """
        if size < 1:
            raise InputError(f"the batch size must be at least 1, not {size}")
        return self._iterate(size, self._check_indices(indices), progress)

    def raw(self, indices: npt.ArrayLike | None = None) -> Uint8Array:
        """All images, or those at ``indices``, fitted and in memory: (N, H, W, C) uint8."""
        return self._decode(self._check_indices(indices))

    def _iterate(self, size: int, indices: IntArray, progress: Progress | None) -> Iterator[Batch]:
        for start in range(0, len(indices), size):
            part = indices[start : start + size]
            yield Batch(part, self._decode(part), None if self.labels is None else self.labels[part])
            if progress is not None:
                progress(start + len(part), len(indices))

    def _decode(self, indices: IntArray) -> Uint8Array:
        images = np.empty((len(indices), *self.preprocessing.size, self.preprocessing.channels), dtype=np.uint8)
        for row, index in enumerate(indices.tolist()):
            name = f"the image '{self.source.describe(index)}'"
            images[row] = self.preprocessing.fit(self.source.image(index), name)
        return images

    def _check_indices(self, indices: npt.ArrayLike | None) -> IntArray:
        if indices is None:
            return np.arange(len(self), dtype=np.int64)
        array = np.asarray(indices)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise InputError(f"indices must be a list of integers, not {array.dtype} of shape {array.shape}")
        bad = np.flatnonzero((array < 0) | (array >= len(self)))
        if bad.size:
            raise InputError(f"'{self.source.name}' has {len(self)} images, none at index {array[bad[0]]}")
        return array.astype(np.int64)


def _match_by_name(source: Source, classes: Sequence[str]) -> IntArray | None:
    if source.labels is None:
        return _only_class(source, classes)
    if source.classes is None:
        return source.labels
    return _numbers(source.name, source.classes, classes)[source.labels]


def _only_class(source: Source, classes: Sequence[str]) -> IntArray | None:
    """Labels of images that all lie in one folder: those of its class where it is called as one.

    The source's own folder is named for many reasons: it is taken as a class with a notice, and a part of a data set is
    none.
    """
    inner, outer = source.within
    said = None if inner is None else _class_of(inner, source, classes)
    if said is None and outer is not None and outer in classes and outer not in _PARTS:
        said = list(classes).index(outer)
        notice(f"the images of '{source.name}' are taken as of the class '{outer}', which the folder is called as")
    if said is not None:
        return np.full(len(source), said, dtype=np.int64)
    if inner is not None and inner.lower() not in _PARTS:
        notice(
            f"the images of '{source.name}' are taken without labels: the only folder of them, '{inner}', is no class "
            f"of the recipe ({_few(classes)})"
        )
    return None


def _class_of(folder: str, source: Source, classes: Sequence[str]) -> int | None:
    """The class that the only folder inside a source is called as, by name or by number."""
    if folder in classes:
        if folder in _PARTS:
            notice(f"the images of '{source.name}' all lie in '{folder}', and are taken as of the class of that name")
        return list(classes).index(folder)
    alike = [name for name in classes if name.casefold() == folder.casefold()]
    if len(alike) == 1 and folder.lower() not in _PARTS:
        notice(f"the folder '{folder}' of '{source.name}' is taken as the class '{alike[0]}' of the recipe")
        return list(classes).index(alike[0])
    number = whole_number(folder)
    if number is not None and number <= len(classes):
        return int(_numbers(source.name, [folder], classes)[0])
    return None


def _numbers(source: str, names: Sequence[str], classes: Sequence[str]) -> IntArray:
    """The network's number of each of a source's classes."""
    number = {name: index for index, name in enumerate(classes)}
    if not any(name in number for name in names) and all(whole_number(name) is not None for name in names):
        return _folder_numbers(source, names, classes)
    for name in names:
        if name not in number:
            raise InputError(
                f"'{source}' has the class '{name}', which the recipe does not "
                f"(known: {', '.join(classes)}); rename it or choose another recipe"
            )
    return np.array([number[name] for name in names], dtype=np.int64)


def _folder_numbers(source: str, names: Sequence[str], classes: Sequence[str]) -> IntArray:
    """Class folders that are called by number, not by name.

    Where the recipe's classes are numbers, they are names ("01" is "1"). Otherwise a number counts from 0 only where
    there is a 0: without one, it cannot be told from another count, and every label may be off by one.
    """
    values = [value for name in names if (value := whole_number(name)) is not None]
    if len(set(values)) < len(values):
        raise InputError(f"'{source}' has class folders of one number ({', '.join(names)}); put them into one")
    number = {name: index for index, name in enumerate(classes)}
    if all(str(value) in number for value in values):
        return np.array([number[str(value)] for value in values], dtype=np.int64)
    if 0 not in values:
        raise InputError(
            f"'{source}' has class folders called by number ({_few(names)}), and it cannot be told from where they "
            f"count: from 0 they are {_reading(values, classes, 0)}, from 1 {_reading(values, classes, 1)}; rename "
            "them to the classes of the recipe"
        )
    return np.array(values, dtype=np.int64)


def _reading(values: Sequence[int], classes: Sequence[str], first: int) -> str:
    places = [value - first for value in sorted(values)]
    return _few([classes[at] if 0 <= at < len(classes) else "no class" for at in places])


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _check_labels(labels: IntArray | None, limit: int, source: Source) -> None:
    if labels is None:
        return
    bad = np.flatnonzero(labels >= limit)
    if bad.size:
        raise InputError(
            f"'{source.name}' has the label {labels[bad[0]]} at index {bad[0]}, "
            f"but there are {limit} classes (0 to {limit - 1})"
        )
