"""rir-deploy inspect"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rir_deploy.cli import common


@click.command("inspect", short_help="Say what a file is, what it costs, where it comes from.")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@common.json_option
def command(path: Path, as_json: bool) -> None:
    """Say what FILE is: an ONNX file, a checkpoint or the folder of an engine."""
    from rir_deploy.pipeline.inspect import inspect_file

    found = inspect_file(path)
    if as_json:
        common.print_json(found)
        return
    from rir_deploy.report.console import print_table

    print_table(str(path), ("", ""), list(_rows(found)))


def _rows(data: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested data as rows; a recipe is named, not spelled out."""
    rows: list[tuple[str, str]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        if key == "recipe" and isinstance(value, dict):
            rows.append((name, str(value.get("name"))))
        elif isinstance(value, dict) and value:
            rows += _rows(value, f"{name}.")
        elif isinstance(value, list | tuple) and value and all(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                rows += _rows(item, f"{name}[{index}].")
        else:
            rows.append((name, "-" if value in (None, "", (), [], {}) else str(value)))
    return rows
