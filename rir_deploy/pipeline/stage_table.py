"""The stages of a deployment, each held against PyTorch and against the stage it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rir_deploy.data.dataset import Dataset
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.sides import Side, open_side
from rir_deploy.pipeline.sources import image_batches
from rir_deploy.verify import GATES, Gate, VerifyResult, verify

Logits = NDArray[np.floating]
PYTORCH, TRACED, FOLDED = "PyTorch", "traced ONNX", "folded ONNX"
FOLDED_FILE = "graphs/fp32.onnx"


@dataclass(frozen=True)
class Made:
    """What a stage left: ``path`` is opened, ``made_from`` names an earlier stage; PyTorch has none."""

    name: str
    made_from: str | None
    path: Path


@dataclass(frozen=True)
class Stage:
    """One stage: ``against`` compares it with PyTorch, ``parent`` with the stage ``made_from``; PyTorch has neither."""

    name: str
    made_from: str | None
    side: dict[str, object]
    against: VerifyResult | None
    parent: VerifyResult | None

    def to_dict(self) -> dict[str, object]:
        results = {"against_pytorch": self.against, "against_parent": self.parent}
        return {"name": self.name, "made_from": self.made_from, **self.side} | {
            key: None if result is None else _figures(result) for key, result in results.items()
        }


@dataclass(frozen=True)
class Stages:
    """All stages of a run, each after the one it was made from."""

    rows: tuple[Stage, ...]
    top1: float | None
    images: int
    data: str
    recipe: str

    @property
    def failures(self) -> tuple[str, ...]:
        return tuple(f"{row.name}: {text}" for row in self.rows if row.against for text in row.against.failures)

    @property
    def worst(self) -> Stage | None:
        """The stage at which the most top-1 is lost to the stage before; None where none loses any."""
        lossy = [(row.parent.accuracy.top1_drop or 0.0, row) for row in self.rows if row.parent is not None]
        drop, stage = max(lossy, key=lambda pair: pair[0], default=(0.0, None))
        return stage if drop > 0 else None

    def to_dict(self) -> dict[str, object]:
        return {
            "passed": not self.failures,
            "failures": list(self.failures),
            "images": self.images,
            "data": self.data,
            "recipe": self.recipe,
            "top1": self.top1,
            "largest_loss_at": None if self.worst is None else self.worst.name,
            "stages": [row.to_dict() for row in self.rows],
        }


def compare_stages(
    stages: Iterable[Made],
    dataset: Dataset,
    recipe: str,
    *,
    factory: str | None = None,
    weights: str | None = None,
    batch: int = 32,
    threads: int | None = None,
    progress: Progress = silent,
) -> Stages:
    """Run every stage once on all images and compare; the first one is PyTorch. An engine that cannot run here is
    stood in for by its graph.

    Raises:
        UsageError, InputError, BackendError: a stage cannot be opened or run.
    """
    logits: dict[str, Logits] = {}
    rows = []
    for one in stages:
        with open_side(one.path, model=factory, weights=weights, threads=threads, simulate=True) as side:
            logits[one.name] = _answers(side, dataset, batch, one.name, progress)
            rows.append(_stage(one, side, logits, dataset.labels))
    return Stages(tuple(rows), _top1(logits[PYTORCH], dataset.labels), len(dataset), dataset.source.name, recipe)


def stages_in(
    folder: Path,
    checkpoint: Path,
    traced: Path,
    graphs: Iterable[tuple[str, str]],
    engines: Iterable[tuple[str, str]],
) -> list[Made]:
    """Every stage of a run, in order.

    Args:
        folder: the run's.
        traced: the graph as the exporter left it.
        graphs: the stage and the file of each, the folded one among them or not.
        engines: the name of each, and the stage that is the graph it was built from.
    """
    return [
        Made(PYTORCH, None, checkpoint),
        Made(TRACED, PYTORCH, traced),
        Made(FOLDED, TRACED, folder / FOLDED_FILE),
        *(Made(stage, FOLDED, folder / file) for stage, file in graphs if file != FOLDED_FILE),
        *(Made(name, stage, folder / "engines" / name) for name, stage in engines),
    ]


def graph_stage(precision: str, flavour: str | None) -> str:
    """The stage that is the graph of a precision."""
    if precision == "fp32":
        return FOLDED
    return f"{precision}-{flavour} ONNX" if flavour else f"{precision} ONNX"


def _figures(result: VerifyResult) -> dict[str, object]:
    """Without the flips, which are those of `verify` on the two stages."""
    return {key: value for key, value in result.to_dict().items() if key != "flips"}


def _stage(one: Made, side: Side, logits: dict[str, Logits], labels: NDArray[np.int64] | None) -> Stage:
    if one.made_from is None:
        return Stage(one.name, None, side.to_dict(), None, None)
    gate = GATES[side.precision]
    against, parent = (_compare(logits[other], logits[one.name], labels, gate) for other in (PYTORCH, one.made_from))
    return Stage(one.name, one.made_from, side.to_dict(), against, parent)


def _compare(reference: Logits, candidate: Logits, labels: NDArray[np.int64] | None, gate: Gate) -> VerifyResult:
    """All images as one batch, whose answers are known."""
    return verify([(np.empty(0, np.uint8), labels)], lambda _: reference, lambda _: candidate, gate)


def _answers(side: Side, dataset: Dataset, batch: int, name: str, progress: Progress) -> Logits:
    low, high = side.batch
    size = max(low, min(batch, high))
    run = side.make_runner(dataset.preprocessing)
    return np.concatenate([run(images) for images, _ in image_batches(dataset, size, label=name, progress=progress)])


def _top1(logits: Logits, labels: NDArray[np.int64] | None) -> float | None:
    return None if labels is None else float((logits.reshape(len(logits), -1).argmax(axis=1) == labels).mean())
