"""verify: two sides on the same images, judged by the gate of the candidate's precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rir_deploy.data.dataset import Dataset
from rir_deploy.errors import InputError, unknown_name
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.sides import Side, open_side
from rir_deploy.pipeline.sources import choose_recipe, image_batches, open_dataset
from rir_deploy.verify import GATES, Gate, Tolerance, VerifyResult, verify


@dataclass(frozen=True)
class VerifyRequest:
    """``data`` defaults to the recipe's test part; the bounds left None are those of the precision's gate."""

    reference: Path
    candidate: Path
    data: str | None = None
    recipe: str | None = None
    factory: str | None = None
    precision: str | None = None
    atol: float | None = None
    rtol: float | None = None
    min_agreement: float | None = None
    max_top1_drop: float | None = None
    batch: int = 32
    threads: int | None = None
    simulate: bool = False
    trust: bool = False


@dataclass(frozen=True)
class Verified:
    """The verdict with both sides, the data and the gate it was reached by."""

    result: VerifyResult
    reference: dict[str, object]
    candidate: dict[str, object]
    data: str
    recipe: str
    gate_name: str
    gate: Gate

    def to_dict(self) -> dict[str, object]:
        outcome = self.result.to_dict()
        for side in ("reference", "candidate"):
            scores = outcome[side]
            assert isinstance(scores, dict)
            outcome[side] = {**getattr(self, side), **scores}
        tolerance = self.gate.tolerance
        gate = {
            "precision": self.gate_name,
            "min_agreement": self.gate.min_agreement,
            "max_top1_drop": self.gate.max_top1_drop,
            "atol": None if tolerance is None else tolerance.atol,
            "rtol": None if tolerance is None else tolerance.rtol,
        }
        outcome["simulation"] = self.candidate["simulation"] is not None
        return {**outcome, "data": self.data, "recipe": self.recipe, "gate": gate}


def verify_files(request: VerifyRequest, progress: Progress = silent) -> Verified:
    """Compare a candidate with its reference.

    Raises:
        UsageError, InputError, BackendError: a side, the recipe or the data cannot be used. A failed gate is no
            error here: it is the result.
    """
    with (
        _open(request.reference, request) as reference,
        _open(request.candidate, request) as candidate,
    ):
        recipe = choose_recipe(request.recipe, candidate.recipe, reference.recipe)
        dataset = open_dataset(request.data, recipe, "test")
        name = request.precision or candidate.precision
        gate = _gate(name, request)
        result = compare_sides(reference, candidate, dataset, gate, batch=request.batch, progress=progress)
        return Verified(result, reference.to_dict(), candidate.to_dict(), dataset.source.name, recipe.name, name, gate)


def _open(path: Path, request: VerifyRequest) -> Side:
    return open_side(
        path, model=request.factory, threads=request.threads, simulate=request.simulate, trust=request.trust
    )


def compare_sides(
    reference: Side, candidate: Side, dataset: Dataset, gate: Gate, *, batch: int, progress: Progress = silent
) -> VerifyResult:
    """Both sides over a whole data set, in batches that both take.

    Raises:
        InputError: there is no such batch.
    """
    preprocessing = dataset.preprocessing
    low, high = (pick(side.batch[i] for side in (reference, candidate)) for i, pick in ((0, max), (1, min)))
    batch = max(low, min(batch, high))
    if low > high or 0 < len(dataset) % batch < low:
        raise InputError(
            f"{len(dataset)} images do not divide into batches of {low} to {high}, which the engines take; "
            "build them for a smaller smallest batch"
        )
    return verify(
        image_batches(dataset, batch, label="verifying", progress=progress),
        reference.make_runner(preprocessing),
        candidate.make_runner(preprocessing),
        gate,
    )


def _gate(name: str, request: VerifyRequest) -> Gate:
    """The preset of a precision with the request's own bounds in place."""
    if name not in GATES:
        raise unknown_name("precision", name, GATES)
    gate = GATES[name]
    if request.min_agreement is not None:
        gate = replace(gate, min_agreement=request.min_agreement)
    if request.max_top1_drop is not None:
        gate = replace(gate, max_top1_drop=request.max_top1_drop)
    if request.atol is not None or request.rtol is not None:
        preset = gate.tolerance or Tolerance(0.0, 0.0)
        atol = preset.atol if request.atol is None else request.atol
        rtol = preset.rtol if request.rtol is None else request.rtol
        gate = replace(gate, tolerance=Tolerance(atol, rtol))
    return gate
