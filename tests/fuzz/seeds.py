"""The files that are mutated, each of which is taken as it is: made from a run of a small network for the digits."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from PIL import Image

from rir_deploy.cli import cli
from rir_deploy.cli.common import run_command
from rir_deploy.recipe import packaged_recipes
from tests.fold import random_graphs
from tests.models.test_layouts import pytorchcv_state

GRAPHS = 24
IMAGES = 12
# It names a checkpoint that is not there: a plan that is taken is not carried out.
PLAN = """
recipe = "digits"
checkpoint = "missing.safetensors"
precisions = ["fp32", "fp16", "int8"]
backends = ["onnxruntime"]
batch = [1, 1, 32]
sensitivity = true
max_drop = 1.0
eval_data = "digits:train"
unfolded = true
[data]
test = "digits:test"
[bench]
batches = [1]
duration_s = 0
rounds = 1
"""


@dataclass(frozen=True)
class Seeds:
    """``folder`` holds them all: graphs, a network with its table, engine and bundle, checkpoints, data."""

    folder: Path

    @property
    def graphs(self) -> list[Path]:
        return sorted((self.folder / "graphs").glob("*.onnx"))

    @property
    def network(self) -> Path:
        return self.folder / "network.onnx"

    @property
    def engine(self) -> Path:
        return self.folder / "engine"

    @property
    def table(self) -> Path:
        return self.folder / "table.json"

    @property
    def quantized(self) -> Path:
        return self.folder / "quantized.onnx"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle.zip"

    @property
    def checkpoints(self) -> list[Path]:
        return [self.folder / "own.safetensors", self.folder / "foreign.pt", self.folder / "foreign.safetensors"]

    @property
    def images(self) -> list[Path]:
        return [self.folder / "images.npz", self.folder / "images.zip"]

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.toml"

    @property
    def plan(self) -> Path:
        return self.folder / "plan.toml"


def make_seeds(folder: Path, run: Path, checkpoint: Path, bundle: Path) -> Seeds:
    """The seeds in ``folder``, from a run of ``checkpoint`` by ONNX Runtime in all precisions, and its bundle."""
    from safetensors.torch import save_file

    seeds = Seeds(folder)
    (folder / "graphs").mkdir(parents=True)
    for seed in range(GRAPHS):
        ir.save(random_graphs.build(seed), folder / "graphs" / f"{seed:02}.onnx")
    shutil.copy(run / "graphs" / "fp32.onnx", seeds.network)
    shutil.copytree(run / "engines" / "onnxruntime-fp32", seeds.engine)
    shutil.copy(run / "graphs" / "int8-cpu.ranges.json", seeds.table)
    shutil.copy(run / "graphs" / "int8-cpu.ranges.safetensors", seeds.table.with_suffix(".safetensors"))
    shutil.copy(bundle, seeds.bundle)
    shutil.copy(checkpoint, seeds.checkpoints[0])
    state = pytorchcv_state([[4, 4], [6]])
    torch.save(state, seeds.checkpoints[1])
    save_file(state, seeds.checkpoints[2])
    _write_images(seeds)
    shutil.copy(packaged_recipes()["digits"], seeds.recipe)
    seeds.plan.write_text(PLAN)
    quantize = ["quantize", seeds.network, "-o", seeds.quantized, "--qdq", "cpu", "--recipe", "digits"]
    assert run_command(cli, [*map(str, quantize), "--ranges", str(seeds.table)]) == 0
    return seeds


def _write_images(seeds: Seeds) -> None:
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8), dtype=np.uint8)
    labels = np.arange(IMAGES) % 10
    np.savez(seeds.images[0], images=images, labels=labels)
    with zipfile.ZipFile(seeds.images[1], "w", zipfile.ZIP_DEFLATED) as archive:
        for place, image in enumerate(images):
            with archive.open(f"{labels[place]}/{place:03}.png", "w") as file:
                Image.fromarray(image).save(file, "PNG")
