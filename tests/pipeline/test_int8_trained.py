"""INT8 of a network that has learned the digits: as good as FP32, better than what else there is, and on images only
that it was trained for."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from PIL import Image

from rir_deploy.pipeline.sources import open_dataset
from rir_deploy.recipe import load_recipe
from rir_deploy.verify.statistics import count_pairs, drop_interval
from tests.cli.test_bad_input import refused, untouched
from tests.conftest import Runner
from tests.verify.conftest import trained
from tests.verify.trained import Trained

__all__ = ["trained"]

Logits = NDArray[np.float64]


@dataclass(frozen=True)
class Digits:
    """A part of the digits: float images as the network takes them, uint8 ones, and labels."""

    inputs: NDArray[np.float32]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def digits(part: str) -> Digits:
    dataset = open_dataset(None, load_recipe("digits"), part)  # type: ignore[arg-type]
    assert dataset.labels is not None
    images = dataset.raw()
    return Digits(dataset.preprocessing.normalize(images), images, dataset.labels)


def answers(graph: Path, inputs: NDArray[np.float32]) -> Logits:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0].astype(np.float64)


def sqnr_db(reference: Logits, other: Logits) -> float:
    return float(10 * np.log10((reference**2).sum() / ((reference - other) ** 2).sum()))


class Images(CalibrationDataReader):  # type: ignore[misc]
    """What ONNX Runtime's own quantiser is calibrated on: the same images as ours."""

    def __init__(self, name: str, inputs: NDArray[np.float32]) -> None:
        self._batches = iter([{name: batch} for batch in np.array_split(inputs, 16)])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._batches, None)


def peer(graph: Path, folder: Path, inputs: NDArray[np.float32], per_channel: bool) -> Path:
    """By ONNX Runtime's defaults, or with a step for each channel of the weights."""
    name = onnx.load(graph).graph.input[0].name
    output = folder / f"peer-{per_channel}-{graph.name}"
    quantize_static(graph, output, Images(name, inputs), quant_format=QuantFormat.QDQ, per_channel=per_channel)
    return output


def test_it_keeps_the_accuracy(trained: Trained, rir: Runner, tmp_path: Path) -> None:
    """On all test images, by numpy and ONNX Runtime alone; the bars are those of the trained CIFAR-10 network."""
    small = tmp_path / "small.onnx"
    ran = rir("quantize", trained.folded, "-o", small, "--qdq", "cpu", "--weight-bits", "4", "--json")
    assert ran.code == 0
    (warning,) = ran.json["warnings"]
    assert "not computed in 4 bits" in warning
    assert rir("inspect", small, "--json").json["notes"] == [warning]
    assert rir("inspect", trained.cpu, "--json").json["notes"] == []
    test, train = digits("test"), digits("train")
    reference = answers(trained.folded, test.inputs)
    right = reference.argmax(axis=1) == test.labels
    peers = [
        peer(graph, tmp_path, train.inputs[:512], per_channel)
        for graph in (trained.traced, trained.folded)
        for per_channel in (False, True)
    ]
    best_peer = max(sqnr_db(reference, answers(graph, test.inputs)) for graph in peers)
    # What is not quantised is FP16, as in an engine: the table measures what is built.
    scales = {node.input[1] for node in onnx.load(trained.tensorrt).graph.node if node.op_type == "QuantizeLinear"}
    weights = {weight.name: weight.data_type for weight in onnx.load(trained.tensorrt).graph.initializer}
    assert {weights[scale] for scale in scales} == {onnx.TensorProto.FLOAT16}
    # In so small a network's file the nodes count for much: the bound is on the weights and their steps.
    stored = [sum(len(w.raw_data) for w in onnx.load(path).graph.initializer) for path in (small, trained.folded)]
    assert stored[0] < 0.25 * stored[1]
    # Of 4 bits the larger network keeps 32 dB: layers of 16 channels have fewer weights to make up for one another.
    for graph, least_db, least_agreement in (
        (trained.tensorrt, max(34.0, best_peer), 0.994),
        (trained.cpu, max(38.0, best_peer), 0.996),
        (small, 25.0, 0.990),
    ):
        found = answers(graph, test.inputs)
        assert sqnr_db(reference, found) > least_db, graph.name
        agreement = (found.argmax(axis=1) == reference.argmax(axis=1)).mean()
        assert agreement >= least_agreement, graph.name
        low, high = drop_interval(count_pairs(right, found.argmax(axis=1) == test.labels))
        assert low <= 0 <= high, graph.name


def save(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Path:
    np.savez(path, images=images, labels=labels)
    return path


PREPARED_OTHERWISE: dict[str, Any] = {
    "negatives": lambda images: 255 - images,
    "turned": lambda images: np.rot90(images, axes=(1, 2)),
    "shifted": lambda images: np.roll(images, 4, axis=2),
    "noise": lambda images: np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8),
}


