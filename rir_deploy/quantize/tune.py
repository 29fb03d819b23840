"""Calibration in full: equalisation, ranges and rounded weights of a model, chosen by what they do to its output.

`fitting` makes every way to quantise from one part of the images; what serves the other part best is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.errors import UsageError
from rir_deploy.quantize.fitting import Batches, Candidate, Fitting, OpenRun, TuneOptions, Way
from rir_deploy.quantize.options import QuantizeOptions
from rir_deploy.quantize.quantize import canonical, quantize
from rir_deploy.quantize.search import sqnr_db
from rir_deploy.quantize.table import RangeTable, Sources
from rir_deploy.quantize.weights import RoundedWeight


@dataclass(frozen=True)
class Tuned:
    """What `quantize` takes; ``candidates`` are all that were measured, best first, ``chosen`` is the one taken.

    ``warnings`` are what whoever chose the images has to say of them.
    """

    table: RangeTable
    rounded: dict[str, RoundedWeight]
    chosen: Candidate
    candidates: tuple[Candidate, ...] = field(default=())
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """What was chosen, and what from."""
        return {**self.chosen.to_dict(), "candidates": [one.to_dict() for one in self.candidates]}


def tune(
    model: ir.Model,
    fit: Batches,
    held_back: Batches,
    open_run: OpenRun,
    sources: Sources,
    options: TuneOptions,
    quantization: QuantizeOptions,
) -> Tuned:
    """Calibrate a model.

    Args:
        model: an FP32 model, folded or not; it is not changed.
        fit: the images to calibrate on.
        held_back: others, to choose by; read only where there is a choice.
        sources: what the table is bound to.

    Raises:
        InputError: data that cannot be used, a model in which nothing can be quantised.
        UsageError: a pattern of ``quantization.keep`` matches nothing.
    """
    if options.bits != 8 and quantization.flavour != "cpu":
        raise UsageError(f"weights of {options.bits} bits are for ONNX Runtime: ask for the flavour 'cpu'")
    base = canonical(model)
    fitting = Fitting(base, fit, open_run, sources, options, quantization)
    ways = list(fitting.ways({}))
    if options.equalize and options.bits == 8:  # with fewer bits the weights' own noise is the larger by far
        exponents = fitting.exponents()
        ways += fitting.ways(exponents) if exponents else ()
    if len(ways) == 1:
        return Tuned(ways[0].table, ways[0].rounded, ways[0].candidate)
    measured = _measure(model, ways, held_back, open_run, quantization)
    best = measured[0]
    return Tuned(best.table, best.rounded, best.candidate, tuple(way.candidate for way in measured))


def _measure(
    model: ir.Model, ways: list[Way], held_back: Batches, open_run: OpenRun, quantization: QuantizeOptions
) -> list[Way]:
    """The ways with their figure, best first."""
    found = []
    for way in ways:
        result = quantize(model, way.table, quantization, way.rounded)
        # Both answer batch by batch: to keep the answers of the one would take memory that grows with the images.
        with open_run(model, ()) as reference, open_run(result.model, ()) as run:
            score = _sqnr((reference(batch), run(batch)) for batch in held_back("choosing"))
        found.append((score, replace(way, candidate=replace(way.candidate, sqnr_db=score))))
    return [way for _, way in sorted(found, key=lambda pair: pair[0], reverse=True)]


def _sqnr(answers: Iterable[tuple[Mapping[str, NDArray[Any]], Mapping[str, NDArray[Any]]]]) -> float:
    """Of all outputs together, in dB.

    Args:
        answers: of the model as it was and of the quantised one, by output, for every batch.
    """
    signal, noise = 0.0, 0.0
    for one, other in answers:
        for name, values in one.items():
            true = values.astype(np.float64)
            signal += float((true**2).sum())
            noise += float(((true - other[name]) ** 2).sum())
    return sqnr_db(signal, noise)
