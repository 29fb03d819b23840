"""A sample of `benchmarks/parity_power.py`: faults are caught and put in their place, harmless variations pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks import parity_faults, parity_faults_int8
from benchmarks.parity_faults_ends import END_FAULTS, PREPROCESSING_FAULTS, RECORD_FAULTS, Embedded, record
from benchmarks.parity_graph import Net
from benchmarks.parity_variations import FOLDED_VARIATIONS, VARIATIONS
from rir_deploy.cli import cli
from rir_deploy.cli.common import run_command
from rir_deploy.embed import embed_preprocessing
from rir_deploy.fold import fold
from rir_deploy.onnx_file import load_onnx, save_onnx
from rir_deploy.recipe import load_recipe
from tests.conftest import Runner
from tests.verify.trained import Trained

FLOAT = (
    "shortcut missing",
    "streams swapped",
    "batch norm epsilon 1e-3",
    "running variance stale",
    "kernel transposed",
    "stride phase of a convolution",
    "kernel off by 2 %",
    "one dead channel",
    "truncated weight",
)
INT8 = (
    "range saturated at a sixteenth",
    "zero point off by 16",
    "weight scales of the neighbour",
    "weight scales along the wrong axis",
)
IMAGES = (
    "mean and deviation swapped",
    "height and width swapped",
    "resized to half and back",
    "cropped before it is resized",
)
COLOUR = ("BGR for RGB", "channels last read as channels first", "mean and deviation swapped")
HARMLESS = (
    "nodes renamed",
    "tensors renamed",
    "nodes in another order, 3",
    "notes on nodes removed",
    "weights as Constant nodes",
    "Identity before each convolution",
    "relu as Clip",
    "bias as an addition",
)


def test_there_are_as_many_kinds_as_the_benchmark_promises() -> None:
    assert len(parity_faults.FAULTS) + len(END_FAULTS) + len(PREPROCESSING_FAULTS) + len(RECORD_FAULTS) >= 60
    assert len(parity_faults_int8.FAULTS) >= 15


def check(rir: Runner, trained: Trained, model: ir.Model, folder: Path, block: str) -> None:
    save_onnx(model, folder / "faulty.onnx", force=True)
    ran = rir("verify", trained.traced, folder / "faulty.onnx", "--layers", "--json")
    assert ran.code == 3, ran.err
    assert ran.json["first_divergence"]["block"] == block


@pytest.mark.parametrize("name", FLOAT)
def test_faults_of_float_graphs(name: str, trained: Trained, rir: Runner, tmp_path: Path) -> None:
    """In one block of the trace, or of what the fold makes of it."""
    traced = load_onnx(trained.traced)
    net = Net(traced)
    block = next(one for one in ("layers.1", "layers.2") if parity_faults.applies(name, net, one))
    faulty = parity_faults.inject(traced, name, block)
    check(rir, trained, faulty if FLOAT.index(name) % 2 else fold(faulty).model, tmp_path, block)


@pytest.mark.parametrize("name", INT8)
def test_faults_of_quantised_graphs(name: str, trained: Trained, rir: Runner, tmp_path: Path) -> None:
    model = load_onnx(trained.tensorrt if INT8.index(name) % 2 else trained.cpu)
    check(rir, trained, parity_faults_int8.inject(model, name, "layers.1"), tmp_path, "layers.1")


@pytest.mark.parametrize("name", IMAGES)
def test_faults_of_preprocessing_in_the_graph(name: str, trained: Trained, rir: Runner, tmp_path: Path) -> None:
    preprocessing = load_recipe("digits").preprocessing
    net = Embedded(embed_preprocessing(load_onnx(trained.folded), preprocessing))
    PREPROCESSING_FAULTS[name](net, preprocessing)
    check(rir, trained, net.model, tmp_path, "preprocessing")


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network of colour images with random weights, folded, and images for it: smooth, and not the same in all
    channels.
    """
    torch = pytest.importorskip("torch")
    from rir_deploy.models import preset
    from rir_deploy.models.checkpoint import CheckpointRecord, save_checkpoint
    from rir_deploy.models.rir import RiR

    folder = tmp_path_factory.mktemp("colour")
    torch.manual_seed(0)
    model = RiR(preset("rir-digits", in_channels=3, image_size=(32, 32)))
    checkpoint, folded = folder / "model.safetensors", folder / "folded.onnx"
    save_checkpoint(checkpoint, model, record=CheckpointRecord(recipe=load_recipe("cifar10").to_dict()))
    assert run_command(cli, ["export", str(checkpoint), "-o", str(folded), "--no-check"]) == 0
    coarse = np.random.default_rng(0).integers(0, 256, (48, 4, 4, 3))
    images = coarse.repeat(8, 1).repeat(8, 2).astype(np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(48) % 10)
    return folded, folder / "images.npz"


@pytest.mark.parametrize("name", COLOUR)
def test_faults_of_colour_images(name: str, colour: tuple[Path, Path], rir: Runner, tmp_path: Path) -> None:
    folded, images = colour
    preprocessing = load_recipe("cifar10").preprocessing
    net = Embedded(embed_preprocessing(load_onnx(folded), preprocessing))
    save_onnx(net.model, tmp_path / "good.onnx", force=False)
    words = ("--layers", "--json", "--data", images)
    assert rir("verify", folded, tmp_path / "good.onnx", *words).code == 0
    PREPROCESSING_FAULTS[name](net, preprocessing)
    save_onnx(net.model, tmp_path / "faulty.onnx", force=False)
    ran = rir("verify", folded, tmp_path / "faulty.onnx", *words)
    assert ran.code == 3, ran.err
    assert ran.json["first_divergence"]["block"] == "preprocessing"


def test_faults_of_the_record(trained: Trained, rir: Runner, tmp_path: Path) -> None:
    check(rir, trained, record(load_onnx(trained.folded), RECORD_FAULTS[0]), tmp_path, "preprocessing")


@pytest.mark.parametrize("name", [*HARMLESS, "equalised by powers of two, noted", "preprocessing inside"])
def test_harmless_variations(name: str, trained: Trained, rir: Runner, tmp_path: Path) -> None:
    variations = {
        **VARIATIONS,
        **FOLDED_VARIATIONS,
        "preprocessing inside": lambda model: embed_preprocessing(model, load_recipe("digits").preprocessing),
    }
    source = trained.folded if name not in HARMLESS or HARMLESS.index(name) % 2 else trained.traced
    save_onnx(variations[name](load_onnx(source)), tmp_path / "other.onnx", force=False)
    ran = rir("verify", trained.traced, tmp_path / "other.onnx", "--layers", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["first_divergence"] is None