@pytest.mark.parametrize("how", PREPARED_OTHERWISE)
def test_images_that_the_network_fails_on_are_refused(how: str, trained: Trained, rir: Runner, tmp_path: Path) -> None:
    train = digits("train")
    data = save(tmp_path / "data.npz", np.ascontiguousarray(PREPARED_OTHERWISE[how](train.images)), train.labels)
    ran = rir("quantize", trained.folded, "-o", tmp_path / "q.onnx", "--data", data, "--method", "minmax")
    refused(ran, 5, "calibration images", "the checkpoint records", "--recipe")
    untouched(tmp_path, "data.npz")


def test_a_recipe_with_another_mean_is_refused(trained: Trained, rir: Runner, tmp_path: Path) -> None:
    graph = onnx.load(trained.folded)
    for prop in graph.metadata_props:
        if prop.key == "rir_deploy.provenance":
            record = json.loads(prop.value)
            record["recipe"]["preprocess"]["mean"] = [0.9]
            prop.value = json.dumps(record)
    onnx.save(graph, tmp_path / "other.onnx")
    ran = rir("quantize", tmp_path / "other.onnx", "-o", tmp_path / "q.onnx", "--method", "minmax")
    refused(ran, 5, "mean and std")


def test_top1_that_the_user_vouches_for(trained: Trained, rir: Runner, tmp_path: Path) -> None:
    graph = onnx.load(trained.folded)
    for prop in graph.metadata_props:
        if prop.key == "rir_deploy.provenance":
            prop.value = json.dumps({**json.loads(prop.value), "top1": None})
    bare = tmp_path / "bare.onnx"
    onnx.save(graph, bare)
    train = digits("train")
    data = save(tmp_path / "data.npz", 255 - train.images, train.labels)
    quantize = ("quantize", bare, "-o", tmp_path / "q.onnx", "--data", data, "--method", "minmax")
    refused(rir(*quantize, "--expect-top1", "97"), 5, "--expect-top1 says 97.0 %")
    untouched(tmp_path, "bare.onnx", "data.npz")
    refused(rir(*quantize, "--expect-top1", "0"), 2, "percentage")
    np.savez(tmp_path / "bare.npz", images=train.images)
    refused(rir(*quantize, "--data", tmp_path / "bare.npz", "--expect-top1", "97"), 5, "no labels")
    # The same images are taken where nobody says how good the network is: there is nothing to hold them against.
    assert rir(*quantize).code == 0


def test_few_images_are_warned_of(trained: Trained, rir: Runner, tmp_path: Path) -> None:
    ran = rir("quantize", trained.folded, "-o", tmp_path / "q.onnx", "--samples", "20", "--json")
    assert ran.code == 0
    (warning,) = ran.json["warnings"]
    assert "calibrated on 20 images only" in warning
    assert (
        rir("quantize", trained.folded, "-o", tmp_path / "r.onnx", "--samples", "32", "--json").json["warnings"] == []
    )


@dataclass(frozen=True)
class Split:
    """Training images to calibrate on, others to keep a budget on, and others again."""

    calibration: Path
    first: Path
    second: Path


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder, train = tmp_path_factory.mktemp("split"), digits("train")
    cuts = {"calibration": (0, 1000), "first": (1000, 1180), "second": (1180, None)}
    return Split(
        **{name: save(folder / f"{name}.npz", train.images[a:b], train.labels[a:b]) for name, (a, b) in cuts.items()}
    )


