"""A small network that has learned the digits: faults only show on one that has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from rir_deploy.cli import cli
from rir_deploy.cli.common import run_command

EPOCHS = 6


@dataclass(frozen=True)
class Trained:
    """The checkpoint, its raw trace, that folded, and INT8 of the fold in both flavours."""

    checkpoint: Path
    traced: Path
    folded: Path
    cpu: Path
    tensorrt: Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trained by the digits recipe for a few epochs."""
    pytest.importorskip("torch")
    from rir_deploy.pipeline.train import TrainRequest, train_recipe

    folder = tmp_path_factory.mktemp("trained")
    names = ("traced.onnx", "folded.onnx", "cpu.onnx", "tensorrt.onnx")
    made = Trained(folder / "model.safetensors", *(folder / name for name in names))
    assert train_recipe(TrainRequest("digits", folder, epochs=EPOCHS)).top1 > 0.93
    commands = [
        ["export", made.checkpoint, "-o", made.traced, "--no-fold"],
        ["fold", made.traced, "-o", made.folded],
        ["quantize", made.folded, "-o", made.cpu, "--qdq", "cpu"],
        ["quantize", made.folded, "-o", made.tensorrt, "--qdq", "tensorrt"],
    ]
    for command in commands:
        assert run_command(cli, [str(word) for word in command]) == 0
    return made
