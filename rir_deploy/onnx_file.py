"""Reading and writing ONNX files: nothing in a file is trusted, and nothing is left half-written."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from rir_deploy.artifacts import METADATA_KEY, Provenance, atomic_file
from rir_deploy.errors import InputError, UsageError
from rir_deploy.graph.normalize import MESSAGE_BYTES, normalize, parts, uses_alias
from rir_deploy.graph.weights import is_weight
from rir_deploy.staging import data_name

# protobuf cannot hold more in one file; larger weights go into one file beside it.
EXTERNAL_DATA_BYTES = MESSAGE_BYTES


def load_onnx(path: Path) -> ir.Model:
    """Read an ONNX file and check it.

    Raises:
        UsageError: there is no such file.
        InputError: truncated or malformed, external data outside its folder, a compiled engine in it, NaN or infinite
            weights.
    """
    try:
        proto = onnx.load(path, load_external_data=False)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file '{path}'; name an ONNX file that exists") from error
    except IsADirectoryError as error:
        raise UsageError(f"'{path}' is a folder; name an ONNX file") from error
    except (DecodeError, OSError, ValueError) as error:
        raise InputError(f"'{path}' is not a readable ONNX file (truncated or damaged): export it again") from error
    if not proto.graph.node and not proto.graph.output:
        raise InputError(f"'{path}' is not an ONNX model: it has no graph; export it again")
    if not proto.graph.output:
        raise InputError(f"'{path}' is not a valid ONNX model: its graph gives no output; export it again")
    for tensor in _tensors(proto):
        _check_external(tensor, path)
    native = native_code(proto)
    if native is not None:
        raise InputError(f"'{path}': {native}: refused, since it runs native code; give the ONNX model itself")
    try:
        _check_model(proto, path)
        normalize(proto, path.absolute().parent)
        model = ir.from_proto(proto)
        # In memory, since what is written elsewhere must not depend on a file beside what was read.
        ir.external_data.set_base_dir(model.graph, path.absolute().parent)
        ir.external_data.load_to_model(model)
    except MemoryError:
        raise
    except InputError as error:
        raise InputError(f"'{path}': {error}") from error
    except Exception as error:  # protobuf, onnx and onnx-ir raise nearly every built-in error on malformed models
        raise _not_valid(path, error) from error
    _check_weights(model, path)
    return model


def external_locations(proto: onnx.ModelProto) -> set[str]:
    """The files that a model keeps tensors in, beside its own, by the names that it gives them."""
    external = (tensor for tensor in _tensors(proto) if tensor.data_location == onnx.TensorProto.EXTERNAL)
    return {entry.value for tensor in external for entry in tensor.external_data if entry.key == "location"}


def native_code(proto: onnx.ModelProto) -> str | None:
    """The node that brings an engine of another runtime, which would be run unseen; None where there is none."""
    for part in parts(proto):
        if isinstance(part, onnx.NodeProto) and part.op_type == "EPContext":
            return f"the node '{part.name:.80}' (EPContext) brings a compiled engine"
    return None


def save_onnx(model: ir.Model, path: Path, *, force: bool) -> None:
    """Write a model beside ``path`` and rename it into place; weights over 1.9 GB go to a file of their own beside it.

    That file is called ``<name>.<hash>.data``, by what the model computes: a new graph never stands beside the weights
    of an old one, whatever interrupts, and equal models give equal names and bytes.

    Raises:
        UsageError: ``path`` exists and ``force`` is not given, or cannot be written.
    """
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    external = data_name(path.name, graph_sha256(model)) if size > EXTERNAL_DATA_BYTES else None
    if external is not None and path.is_symlink():
        raise UsageError(f"'{path}' is a link, beside which its weights would not be found; name the file itself")
    with atomic_file(path, force=force) as temporary:
        ir.save(model, temporary, external_data=external)


def graph_sha256(model: ir.Model) -> str:
    """Hex sha256 of what a model computes: its graph and weights, whatever its metadata says of its past.

    Every weight stands in the graph by its own hash: protobuf could not hold models over 2 GB, and whether a weight
    lies in the file or beside it makes no difference.
    """
    skeleton = model.clone()
    functions = skeleton.functions.values()
    for graph in (*skeleton.graphs(), *(graph for function in functions for graph in function.subgraphs())):
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = _by_hash(value.const_value)
    for node in itertools.chain(skeleton.graph.all_nodes(), *(function.all_nodes() for function in functions)):
        for attribute in list(node.attributes.values()):
            _tensors_by_hash(node, attribute)
    proto = ir.to_proto(skeleton)
    del proto.metadata_props[:]
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()


def _tensors_by_hash(node: ir.Node, attribute: ir.Attr) -> None:
    if attribute.is_ref():
        return
    if attribute.type == ir.AttributeType.TENSOR:
        node.attributes.add(ir.AttrTensor(attribute.name, _by_hash(attribute.as_tensor())))
    elif attribute.type == ir.AttributeType.TENSORS:
        node.attributes.add(ir.AttrTensors(attribute.name, [_by_hash(tensor) for tensor in attribute.as_tensors()]))


def _by_hash(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """A stand-in of 32 bytes: the sha256 of type, shape and numbers. Strings stay."""
    if tensor.dtype == ir.DataType.STRING:
        return tensor
    digest = hashlib.sha256(f"{tensor.dtype.name}{list(tensor.shape)}".encode())
    digest.update(tensor.tobytes())
    return ir.tensor(np.frombuffer(digest.digest(), dtype=np.uint8), name=tensor.name)


def read_provenance(model: ir.Model) -> Provenance | None:
    """Where a model comes from, if this tool wrote it."""
    text = model.metadata_props.get(METADATA_KEY)
    return None if text is None else Provenance.from_json(text)


def write_provenance(model: ir.Model, provenance: Provenance) -> None:
    model.metadata_props[METADATA_KEY] = provenance.to_json()


def _check_model(proto: onnx.ModelProto, path: Path) -> None:
    """onnx's checker, on the file, since protobuf could not hand it a larger model."""
    if not uses_alias(proto):
        onnx.checker.check_model(str(path))
        return
    respelt = onnx.ModelProto()
    respelt.CopyFrom(proto)
    onnx.load_external_data_for_model(respelt, str(path.absolute().parent))
    normalize(respelt, path.absolute().parent)
    onnx.checker.check_model(respelt)


