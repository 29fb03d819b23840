"""Calibration in full on tiny networks: `tune` with ONNX Runtime behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.quantize import QuantizeOptions, Tuned, TuneOptions, mark_outputs, tune
from rir_deploy.quantize.observe import activation_names
from rir_deploy.quantize.quantize import canonical
from rir_deploy.quantize.ranges import Run
from tests.quantize.graphs import SOURCES, Array, batches, session

CPU = QuantizeOptions("cpu")
TENSORRT = QuantizeOptions()


@contextmanager
def open_run(model: ir.Model, names: tuple[str, ...]) -> Iterator[Run]:
    opened = session(mark_outputs(model, names) if names else model)
    outputs = [value.name for value in opened.get_outputs()]
    source = opened.get_inputs()[0].name
    yield lambda batch: dict(zip(outputs, opened.run(None, {source: batch}), strict=True))


def tuned(
    model: ir.Model,
    options: TuneOptions = TuneOptions("minmax"),
    quantization: QuantizeOptions = CPU,
    fit: list[Array] | None = None,
    held_back: list[Array] | None = None,
) -> Tuned:
    fit = batches() if fit is None else fit
    held = batches(6)[4:] if held_back is None else held_back
    return tune(model, lambda _: iter(fit), lambda _: iter(held), open_run, SOURCES, options, quantization)


def tensors_of(model: ir.Model, batch: Array) -> dict[str, NDArray[np.floating]]:
    """Every tensor of a model on one batch, by name."""
    base = canonical(model)
    with open_run(base, activation_names(base)) as run:
        return {str(base.graph.inputs[0].name): batch, **run(batch)}
