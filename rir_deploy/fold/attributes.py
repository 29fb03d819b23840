"""Reading a node's attributes, with the operator's defaults."""

from __future__ import annotations

import onnx_ir as ir

from rir_deploy.fold.forms import Affine
from rir_deploy.fold.kernels import Axes


def name_of(value: ir.Value | None) -> str:
    return "" if value is None or value.name is None else value.name


def axis_of(node: ir.Node, form: Affine) -> int:
    return int_of(node, "axis", 0) % (form.axes + 2)


def int_of(node: ir.Node, name: str, default: int) -> int:
    return int(node.attributes.get_int(name, default))


def float_of(node: ir.Node, name: str, default: float) -> float:
    return float(node.attributes.get_float(name, default))


def string_of(node: ir.Node, name: str, default: str) -> str:
    return str(node.attributes.get_string(name, default))


def ints_of(node: ir.Node, name: str, default: Axes) -> Axes:
    return tuple(int(i) for i in node.attributes.get_ints(name, default))
