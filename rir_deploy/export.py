"""From a PyTorch module to an ONNX graph, by torch's dynamo exporter."""

from __future__ import annotations

import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from rir_deploy.errors import BackendError, InputError, RirDeployError
from rir_deploy.verbosity import is_verbose

if TYPE_CHECKING:
    from torch import nn

INPUT_NAME, OUTPUT_NAME = "input", "logits"
# The module that a node was traced from, so that a later stage can speak of blocks instead of node numbers.
MODULE_KEY = "rir_deploy.module"
_SCOPES_KEY = "pkg.torch.onnx.name_scopes"
# The newest opset that the parser of TensorRT 10.3 reads, the oldest TensorRT supported.
DEFAULT_OPSET = 20
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_NO_SYMBOL = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'")


@dataclass(frozen=True)
class ExportOptions:
    """``input_shape`` is (C, H, W) of one image; the batch is dynamic.

    Raises:
        InputError: an opset that the dynamo exporter cannot write (it writes 18 and newer).
    """

    input_shape: tuple[int, int, int]
    opset: int = DEFAULT_OPSET

    def __post_init__(self) -> None:
        if not 18 <= self.opset <= 23:
            raise InputError(f"opset {self.opset} cannot be written; choose 18 to 23")


def export(module: nn.Module, options: ExportOptions) -> ir.Model:
    """Trace a module in eval mode: float32 ``input`` [batch, C, H, W] to ``logits``.

    Raises:
        BackendError: torch or onnxscript is not installed.
        InputError: the module cannot be traced with that input, or the exporter wrote another opset than asked.
    """
    try:
        import onnxscript  # noqa: F401 - the exporter needs it and fails late without
        import torch
    except ImportError as error:
        raise BackendError(f'{error.name} is not installed; run: python -m pip install "rir-deploy[host]"') from error
    # Two images: with a batch of one the tracer would take the batch size for a constant.
    example = torch.zeros((2, *options.input_shape))
    training = module.training
    module.eval()
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                opset_version=options.opset,
                verbose=False,
            )
    except Exception as error:  # the tracer raises whatever the module does
        shape = "x".join(map(str, options.input_shape))
        raise InputError(
            f"the model cannot be traced with an input of {shape}: {_cause(error)}{_advice(error, module)}"
        ) from error
    finally:
        module.train(training)
    if program is None:
        raise InputError("the exporter returned no graph; update torch")
    model = program.model
    written = model.graph.opset_imports.get("", 0)
    if written != options.opset:
        raise InputError(f"the exporter wrote opset {written} when asked for {options.opset}; choose another opset")
    return _tidy(model)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints progress, warns of its own workings and dumps its graphs; what matters is raised."""
    if is_verbose():
        with redirect_stdout(sys.stderr):
            yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _chain(error: BaseException) -> list[BaseException]:
    """An error and those that it was raised from, the first of them last."""
    found = [error]
    while (cause := found[-1].__cause__) is not None and cause not in found:
        found.append(cause)
    return found


def _cause(error: Exception) -> str:
    """What went wrong at first: the exporter wraps it into advice about itself."""
    first = _chain(error)[-1]
    text = _ESCAPES.sub("", str(first))
    text = text.rpartition("## Exception summary")[2]  # where it wrapped something and does not say it in Python
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return type(first).__name__
    if missing := _NO_SYMBOL.search(lines[0]):
        return f"ONNX has no form of the operator {missing[1]}"
    return lines[0] if isinstance(first, RirDeployError) else f"{type(first).__name__}: {lines[0]}"


def _advice(error: Exception, module: nn.Module) -> str:
    """The way out, for the causes that have one."""
    if any("DataDependent" in type(one).__name__ for one in _chain(error)):
        return "; its forward branches on values of the input, which a graph cannot: write that with torch.where"
    kinds = {str(p.dtype).removeprefix("torch.") for p in module.parameters() if p.is_floating_point()}
    if kinds - {"float32"}:
        held = ", ".join(sorted(kinds))
        return f"; its parameters are {held}, and it is traced in float32: return model.float() from the factory"
    return ""


def _tidy(model: ir.Model) -> ir.Model:
    """Replace the tracer's notes (source lines and paths of this machine) by the module each node came from."""
    for node in model.graph.all_nodes():
        scopes = _scopes(node.metadata_props.get(_SCOPES_KEY, ""))
        node.metadata_props.clear()
        node.doc_string = None
        if scopes:
            node.metadata_props[MODULE_KEY] = scopes
    values = [value for node in model.graph.all_nodes() for value in node.outputs]
    for value in [*values, *model.graph.inputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
        value.doc_string = None
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.doc_string = None
    return model


def _scopes(text: str) -> str:
    """The innermost module of a list like "['', 'features', 'features.stage1', 'conv2d']"; its last entry is the op."""
    names = [part.strip(" '\"") for part in text.strip("[]").split(",")]
    return next((name for name in reversed(names[:-1]) if name), "")
