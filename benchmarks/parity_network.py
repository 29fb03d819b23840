"""A trained network with its graphs, and ``rir-deploy verify`` on candidates for it, as a user runs it."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from rir_deploy.cli import cli
from rir_deploy.cli.common import run_command
from rir_deploy.data.preprocess import Preprocessing
from rir_deploy.onnx_file import load_onnx, save_onnx
from rir_deploy.recipe import load_recipe


def command(*arguments: object) -> tuple[int, str]:
    """Exit code and stdout (stderr where that is empty) of ``rir-deploy ARGUMENTS``, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(cli, [str(argument) for argument in arguments])
    return code, out.getvalue() or err.getvalue()


def must(*arguments: object) -> None:
    code, out = command(*arguments)
    if code != 0:
        raise RuntimeError(f"rir-deploy {' '.join(map(str, arguments))} exited with {code}: {out}")


@dataclass(frozen=True)
class Outcome:
    """What verify said of a candidate; ``note`` is the error where it said nothing."""

    code: int
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def block(self) -> str | None:
        found = self.record.get("first_divergence")
        return None if found is None else str(found["block"])

    @property
    def by(self) -> list[str]:
        """What caught a fault: the outputs and predictions, or (as well) the layers, or the records."""
        failures = self.record.get("failures", [])
        layers = [text for text in failures if "diverges" in text]
        records = [text for text in failures if "preprocessing" in text and text not in layers]
        others = len(failures) - len(layers) - len(records)
        found = {"outputs": others > 0, "layers": bool(layers), "records": bool(records)}
        return [name for name, yes in found.items() if yes]

    @property
    def layers(self) -> int:
        return len((self.record.get("layers") or {}).get("rows", []))


class Network:
    """A checkpoint and what is made of it, in ``folder``."""

    def __init__(self, name: str, checkpoint: Path, folder: Path, recipe: str, data: str | None, images: str | None):
        self.name, self.checkpoint, self.folder, self.recipe = name, checkpoint, folder, recipe
        self.data = [] if data is None else ["--data", data]
        self.calibration = [] if images is None else ["--data", images]
        folder.mkdir(parents=True, exist_ok=True)
        self.traced, self.folded = folder / "traced.onnx", folder / "folded.onnx"
        must("export", checkpoint, "-o", self.traced, "--no-fold", "--recipe", recipe, "--no-check")
        must("fold", self.traced, "-o", self.folded)
        for flavour in ("cpu", "tensorrt"):
            must("quantize", self.folded, "-o", self.int8(flavour), "--qdq", flavour, *self.calibration)

    def int8(self, flavour: str) -> Path:
        return self.folder / f"int8-{flavour}.onnx"

    @property
    def preprocessing(self) -> Preprocessing:
        return load_recipe(self.recipe).preprocessing

    def verify(self, candidate: Path | ir.Model, *options: object, reference: Path | None = None) -> Outcome:
        """verify --layers against the trace (or another reference)."""
        path = candidate if isinstance(candidate, Path) else self.folder / "candidate.onnx"
        if not isinstance(candidate, Path):
            save_onnx(candidate, path, force=True)
        words = ("verify", reference or self.traced, path, "--layers", "--json", *self.data, *options)
        code, out = command(*words)
        return Outcome(code, json.loads(out) if out.startswith("{") else {})

    def load(self, path: Path) -> ir.Model:
        return load_onnx(path)
