"""Layers that stay in float, by a budget and by hand: why they do, and what is recorded of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rir_deploy.cli import cli
from rir_deploy.cli.common import run_command
from rir_deploy.onnx_file import load_onnx
from rir_deploy.quantize.layers import read_layers
from rir_deploy.verify.statistics import Pairs, drop_interval
from tests.cli.test_bad_input import refused, untouched
from tests.conftest import Made, Runner
from tests.pipeline.test_run_int8 import predict

BUDGET = "the budget of accuracy asks for it"
# Few images and one way to calibrate: how good the outcome is does not matter here.
QUICK = ("--samples", "64", "--method", "minmax", "--rounding", "nearest", "--no-equalize")


@dataclass(frozen=True)
class Choice:
    """An INT8 model of which a budget keeps some layers and --keep the first; ``noise``, that the budget was kept on.

    ``budget`` is in points of top-1; ``plain`` is the range table of the same calibration without a budget.
    """

    noise: Path
    first: str
    budget: float
    plain: Path
    model: Path
    table: Path
    ranking: Path

    @property
    def search(self) -> tuple[object, ...]:
        return "--max-drop", self.budget, "--eval-data", self.noise

    @property
    def keep(self) -> str:
        return f"^{re.escape(self.first)}$"

    def found(self) -> dict[str, Any]:
        return dict(json.loads(self.ranking.read_text()))


def run(*arguments: object) -> None:
    assert run_command(cli, [str(argument) for argument in arguments]) == 0


@pytest.fixture(scope="module")
def choice(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Choice:
    """Of images of noise with the labels that the FP32 graph gives them, INT8 gets some wrong."""
    folder = tmp_path_factory.mktemp("choice")
    images = np.random.default_rng(1).integers(0, 256, (400, 8, 8, 1), dtype=np.uint8)
    labels = predict(made.onnx, images)
    np.savez(folder / "noise.npz", images=images, labels=labels)
    first = next(node.name for node in load_onnx(made.onnx).graph if node.op_type == "Conv")
    assert first
    names = ("plain.json", "chosen.onnx", "chosen.json", "ranking.json")
    quantize = ("quantize", made.onnx, "--qdq", "cpu", "--keep", f"^{re.escape(first)}$", *QUICK)
    run(*quantize, "-o", folder / "plain.onnx", "--save-ranges", folder / "plain.json")
    lost = 100.0 * float((predict(folder / "plain.onnx", images) != labels).mean())
    assert lost > 0.5
    found = Choice(folder / "noise.npz", first, round(lost / 2, 2), *(folder / name for name in names))
    run(*quantize, "-o", found.model, "--save-ranges", found.table, "--sensitivity", found.ranking, *found.search)
    return found


def test_every_layer_says_why_it_stays_in_float(choice: Choice) -> None:
    ranking = choice.found()
    kept = [layer["node"] for layer in ranking["layers"][: ranking["kept"]]]
    assert kept
    reasons = {name: record.reason for name, record in read_layers(load_onnx(choice.model)).items() if record.reason}
    assert reasons.pop(choice.first) == f"asked for by '{choice.keep}'"
    assert reasons == dict.fromkeys(kept, BUDGET)


def test_the_ranking_says_what_each_layer_becomes(choice: Choice) -> None:
    ranking = choice.found()
    found = {name: record.precision for name, record in read_layers(load_onnx(choice.model)).items()}
    assert found.pop(choice.first) == "fp32"
    assert {layer["node"]: layer["precision"] for layer in ranking["layers"]} == found
    assert [layer["precision"] for layer in ranking["layers"]] == [
        "fp32" if place < ranking["kept"] else "int8" for place in range(len(found))
    ]


def test_weights_of_four_bits_are_not_called_int8(made: Made, rir: Runner, tmp_path: Path) -> None:
    ranking = tmp_path / "ranking.json"
    quantize = ("quantize", made.onnx, "-o", tmp_path / "q.onnx", "--qdq", "cpu", "--samples", "64")
    ran = rir(*quantize, "--weight-bits", "4", "--method", "minmax", "--sensitivity", ranking)
    assert ran.code == 0, ran.err
    becomes = {layer["node"]: layer["precision"] for layer in json.loads(ranking.read_text())["layers"]}
    names = [str(node.name) for node in load_onnx(made.onnx).graph if node.op_type == "Conv"]
    assert [becomes[name] for name in names] == ["int8", *["int4"] * (len(names) - 2), "int8"]
    assert ran.out.count("INT4") == len(names) - 2


def test_the_table_gives_the_choice_again(choice: Choice, made: Made, rir: Runner, tmp_path: Path) -> None:
    """Byte for byte, with what a budget keeps, what --keep does, and the images that verify refuses."""
    again, table = tmp_path / "again.onnx", tmp_path / "again.json"
    quantize = ("quantize", made.onnx, "--qdq", "cpu", "--ranges", choice.table)
    ran = rir(*quantize, "-o", again, "--save-ranges", table)
    assert ran.code == 0, ran.err
    assert again.read_bytes() == choice.model.read_bytes()
    assert table.read_bytes() == choice.table.read_bytes()
    verify = ("verify", made.checkpoint, again, "--data", choice.noise)
    refused(rir(*verify), 2, "was chosen on 400 of the 400 images of")
    engine = tmp_path / "engine"
    build = ("build-engine", made.onnx, "--int8", "--backend", "onnxruntime", "--no-fold", "--ranges", choice.table)
    assert rir(*build, "-o", engine).code == 0
    assert read_layers(load_onnx(engine / "graph.onnx")) == read_layers(load_onnx(choice.model))
    assert (engine / "ranges.json").read_bytes() == choice.table.read_bytes()
    refused(rir("verify", made.checkpoint, engine, "--data", choice.noise), 2, "was chosen on 400 of the 400 images of")


def test_a_budget_that_keeps_nothing_is_a_choice_too(choice: Choice, made: Made, rir: Runner, tmp_path: Path) -> None:
    first, second, table = tmp_path / "first.onnx", tmp_path / "second.onnx", tmp_path / "t.json"
    quantize = ("quantize", made.onnx, "--qdq", "cpu")
    search = ("--ranges", choice.plain, "--max-drop", 50, "--eval-data", choice.noise, "--save-ranges", table)
    ran = rir(*quantize, "-o", first, *search, "--json")
    assert ran.json["sensitivity"]["kept"] == 0
    assert rir(*quantize, "-o", second, "--ranges", table).code == 0
    assert first.read_bytes() == second.read_bytes()
    refused(rir("verify", made.checkpoint, second, "--data", choice.noise), 2, "was chosen on 400 of the 400 images of")


def test_keep_adds_to_what_the_table_keeps(choice: Choice, made: Made, rir: Runner, tmp_path: Path) -> None:
    ranking = choice.found()
    more = ranking["layers"][-1]["node"]
    quantize = ("quantize", made.onnx, "--qdq", "cpu", "--ranges", choice.table, "-o", tmp_path / "more.onnx")
    ran = rir(*quantize, "--keep", f"{re.escape(more)}$", "--json")
    assert ran.code == 0, ran.err
    reasons = {one["node"]: one["reason"] for one in ran.json["kept"]}
    before = {name: one.reason for name, one in read_layers(load_onnx(choice.model)).items() if one.reason}
    assert reasons == {**before, more: f"asked for by '{re.escape(more)}$'"}
    assert len(reasons) == ranking["kept"] + 2


def test_a_choice_is_not_made_upon_a_choice(choice: Choice, made: Made, rir: Runner, tmp_path: Path) -> None:
    quantize = ("quantize", made.onnx, "--qdq", "cpu", "--ranges", choice.table, "-o", tmp_path / "q.onnx")
    refused(rir(*quantize, *choice.search), 2, "chosen.json", "saved without --max-drop")
    untouched(tmp_path)


def test_a_table_that_keeps_what_is_not_there(choice: Choice, made: Made, rir: Runner, tmp_path: Path) -> None:
    table = tmp_path / "t.json"
    data = json.loads(choice.plain.read_text())
    table.write_text(json.dumps({**data, "kept": {"nothing": "of that name"}}))
    table.with_suffix(".safetensors").write_bytes(choice.plain.with_suffix(".safetensors").read_bytes())
    ran = rir("quantize", made.onnx, "--qdq", "cpu", "--ranges", table, "-o", tmp_path / "q.onnx")
    refused(ran, 5, "'nothing' is to stay in float, and the model has no such layer")


def test_a_table_can_be_searched_with_its_images(choice: Choice, made: Made, rir: Runner, tmp_path: Path) -> None:
    """The same ranking and the same choice as in one go."""
    again, ranking = tmp_path / "again.onnx", tmp_path / "ranking.json"
    quantize = ("quantize", made.onnx, "--qdq", "cpu", "--ranges", choice.plain, "--data", "digits:train")
    ran = rir(*quantize, "-o", again, *choice.search, "--sensitivity", ranking)
    assert ran.code == 0, ran.err
    assert again.read_bytes() == choice.model.read_bytes()
    assert ranking.read_text() == choice.ranking.read_text()


def test_images_that_are_not_the_tables(choice: Choice, made: Made, rir: Runner, tmp_path: Path) -> None:
    output = tmp_path / "out"
    quantize = ("quantize", made.onnx, "--qdq", "cpu", "-o", output, "--ranges", choice.plain)
    refused(rir(*quantize, "--data", "digits:test"), 5, "made with another data")
    refused(rir(*quantize, "--data", "digits:test", "--sensitivity", tmp_path / "r.json"), 5, "made with another data")
    build = ("build-engine", made.onnx, "--backend", "onnxruntime", "-o", output, "--ranges", choice.plain)
    for precision in ("--fp16", "--int8"):
        refused(rir(*build, precision, "--data", "digits:test"), 5, "made with another data")
    untouched(tmp_path)


def test_a_ranking_by_a_table_needs_its_images(made: Made, rir: Runner, tmp_path: Path) -> None:
    """Where the recipe brings none."""
    model, table = onnx.load(made.onnx), tmp_path / "r.json"
    for prop in model.metadata_props:
        prop.value = prop.value.replace('"train": "digits:train"', '"test": "digits:test"')
    onnx.save(model, tmp_path / "m.onnx")
    quantize = ("quantize", tmp_path / "m.onnx", "-o", tmp_path / "q.onnx", "--force")
    assert rir(*quantize, "--data", "digits:train", *QUICK, "--save-ranges", table).code == 0
    assert rir(*quantize, "--ranges", table).code == 0
    ranking = tmp_path / "ranking.json"
    refused(rir(*quantize, "--ranges", table, "--sensitivity", ranking), 2, "r.json' was made on", "--data")
    assert rir(*quantize, "--ranges", table, "--sensitivity", ranking, "--data", "digits:train").code == 0
    assert len(json.loads(ranking.read_text())["layers"]) == 6


def test_the_ranking_names_the_block_of_every_layer(choice: Choice, made: Made, rir: Runner, tmp_path: Path) -> None:
    """Of the fold, a convolution a block; of the trace, those of each stream by where they write to."""
    ranking = tmp_path / "ranking.json"
    ran = rir("quantize", made.onnx, "-o", tmp_path / "q.onnx", *QUICK, "--sensitivity", ranking)
    assert ran.code == 0, ran.err
    blocks = {layer["node"]: layer["block"] for layer in json.loads(ranking.read_text())["layers"]}
    names = [str(node.name) for node in load_onnx(made.onnx).graph if node.op_type == "Conv"]
    assert [blocks[name] for name in names] == ["stem", *(f"layers.{block}" for block in range(4)), "head"]
    assert "layers.2" in ran.out
    traced = tmp_path / "traced.onnx"
    assert rir("export", made.checkpoint, "-o", traced, "--no-fold").code == 0
    assert rir("quantize", traced, "-o", tmp_path / "t.onnx", *QUICK, "--sensitivity", ranking, "--force").code == 0
    places = Counter((layer["block"], layer["stream"]) for layer in json.loads(ranking.read_text())["layers"])
    for block in range(4):  # the third has a projection on its shortcut
        assert places[f"layers.{block}", "residual"] == (3 if block == 2 else 2)
        assert places[f"layers.{block}", "transient"] == 2


def test_the_drop_comes_with_its_interval(choice: Choice, made: Made, rir: Runner, tmp_path: Path) -> None:
    """Counted here; FP32 gets all of these images right."""
    data, found = np.load(choice.noise), choice.found()
    lost = int((predict(choice.model, data["images"]) != data["labels"]).sum())
    assert 100.0 * found["drop"] == pytest.approx(100.0 * lost / 400)
    test = found["drop_test"]
    assert (test["images"], test["lost"], test["gained"], test["margin"]) == (400, lost, 0, choice.budget)
    low, high = drop_interval(Pairs(lost, 0, 400))
    assert test["interval"] == pytest.approx([100.0 * low, 100.0 * high])
    quantize = ("quantize", made.onnx, "--qdq", "cpu", "--ranges", choice.plain, "--eval-data", choice.noise)
    ran = rir(*quantize, "-o", tmp_path / "tight.onnx", "--max-drop", choice.budget)
    assert f"on 400 evaluation images (95 % interval {100 * low:.2f} to {100 * high:.2f})" in ran.out
    assert "not tell whether it is on others" in ran.err
    # Nothing that 400 images could hide is as large as 50 points.
    ran = rir(*quantize, "-o", tmp_path / "loose.onnx", "--max-drop", 50)
    assert ran.code == 0
    assert ran.err == ""