def _not_valid(path: Path, error: Exception) -> InputError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".;")
    return InputError(f"'{path}' is not a valid ONNX model: {reason[:200]}; export it again")


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for part in parts(proto):
        if isinstance(part, onnx.GraphProto):
            yield from part.initializer
            sparse = list(part.sparse_initializer)
        else:
            sparse = []
            for attribute in part.attribute:
                yield from ([attribute.t] if attribute.HasField("t") else [])
                yield from attribute.tensors
                sparse.extend([attribute.sparse_tensor, *attribute.sparse_tensors])
        for tensor in sparse:
            yield from (tensor.values, tensor.indices)


def _check_external(tensor: onnx.TensorProto, path: Path) -> None:
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    folder = path.absolute().parent.resolve()
    target = folder / location
    try:
        inside = location and not Path(location).is_absolute() and target.resolve().is_relative_to(folder)
        outside, there = not inside or target.is_symlink(), target.is_file()
    except (OSError, ValueError):  # longer than a file system allows, or not a name at all
        outside, there = False, False
    if outside:
        raise InputError(
            f"'{path}' keeps the weight '{tensor.name}' in '{location}', outside its own folder: refused; "
            "put the data file beside the model"
        )
    if not there:
        raise InputError(f"'{path}' needs the data file '{location:.200}', which is not beside it; copy both files")


def _check_weights(model: ir.Model, path: Path) -> None:
    """Every constant can be read, none is NaN, and weights are finite. A tensor is not looked at before it is read."""
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                _check_constant(value, _read(value.const_value, name, path), path)
    for node in model.graph.all_nodes():
        for attribute in node.attributes.values():
            if attribute.is_ref():
                raise InputError(
                    f"'{path}' is not a valid ONNX model: '{attribute.name}' of the node '{node.name}' refers to a "
                    "function's attribute, outside of any; export it again"
                )
            if attribute.type == ir.AttributeType.TENSOR:
                array = _read(attribute.as_tensor(), f"{node.name}/{attribute.name}", path)
                if node.op_type == "Constant":
                    _check_constant(node.outputs[0], array, path)


def _check_constant(value: ir.Value, array: NDArray[np.float32] | None, path: Path) -> None:
    if array is None or np.isfinite(array).all():
        return
    if np.isnan(array).any() or is_weight(value):
        raise InputError(f"'{path}': the weight '{value.name}' holds NaN or infinite numbers; train or export it again")


def _read(tensor: ir.TensorProtocol, name: str, path: Path) -> NDArray[np.float32] | None:
    """The numbers of a float tensor, None of any other.

    Raises:
        InputError: it cannot be read.
    """
    try:
        array = tensor.numpy()
        if array.shape != tuple(tensor.shape):
            raise ValueError(f"its shape is {array.shape}")
        with np.errstate(over="ignore"):  # a float64 beyond float32 is as bad as an infinity
            return array.astype(np.float32) if tensor.dtype.is_floating_point() else None
    except MemoryError:
        raise
    except Exception as error:  # onnx-ir asserts, numpy refuses
        raise InputError(f"'{path}': the weight '{name}' cannot be read ({error}); export the model again") from error
