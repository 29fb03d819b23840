"""Calibration in full: equalisation, ranges and rounded weights of a model, chosen by what they do to its output.

Every pass reads the data anew, so memory does not grow with the number of images:

1. the largest value and the energy of every channel, which equalisation balances;
2. a histogram of every tensor, from which any method's ranges follow;
3. mean and covariance of every layer's inputs, and by how much each method's rounding moves the means.

Weights are rounded once for each way to equalise; biases once for each method. What fits the images that were held back
best is taken. All of it is closed form; nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.errors import UsageError, unknown_name
from rir_deploy.quantize.equalize import equalize
from rir_deploy.quantize.moments import MomentObserver, Moments, ShiftObserver
from rir_deploy.quantize.observe import activation_names
from rir_deploy.quantize.options import QuantizeOptions
from rir_deploy.quantize.qdq import activation_affine
from rir_deploy.quantize.quantize import canonical, quantize
from rir_deploy.quantize.ranges import Observations, RangeOptions, Run, make_table
from rir_deploy.quantize.round_layers import round_layers
from rir_deploy.quantize.select import Weighted, select
from rir_deploy.quantize.statistics import ChannelObserver, find_exponents
from rir_deploy.quantize.table import METHODS, RangeTable, Sources
from rir_deploy.quantize.weights import RoundedWeight, Rounding

Batches = Callable[[str], Iterable[NDArray[Any]]]
"""Called with a phase's name, gives the batches of model inputs anew."""
OpenRun = Callable[[ir.Model, tuple[str, ...]], AbstractContextManager[Run]]
"""Opens a session on a model that gives the named tensors as well as its outputs."""


@dataclass(frozen=True)
class TuneOptions:
    """What calibration may do.

    Attributes:
        method: of the ranges, see `RangeOptions`; "auto" takes the one that fits the held-back images best.
        percentile: read by the method "percentile".
        rounding: of weights: "nearest"; "mse", nearest at the step a row that errs least; "gptq", second order.
        equalize: whether channels may be equalised; they are where it helps, and only at 8 bits.
        correct_bias: whether biases make up for the means that rounding moves.
        bits: of the weights, 8, 4 or 3; the first and the last layer keep 8.

    Raises:
        UsageError: a value that there is not.
    """

    method: str = "auto"
    percentile: float = 99.99
    rounding: Rounding = "gptq"
    equalize: bool = True
    correct_bias: bool = True
    bits: int = 8

    def __post_init__(self) -> None:
        if self.method not in ("auto", *METHODS):
            raise unknown_name("method", self.method, ("auto", *METHODS))
        if self.rounding not in get_args(Rounding):
            raise unknown_name("rounding", str(self.rounding), get_args(Rounding))
        if self.bits not in (8, 4, 3):
            raise UsageError(f"weights have 8, 4 or 3 bits, not {self.bits}")


@dataclass(frozen=True)
class Candidate:
    """One way to quantise and what it did: ``sqnr_db`` of the outputs on the images held back, None if not measured.

    ``rounding`` is "given" where the weights come out of a file.
    """

    method: str
    rounding: str
    equalized: bool
    sqnr_db: float | None = None

    def to_dict(self) -> dict[str, object]:
        return {**vars(self)}


@dataclass(frozen=True)
class Tuned:
    """What `quantize` takes; ``candidates`` are all that were measured, best first, ``chosen`` is the one taken."""

    table: RangeTable
    rounded: dict[str, RoundedWeight]
    chosen: Candidate
    candidates: tuple[Candidate, ...] = field(default=())

    def to_dict(self) -> dict[str, object]:
        """What was chosen, and what from."""
        return {**self.chosen.to_dict(), "candidates": [one.to_dict() for one in self.candidates]}


@dataclass(frozen=True)
class _Way:
    """A candidate with what it takes to build it."""

    candidate: Candidate
    table: RangeTable
    rounded: dict[str, RoundedWeight]


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
    ways = list(_ways(base, {}, fit, open_run, sources, options, quantization))
    if options.equalize and options.bits == 8:  # with fewer bits the weights' own noise is worse than the activations'
        exponents = _exponents(base, fit, open_run, 255 if quantization.flavour == "cpu" else 127)
        ways += _ways(base, exponents, fit, open_run, sources, options, quantization) if exponents else ()
    if len(ways) == 1:
        return Tuned(ways[0].table, ways[0].rounded, ways[0].candidate)
    measured = _measure(model, ways, held_back, open_run, quantization)
    best = measured[0]
    return Tuned(best.table, best.rounded, best.candidate, tuple(way.candidate for way in measured))


def _exponents(base: ir.Model, fit: Batches, open_run: OpenRun, levels: int) -> dict[str, tuple[int, ...]]:
    observer = ChannelObserver()
    name = str(base.graph.inputs[0].name)
    with open_run(base, activation_names(base)) as run:
        for batch in fit("balancing channels"):
            observer.add({name: batch, **run(batch)})
    return find_exponents(base.graph, observer.statistics(), levels)