def save_zip(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Path:
    """The images as PNG files, a folder a class."""
    with zipfile.ZipFile(path, "w") as archive:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            data = io.BytesIO()
            Image.fromarray(image[..., 0]).save(data, "png")
            archive.writestr(f"{label}/{index}.png", data.getvalue())
    return path


def test_images_that_layers_were_chosen_on_prove_nothing(
    trained: Trained, split: Split, rir: Runner, tmp_path: Path
) -> None:
    chosen, plain = tmp_path / "chosen.onnx", tmp_path / "plain.onnx"
    ranking = tmp_path / "ranking.json"
    quantize = ("quantize", trained.folded, "--method", "minmax", "--data", split.calibration)
    ran = rir(
        *quantize, "-o", chosen, "--max-drop", "50", "--eval-data", split.first, "--sensitivity", ranking, "--json"
    )
    assert ran.code == 0, ran.err
    found = ran.json["sensitivity"]
    assert found["kept"] == 0
    assert json.loads(ranking.read_text()) == found
    scores = [layer["sqnr_db"] for layer in found["layers"]]
    assert len(scores) == len(ran.json["quantized"])
    assert scores == sorted(scores)
    assert rir(*quantize, "-o", plain).code == 0
    verify = ("verify", trained.checkpoint, chosen, "--max-top1-drop", "100", "--data")
    refused(rir(*verify, split.first), 2, "was chosen on 180 of the 180 images of", "needs others")
    # The same images as other files, a part of them, and one of them among others.
    first, second = np.load(split.first), np.load(split.second)
    packed = save_zip(tmp_path / "packed.zip", first["images"], first["labels"])
    refused(rir(*verify, packed), 2, "was chosen on 180 of the 180 images of", "packed.zip")
    part = save(tmp_path / "part.npz", first["images"][::3], first["labels"][::3])
    refused(rir(*verify, part), 2, "was chosen on 60 of the 60 images of")
    images, labels = (np.concatenate([second[key], first[key][7:8]]) for key in ("images", "labels"))
    mixed = save(tmp_path / "mixed.npz", images, labels)
    last = len(labels) - 1
    refused(rir(*verify, mixed), 2, f"was chosen on 1 of the {last + 1} images of", f"mixed.npz:images[{last}]")
    assert rir("verify", trained.checkpoint, plain, "--data", split.first).code in (0, 3)
    assert rir(*verify, split.second).code in (0, 3)


def test_a_model_that_hides_what_it_was_chosen_on(trained: Trained, split: Split, rir: Runner, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen.onnx"
    quantize = ("quantize", trained.folded, "--method", "minmax", "--rounding", "nearest", "--data", split.calibration)
    assert rir(*quantize, "-o", chosen, "--max-drop", "50", "--eval-data", split.first).code == 0
    graph = onnx.load(chosen)
    (record,) = (prop for prop in graph.metadata_props if prop.key == "rir_deploy.chosen_on")
    record.value = record.value.replace('"images": 180', '"images": 1')
    onnx.save(graph, tmp_path / "wrong.onnx")
    verify = ("verify", trained.checkpoint, "--data", split.first)
    refused(rir(*verify, tmp_path / "wrong.onnx"), 5, "malformed", "quantise again")
    graph.metadata_props.remove(record)
    onnx.save(graph, tmp_path / "bare.onnx")
    refused(rir(*verify, tmp_path / "bare.onnx"), 5, "does not say on which images")


def test_images_that_a_budget_cannot_be_kept_on(trained: Trained, split: Split, rir: Runner, tmp_path: Path) -> None:
    output, folder = tmp_path / "q.onnx", tmp_path / "data"
    folder.mkdir()
    quantize = ("quantize", trained.folded, "-o", output, "--method", "minmax", "--max-drop", "1")
    quantize = (*quantize, "--data", split.calibration)
    test, own = digits("test"), np.load(split.calibration)
    np.savez(folder / "bare.npz", images=test.images)
    refused(rir(*quantize), 2, "--max-drop and --eval-data go together")
    refused(rir(*quantize, "--eval-data", folder / "bare.npz"), 5, "no labels")
    # Of the 1,000 images that are named, 512 are calibrated on.
    refused(rir(*quantize, "--eval-data", "digits:train"), 2, "512 of the", "the calibration images")
    packed = save_zip(folder / "packed.zip", own["images"], own["labels"])
    refused(rir(*quantize, "--eval-data", packed), 2, "512 of the 1000", "the calibration images")
    refused(rir(*quantize, "--eval-data", "digits:test"), 2, f"{len(test.labels)} of the", "for the proof")
    half = save(folder / "half.npz", test.images[::2], test.labels[::2])
    refused(rir(*quantize, "--eval-data", half), 2, "180 of the 180", "for the proof", "half.npz:images[0]")
    refused(rir(*quantize, "--eval-data", split.first, "--max-drop", "100"), 2, "points from 0 to under 100")
    untouched(tmp_path, "data")


def test_rounded_weights_that_are_not_the_tables(trained: Trained, rir: Runner, tmp_path: Path) -> None:
    table, weights = tmp_path / "ranges.json", tmp_path / "ranges.safetensors"
    quantize = ("quantize", trained.folded, "--qdq", "cpu")
    assert rir(*quantize, "-o", tmp_path / "a.onnx", "--save-ranges", table, "--weight-bits", "4").code == 0
    again = (*quantize, "-o", tmp_path / "b.onnx", "--ranges", table)
    assert rir(*again).code == 0
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    (tmp_path / "b.onnx").unlink()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    refused(rir(*again), 5, "not those that the range table was made with")
    weights.unlink()
    refused(rir(*again), 2, "ranges.safetensors", "put the two together")
    refused(rir("quantize", trained.folded, "-o", tmp_path / "b.onnx", "--ranges", table), 2, "ranges.safetensors")
    untouched(tmp_path, "a.onnx", "ranges.json")
