"""A small directed graph laid out in layers, as Sugiyama's method does it: every edge leads downwards.

Sugiyama, Tagawa, Toda 1981, IEEE Transactions on Systems, Man and Cybernetics 11:109. In short:

1. A node's layer is one more than the deepest of what it reads.
2. An edge over several layers gets a point in each, which takes room there as a node does.
3. Sweeps down and up sort each layer by the mean place of its neighbours, so that few edges cross.
4. Sweeps move each layer's points towards their neighbours, keeping order and distance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

# A node by name, or the point of an edge (from, to) in a layer.
Point = str | tuple[str, str, int]
_SWEEPS = 8


@dataclass(frozen=True)
class Layout:
    """``places`` are (x, layer) of every node, x from 0 in steps of at least 1; ``edges`` are their corners, from the
    node read to the node that reads. ``width`` is the largest x, ``depth`` the number of layers.
    """

    places: dict[str, tuple[float, int]]
    edges: tuple[tuple[tuple[float, int], ...], ...]
    width: float
    depth: int


def lay_out(inputs: Mapping[str, Sequence[str]]) -> Layout:
    """Lay out a graph given as what each node reads, in an order in which nothing is read before it is there.

    Names that are no keys are passed over.
    """
    layers = _layers(inputs)
    edges = [(source, name) for name, read in inputs.items() for source in dict.fromkeys(read) if source in layers]
    chains = [_chain(source, name, layers) for source, name in edges]
    rows = _rows(layers, chains)
    above, below = _neighbours(chains)
    for _ in range(_SWEEPS):
        for row in rows[1:]:
            _sort(row, rows, above)
        for row in rows[-2::-1]:
            _sort(row, rows, below)
    xs = _spread(rows, above, below)
    level = {point: index for index, row in enumerate(rows) for point in row}
    places = {name: (xs[name], level[name]) for name in inputs}
    corners = tuple(tuple((xs[point], level[point]) for point in chain) for chain in chains)
    return Layout(places, corners, max(xs.values(), default=0.0), len(rows))


def _layers(inputs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    layers: dict[str, int] = {}
    for name, read in inputs.items():
        layers[name] = max((layers[source] + 1 for source in read if source in layers), default=0)
    return layers


def _chain(source: str, name: str, layers: Mapping[str, int]) -> list[Point]:
    between = range(layers[source] + 1, layers[name])
    return [source, *((source, name, layer) for layer in between), name]


def _rows(layers: Mapping[str, int], chains: Sequence[list[Point]]) -> list[list[Point]]:
    rows: list[list[Point]] = [[] for _ in range(max(layers.values(), default=-1) + 1)]
    for name, layer in layers.items():
        rows[layer].append(name)
    for chain in chains:
        for point in chain[1:-1]:
            rows[int(point[2])].append(point)
    return rows


def _neighbours(chains: Sequence[list[Point]]) -> tuple[dict[Point, list[Point]], dict[Point, list[Point]]]:
    above: dict[Point, list[Point]] = {}
    below: dict[Point, list[Point]] = {}
    for chain in chains:
        for upper, lower in pairwise(chain):
            above.setdefault(lower, []).append(upper)
            below.setdefault(upper, []).append(lower)
    return above, below


def _sort(row: list[Point], rows: Sequence[list[Point]], neighbours: Mapping[Point, list[Point]]) -> None:
    """By the mean place of the neighbours; what has none stays where it is."""
    place = {point: float(index) for one in rows for index, point in enumerate(one)}
    wanted = {point: _mean([place[one] for one in neighbours.get(point, [])], place[point]) for point in row}
    row.sort(key=wanted.__getitem__)


def _spread(
    rows: Sequence[list[Point]], above: Mapping[Point, list[Point]], below: Mapping[Point, list[Point]]
) -> dict[Point, float]:
    xs = {point: index - (len(row) - 1) / 2 for row in rows for index, point in enumerate(row)}
    for sweep in range(2 * _SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else rows[::-1]:
            near = above if down else below
            wanted = [_mean([xs[one] for one in near.get(point, [])], xs[point]) for point in row]
            xs.update(zip(row, _apart(wanted), strict=True))
    left = min(xs.values(), default=0.0)
    return {point: x - left for point, x in xs.items()}


def _apart(wanted: Sequence[float]) -> list[float]:
    """The nearest places that keep the order and a distance of 1: pushed from the left and from the right, halfway."""
    right = [wanted[0]] if wanted else []
    for x in wanted[1:]:
        right.append(max(x, right[-1] + 1.0))
    left = [wanted[-1]] if wanted else []
    for x in wanted[-2::-1]:
        left.append(min(x, left[-1] - 1.0))
    return [(a + b) / 2 for a, b in zip(right, left[::-1], strict=True)]


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default