def _ways(
    base: ir.Model,
    exponents: Mapping[str, tuple[int, ...]],
    fit: Batches,
    open_run: OpenRun,
    sources: Sources,
    options: TuneOptions,
    quantization: QuantizeOptions,
) -> Iterable[_Way]:
    """Every method's candidate for one way to equalise."""
    model = base.clone()
    equalize(model.graph, exponents)
    tables = _tables(model, exponents, fit, open_run, sources, options, quantization)
    first = next(iter(tables.values()))
    selection = select(model.graph, first, quantization.keep)
    layers = selection.nodes
    moments, shifts = _moments(model, layers, tables, fit, open_run, options, quantization)
    bits = [options.bits if 0 < index < len(layers) - 1 else 8 for index in range(len(layers))]
    affines = [activation_affine(first[str(layer.x.name)], quantization) for layer in layers]
    rounded = round_layers(zip(layers, affines, bits, strict=True), moments, options.rounding, quantization)
    for method, table in tables.items():
        weights = {
            name: layer.finish(shifts[method][str(layer.layer.x.name)] if options.correct_bias else None)
            for name, layer in rounded.items()
        }
        yield _Way(Candidate(method, options.rounding, bool(exponents)), table, weights)


def _tables(
    model: ir.Model,
    exponents: Mapping[str, tuple[int, ...]],
    fit: Batches,
    open_run: OpenRun,
    sources: Sources,
    options: TuneOptions,
    quantization: QuantizeOptions,
) -> dict[str, RangeTable]:
    """By method: all of them for "auto"."""
    methods = METHODS if options.method == "auto" else (options.method,)
    name = str(model.graph.inputs[0].name)
    wanted = None if methods != ("minmax",) else frozenset[str]()
    observed = Observations(histograms=_rounded_tensors(model) if wanted is None else wanted)
    with open_run(model, activation_names(model)) as run:
        for batch in fit("observing ranges"):
            observed.add(name, batch, run(batch))
    unsigned = quantization.flavour == "cpu"
    found = {}
    for method in methods:
        table = make_table(observed, name, sources, RangeOptions(method, options.percentile, unsigned))  # type: ignore[arg-type]
        found[method] = replace(table, exponents=exponents)
    return found


def _rounded_tensors(model: ir.Model) -> frozenset[str]:
    """Those that a pair may round: not what only a relu reads, nor what only leaves."""
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    return frozenset(str(value.name) for value in values if any(use.node.op_type != "Relu" for use in value.uses()))


def _moments(
    model: ir.Model,
    layers: tuple[Weighted, ...],
    tables: Mapping[str, RangeTable],
    fit: Batches,
    open_run: OpenRun,
    options: TuneOptions,
    quantization: QuantizeOptions,
) -> tuple[dict[str, Moments], dict[str, dict[str, NDArray[np.float64]]]]:
    """Of the layers' inputs, and the shift of the means by method and tensor."""
    name = str(model.graph.inputs[0].name)
    inputs = tuple(dict.fromkeys(str(layer.x.name) for layer in layers))
    observer = MomentObserver(layers)
    shifts = {
        method: ShiftObserver({one: activation_affine(table[one], quantization) for one in inputs})
        for method, table in tables.items()
    }
    with open_run(model, tuple(one for one in inputs if one != name)) as run:
        for batch in fit("observing layers"):
            tensors = {name: batch, **run(batch)}
            observer.add(tensors)
            for shift in shifts.values() if options.correct_bias else ():
                shift.add(tensors)
    return observer.moments(), {method: shift.shifts() for method, shift in shifts.items()}


def _measure(
    model: ir.Model, ways: list[_Way], held_back: Batches, open_run: OpenRun, quantization: QuantizeOptions
) -> list[_Way]:
    """The ways with their figure, best first."""
    with open_run(model, ()) as run:
        reference = [run(batch) for batch in held_back("held-back images")]
    found = []
    for way in ways:
        result = quantize(model, way.table, quantization, way.rounded)
        with open_run(result.model, ()) as run:
            outputs = [run(batch) for batch in held_back("choosing")]
        score = _sqnr(reference, outputs)
        found.append(replace(way, candidate=replace(way.candidate, sqnr_db=score)))
    return sorted(found, key=lambda way: -(way.candidate.sqnr_db or 0.0))


def _sqnr(reference: list[Mapping[str, NDArray[Any]]], outputs: list[Mapping[str, NDArray[Any]]]) -> float:
    """Of all outputs together, in dB."""
    signal, noise = 0.0, 0.0
    for one, other in zip(reference, outputs, strict=True):
        for name, values in one.items():
            true = values.astype(np.float64)
            signal += float((true**2).sum())
            noise += float(((true - other[name]) ** 2).sum())
    return 10.0 * float(np.log10(max(signal, 1e-300) / max(noise, 1e-300)))
