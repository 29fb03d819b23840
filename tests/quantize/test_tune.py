"""Calibration as a whole: what is chosen is the best on images that nothing was fitted to, and comes out the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from rir_deploy.onnx_file import graph_sha256
from rir_deploy.quantize import QuantizeOptions, TuneOptions, quantize, tune
from rir_deploy.quantize.fitting import Fitting, Way
from rir_deploy.quantize.rounded_file import to_bytes
from rir_deploy.quantize.table import METHODS
from tests.quantize.graphs import SOURCES, Array, batches, chain, residual, run, two_streams
from tests.quantize.tuning import CPU, TENSORRT, open_run, tuned

OTHERS = [batch * 1.7 for batch in batches(9)[6:]]


def measured(model: ir.Model, other: ir.Model, data: list[Array]) -> float:
    """SQNR in dB over all the data, by numpy on what ONNX Runtime gives."""
    batch = np.concatenate(data)
    reference = run(model, batch).astype(np.float64)
    return float(10 * np.log10((reference**2).sum() / ((reference - run(other, batch)) ** 2).sum()))


@pytest.mark.parametrize("options", [CPU, TENSORRT])
@pytest.mark.parametrize("make", [chain, residual, two_streams])
def test_the_best_on_the_images_held_back_is_taken(make, options: QuantizeOptions) -> None:  # type: ignore
    model = make()
    found = tuned(model, TuneOptions("auto"), options, held_back=OTHERS)
    scores = [one.sqnr_db for one in found.candidates]
    assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]
    assert found.chosen == found.candidates[0]
    assert {one.method for one in found.candidates} == set(METHODS)
    result = quantize(model, found.table, options, found.rounded).model
    assert found.chosen.sqnr_db == pytest.approx(measured(model, result, OTHERS), abs=1e-3)
    assert found.chosen.sqnr_db != pytest.approx(measured(model, result, batches()), abs=1e-3)


def test_each_candidate_is_what_asking_for_it_gives() -> None:
    model = chain()
    found = tuned(model, TuneOptions("auto"), held_back=OTHERS)
    for one in found.candidates:
        if one.equalized:
            continue
        asked = tuned(model, TuneOptions(one.method, equalize=False), held_back=OTHERS)
        assert (asked.chosen.method, asked.chosen.equalized) == (one.method, False)
        result = quantize(model, asked.table, CPU, asked.rounded).model
        assert one.sqnr_db == pytest.approx(measured(model, result, OTHERS), abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_way_that_went_wrong_is_not_taken(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever it is: nothing else than the measurement decides."""
    ways = Fitting.ways

    def spoiled(self: Fitting, exponents: Mapping[str, tuple[int, ...]]) -> Iterator[Way]:
        for way in ways(self, exponents):
            if way.candidate.method == method:
                yield way
                continue
            wrong = {name: replace(one, scale=one.scale * np.float32(1.3)) for name, one in way.rounded.items()}
            yield replace(way, rounded=wrong)

    monkeypatch.setattr(Fitting, "ways", spoiled)
    assert tuned(chain(), TuneOptions("auto")).chosen.method == method


def test_the_same_images_give_the_same_bytes() -> None:
    first, second = (tuned(residual(), TuneOptions("auto")) for _ in range(2))
    assert first.table.to_json() == second.table.to_json()
    assert to_bytes(first.rounded, CPU) == to_bytes(second.rounded, CPU)
    models = [quantize(residual(), one.table, CPU, one.rounded).model for one in (first, second)]
    one, other = (ir.to_proto(model).SerializeToString(deterministic=True) for model in models)
    assert one == other


def test_where_there_is_no_choice_none_is_measured() -> None:
    def never(_: str) -> Any:
        raise AssertionError("the images held back are for choosing")

    options = TuneOptions("minmax", equalize=False)
    found = tune(chain(), lambda _: iter(batches()), never, open_run, SOURCES, options, CPU)
    assert found.candidates == ()
    assert found.chosen.sqnr_db is None


def test_images_are_streamed() -> None:
    """Every pass reads them anew, one batch at a time: nothing keeps more than one."""
    passes: dict[str, int] = {}

    def fit(label: str) -> Iterator[Array]:
        passes[label] = passes.get(label, 0) + 1
        yield from batches()

    tune(chain(), fit, lambda _: iter(OTHERS), open_run, SOURCES, TuneOptions("auto"), CPU)
    assert set(passes) == {"balancing channels", "observing ranges", "observing layers"}
    assert sum(passes.values()) <= 5  # not one a method


def test_the_model_is_not_touched() -> None:
    model = two_streams()
    before = graph_sha256(model)
    tuned(model, TuneOptions("auto"))
    assert graph_sha256(model) == before


def test_a_way_that_gives_no_numbers_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = Fitting.ways

    def spoiled(self: Fitting, exponents: Mapping[str, tuple[int, ...]]) -> Iterator[Way]:
        for way in ways(self, exponents):
            broken = {
                name: replace(one, bias=np.full(len(one.scale), 3e38, np.float32)) for name, one in way.rounded.items()
            }
            yield replace(way, rounded=broken) if way.candidate.method == METHODS[0] else way

    monkeypatch.setattr(Fitting, "ways", spoiled)
    found = tuned(chain(), TuneOptions("auto", equalize=False), TENSORRT)
    assert found.candidates[-1].method == METHODS[0]
    assert found.chosen.sqnr_db is not None
    assert found.chosen.sqnr_db > 10


def test_answers_are_not_kept() -> None:
    """Choosing reads the images held back anew for every way, and one batch at a time."""
    alive, most = 0, 0

    class Counted(np.ndarray):  # type: ignore[type-arg]
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    @contextmanager
    def counting(model: ir.Model, names: tuple[str, ...]) -> Iterator[Any]:
        with open_run(model, names) as opened:

            def one(batch: Array) -> dict[str, Any]:
                nonlocal alive, most
                found = {name: np.array(value).view(Counted) for name, value in opened(batch).items()}
                alive += len(found)
                most = max(most, alive)
                return found

            yield one

    held = batches(12)
    tune(chain(), lambda _: iter(batches()), lambda _: iter(held), counting, SOURCES, TuneOptions("auto"), CPU)
    assert 0 < most < 40
