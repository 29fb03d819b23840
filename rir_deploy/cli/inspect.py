"""rir-deploy inspect"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rir_deploy.cli import common
from rir_deploy.cli.outputs import Command

# What has a table of its own, or is too long for one.
_APART = ("layers", "items", "tensors", "members", "indices")


@click.command("inspect", cls=Command, short_help="Say what a file is, what it costs, where it comes from.")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@common.weights_option
@common.json_option
def command(path: Path, weights: str | None, as_json: bool) -> None:
    """Say what FILE is: an ONNX file, a checkpoint, the folder of an engine, a bundle or a range table.

    Layer by layer: the types that it reads, multiply-adds and stored bytes. A bundle is checked first, byte by byte.
    """
    from rir_deploy.pipeline.inspect import inspect_file

    found = inspect_file(path, weights)
    if as_json:
        common.print_json(found)
        return
    from rir_deploy.report.console import print_table

    print_table(str(path), ("", ""), list(_rows(found)))
    if found.get("items"):
        _print_items(found["items"])
    if found.get("layers"):
        _print_layers(found["layers"])
    if found.get("tensors"):
        rows = [(tensor["name"], f"{tensor['min']:.6g}", f"{tensor['max']:.6g}") for tensor in found["tensors"]]
        print_table("ranges", ("tensor", "min", "max"), rows)


def _rows(data: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested data as rows; a recipe is named, not spelled out."""
    rows: list[tuple[str, str]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        if key in _APART and isinstance(value, list | tuple):
            rows.append((name, str(len(value))))
        elif key == "recipe" and isinstance(value, dict):
            rows.append((name, str(value.get("name"))))
        elif isinstance(value, dict) and value:
            rows += _rows(value, f"{name}.")
        elif isinstance(value, list | tuple) and value and all(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                rows += _rows(item, f"{name}[{index}].")
        else:
            rows.append((name, "-" if value in (None, "", (), [], {}) else str(value)))
    return rows


def _print_layers(layers: list[dict[str, Any]]) -> None:
    from rir_deploy.report.console import print_table, size

    total = sum(layer["macs"] for layer in layers)
    rows = [
        (
            layer["name"],
            layer["op"],
            _types(layer),
            "x".join("?" if side is None else str(side) for side in layer["shape"]),
            f"{layer['macs']:,}",
            f"{layer['macs'] / total:.1%}" if total else "-",
            size(layer["weight_bytes"]),
        )
        for layer in layers
    ]
    columns = ("layer", "op", "reads", "weight", "multiply-adds", "share", "stored")
    print_table(f"layers: {len(layers)}, {total:,} multiply-adds an image", columns, rows)


def _print_items(items: list[dict[str, Any]]) -> None:
    from rir_deploy.report.console import print_table, size

    rows = []
    for item in items:
        kinds = dict.fromkeys(_types(layer) for layer in item["layers"])
        work = item["work"]
        rows.append(
            (
                item["name"],
                item["kind"],
                item["precision"],
                size(item["size_bytes"]),
                len(item["layers"]),
                ", ".join(kinds),
                f"{work['macs']:,}",
                size(work["weight_bytes"]),
                item["ran_on"] or f"not run: {item['reason']}",
            )
        )
    columns = ("name", "kind", "precision", "size", "layers", "read", "multiply-adds", "weights", "answers recorded by")
    print_table("graphs and engines", columns, rows)


def _types(layer: dict[str, Any]) -> str:
    kinds = (layer["activations"], layer["weights"])
    return kinds[0] if kinds[0] == kinds[1] else " x ".join(kinds)
