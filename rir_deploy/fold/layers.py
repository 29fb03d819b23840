"""What each layer of a graph costs and computes in: the nodes that multiply and add, one by one."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import onnx_ir as ir

from rir_deploy.fold.work import layer_macs

# What puts a weight of few bits together, and what else stands between a weight and the layer that reads it.
_PACKED = frozenset({"Cast", "ScatterElements", "Transpose", "Reshape"})
_WRAPPERS = _PACKED | {"DequantizeLinear", "QuantizeLinear", "Identity"}


@dataclass(frozen=True)
class Layer:
    """A Conv, Gemm or MatMul.

    Attributes:
        activations, weights: the types that it reads, seen through Q/DQ: "uint8" times "int8" for INT8 on a CPU, and
            "int4" for a weight that is stored in 4 bits.
        shape: of the weight.
        macs: multiply-adds of one image.
        weight_bytes: of weight and bias as they are stored, with their scales and zero points.
    """

    name: str
    op: str
    activations: str
    weights: str
    shape: tuple[int | None, ...]
    macs: int
    weight_bytes: int

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def list_layers(model: ir.Model) -> tuple[Layer, ...]:
    """The layers in the order of the graph; the model is not changed."""
    # Weights as they are in the file: what is counted may be a copy, with all types known and constants evaluated.
    written = {str(node.outputs[0].name): node for node in model.graph}
    layers = [(written.get(str(node.outputs[0].name), node), node, macs) for node, macs in layer_macs(model)]
    return tuple(
        Layer(
            node.name or str(node.outputs[0].name),
            node.op_type,
            _read_type(counted.inputs[0]),
            _read_type(node.inputs[1]),
            _shape(counted.inputs[1]),
            macs,
            sum(_stored_bytes(value) for value in node.inputs[1:]),
        )
        for node, counted, macs in layers
    )


def _read_type(value: ir.Value | None) -> str:
    """The type of a tensor where it is stored or passed on: before a DequantizeLinear, not after it."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        # The zero point has the type of the integers, and is written in the file; a weight of few bits is put together.
        packed = _packed(producer.inputs[0])
        value = packed or (producer.inputs[2] if len(producer.inputs) > 2 else producer.inputs[0])
    if value is None:
        return "unknown"
    tensor = ir.convenience.get_const_tensor(value)
    dtype = value.dtype if tensor is None else tensor.dtype
    return "unknown" if dtype is None else str(dtype.numpy())


def _packed(value: ir.Value | None) -> ir.Value | None:
    """The constant of few bits that ``value`` is put together from, if it is."""
    while value is not None and (producer := value.producer()) is not None and producer.op_type in _PACKED:
        value = producer.inputs[0]
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    is_packed = tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.dtype.bitwidth < 8
    return value if is_packed else None


def _shape(value: ir.Value | None) -> tuple[int | None, ...]:
    sizes = [] if value is None or value.shape is None else list(value.shape)
    return tuple(size if isinstance(size, int) else None for size in sizes)


def _stored_bytes(value: ir.Value | None) -> int:
    if value is None:
        return 0
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is not None:
        return tensor.nbytes
    producer = value.producer()
    if producer is None or producer.op_type not in _WRAPPERS:
        return 0
    return sum(_stored_bytes(operand) for operand in producer.inputs)
