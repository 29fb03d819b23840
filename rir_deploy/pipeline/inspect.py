"""inspect: what a file is, what it costs, where it comes from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rir_deploy.artifacts import sha256_file
from rir_deploy.engines.base import input_spec, output_specs
from rir_deploy.engines.manifest import check_engine
from rir_deploy.fold import measure_work
from rir_deploy.onnx_file import load_onnx, read_provenance
from rir_deploy.pipeline.sides import kind_of


def inspect_file(path: Path) -> dict[str, Any]:
    """A description as plain data; its "kind" says which keys to expect.

    Raises:
        UsageError, InputError, BackendError: as the loaders do (a checkpoint needs torch).
    """
    kind = kind_of(path)
    if kind == "engine":
        return _engine(path if path.is_dir() else path.parent)
    common = {"path": str(path), "kind": kind, "sha256": sha256_file(path), "size_bytes": path.stat().st_size}
    return {**common, **(_onnx(path) if kind == "onnx" else _checkpoint(path))}


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
        "provenance": None if provenance is None else json.loads(provenance.to_json()),
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    from rir_deploy.pipeline.checkpoints import load_module

    loaded = load_module(path)
    parameters = sum(parameter.numel() for parameter in loaded.module.parameters())
    config = getattr(loaded.module, "config", None)
    return {
        "layout": loaded.layout,
        "parameters": parameters,
        "input_shape": loaded.input_shape,
        "accuracy": loaded.accuracy,
        "config": None if config is None else config.to_dict(),
        "recipe": loaded.recipe,
    }


def _engine(folder: Path) -> dict[str, Any]:
    manifest = check_engine(folder)
    graph = load_onnx(folder / manifest.graph.name)
    return {"path": str(folder), "kind": "engine", **asdict(manifest), "work": measure_work(graph).to_dict()}
