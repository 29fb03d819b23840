"""The self-test of a bundle: what is in it, or was built from it, answers here as it did where the bundle was made.

Needs numpy and the runtimes themselves, nothing else. Two comparisons, on the golden images and with the bundle's own
bounds: with the logits of the FP32 graph, and with what the same graph or engine gave when the bundle was made. Where
an engine could not run then, or was built later, the graph that it was built from stands in for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rir_deploy.bundle import Bounds, Bundle, Item, open_bundle
from rir_deploy.data.preprocess import Preprocessing
from rir_deploy.engines.manifest import check_engine
from rir_deploy.errors import BackendError, InputError
from rir_deploy.onnx_file import load_onnx
from rir_deploy.pipeline.batching import in_batches
from rir_deploy.pipeline.bundled import open_any
from rir_deploy.pipeline.progress import Progress, silent, tracked
from rir_deploy.pipeline.sides import Side, open_side, runnable
from rir_deploy.recipe import Recipe
from rir_deploy.verify import Gate, Tolerance, VerifyResult, verify

Images = NDArray[np.uint8]
Logits = NDArray[np.floating]


@dataclass(frozen=True)
class SelfTestRequest:
    """``names`` are graphs and engines of the bundle, all for none; ``candidate`` is tested in their place: an engine
    built from the bundle, or another version of the model; if it is a bundle, ``names`` choose from that one.
    ``simulate`` as `verify` has it.
    """

    bundle: Path
    names: tuple[str, ...] = ()
    candidate: Path | None = None
    factory: str | None = None
    threads: int | None = None
    simulate: bool = False
    weights: str | None = None


@dataclass(frozen=True)
class Outcome:
    """One graph or engine: what was found, or why it was not run. ``recorded_by`` gave the recorded answers."""

    name: str
    kind: str
    precision: str
    backend: str | None
    status: Literal["passed", "failed", "not run"]
    reason: str = ""
    runs_on: str | None = None
    reference: VerifyResult | None = None
    recorded: VerifyResult | None = None
    recorded_by: str | None = None

    def to_dict(self) -> dict[str, object]:
        plain = ("name", "kind", "precision", "backend", "status", "reason", "runs_on", "recorded_by")
        comparisons = {"reference": self.reference, "recorded": self.recorded}
        return {key: getattr(self, key) for key in plain} | {
            key: None if found is None else _figures(found) for key, found in comparisons.items()
        }


@dataclass(frozen=True)
class SelfTest:
    """``source`` names the data set that the golden images are from."""

    bundle: str
    source: str
    images: int
    bounds: dict[str, Bounds]
    outcomes: tuple[Outcome, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        return tuple(f"{one.name}: {one.reason}" for one in self.outcomes if one.status == "failed")

    @property
    def passed(self) -> bool:
        return not self.failures

    def to_dict(self) -> dict[str, object]:
        return {
            "bundle": self.bundle,
            "passed": self.passed,
            "failures": list(self.failures),
            "data": self.source,
            "images": self.images,
            "bounds": {name: vars(bounds) for name, bounds in self.bounds.items()},
            "results": [outcome.to_dict() for outcome in self.outcomes],
        }


def self_test(request: SelfTestRequest, progress: Progress = silent) -> SelfTest:
    """Run what can run here and compare. A failure is no error here: it is the result.

    Raises:
        UsageError: there is no such file, or an unknown name.
        InputError: the bundle is not as it was written.
        BackendError: nothing of it can run here.
    """
    with open_bundle(request.bundle) as bundle:
        tester = _Tester(bundle)
        if request.candidate is None:
            items = bundle.choose(request.names)
            _check_content(bundle, items)
            watched = tracked(items, "testing", len(items), progress)
            outcomes = tuple(tester.test(item, request.threads) for item in watched)
            _check_any(request.bundle, outcomes)
        else:
            with open_any(
                request.candidate,
                request.names,
                model=request.factory,
                weights=request.weights,
                threads=request.threads,
                simulate=request.simulate,
            ) as (side, path):
                outcomes = (tester.test_side(side, path),)
        index = bundle.index
        return SelfTest(str(request.bundle), index.golden.source, len(tester.images), dict(index.bounds), outcomes)


class _Tester:
    """A bundle's golden images, and the logits that every answer is held against."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._preprocessing = Recipe.from_dict(bundle.index.recipe).preprocessing
        self.images = bundle.images()
        channels, height, width = self._preprocessing.input_shape
        if self.images.shape[1:] != (height, width, channels):
            raise InputError(f"the golden images of '{bundle.path}' are {self.images.shape}, not as its recipe says")
        self._recorded = {item: bundle.outputs(item) for item in bundle.index.items if item.ran_on is not None}
        self._reference = self._recorded[bundle.index.reference]

    def test(self, item: Item, threads: int | None) -> Outcome:
        """A graph or engine of the bundle."""
        source = item if item.ran_on is not None else self._graph_of(self._bundle.file(item))
        outcome = Outcome(item.name, item.kind, item.precision, item.backend, "not run")
        try:
            with open_item(self._bundle.folder, item, threads) as side:
                return self._compare(outcome, side, source)
        except BackendError as error:
            return replace(outcome, reason=self._bundle.own_words(error))
        except InputError as error:
            return replace(outcome, status="failed", reason=self._bundle.own_words(error))

    def test_side(self, side: Side, path: Path) -> Outcome:
        """Something that is not in the bundle, or a copy of what is; ``path`` is where its files are."""
        if side.precision not in self._bundle.index.bounds:
            known = ", ".join(self._bundle.index.bounds)
            raise InputError(f"'{side.path}' is {side.precision}, for which the bundle has no bounds ({known})")
        source = self._same(side) or (self._graph_of(path) if side.kind == "engine" else None)
        return self._compare(Outcome(side.path, side.kind, side.precision, None, "not run"), side, source)

    def _compare(self, outcome: Outcome, side: Side, source: Item | None) -> Outcome:
        bounds = self._bundle.index.bounds[outcome.precision]
        found = answers(side, self.images, self._preprocessing)
        results = {"the FP32 graph": judge(self._reference, found, bounds)}
        if source is not None:
            results[source.name] = judge(self._recorded[source], found, bounds)
        reasons = [f"against {name}: {failure}" for name, result in results.items() for failure in result.failures]
        reference, *recorded = results.values()
        return replace(
            outcome,
            status="failed" if reasons else "passed",
            reason="; ".join(reasons),
            runs_on=side.runs_on,
            reference=reference,
            recorded=recorded[0] if recorded else None,
            recorded_by=None if source is None else source.name,
        )

    def _same(self, side: Side) -> Item | None:
        """The graph or engine of the bundle that a side is a copy of."""
        names = [member.name for member in self._bundle.index.members if member.sha256 == side.sha256]
        items = [item for item in self._recorded if item.kind == ("graph" if side.kind == "onnx" else side.kind)]
        return next((item for item in items for name in names if f"{name}/".startswith(f"{item.path}/")), None)

    def _graph_of(self, engine: Path) -> Item | None:
        """The graph of the bundle that an engine was built from."""
        built_from = check_engine(engine).parents.get("onnx")
        names = [member.name for member in self._bundle.index.members if member.sha256 == built_from]
        return next((item for item in self._bundle.index.items if item.path in names and item.ran_on is not None), None)


