"""Handles on a traced RiR, by which faults and variations take hold of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

MODULE_KEY = "rir_deploy.module"
Array = NDArray[np.float32]


class Net:
    """A copy of a traced graph; nodes are found by the module they were traced from."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model.clone()
        self.graph = self.model.graph
        self._constants = 0

    def node(self, module: str, op_type: str, index: int = 0) -> ir.Node:
        found = [n for n in self.graph if n.metadata_props.get(MODULE_KEY) == module and n.op_type == op_type]
        return found[index]

    def blocks(self) -> list[str]:
        """ "layers.0" and on, in order."""
        modules = [node.metadata_props.get(MODULE_KEY, "") for node in self.graph]
        return list(dict.fromkeys(".".join(m.split(".")[:2]) for m in modules if m.startswith("layers.")))

    def is_strided(self, block: str) -> bool:
        return self.conv(block, "residual_to_residual").attributes["strides"].as_ints()[0] > 1

    def conv(self, block: str, branch: str) -> ir.Node:
        return self.node(f"{block}.{branch}", "Conv")

    def norm(self, block: str, stream: str = "residual") -> ir.Node:
        return self.node(f"{block}.{stream}_norm", "BatchNormalization")

    def shortcut_add(self, block: str) -> ir.Node:
        """The addition of the shortcut: its first input is the sum of the branches, its second the shortcut."""
        add = self.norm(block).inputs[0]
        assert add is not None
        node = add.producer()
        assert node is not None
        return node

    def relu(self, block: str, stream: str = "residual") -> ir.Node:
        return next(iter(self.norm(block, stream).outputs[0].uses())).node

    def array(self, node: ir.Node, index: int = 1) -> Array:
        value = node.inputs[index]
        assert value is not None
        assert value.const_value is not None
        return np.array(value.const_value.numpy())

    def change(self, node: ir.Node, change: Callable[[Array], Array], index: int = 1) -> None:
        """Give a node a changed copy of a weight: others that read the old one keep it."""
        array, old = self.array(node, index), node.inputs[index]
        node.replace_input_with(index, self.constant(np.ascontiguousarray(change(array).astype(array.dtype))))
        if old is not None and not old.uses():
            del self.graph.initializers[str(old.name)]

    def constant(self, array: NDArray[np.generic]) -> ir.Value:
        self._constants += 1
        name = f"changed_{self._constants}"
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def insert(self, node: ir.Node, index: int, op_type: str, *more: ir.Value, **attributes: object) -> ir.Node:
        """An op between a node and its input ``index``."""
        source = node.inputs[index]
        assert source is not None
        listed = [ir.convenience.convert_attribute(key, value) for key, value in attributes.items()]  # type: ignore[arg-type]
        new = ir.Node("", op_type, [source, *more], listed, name=f"{op_type}_inserted_{len(list(self.graph))}")
        new.outputs[0].name = f"{new.name}_out"
        new.outputs[0].type = source.type
        self.graph.insert_before(node, new)
        node.replace_input_with(index, new.outputs[0])
        return new

    def bypass(self, node: ir.Node, source: ir.Value | None) -> None:
        """Whoever read the node reads ``source``."""
        assert source is not None
        for use in list(node.outputs[0].uses()):
            use.node.replace_input_with(use.idx, source)
