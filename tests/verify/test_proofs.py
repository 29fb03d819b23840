"""What the command says of images that prove nothing and of outputs that are others: text, JSON and exit code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from rir_deploy.data.digits import DigitsSource
from tests.conftest import Ran, Runner
from tests.verify.trained import Trained


def behind(path: Path, out: Path, *nodes: onnx.NodeProto, **constants: np.ndarray) -> Path:
    """The graph with ``nodes`` behind it, which read "inner" and write "outer"."""
    model = onnx.load(path)
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["inner" if name == output else name for name in node.output]
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    for node in nodes:
        node.output[:] = [output if name == "outer" else name for name in node.output]
    model.graph.node.extend(nodes)
    onnx.save(model, out)
    return out


def digits() -> tuple[np.ndarray, np.ndarray]:
    source = DigitsSource("test")
    return np.stack([source.image(place) for place in range(len(source))]), source.labels


def saved(path: Path, rows: np.ndarray) -> Path:
    images, labels = digits()
    np.savez(path, images=images[rows], labels=labels[rows])
    return path


def failed(ran: Ran, *words: str) -> None:
    assert ran.code == 3, ran.out
    for word in words:
        assert word in ran.err


def test_one_image_five_hundred_times(trained: Trained, rir: Runner, tmp_path: Path) -> None:
    data = saved(tmp_path / "data.npz", np.zeros(500, dtype=int))
    failed(rir("verify", trained.folded, trained.cpu, "--data", data), "only 1 of the 500 images is distinct")
    ran = rir("verify", trained.traced, trained.folded, "--data", data)
    assert ran.code == 0
    for words in ("500 images (1 distinct)", "cannot be judged", "prove nothing", "by the outputs alone"):
        assert words in ran.out
    assert "non-inferior" not in ran.out
    ran = rir("verify", trained.traced, trained.folded, "--data", data, "--json")
    assert (ran.json["images"], ran.json["distinct_images"]) == (500, 1)
    assert ran.json["drop"]["verdict"] == "cannot be judged"
    assert len(ran.json["doubts"]) == 2


def test_one_class(trained: Trained, rir: Runner, tmp_path: Path) -> None:
    data = saved(tmp_path / "data.npz", np.flatnonzero(digits()[1] == 3))
    failed(rir("verify", trained.folded, trained.cpu, "--data", data), "all images are of one class (3)")


def test_permuted_outputs_are_not_non_inferior(trained: Trained, rir: Runner, tmp_path: Path) -> None:
    order = np.roll(np.arange(10), 3)
    node = helper.make_node("Gather", ["inner", "order"], ["outer"], axis=1)
    permuted = behind(trained.folded, tmp_path / "permuted.onnx", node, order=order)
    ran = rir("verify", permuted, permuted)
    assert "cannot be judged at a margin" in ran.out
    assert "less than guessing gives" in ran.out
    assert "non-inferior" not in ran.out
    failed(rir("verify", permuted, permuted, "--margin", "1"), "less than guessing gives")


@pytest.mark.parametrize(("scale", "words"), [(0.01, "times 0.01"), (3.0, "times 3")])
def test_another_scale(scale: float, words: str, trained: Trained, rir: Runner, tmp_path: Path) -> None:
    node = helper.make_node("Mul", ["inner", "scale"], ["outer"])
    candidate = behind(trained.cpu, tmp_path / "scaled.onnx", node, scale=np.array(scale, np.float32))
    failed(rir("verify", trained.folded, candidate), words)


def test_a_softmax(trained: Trained, rir: Runner, tmp_path: Path) -> None:
    softmax = helper.make_node("Softmax", ["inner"], ["outer"], axis=1)
    candidate = behind(trained.cpu, tmp_path / "softmax.onnx", softmax)
    ran = rir("verify", trained.folded, candidate, "--json")
    failed(ran, "answers with logits and the candidate with probabilities")
    assert ran.json["kinds"] == {"reference": "logits", "candidate": "probabilities"}


def test_a_class_that_is_lost(trained: Trained, rir: Runner, tmp_path: Path) -> None:
    """Less for one class: its recall falls, while the others' hold."""
    less = np.zeros(10, np.float32)
    less[8] = -8.0
    node = helper.make_node("Add", ["inner", "less"], ["outer"])
    candidate = behind(trained.cpu, tmp_path / "less.onnx", node, less=less)
    ran = rir("verify", trained.folded, candidate, "--min-agreement", "0", "--max-top1-drop", "100", "--json")
    failed(ran, "recall of the class '8' drops by")
    worst = ran.json["worst_class"]
    assert (worst["label"], worst["name"]) == (8, "8")
    assert worst["drop"] == max(one["drop"] for one in ran.json["classes"])
    table = rir("verify", trained.folded, candidate).out
    assert "recall by class" in table
    assert "worst class: recall of 8 drops by" in table
    loose = ("--min-agreement", "0", "--max-top1-drop", "100", "--max-class-drop", "100", "--min-sqnr", "0")
    assert rir("verify", trained.folded, candidate, *loose).code == 0


def test_a_good_engine_passes_and_is_told_class_by_class(trained: Trained, rir: Runner) -> None:
    ran = rir("verify", trained.folded, trained.cpu, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["doubts"] == []
    assert [one["label"] for one in ran.json["classes"]] == list(range(10))
    assert sum(one["images"] for one in ran.json["classes"]) == ran.json["images"] == 359
    assert ran.json["outliers"]["exchanged"] == 0
    assert ran.json["scale"] == pytest.approx(1.0, abs=0.05)
