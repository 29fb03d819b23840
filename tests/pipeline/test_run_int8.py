"""What a run finds out about INT8: which layers hurt and stay in float, and what the unfolded network would give."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rir_deploy.artifacts import Provenance, sha256_file
from rir_deploy.data.sources import open_source
from rir_deploy.errors import GateError
from rir_deploy.onnx_file import load_onnx
from rir_deploy.pipeline.evaluation import SearchRequest
from rir_deploy.pipeline.plan import BenchPlan, Plan, read_plan
from rir_deploy.pipeline.run import run_plan
from rir_deploy.quantize.chosen_on import read_chosen_on
from tests.conftest import Bundled, Made
from tests.pipeline.test_run import write_plan

ort = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def plan(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """INT8 alone, calibrated on few images."""
    folder = tmp_path_factory.mktemp("plan")
    return dataclasses.replace(read_plan(write_plan(folder, made.checkpoint)), precisions=("int8",))


@pytest.fixture(scope="module")
def finished(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("int8") / "run"
    return folder, run_plan(plan, folder, report=False)


def copy(finished: tuple[Path, dict[str, Any]], folder: Path) -> Path:
    return Path(shutil.copytree(finished[0], folder / "run"))


def ops(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_every_layer_is_ranked(finished: tuple[Path, dict[str, Any]]) -> None:
    run, record = finished
    (graph,) = record["graphs"]
    found = graph["sensitivity"]
    convs = [node for node in onnx.load(run / "graphs/fp32.onnx").graph.node if node.op_type == "Conv"]
    assert sorted(layer["node"] for layer in found["layers"]) == sorted(node.name for node in convs)
    damage = [layer["sqnr_db"] for layer in found["layers"]]
    assert damage == sorted(damage)
    assert not any(layer["kept"] for layer in found["layers"])
    assert (found["max_drop"], found["drop"], graph["kept"]) == (None, None, [])
    traced = {name for node in onnx.load(run / "graphs/fp32-unfolded.onnx").graph.node for name in node.output}
    blocks = {layer["node"]: layer["block"] for layer in found["layers"]}
    assert [blocks[conv.name] for conv in convs] == ["stem", *(f"layers.{block}" for block in range(4)), "head"]
    for layer in found["layers"]:
        assert layer["members"]
        assert set(layer["members"]) <= traced


def test_the_unfolded_network_is_quantised_beside_it(finished: tuple[Path, dict[str, Any]]) -> None:
    run, record = finished
    fp32, int8 = record["unfolded"]["graphs"]
    (engine,) = record["unfolded"]["engines"]
    assert (engine["name"], engine["status"]) == ("onnxruntime-int8-unfolded", "verified")
    assert engine["verify"]["images"] == record["engines"][0]["verify"]["images"]
    assert int8["calibration"]["candidates"]
    assert int8["sensitivity"] is None
    folded, traced = ops(run / "graphs/int8-cpu.onnx"), ops(run / int8["file"])
    before = record["export"]["fold"]["convs"]
    assert (folded.count("Conv"), traced.count("Conv")) == (before["after"], before["before"])
    assert traced.count("QuantizeLinear") > folded.count("QuantizeLinear") > 0
    assert "QuantizeLinear" not in ops(run / fp32["file"])
    files = {entry["path"]: entry for entry in record["files"]}
    assert fp32["sha256"] in files[int8["file"]]["parents"]
    assert files["engines/onnxruntime-int8-unfolded/graph.onnx"]["parents"] == [int8["sha256"]]


def test_a_backend_that_is_not_here_gets_no_engine_to_compare(
    finished: tuple[Path, dict[str, Any]], plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy(finished, tmp_path)
    shutil.rmtree(run / "engines/onnxruntime-int8-unfolded")
    monkeypatch.setattr("rir_deploy.pipeline.run_engines.runnable", lambda backend, targets: "no such device")
    record = run_plan(plan, run)
    (engine,) = record["unfolded"]["engines"]
    assert "no such device" in engine["reason"]
    assert engine["size_bytes"] is None
    assert engine["status"] == "not built"
    assert engine["verify"]["simulation"]
    assert engine["verify"]["candidate"]["runs_on"].startswith("simulation: the int8 graph, in onnxruntime")
    # The graph answers as the engine that was built from it did.
    there = finished[1]["unfolded"]["engines"][0]["verify"]
    assert engine["verify"]["sqnr_db"] == pytest.approx(there["sqnr_db"], abs=0.01)
    assert not (run / "engines/onnxruntime-int8-unfolded").exists()
    assert "not built: " in (run / "report.html").read_text()


def test_both_can_be_left_out(finished: tuple[Path, dict[str, Any]], plan: Plan, tmp_path: Path) -> None:
    run = copy(finished, tmp_path)
    record = run_plan(dataclasses.replace(plan, search=None, unfolded=False), run)
    assert record["unfolded"] is None
    assert record["graphs"][0]["sensitivity"] is None
    assert record["graphs"][0]["sha256"] == finished[1]["graphs"][0]["sha256"]
    assert not [entry["path"] for entry in record["files"] if "unfolded" in entry["path"]]
    page = (run / "report.html").read_text()
    assert "ranking of the layers of int8-cpu" in page
    assert "INT8 of the unfolded network" in page


def test_a_bundle_leaves_the_comparison_at_home(bundled: Bundled) -> None:
    assert list((bundled.run / "graphs").glob("*unfolded*"))
    with zipfile.ZipFile(bundled.file) as archive:
        assert not [name for name in archive.namelist() if "unfolded" in name]


@pytest.fixture(scope="module")
def evaluation(finished: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of noise with the labels that the FP32 graph gives them: of these it gets all right."""
    images = np.random.default_rng(1).integers(0, 256, (400, 8, 8, 1), dtype=np.uint8)
    path = tmp_path_factory.mktemp("evaluation") / "noise.npz"
    np.savez(path, images=images, labels=predict(finished[0] / "graphs/fp32.onnx", images))
    return path


