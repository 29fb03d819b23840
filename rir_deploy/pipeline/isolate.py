"""Graphs whose layers can be looked into: observed, and isolated from one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.errors import BackendError, InputError
from rir_deploy.file_system import scratch_folder
from rir_deploy.graph.runtime import import_runtime, log_severity
from rir_deploy.onnx_file import save_onnx
from rir_deploy.pipeline.feature_maps import OUTPUT, FeatureMap


def isolate(model: ir.Model, cut: Sequence[FeatureMap]) -> ir.Model:
    """A copy whose layers do not read each other: every map is an output, and what reads it reads an input instead.

    The rounding of a map stays before its output, so that it counts as the map's own. The inputs are named by
    `input_name`.
    """
    isolated = model.clone()
    graph = isolated.graph
    values = {str(value.name): value for value in graph.inputs}
    values |= {str(value.name): value for node in graph for value in node.outputs}
    for one in cut:
        value, stored = values[str(one.value.name)], values[one.name]
        fed = ir.Value(name=input_name(one), type=value.type, shape=value.shape)
        graph.inputs.append(fed)
        rounding = {use.node for use in value.uses() if stored is not value and use.node.op_type == one.rounding_op}
        for source in dict.fromkeys((value, stored)):
            for use in list(source.uses()):
                if source is stored or use.node not in rounding:
                    use.node.replace_input_with(use.idx, fed)
        if not stored.is_graph_output():
            graph.outputs.append(stored)
    return isolated


def input_name(one: FeatureMap) -> str:
    return f"{one.value.name}/given"


def reading_images(model: ir.Model, names: Iterable[str]) -> set[str]:
    """Those of the tensors ``names`` of an isolated model that depend on the images themselves."""
    derived: set[ir.Value | None] = {model.graph.inputs[0]}
    for node in model.graph:
        if any(value in derived for value in node.inputs):
            derived.update(node.outputs)
    found = {str(value.name) for value in derived if value is not None}
    return found & set(names)


def is_cut(one: FeatureMap, images: ir.Value, first: ir.Value) -> bool:
    """The images and the output have no layer before, or behind, that could be told apart."""
    return one.value is not images and one.value is not first and one.runs[0][0] != OUTPUT


class GraphSession:
    """A graph of any number of inputs in ONNX Runtime on the CPU, for looking inside: an engine has one input.

    Nothing is optimised, so that the graph is computed as ONNX defines it: fused integer kernels do not read all that
    a graph says (of the axis of a weight's scales, for one).

    Raises:
        BackendError: ONNX Runtime is not installed.
        InputError: it does not take the graph.
    """

    def __init__(self, model: ir.Model) -> None:
        try:
            onnxruntime = import_runtime()
        except ImportError as error:
            raise BackendError(
                "looking at layers needs ONNX Runtime; run: python -m pip install onnxruntime"
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = log_severity()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        with scratch_folder() as folder:
            path = folder / "observed.onnx"
            save_onnx(model, path, force=False)
            try:
                self._session: Any = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime raises its own family of exceptions, by status code
                raise InputError(f"ONNX Runtime does not take the graph with its layers marked: {error}") from error
        self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs, and the feeds beside them, by name."""
        try:
            results = self._session.run(None, dict(feeds))
        except Exception as error:
            raise InputError(f"ONNX Runtime cannot run the graph with its layers marked: {error}") from error
        return {**feeds, **dict(zip(self._outputs, results, strict=True))}
