"""The passes of calibration, and every way to quantise that follows from them.

Every pass reads the data anew, so memory does not grow with the number of images:

1. the largest value and the energy of every channel, which equalisation balances;
2. a histogram of every tensor, from which any method's ranges follow;
3. mean and covariance of every layer's inputs, and by how much each method's rounding moves the means.

Weights are rounded once for each way to equalise, biases once for each method. All of it is closed form; nothing is
trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.errors import UsageError, unknown_name
from rir_deploy.quantize.equalize import equalize, exponents_of
from rir_deploy.quantize.identity import split_identities
from rir_deploy.quantize.moments import MomentObserver, Moments, ShiftObserver, columns_of
from rir_deploy.quantize.observe import activation_names
from rir_deploy.quantize.options import QuantizeOptions
from rir_deploy.quantize.placement import place
from rir_deploy.quantize.qdq import placed_affines
from rir_deploy.quantize.ranges import Observations, RangeOptions, Run, make_table
from rir_deploy.quantize.round_layers import round_layers
from rir_deploy.quantize.scales import Affine
from rir_deploy.quantize.select import Selection, Weighted, end_layers, select
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
        split_identity: whether the identities of folded blocks are rounded apart from their kernels (`identity`):
            one more product and a sum a block.
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
    split_identity: bool = False

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
class Way:
    """A candidate with what it takes to build it."""

    candidate: Candidate
    table: RangeTable
    rounded: dict[str, RoundedWeight]


class Fitting:
    """The passes over the images to fit, and what follows from them."""

    def __init__(
        self,
        base: ir.Model,
        fit: Batches,
        open_run: OpenRun,
        sources: Sources,
        options: TuneOptions,
        quantization: QuantizeOptions,
    ) -> None:
        if options.split_identity:
            base = base.clone()
            split_identities(base.graph)
        self._base, self._fit, self._open_run, self._sources = base, fit, open_run, sources
        self._options, self._quantization = options, quantization
        self._input = str(base.graph.inputs[0].name)
        self._moments: dict[str, Moments] = {}

    def exponents(self) -> dict[str, tuple[int, ...]]:
        observer = ChannelObserver()
        with self._open_run(self._base, activation_names(self._base)) as run:
            for batch in self._fit("balancing channels"):
                observer.add({self._input: batch, **run(batch)})
        levels = 255 if self._quantization.flavour == "cpu" else 127
        return find_exponents(self._base.graph, observer.statistics(), levels)

    def ways(self, exponents: Mapping[str, tuple[int, ...]]) -> Iterator[Way]:
        """Every method's candidate for one way to equalise."""
        model = self._base.clone()
        equalize(model.graph, exponents)
        tables = self._tables(model, exponents)
        first = next(iter(tables.values()))
        selection = select(model.graph, first, self._quantization.keep)
        layers = selection.nodes
        affines = self._affines(model, selection, tables)
        moments, shifts = self._observe_layers(model, layers, affines)
        ends = end_layers(model.graph)
        bits = [8 if layer.node in ends else self._options.bits for layer in layers]
        # A bias has to fit its int32 by every method: the smallest step of the input asks for the most.
        finest = [
            min((found[_input(layer)] for found in affines.values()), key=lambda affine: float(affine.scale))
            for layer in layers
        ]
        parts = zip(layers, finest, bits, strict=True)
        corrected = self._options.correct_bias
        rounded = round_layers(parts, moments, self._options.rounding, self._quantization, corrected=corrected)
        for method, table in tables.items():
            weights = {name: layer.finish(shifts[method].get(name)) for name, layer in rounded.items()}
            yield Way(Candidate(method, self._options.rounding, bool(exponents)), table, weights)

    def _tables(self, model: ir.Model, exponents: Mapping[str, tuple[int, ...]]) -> dict[str, RangeTable]:
        """By method: all of them for "auto"."""
        methods = METHODS if self._options.method == "auto" else (self._options.method,)
        histograms = frozenset[str]() if methods == ("minmax",) else _rounded_tensors(model)
        observed = Observations(histograms=histograms)
        with self._open_run(model, activation_names(model)) as run:
            for batch in self._fit("observing ranges"):
                observed.add(self._input, batch, run(batch))
        unsigned = self._quantization.flavour == "cpu"
        found = {}
        for method in methods:
            options = RangeOptions(method, self._options.percentile, unsigned)  # type: ignore[arg-type]
            found[method] = replace(
                make_table(observed, self._input, self._sources, options),
                exponents=exponents,
                split_identity=self._options.split_identity,
            )
        return found

    def _affines(
        self, model: ir.Model, selection: Selection, tables: Mapping[str, RangeTable]
    ) -> dict[str, dict[str, Affine]]:
        """By method, how the graph will round the input of every layer, by the name of the tensor."""
        placement = place(model.graph, selection, self._quantization.flavour)
        inputs = {layer.x for layer in selection.nodes}
        found = {method: placed_affines(placement, table, self._quantization) for method, table in tables.items()}
        return {
            method: {str(value.name): affine for value, affine in affines.items() if value in inputs}
            for method, affines in found.items()
        }

    def _observe_layers(
        self, model: ir.Model, layers: tuple[Weighted, ...], affines: Mapping[str, Mapping[str, Affine]]
    ) -> tuple[dict[str, Moments], dict[str, dict[str, NDArray[np.float64]]]]:
        """Moments of the layers' inputs, and by method the shifts of their means: none where biases are left alone."""
        inputs = tuple(dict.fromkeys(map(_input, layers)))
        observer = None if self._moments else MomentObserver(layers)
        shifts = {method: ShiftObserver(layers, found) for method, found in affines.items()}
        with self._open_run(model, tuple(one for one in inputs if one != self._input)) as run:
            for batch in self._fit("observing layers"):
                tensors = {self._input: batch, **run(batch)}
                if observer is not None:
                    observer.add(tensors)
                for shift in shifts.values() if self._options.correct_bias else ():
                    shift.add(tensors)
        if observer is not None:
            self._moments = observer.moments()
        return {_name(one): self._scaled(one) for one in layers}, {
            method: one.shifts() for method, one in shifts.items()
        }

    def _scaled(self, layer: Weighted) -> Moments:
        """Moments of an equalised layer follow from those of the layer as it was."""
        exponents = exponents_of(layer.x)
        found = self._moments[_name(layer)]
        return found if exponents is None else found.scaled(columns_of(layer, np.exp2(exponents.astype(np.float64))))


def _name(layer: Weighted) -> str:
    return str(layer.node.outputs[0].name)


def _input(layer: Weighted) -> str:
    return str(layer.x.name)


def _rounded_tensors(model: ir.Model) -> frozenset[str]:
    """Those that a pair may round: not what only a relu reads, nor what only leaves."""
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    return frozenset(str(value.name) for value in values if any(use.node.op_type != "Relu" for use in value.uses()))