def open_item(folder: Path, item: Item, threads: int | None) -> Side:
    """A graph (in ONNX Runtime) or an engine of an unpacked bundle.

    Raises:
        BackendError: it cannot run here.
        InputError: its runtime does not take it, or it has another precision than the index says.
    """
    missing = None if item.backend is None else runnable(item.backend, item.targets)
    if missing is not None:
        raise BackendError(missing)
    side = open_side(folder / item.path, threads=threads)
    if side.precision != item.precision:
        side.close()
        raise InputError(f"'{item.name}' is {side.precision}, and the index of the bundle says {item.precision}")
    return side


def answers(side: Side, images: Images, preprocessing: Preprocessing) -> Logits:
    """Logits (n, classes) for images (n, H, W, C), in batches that the side takes."""
    run = side.make_runner(preprocessing)
    fitted = in_batches(lambda part: {side.output: run(part)}, *side.batch)
    return fitted(images)[side.output].reshape(len(images), -1)


def judge(expected: Logits, found: Logits, bounds: Bounds) -> VerifyResult:
    """One comparison. Golden images are too few for a bound on top-1: they come without labels."""
    tolerance = None if bounds.atol is None or bounds.rtol is None else Tolerance(bounds.atol, bounds.rtol)
    gate = Gate(bounds.min_agreement, 100.0, tolerance)
    return verify([(np.empty(0, np.uint8), None)], lambda _: expected, lambda _: found, gate)


def _figures(result: VerifyResult) -> dict[str, object]:
    return {"passed": result.passed, "agreement": result.accuracy.agreement, **result.outputs.to_dict()}


def _check_content(bundle: Bundle, items: Sequence[Item]) -> None:
    """What would be refused as a file of its own is refused in a bundle: a runtime gets to see none of it."""
    for item in items:
        if item.kind == "graph":
            load_onnx(bundle.file(item))
        else:
            check_engine(bundle.file(item))


def _check_any(path: Path, outcomes: Sequence[Outcome]) -> None:
    if any(outcome.status != "not run" for outcome in outcomes):
        return
    reasons = "; ".join(dict.fromkeys(outcome.reason for outcome in outcomes))
    raise BackendError(
        f"nothing of '{path}' can run here: {reasons}; build an engine from it with build-engine, and test that one "
        "with verify BUNDLE ENGINE"
    )
