"""The parts of a run's record about where losses enter: its stages, the layers of its graphs, a block. See `schema`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rir_deploy.report.reader import Amount, Count, Share


@dataclass(frozen=True)
class Figures:
    """A stage against another: ``top1_drop`` in points, None without labels; ``max_abs_error`` None where it is not
    finite, ``sqnr_db`` where the outputs are equal. ``passed`` is by the gate of the stage's precision.
    """

    passed: bool
    failures: tuple[str, ...]
    agreement: Share
    top1_drop: float | None
    max_abs_error: Amount | None
    sqnr_db: float | None


@dataclass(frozen=True)
class Stage:
    """``made_from`` names an earlier stage; of PyTorch, the first, it is None, and so is what it is compared with.

    ``simulation``: the graph ran in the engine's place.
    """

    name: str
    made_from: str | None
    precision: str
    runs_on: str
    simulation: bool
    top1: Share | None
    against_pytorch: Figures | None
    against_parent: Figures | None


@dataclass(frozen=True)
class Stages:
    """Every stage on the same images, each after the one it was made from."""

    images: Count
    rows: tuple[Stage, ...]


@dataclass(frozen=True)
class LayerRow:
    """A feature map of a graph against the checkpoint's. The *whole* error is of the graph as it runs, the *own* one of
    the layer given the checkpoint's own feature maps.

    ``sqnr_db`` and ``own_sqnr_db`` are None where nothing differs, ``max_abs_error`` where it is not finite;
    ``own_error`` is the worst channel's own error as a multiple of what is allowed. ``verdict``: "diverges" is wrong by
    its own doing, "follows" by what it inherits, "differs" where it does not matter.
    """

    node: str
    block: str | None
    stream: str | None
    sqnr_db: float | None
    max_abs_error: Amount | None
    own_sqnr_db: float | None
    own_error: Amount | None
    verdict: Literal["ok", "follows", "differs", "diverges"]


@dataclass(frozen=True)
class LayerErrors:
    """A graph's layers in its order; none, and a ``note`` why, where they could not be matched."""

    graph: str
    images: Count
    note: str
    rows: tuple[LayerRow, ...]

    @property
    def divergence(self) -> LayerRow | None:
        return next((row for row in self.rows if row.verdict == "diverges"), None)


@dataclass(frozen=True)
class Node:
    """``inputs`` are names of nodes of the same graph. What a block reads and gives are nodes too, of the ops "input"
    and "output".
    """

    name: str
    op: str
    detail: str
    stream: str | None
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """One block as it was traced, and folded."""

    block: str
    before: tuple[Node, ...]
    after: tuple[Node, ...]
