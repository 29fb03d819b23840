"""Mutations of what an ONNX graph holds: attributes, tensors, types and shapes. Each changes a ModelProto in place."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, TensorProto, helper

Mutation = Callable[[random.Random, ModelProto], None]
NUMBERS = (0, -1, 1, 2, 3, 7, 255, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63))
FLOATS = (0.0, -1.0, 1e-45, 1e38, float("inf"), float("-inf"), float("nan"))
NAMES = ("", "x", "../../evil", "/etc/passwd", "a" * 5000, "\x1b[2J", "a\nb", "a\0b", "\u202e", " ")
LOCATIONS = (
    "../secret.bin",
    "/etc/passwd",
    "link.bin",
    "missing.bin",
    ".",
    "..",
    "",
    "weights.bin",
    "a" * 5000,
    "weights.bin\0",
    "model.onnx",
)


def attribute_type(rng: random.Random, model: ModelProto) -> None:
    _attribute(rng, model).type = rng.choice(AttributeProto.AttributeType.values())


def attribute_number(rng: random.Random, model: ModelProto) -> None:
    attribute = _attribute(rng, model)
    if attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice(FLOATS)
    else:
        attribute.i = rng.choice(NUMBERS)


def attribute_numbers(rng: random.Random, model: ModelProto) -> None:
    attribute = _attribute(rng, model)
    length = rng.choice((0, 1, 3, 5, 9, 1000))
    attribute.CopyFrom(helper.make_attribute(attribute.name, [rng.choice(NUMBERS) for _ in range(length)] or [0]))
    if not length:
        del attribute.ints[:]


def attribute_text(rng: random.Random, model: ModelProto) -> None:
    attribute = _attribute(rng, model)
    attribute.type, attribute.s = AttributeProto.STRING, rng.choice((b"SAME_UPPER", b"VALID", b"", b"\xff\xfe"))


def attribute_name(rng: random.Random, model: ModelProto) -> None:
    known = ("group", "pads", "axis", "auto_pad", "epsilon", "kernel_shape", "strides", "dilations", "training_mode")
    _attribute(rng, model).name = rng.choice((*NAMES, *known))


def attribute_twice(rng: random.Random, model: ModelProto) -> None:
    node = _node(rng, model)
    node.attribute.extend([AttributeProto.FromString(_attribute(rng, model).SerializeToString())] * 2)


def attribute_gone(rng: random.Random, model: ModelProto) -> None:
    node = _node(rng, model)
    if node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]


def attribute_reference(rng: random.Random, model: ModelProto) -> None:
    _attribute(rng, model).ref_attr_name = rng.choice(NAMES)


def tensor_gone(rng: random.Random, model: ModelProto) -> None:
    if model.graph.initializer:
        del model.graph.initializer[rng.randrange(len(model.graph.initializer))]


def tensor_twice(rng: random.Random, model: ModelProto) -> None:
    model.graph.initializer.append(_tensor(rng, model))


def tensor_shape(rng: random.Random, model: ModelProto) -> None:
    tensor = _tensor(rng, model)
    if tensor.dims and rng.random() < 0.7:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
    else:
        tensor.dims.append(rng.choice(NUMBERS))


def tensor_flat(rng: random.Random, model: ModelProto) -> None:
    """As many numbers, in another shape."""
    tensor = _tensor(rng, model)
    dims = list(tensor.dims)
    rng.shuffle(dims)
    del tensor.dims[:]
    tensor.dims.extend(rng.choice((dims, [int(np.prod(dims))], [1, *dims], [*dims, 1])))


def tensor_type(rng: random.Random, model: ModelProto) -> None:
    _tensor(rng, model).data_type = rng.choice((*TensorProto.DataType.values(), 99))


def tensor_bytes(rng: random.Random, model: ModelProto) -> None:
    tensor = _tensor(rng, model)
    data = tensor.raw_data
    tensor.raw_data = rng.choice((b"", data[:-1], data + b"\0", data * 2, rng.randbytes(len(data))))


def tensor_both(rng: random.Random, model: ModelProto) -> None:
    """Numbers in two fields at once, or in the wrong one."""
    tensor = _tensor(rng, model)
    field = rng.choice(("float_data", "int32_data", "int64_data", "double_data", "uint64_data"))
    getattr(tensor, field).extend([1] * rng.choice((1, 4, 1000)))
    if rng.random() < 0.5:
        tensor.ClearField("raw_data")


def tensor_numbers(rng: random.Random, model: ModelProto) -> None:
    """Numbers of the right type that are not finite, or all zero, or huge, or tiny."""
    tensor = _tensor(rng, model)
    if tensor.data_type in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64):
        array = onnx.numpy_helper.to_array(tensor).copy()
        choices: Sequence[float] = NUMBERS if array.dtype.kind == "i" else FLOATS
        array.reshape(-1)[: rng.choice((1, array.size))] = np.array(rng.choice(choices)).astype(array.dtype)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def tensor_name(rng: random.Random, model: ModelProto) -> None:
    _tensor(rng, model).name = rng.choice((*NAMES, *(node.output[0] for node in model.graph.node if node.output)))


def tensor_elsewhere(rng: random.Random, model: ModelProto) -> None:
    """External data: outside of the folder, behind a link, in no file, at an impossible place of one."""
    tensor = _tensor(rng, model)
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": rng.choice(LOCATIONS)}
    for key in ("offset", "length"):
        if rng.random() < 0.5:
            entries[key] = rng.choice(("-1", "0", "4096", str(2**63), "x", "", "1e9", "9" * 5000))
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    if rng.random() < 0.7:
        tensor.ClearField("raw_data")


def tensor_sparse(rng: random.Random, model: ModelProto) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(_tensor(rng, model))
    sparse.indices.CopyFrom(rng.choice((_tensor(rng, model), helper.make_tensor("i", 7, [1], [2**40]))))
    sparse.dims.extend(rng.choice(NUMBERS) for _ in range(rng.choice((0, 1, 4))))


def declared_shape(rng: random.Random, model: ModelProto) -> None:
    value = rng.choice([*model.graph.input, *model.graph.output, *model.graph.value_info])
    dims = value.type.tensor_type.shape.dim
    if dims and rng.random() < 0.8:
        dim = dims[rng.randrange(len(dims))]
        dim.dim_value = rng.choice(NUMBERS)
        if rng.random() < 0.3:
            dim.dim_param = rng.choice(NAMES)
    else:
        dims.add().dim_value = rng.choice(NUMBERS)


def declared_type(rng: random.Random, model: ModelProto) -> None:
    value = rng.choice([*model.graph.input, *model.graph.output, *model.graph.value_info])
    kind = rng.choice(("number", "none", "sequence", "optional", "map"))
    if kind == "number":
        value.type.tensor_type.elem_type = rng.choice((*TensorProto.DataType.values(), 99))
    elif kind == "none":
        value.ClearField("type")
    elif kind == "map":
        value.type.map_type.key_type = 7
    else:
        getattr(value.type, f"{kind}_type").elem_type.tensor_type.elem_type = 1


def _node(rng: random.Random, model: ModelProto) -> onnx.NodeProto:
    return rng.choice(list(model.graph.node) or [onnx.NodeProto()])


def _attribute(rng: random.Random, model: ModelProto) -> AttributeProto:
    found = [attribute for node in model.graph.node for attribute in node.attribute]
    return rng.choice(found or [AttributeProto()])


def _tensor(rng: random.Random, model: ModelProto) -> TensorProto:
    return rng.choice(list(model.graph.initializer) or [TensorProto()])


VALUES: tuple[Mutation, ...] = (
    attribute_type,
    attribute_number,
    attribute_number,
    attribute_numbers,
    attribute_text,
    attribute_name,
    attribute_twice,
    attribute_gone,
    attribute_reference,
    tensor_gone,
    tensor_twice,
    tensor_shape,
    tensor_flat,
    tensor_type,
    tensor_bytes,
    tensor_both,
    tensor_numbers,
    tensor_name,
    tensor_elsewhere,
    tensor_elsewhere,
    tensor_sparse,
    declared_shape,
    declared_type,
)
