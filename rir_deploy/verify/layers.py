"""Layer by layer: what a candidate's feature maps are off by, and which layer is the first to be wrong.

Every layer is looked at twice. *Whole*: as the candidate runs, the errors of all earlier layers included. *Own*: given
the reference's feature maps as its inputs, so that the error is its own doing. Errors that pile up through a deep
network are a drift and show in the whole alone; a layer that is wrong shows in its own error.

ok         the layer is within the limit, whatever came before
follows    it is not, by what it inherits: its own error is within the limit
diverges   it is not, by its own doing
differs    the same, and it does not matter: channels that nothing reads were dropped; or the output of a float graph
           agrees, which no wrong layer leaves alone (a tool that equalises channels leaves other scales)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rir_deploy.verify.limits import Limit, Wide

Array = NDArray[np.floating]
Verdict = Literal["ok", "follows", "differs", "diverges"]

# Two tensors of which one says so little about the other are not versions of one.
_UNRELATED_DB = 3.0


@dataclass(frozen=True)
class Part:
    """Channels first:last of a layer's tensor, and what they are in the reference.

    ``dropped``: the candidate does not have them, as a fold drops channels that are zero for every input. They are
    compared as zeros.
    """

    first: int
    last: int
    node: str
    block: str | None
    stream: str | None
    dropped: bool = False


@dataclass(frozen=True)
class Layer:
    """A node of the candidate whose feature map ``tensor`` [n, channels, ...] the reference has too, in ``parts``.

    ``missing`` are parts of earlier blocks that it is computed from in the reference and that the candidate has not:
    where it diverges, they are what is wrong.
    """

    node: str
    op: str
    tensor: str
    parts: tuple[Part, ...]
    missing: tuple[Part, ...] = ()


@dataclass(frozen=True)
class LayerRow:
    """What was found for a layer.

    Attributes:
        sqnr_db, max_abs_error: of the whole; ``sqnr_db`` is infinite where nothing differs.
        own_sqnr_db: of its own.
        own_error: the worst channel's own error, as a multiple of what is allowed; ``channel`` is that one.
        nodes, block, stream: in the reference; of a divergence, those of the channels that diverge.
    """

    layer: Layer
    sqnr_db: float
    max_abs_error: float
    own_sqnr_db: float
    own_error: float
    channel: int
    nodes: tuple[str, ...]
    block: str | None
    stream: str | None
    verdict: Verdict

    def sentence(self) -> str:
        """What diverges, and where."""
        where = ", ".join(word for word in (self.block, self.stream) if word)
        own = "is not finite" if not math.isfinite(self.own_error) else f"is {self.own_error:.3g} times what is allowed"
        place = f" ({where})" if where else ""
        return f"the node '{self.layer.node}'{place} diverges: its own error in channel {self.channel} {own}"

    def to_dict(self) -> dict[str, object]:
        figures = {
            key: value if math.isfinite(value := getattr(self, key)) else None
            for key in ("sqnr_db", "max_abs_error", "own_sqnr_db", "own_error")
        }
        return {
            "node": self.layer.node,
            "op": self.layer.op,
            "tensor": self.layer.tensor,
            "block": self.block,
            "stream": self.stream,
            "reference_nodes": list(self.nodes),
            **figures,
            "channel": self.channel,
            "verdict": self.verdict,
        }


class LayerComparison:
    """Feed it one layer's feature maps [n, channels, ...] batch by batch, then ask for `row`."""

    def __init__(self, layer: Layer, limit: Limit) -> None:
        self.layer, self._limit = layer, limit
        self._squares: dict[str, Wide] = {}
        self._low = self._high = self._largest = 0.0
        self._count = 0

    def update(self, reference: Array, whole: Array, own: Array) -> None:
        """Three arrays of one shape: the reference's, the candidate's as it runs, and given the reference's inputs."""
        wide = reference.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            errors = {"reference": wide, "whole": whole.astype(np.float64) - wide, "own": own.astype(np.float64) - wide}
        axes = tuple(axis for axis in range(wide.ndim) if axis != 1)
        for key, error in errors.items():
            self._squares[key] = self._squares.get(key, np.zeros(wide.shape[1])) + np.square(error).sum(axis=axes)
        self._largest = float(np.maximum(self._largest, np.abs(errors["whole"]).max(initial=0.0)))  # NaN stays
        self._low, self._high = min(self._low, float(wide.min())), max(self._high, float(wide.max()))
        self._count += wide.size // wide.shape[1]

    @property
    def is_unrelated(self) -> bool:
        """Whether the candidate's tensor says nothing about the reference's."""
        return not self._decibels("whole") > _UNRELATED_DB

    @property
    def agrees(self) -> bool:
        """Whether the tensor is within the limit as the candidate runs."""
        return bool((self._errors("whole") <= 1.0).all())

    def row(self) -> LayerRow:
        """The layer judged: it diverges where it is off both by its own doing and as it runs."""
        own, whole = self._errors("own"), self._errors("whole")
        off = (own > 1.0) & (whole > 1.0)
        verdict: Verdict = "diverges" if off.any() else "follows" if (whole > 1.0).any() else "ok"
        parts = self.layer.parts
        if verdict == "diverges":
            parts = tuple(part for part in parts if off[part.first : part.last].any())
            verdict = "differs" if all(part.dropped for part in parts) else verdict
            parts = self.layer.missing or parts
        return LayerRow(
            layer=self.layer,
            sqnr_db=self._decibels("whole"),
            max_abs_error=self._largest,
            own_sqnr_db=self._decibels("own"),
            own_error=float(own.max()),
            channel=int(own.argmax()),
            nodes=tuple(dict.fromkeys(part.node for part in parts)),
            block=_join(part.block for part in parts[:1]),
            stream=_join(part.stream for part in parts),
            verdict=verdict,
        )

    def _errors(self, which: str) -> Wide:
        squares = (self._squares["reference"] / self._count, self._squares[which] / self._count)
        return self._limit.errors(*squares, self._high - self._low)

    def _decibels(self, which: str) -> float:
        power, error = float(self._squares["reference"].sum()), float(self._squares[which].sum())
        if error == 0.0:
            return math.inf
        ratio = power / error if math.isfinite(error) else 0.0
        return 10.0 * math.log10(ratio) if ratio > 0.0 else -math.inf


def judge(comparisons: Sequence[LayerComparison], limit: Limit) -> tuple[LayerRow, ...]:
    """The layers of a graph in its order, the last of which is its output."""
    rows = [one.row() for one in comparisons]
    agrees = bool(comparisons) and comparisons[-1].agrees
    verdicts: dict[Verdict, Verdict] = {}
    if agrees and limit.shows_in_output:
        verdicts["diverges"] = "differs"
    elif not agrees or any(row.verdict == "diverges" for row in rows):
        verdicts["differs"] = "diverges"  # what was dropped was read
    return tuple(replace(row, verdict=verdicts.get(row.verdict, row.verdict)) for row in rows)


def unrelated(comparisons: Sequence[LayerComparison]) -> tuple[str, ...]:
    """Tensors that have nothing to do with their namesakes, though the last of the layers, the output, agrees.

    Then the names of the two graphs do not mean the same, as when two versions of an exporter wrote them.
    """
    if not comparisons or not comparisons[-1].agrees:
        return ()
    return tuple(one.layer.tensor for one in comparisons if one.is_unrelated)


def first_divergence(rows: Sequence[LayerRow]) -> LayerRow | None:
    return next((row for row in rows if row.verdict == "diverges"), None)


def _join(words: Iterable[str | None]) -> str | None:
    return "+".join(dict.fromkeys(word for word in words if word)) or None
