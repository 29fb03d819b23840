"""Writing nodes and weights: names that are free, attributes that are typed, constants that are made once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rir_deploy.fold.kernels import Array

Attributes = Mapping[str, "ir.Attr | int | float | str | list[int]"]
INT64_MAX = int(np.iinfo(np.int64).max)


class Writer:
    """Collects ``nodes`` in order and their ``initializers``; float constants are cast here, once.

    A node's result and its constants have the type of its first input: parts of one graph may differ in precision.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self._names = set(taken)
        self._integers: dict[tuple[int, ...], ir.Value] = {}
        self._masks: dict[object, ir.Value] = {}

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Attributes,
        name: str,
    ) -> ir.Value:
        listed = [value if isinstance(value, ir.Attr) else _attribute(key, value) for key, value in attributes.items()]
        unique, first = self._unique(name), inputs[0]
        assert first is not None
        output = ir.Value(name=unique, type=first.type, shape=_shape_like(first))
        self.nodes.append(ir.Node("", op_type, inputs, listed, outputs=[output], name=f"{unique}/{op_type}"))
        return output

    def constant(self, array: Array, name: str, like: ir.Value) -> ir.Value:
        """A weight of the float type that ``like`` has."""
        assert like.dtype is not None
        return self._initializer(array.astype(like.dtype.numpy()), self._unique(name))

    def mask(self, array: Array, name: str, like: ir.Value) -> ir.Value:
        """A constant that all who need the same share."""
        key = (like.dtype, array.shape, array.tobytes())
        if key not in self._masks:
            self._masks[key] = self.constant(array, name, like)
        return self._masks[key]

    def integers(self, values: Sequence[int]) -> ir.Value:
        """A constant list of int64, shared by all who need the same."""
        key = tuple(values)
        if key not in self._integers:
            name = self._unique("const_" + "_".join("max" if value == INT64_MAX else str(value) for value in key))
            self._integers[key] = self._initializer(np.array(key, dtype=np.int64), name)
        return self._integers[key]

    def _initializer(self, array: NDArray[np.generic], name: str) -> ir.Value:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.initializers.append(value)
        return value

    def _unique(self, name: str) -> str:
        candidate, number = name, 1
        while candidate in self._names:
            candidate, number = f"{name}_{number}", number + 1
        self._names.add(candidate)
        return candidate


def _attribute(name: str, value: int | float | str | list[int]) -> ir.Attr:
    if isinstance(value, str):
        return ir.AttrString(name, value)
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    return ir.AttrInt64(name, value) if isinstance(value, int) else ir.AttrInt64s(name, value)


def _shape_like(value: ir.Value) -> ir.Shape | None:
    """Only the rank is known before shape inference runs on the finished graph."""
    return None if value.shape is None else ir.Shape([None] * len(value.shape))
