"""One spelling for what ONNX lets a file write in several ways, so that no pass meets the others.

1. The default domain is "", in imports, nodes and functions; a file may call it "ai.onnx".
2. Sparse tensors become dense ones.
3. A negative size means a size that is not known; it becomes one without value.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor

from rir_deploy.errors import InputError
from rir_deploy.graph.domains import LONG_NAME

# protobuf cannot hold more in one message; a larger model goes through a file, its weights beside it.
MESSAGE_BYTES = 1_900_000_000
# Nor can it hold a larger tensor; a few bytes of a sparse one can claim any size.
_MAX_DENSE_BYTES = 1 << 31


def uses_alias(proto: onnx.ModelProto) -> bool:
    """Whether a model calls the default domain by its other name, which onnx's checker does not know."""
    imports = [entry.domain for holder in (proto, *proto.functions) for entry in holder.opset_import]
    domains = (part.domain for part in parts(proto) if isinstance(part, onnx.NodeProto))
    return any(_domain(name) != name for name in (*imports, *domains))


def normalize(proto: onnx.ModelProto, folder: Path) -> None:
    """Bring a model to the one spelling, in place; ``folder`` is where its external data lies.

    Raises:
        InputError: a sparse tensor contradicts itself, or is larger than 2 GB when dense.
    """
    _merge_imports(proto.opset_import)
    for function in proto.functions:
        _merge_imports(function.opset_import)
    for part in parts(proto):
        if isinstance(part, onnx.NodeProto):
            part.domain = _domain(part.domain)
            for attribute in part.attribute:
                if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                    _densify_attribute(attribute, folder)
            continue
        part.initializer.extend(_dense(tensor, folder) for tensor in part.sparse_initializer)
        del part.sparse_initializer[:]
        for info in (*part.input, *part.value_info, *part.output):
            for dim in info.type.tensor_type.shape.dim:
                if dim.dim_value < 0:
                    dim.ClearField("dim_value")


def parts(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.NodeProto]:
    """Every graph and node, those in functions and in attributes as well."""
    waiting: list[onnx.GraphProto | onnx.NodeProto] = [proto.graph]
    waiting.extend(node for function in proto.functions for node in function.node)
    while waiting:
        part = waiting.pop()
        yield part
        if isinstance(part, onnx.GraphProto):
            waiting.extend(part.node)
            continue
        for attribute in part.attribute:
            waiting.extend([attribute.g] if attribute.HasField("g") else [])
            waiting.extend(attribute.graphs)


def _domain(name: str) -> str:
    return "" if name == LONG_NAME else name


def _merge_imports(imports: list[onnx.OperatorSetIdProto]) -> None:
    """Where a model imports both names, the version that it gives for "" counts."""
    if all(entry.domain == _domain(entry.domain) for entry in imports):
        return  # as nearly every file has them: in the order that they came
    versions = {entry.domain: entry.version for entry in imports}
    for name, version in list(versions.items()):
        if _domain(name) != name:
            versions.setdefault(_domain(name), versions.pop(name, version))
    del imports[:]
    imports.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())


def _densify_attribute(attribute: onnx.AttributeProto, folder: Path) -> None:
    """A Constant's ``sparse_value`` becomes its ``value``."""
    dense = _dense(attribute.sparse_tensor, folder)
    name = "value" if attribute.name == "sparse_value" else attribute.name
    attribute.CopyFrom(onnx.helper.make_attribute(name, dense))


def _dense(sparse: onnx.SparseTensorProto, folder: Path) -> onnx.TensorProto:
    name, dims = sparse.values.name, tuple(sparse.dims)
    for tensor in (sparse.values, sparse.indices):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            load_external_data_for_tensor(tensor, str(folder))
    values = numpy_helper.to_array(sparse.values).reshape(-1)
    if min(dims, default=0) < 0 or prod(dims) * values.dtype.itemsize > _MAX_DENSE_BYTES:
        raise InputError(f"the sparse tensor '{name}' has the size {_words(dims)}: refused; store it densely")
    indices = numpy_helper.to_array(sparse.indices).astype(np.int64)
    if indices.ndim == 2:  # one row of coordinates a value
        if indices.shape[1] != len(dims) or (indices < 0).any() or (indices >= np.array(dims)).any():
            raise _contradiction(name, dims)
        indices = np.ravel_multi_index(tuple(indices.T), dims)
    if indices.shape != values.shape or (indices < 0).any() or (indices >= prod(dims)).any():
        raise _contradiction(name, dims)
    dense = np.zeros(prod(dims), values.dtype)
    dense[indices] = values
    return numpy_helper.from_array(dense.reshape(dims), name)


def _contradiction(name: str, dims: tuple[int, ...]) -> InputError:
    return InputError(f"the sparse tensor '{name}' has places outside of its size {_words(dims)}; export it again")


def _words(dims: tuple[int, ...]) -> str:
    return "x".join(map(str, dims)) or "scalar"