def predict(graph: Path, images: Any) -> Any:
    """By ONNX Runtime alone, with digits.toml's mean and deviation."""
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    pixels = ((images.astype(np.float32) / 255.0 - 0.3058) / 0.3764).transpose(0, 3, 1, 2)
    return session.run(None, {session.get_inputs()[0].name: pixels.astype(np.float32)})[0].argmax(axis=1)


def test_a_budget_keeps_layers_in_float(
    finished: tuple[Path, dict[str, Any]], plan: Plan, evaluation: Path, tmp_path: Path
) -> None:
    run = copy(finished, tmp_path)
    data = np.load(evaluation)
    lost = 100.0 * (predict(run / "graphs/int8-cpu.onnx", data["images"]) != data["labels"]).mean()
    assert lost > 0.5
    budget = round(lost / 2, 2)
    record = run_plan(dataclasses.replace(plan, search=SearchRequest(budget, str(evaluation))), run, report=False)
    graph = record["graphs"][0]
    layers = graph["sensitivity"]["layers"]
    kept = [layer["node"] for layer in layers if layer["kept"]]
    assert 0 < len(kept) < len(layers)
    assert kept == [layer["node"] for layer in layers[: len(kept)]]  # the worst of them
    assert {node["node"]: node["reason"] for node in graph["kept"]} == dict.fromkeys(
        kept, "the budget of accuracy asks for it"
    )
    assert graph["sensitivity"]["max_drop"] == budget
    now = (predict(run / graph["file"], data["images"]) != data["labels"]).mean()
    assert now == pytest.approx(graph["sensitivity"]["drop"], abs=1e-9)
    assert 100.0 * now <= budget
    test = graph["sensitivity"]["drop_test"]
    assert (test["images"], test["lost"], test["gained"], test["margin"]) == (400, round(400 * now), 0, budget)
    assert test["interval"][0] < 100.0 * now < test["interval"][1]
    provenance = Provenance.from_json(
        next(one.value for one in onnx.load(run / graph["file"]).metadata_props if one.key == "rir_deploy.provenance")
    )
    assert provenance.parents["evaluation images"] == open_source(str(evaluation)).fingerprint()
    recorded = read_chosen_on(load_onnx(run / graph["file"]))
    assert recorded is not None
    assert recorded.images == len(data["images"])
    assert record["unfolded"]["graphs"][1]["sha256"] == finished[1]["unfolded"]["graphs"][1]["sha256"]
    again = run_plan(dataclasses.replace(plan, search=SearchRequest(budget, str(evaluation))), run, report=False)
    assert again["graphs"] == record["graphs"]


def test_a_budget_that_cannot_be_kept_stops_the_run(
    finished: tuple[Path, dict[str, Any]], plan: Plan, evaluation: Path, tmp_path: Path
) -> None:
    run = copy(finished, tmp_path)
    before = sha256_file(run / "run.json")
    search = SearchRequest(0.0, str(evaluation))
    with pytest.raises(GateError, match=r"a drop of 0\.00 points cannot be kept"):
        run_plan(dataclasses.replace(plan, search=search), run, report=False)
    assert sha256_file(run / "run.json") == before


def test_where_nothing_folds_there_is_nothing_to_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    module = tmp_path / "plain_network.py"
    module.write_text(
        "import torch\n"
        "def make():\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), "
        "torch.nn.Linear(144, 10))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from plain_network import make

    torch.manual_seed(0)
    torch.save(make().state_dict(), tmp_path / "plain.pt")
    plan = read_plan(write_plan(tmp_path, tmp_path / "plain.pt"))
    plan = dataclasses.replace(plan, factory="plain_network:make", precisions=("int8",), bench=BenchPlan(duration_s=0))
    record = run_plan(plan, tmp_path / "run")
    assert not record["export"]["fold"]["modified"]
    assert record["unfolded"] is None
    assert len(record["graphs"][0]["sensitivity"]["layers"]) == 2
    assert "there is but one graph: nothing folded" in (tmp_path / "run/report.html").read_text()
    assert json.loads((tmp_path / "run/run.json").read_text()) == record
