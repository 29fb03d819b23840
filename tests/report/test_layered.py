"""The layout of a small graph: edges downwards, nothing on top of anything, and no crossing where none is needed."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rir_deploy.report.layered import Layout, lay_out

# A RiR block: two streams, four convolutions, a shortcut over three layers.
BLOCK = {
    "r": [],
    "t": [],
    "rr": ["r"],
    "tr": ["t"],
    "add r": ["rr", "tr"],
    "rt": ["r"],
    "tt": ["t"],
    "add t": ["rt", "tt"],
    "shortcut": ["add r", "r"],
    "relu r": ["shortcut"],
    "relu t": ["add t"],
}


def graphs() -> st.SearchStrategy[dict[str, list[str]]]:
    """Up to 12 nodes, each reading some of those before it."""
    reads = st.lists(st.lists(st.integers(0, 11), max_size=4), max_size=12)
    return reads.map(
        lambda rows: {str(index): [str(one) for one in row if one < index] for index, row in enumerate(rows)}
    )


def check(inputs: dict[str, list[str]], layout: Layout) -> None:
    assert set(layout.places) == set(inputs)
    for name, read in inputs.items():
        assert all(layout.places[one][1] < layout.places[name][1] for one in read)
    points = {*layout.places.values(), *(corner for edge in layout.edges for corner in edge)}
    for layer in range(layout.depth):
        xs = sorted(x for x, one in points if one == layer)
        assert all(right - left > 0.999 for left, right in pairwise(xs))
    assert all(-1e-9 <= x <= layout.width + 1e-9 for x, _ in points)
    ends = sorted((edge[0], edge[-1]) for edge in layout.edges)
    assert ends == sorted(
        (layout.places[one], layout.places[name]) for name, read in inputs.items() for one in set(read)
    )
    for edge in layout.edges:
        assert [layer for _, layer in edge] == list(range(edge[0][1], edge[-1][1] + 1))


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_any_graph(inputs: dict[str, list[str]]) -> None:
    check(inputs, lay_out(inputs))


def crossings(layout: Layout) -> int:
    pieces = [piece for edge in layout.edges for piece in pairwise(edge)]
    return sum((a[0] - c[0]) * (b[0] - d[0]) < 0 for (a, b), (c, d) in combinations(pieces, 2) if a[1] == c[1])


def test_a_block_of_two_streams() -> None:
    """Two of the four convolutions cross from one stream to the other: their edges have to, once."""
    layout = lay_out(BLOCK)
    check(BLOCK, layout)
    assert layout.depth == 5
    assert crossings(layout) <= 2


def test_a_chain_is_a_straight_line() -> None:
    layout = lay_out({"a": [], "b": ["a"], "c": ["b"]})
    assert layout.places == {"a": (0.0, 0), "b": (0.0, 1), "c": (0.0, 2)}
    assert layout.width == pytest.approx(0.0)


def test_names_from_elsewhere_are_passed_over() -> None:
    assert lay_out({"a": ["weight"]}).edges == ()
    assert lay_out({}).depth == 0
