"""inspect: what a file is, what it costs layer by layer, where it comes from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from rir_deploy.artifacts import sha256_file
from rir_deploy.bundle import Bundle, Item, open_bundle
from rir_deploy.engines.base import input_spec, output_specs
from rir_deploy.engines.manifest import MANIFEST_NAME, check_engine
from rir_deploy.errors import InputError
from rir_deploy.fold import Layer, list_layers, measure_work
from rir_deploy.onnx_file import load_onnx, read_provenance
from rir_deploy.pipeline.calibrate import weights_path
from rir_deploy.pipeline.few_bits import few_bits
from rir_deploy.pipeline.sides import kind_of
from rir_deploy.quantize import RangeTable
from rir_deploy.quantize.layers import read_layers

if TYPE_CHECKING:
    from torch import Tensor, nn


def inspect_file(path: Path, weights: str | None = None) -> dict[str, Any]:
    """A description as plain data; its "kind" ("checkpoint", "onnx", "engine", "bundle", "ranges") says which keys to
    expect. ``weights`` chooses among several sets of weights in a checkpoint: "model", "ema" or a key.

    Raises:
        UsageError, InputError, BackendError: as the loaders do (a checkpoint needs torch).
    """
    if path.suffix == ".json" and path.name != MANIFEST_NAME and path.is_file():
        return {**_common(path, "ranges"), **_ranges(path)}
    kind = kind_of(path)
    if kind == "engine":
        folder = path if path.is_dir() else path.parent
        return {"path": str(folder), "kind": "engine", **_engine(folder)}
    if kind == "bundle":
        with open_bundle(path) as bundle:
            return {**_common(path, kind), **_bundle(bundle)}
    return {**_common(path, kind), **(_onnx(path) if kind == "onnx" else _checkpoint(path, weights))}


def _common(path: Path, kind: str) -> dict[str, Any]:
    return {"path": str(path), "kind": kind, "sha256": sha256_file(path), "size_bytes": path.stat().st_size}


def _onnx(path: Path) -> dict[str, Any]:
    model = load_onnx(path)
    provenance = read_provenance(model)
    return {
        "opset": model.graph.opset_imports.get("", 0),
        "ir_version": model.ir_version,
        "producer": f"{model.producer_name or ''} {model.producer_version or ''}".strip(),
        "input": input_spec(model).to_dict(),
        "outputs": [spec.to_dict() for spec in output_specs(model)],
        "work": measure_work(model).to_dict(),
        "layers": [layer.to_dict() for layer in list_layers(model)],
        **_quantized(model),
        "provenance": None if provenance is None else json.loads(provenance.to_json()),
    }


def _engine(folder: Path) -> dict[str, Any]:
    """The layers are those of the graph that it was built from; what the runtime made of them is "realized"."""
    manifest = check_engine(folder)
    graph = load_onnx(folder / manifest.graph.name)
    return {
        **asdict(manifest),
        "size_bytes": manifest.size_bytes,
        "work": measure_work(graph).to_dict(),
        "layers": [layer.to_dict() for layer in list_layers(graph)],
        **_quantized(graph),
    }


def _quantized(model: ir.Model) -> dict[str, Any]:
    """What to know of few bits, and the layers that stay in a wider type."""
    return {
        "notes": [note for note in [few_bits(model)] if note is not None],
        "kept": [{"node": name, **asdict(found)} for name, found in read_layers(model).items() if found.reason],
    }


def _ranges(path: Path) -> dict[str, Any]:
    try:
        table = RangeTable.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, InputError) as error:
        raise InputError(f"'{path}' is not a range table: {error}") from error
    return {
        "method": table.method,
        "percentile": table.percentile,
        "images": table.samples,
        "made_from": dict(vars(table.sources)),
        "equalized_groups": len(table.exponents),
        "split_identity": table.split_identity,
        "rounded_weights": _rounded(path, table.weights_sha256),
        "tensors": [{"name": name, "min": found.min, "max": found.max} for name, found in table.ranges.items()],
    }


def _rounded(path: Path, sha256: str | None) -> dict[str, Any] | None:
    """The file of rounded weights that a table belongs with, and whether it is the one beside it."""
    if sha256 is None:
        return None
    file = weights_path(path)
    beside = sha256_file(file) == sha256 if file.is_file() else None
    return {"file": file.name, "sha256": sha256, "beside_it": {True: "yes", False: "another", None: "no"}[beside]}


def _bundle(bundle: Bundle) -> dict[str, Any]:
    """Provenance is that of the FP32 graph, from which all else is made."""
    index: dict[str, Any] = json.loads(bundle.index.to_json())
    items = [_item(bundle, item) for item in bundle.index.items]
    provenance = next(item["provenance"] for item in items if item["name"] == bundle.index.reference.name)
    head = {key: index[key] for key in ("format", "tool", "recipe")}
    return {
        **head,
        "provenance": provenance,
        **{key: index[key] for key in ("golden", "bounds")},
        "items": items,
        "members": index["members"],
    }


def _item(bundle: Bundle, item: Item) -> dict[str, Any]:
    found = _onnx(bundle.file(item)) if item.kind == "graph" else _engine(bundle.file(item))
    size = sum(member.size_bytes for member in bundle.index.members if item.owns(member.name))
    return {**found, **asdict(item), "kind": item.kind, "path": item.path, "size_bytes": size}


def _checkpoint(path: Path, weights: str | None) -> dict[str, Any]:
    from rir_deploy.pipeline.checkpoints import load_module

    loaded = load_module(path, weights=weights)
    config = getattr(loaded.module, "config", None)
    layers = [] if loaded.input_shape is None else _module_layers(loaded.module, loaded.input_shape)
    parameters = list(loaded.module.parameters())
    work = {
        "convs": sum(layer.op == "Conv" for layer in layers),
        "macs": sum(layer.macs for layer in layers),
        "params": sum(weight.numel() for weight in parameters),
        "weight_bytes": sum(weight.numel() * weight.element_size() for weight in parameters),
    }
    return {
        "layout": loaded.layout,
        "parameters": work["params"],
        "weights": loaded.weights,
        "input_shape": loaded.input_shape,
        "accuracy": loaded.accuracy,
        "work": work,
        "layers": [layer.to_dict() for layer in layers],
        "config": None if config is None else config.to_dict(),
        "recipe": loaded.recipe,
    }


def _module_layers(module: nn.Module, shape: tuple[int, int, int]) -> list[Layer]:
    """The convolutions and linear layers, in the order in which one image of zeros goes through them."""
    import torch

    layers: list[Layer] = []
    names = {found: name for name, found in module.named_modules()}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        stored = sum(parameter.numel() * parameter.element_size() for parameter in layer.parameters())
        kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in (inputs[0], weight)]
        # Every output element is the sum of as many products as one output channel has weights.
        macs = output[0].numel() * weight[0].numel()
        op = "Gemm" if isinstance(layer, torch.nn.Linear) else "Conv"
        layers.append(Layer(names[layer], op, kinds[0], kinds[1], tuple(weight.shape), macs, stored))

    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    hooks = [found.register_forward_hook(note) for found in names if isinstance(found, kinds)]
    with torch.inference_mode():
        module.eval()(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return layers
