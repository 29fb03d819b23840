"""The parts of a run's record about graphs: how each was calibrated, and which of its layers hurt. See `schema`."""

from __future__ import annotations

from dataclasses import dataclass

from rir_deploy.report.reader import Amount, Count
from rir_deploy.report.schema_engine import Drop, Kept


@dataclass(frozen=True)
class Candidate:
    """A way to quantise; ``sqnr_db`` of the outputs on the images held back, None where there was no choice."""

    method: str
    rounding: str
    equalized: bool
    sqnr_db: float | None


@dataclass(frozen=True)
class Choice:
    """The way taken, and all that were measured, best first."""

    images: Count
    method: str
    rounding: str
    equalized: bool
    sqnr_db: float | None
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Layer:
    """A layer by its ONNX node and the tensors of the unfolded graph that it computes.

    ``sqnr_db`` is of the outputs with this layer alone quantised, None where that changes nothing; ``kept``: it stays
    in float. ``block`` ("layers.3") and ``stream`` say where in the network it is, as far as that is known.
    """

    node: str
    block: str | None
    stream: str | None
    members: tuple[str, ...]
    sqnr_db: float | None
    kept: bool


@dataclass(frozen=True)
class Sensitivity:
    """The layers, the worst first, on ``images`` calibration images.

    ``max_drop`` is the budget in points of top-1, None without one; ``drop`` is what was lost of it on the evaluation
    images, a fraction, and ``drop_test`` what can be said of that.
    """

    images: Count
    max_drop: Amount | None
    drop: float | None
    drop_test: Drop | None
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Graph:
    """``kept`` are the nodes that stay in a wider precision than the graph's, and why.

    ``calibration`` and ``sensitivity`` are of INT8; the latter is None where the layers were not ranked.
    """

    name: str
    file: str
    precision: str
    flavour: str | None
    size_bytes: Count
    sha256: str
    kept: tuple[Kept, ...]
    calibration: Choice | None
    sensitivity: Sensitivity | None
