"""Which images stand for all: chosen by seed, and class by class where labels exist."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rir_deploy.errors import InputError

IntArray = npt.NDArray[np.int64]


def choose(labels: IntArray | None, total: int, count: int, seed: int) -> IntArray:
    """``count`` of ``total`` images without repeats, as sorted indices (count,).

    With labels, every class gives equally many (within one) as long as it has them; what a small class lacks,
    the others give. The same arguments give the same indices on every machine.

    Args:
        labels: (total,), or None.
        seed: 0 to 2**32 - 1.

    Raises:
        InputError: ``count`` is not 1 to ``total``, a seed out of range, or labels of another length.
    """
    if not 1 <= count <= total:
        raise InputError(
            f"{count} samples were asked for but the data hold {total} images; ask for 1 to {total}, or give more data"
        )
    if not 0 <= seed < 2**32:
        raise InputError(f"the seed must be 0 to {2**32 - 1}, not {seed}")
    if labels is not None and len(labels) != total:
        raise InputError(f"there are {len(labels)} labels for {total} images")
    order = shuffled(total, seed)
    if labels is not None:
        order = order[_deal(labels[order])]
    return np.sort(order[:count])


def shuffled(total: int, seed: int) -> IntArray:
    """0 to ``total`` - 1 in an order that only the seed decides, on every machine and by every numpy."""
    # RandomState's stream is frozen; a Generator's may change with numpy, and the calibration with it.
    return np.random.RandomState(seed).permutation(total).astype(np.int64)


def _deal(labels: IntArray) -> IntArray:
    """Positions dealt in rounds: the first of every class, then the second of every class, and so on.

    Within a round, classes come in the order of their first appearance, which is random: none is favoured.
    """
    _, first, number = np.unique(labels, return_index=True, return_inverse=True)
    by_class = np.argsort(number, kind="stable")
    sizes = np.bincount(number)
    starts = np.cumsum(sizes) - sizes
    rounds = np.empty(len(labels), dtype=np.int64)
    rounds[by_class] = np.arange(len(labels)) - np.repeat(starts, sizes)
    return np.lexsort((first[number], rounds)).astype(np.int64)
