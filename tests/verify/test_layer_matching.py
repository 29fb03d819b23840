"""Graphs whose layers are matched across the fold, quantisation, renaming and engines."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from benchmarks.parity_graph import Net
from benchmarks.parity_variations import equalized, swapped_names
from rir_deploy.data.preprocess import Preprocessing
from rir_deploy.errors import UsageError
from rir_deploy.fold import fold
from rir_deploy.graph.prepare import prepare
from rir_deploy.onnx_file import load_onnx, save_onnx
from rir_deploy.pipeline.feature_maps import find_feature_maps
from rir_deploy.pipeline.layers import compare_layers, open_graph
from rir_deploy.pipeline.matching import match
from rir_deploy.pipeline.sides import Runner, Side, open_side
from rir_deploy.pipeline.views import Views, open_views
from rir_deploy.precision import to_fp16
from rir_deploy.verify.layers import LayerRow
from tests.conftest import Runner as Command
from tests.fold.family import Family, _Builder, sample
from tests.fold.graphs import Writer
from tests.verify.trained import Trained

SHAPE = Preprocessing((8, 8), "RGB", (0.5,) * 3, (0.25,) * 3)


class Images:
    """Random pixels, as a source."""

    name, classes, labels = "noise", None, None
    within, note = (None, None), None

    def __init__(self) -> None:
        self._images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> NDArray[np.uint8]:
        return np.asarray(self._images[index])

    def describe(self, index: int) -> str:
        return str(index)

    def fingerprint(self) -> str:
        return ""


def member(seed: int) -> tuple[Family, ir.Model]:
    family = sample(random.Random(seed))
    builder = _Builder(family)
    builder.w = Writer(family.seed, family.opset, np.float32)  # the family's own graphs are float64
    return family, builder.model((8, 8))


def rows_of(reference: ir.Model, candidate: ir.Model, folder: Path, precision: str = "fp32") -> tuple[LayerRow, ...]:
    """The layers of two graphs on random images."""
    from rir_deploy.data.dataset import Dataset

    paths = [folder / "reference.onnx", folder / "candidate.onnx"]
    for path, model in zip(paths, (reference, candidate), strict=True):
        save_onnx(model, path, force=True)
    dataset = Dataset(Images(), SHAPE)
    views = Views(None, dataset, dataset, ())  # type: ignore[arg-type]
    with open_side(paths[0]) as left, open_side(paths[1]) as right:
        opened = [open_graph(path, side, dataset, None) for path, side in zip(paths, (left, right), strict=True)]
        return compare_layers(opened[0], opened[1], views, precision).rows


@pytest.mark.parametrize("seed", range(8))
def test_every_layer_of_a_folded_family_is_matched_and_sound(seed: int, tmp_path: Path) -> None:
    """Outer shortcuts, projections, joined streams, scaled branches: every note of the fold holds, in both
    directions."""
    family, model = member(seed)
    folded = fold(model)
    for reference, candidate in ((model, folded.model), (folded.model, model)):
        rows = rows_of(reference, candidate, tmp_path)
        assert all(row.own_error < 0.3 for row in rows), family
        assert all(row.sqnr_db > 100 for row in rows), family
        # Input, stem, output; two layers a pair; what ran.
        assert len(rows) >= 3 + (2 * len(family.layers) if folded.modified else 0), family


def test_a_fault_in_one_layer_of_a_folded_graph_is_found_there(trained: Trained, rir: Command, tmp_path: Path) -> None:
    net = Net(load_onnx(trained.folded))
    net.change(net.node("layers.2", "Conv"), lambda w: w.transpose(0, 1, 3, 2))
    save_onnx(net.model, tmp_path / "faulty.onnx", force=False)
    ran = rir("verify", trained.checkpoint, tmp_path / "faulty.onnx", "--layers", "--json")
    assert ran.code == 3, ran.err
    found = ran.json["first_divergence"]
    assert (found["block"], found["stream"]) == ("layers.2", "residual+transient")
    assert found["node"] == net.graph.node(found["node"]).name
    assert net.graph.node(found["node"]).op_type == "Relu"
    assert found["reference_nodes"] == ["node_relu_6", "node_relu_7"]
    verdicts = {row["block"]: row["verdict"] for row in ran.json["layers"]["rows"] if row["op"] == "Relu"}
    assert verdicts == {
        "stem": "ok",
        "layers.0": "ok",
        "layers.1": "ok",
        "layers.2": "diverges",
        "layers.3": "follows",
    }
    assert "layers.2" in ran.json["failures"][-1]
    human = rir("verify", trained.traced, tmp_path / "faulty.onnx", "--layers")
    assert "diverges" in human.out
    assert "own SQNR" in human.out


def test_a_fault_in_one_stream_names_it(trained: Trained, rir: Command, tmp_path: Path) -> None:
    net = Net(load_onnx(trained.traced))
    net.change(net.norm("layers.1", "transient"), np.ones_like, 4)
    save_onnx(net.model, tmp_path / "traced.onnx", force=False)
    assert rir("fold", tmp_path / "traced.onnx", "-o", tmp_path / "folded.onnx").code == 0
    for name in ("traced.onnx", "folded.onnx"):
        ran = rir("verify", trained.traced, tmp_path / name, "--layers", "--json")
        assert ran.code == 3
        assert (ran.json["first_divergence"]["block"], ran.json["first_divergence"]["stream"]) == (
            "layers.1",
            "transient",
        )


@pytest.mark.parametrize("which", ["cpu", "tensorrt"])
def test_quantised_graphs_are_matched_to_any_ancestor(which: str, trained: Trained, rir: Command) -> None:
    candidate = getattr(trained, which)
    for reference in (trained.traced, trained.folded):
        ran = rir("verify", reference, candidate, "--layers", "--json")
        assert ran.code == 0, ran.err
        rows = ran.json["layers"]["rows"]
        blocks = [row["block"] for row in rows if row["op"] == "Relu"]
        assert blocks == ["stem", "layers.0", "layers.1", "layers.2", "layers.3"]
        assert all(25 < row["own_sqnr_db"] < 60 for row in rows if row["op"] == "Relu")
        assert all(row["tensor"].endswith("dequantized") for row in rows if row["op"] == "Relu")
        assert {"preprocessing", "head", "runtime"} <= {row["block"] for row in rows}


def test_fp16_is_looked_at_as_it_rounds(trained: Trained, rir: Command, tmp_path: Path) -> None:
    """ONNX Runtime's CPU would compute it in FP32."""
    from rir_deploy.onnx_file import read_provenance, write_provenance

    model = to_fp16(load_onnx(trained.folded)).model
    provenance = read_provenance(model)
    assert provenance is not None
    write_provenance(model, replace(provenance, precision="fp16"))
    save_onnx(model, tmp_path / "fp16.onnx", force=False)
    ran = rir("verify", trained.traced, tmp_path / "fp16.onnx", "--layers", "--json")
    assert ran.code == 0, ran.err
    rows = [row for row in ran.json["layers"]["rows"] if row["op"] == "Relu"]
    assert len(rows) == 5
    assert all(60 < row["own_sqnr_db"] < 80 for row in rows)


def test_equalisation_is_undone_where_it_is_noted(trained: Trained, tmp_path: Path) -> None:
    reference = load_onnx(trained.folded)
    noted, silent = equalized(True)(reference), equalized(False)(reference)
    held = [one for one in find_feature_maps(prepare(noted)) if one.exponents is not None]
    assert len(held) == 5  # every relu of this network is read by one convolution
    assert all(np.any(one.exponents != 0) for one in held)
    digits = Preprocessing((8, 8), "L", (0.3058,), (0.3764,))
    from rir_deploy.data.dataset import Dataset
    from rir_deploy.data.digits import DigitsSource

    dataset = Dataset(DigitsSource("test"), digits)
    views = Views(None, dataset, dataset, ())  # type: ignore[arg-type]
    results = []
    for name, model in (("noted", noted), ("silent", silent)):
        save_onnx(model, tmp_path / f"{name}.onnx", force=False)
        with open_side(trained.folded) as left, open_side(tmp_path / f"{name}.onnx") as right:
            opened = (
                open_graph(trained.folded, left, dataset, None),
                open_graph(tmp_path / f"{name}.onnx", right, dataset, None),
            )
            results.append(compare_layers(*opened, views, "fp32"))
    assert all(row.own_error < 0.2 for row in results[0].rows)
    assert [row.block for row in results[0].rows if row.layer.op == "Relu"][:2] == ["stem", "layers.0"]
    assert results[1].divergence is None  # the output agrees
    assert "cannot be matched" in results[1].note


def test_names_that_mean_other_tensors_raise_no_alarm(trained: Trained, rir: Command, tmp_path: Path) -> None:
    save_onnx(swapped_names(load_onnx(trained.traced)), tmp_path / "other.onnx", force=False)
    ran = rir("verify", trained.traced, tmp_path / "other.onnx", "--layers", "--json")
    assert ran.code == 0
    assert "bear the name of others" in ran.json["layers"]["note"]
    assert "cannot be matched" in rir("verify", trained.traced, tmp_path / "other.onnx", "--layers").out


def test_a_graph_that_nothing_is_known_of_is_judged_by_its_ends(trained: Trained, rir: Command, tmp_path: Path) -> None:
    model = load_onnx(trained.folded)
    for index, node in enumerate(model.graph):
        node.metadata_props.clear()
        if not node.outputs[0].is_graph_output():
            node.outputs[0].name = f"t{index}"
    save_onnx(model, tmp_path / "bare.onnx", force=False)
    ran = rir("verify", trained.traced, tmp_path / "bare.onnx", "--layers", "--json")
    assert ran.code == 0
    assert [row["block"] for row in ran.json["layers"]["rows"]] == ["preprocessing", "head", "runtime", "runtime"]


def test_an_engine_is_looked_at_in_its_graph_and_held_to_it(trained: Trained, rir: Command, tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    assert rir("build-engine", trained.folded, "-o", engine, "--backend", "onnxruntime").code == 0
    ran = rir("verify", trained.traced, engine, "--layers", "--json")
    assert ran.code == 0, ran.err
    rows = ran.json["layers"]["rows"]
    assert [row["block"] for row in rows][:2] == ["preprocessing", "stem"]
    assert (rows[-1]["node"], rows[-1]["block"], rows[-1]["verdict"]) == (str(engine), "runtime", "ok")


def test_what_no_graph_shows_is_laid_to_the_exporter_or_the_runtime(trained: Trained) -> None:
    """A module that answers otherwise than its trace, a runtime otherwise than its graph."""
    paths = (trained.checkpoint, trained.folded)
    with open_side(paths[0]) as left, open_side(paths[1]) as right:
        views = open_views(None, None, left, right)
        graphs = [
            open_graph(path, side, views.reference, None) for path, side in zip(paths, (left, right), strict=True)
        ]
        assert compare_layers(graphs[0], graphs[1], views, "fp32").divergence is None
        for index, block in ((0, "export"), (1, "runtime")):
            changed = list(graphs)
            changed[index] = replace(graphs[index], side=_louder(graphs[index].side))
            report = compare_layers(changed[0], changed[1], views, "fp32")
            assert [row.block for row in report.rows if row.verdict == "diverges"] == [block]


def _louder(side: Side) -> Side:
    """The same, with answers that are 1 % too large."""

    def make(preprocessing: Preprocessing) -> Runner:
        run = side.make_runner(preprocessing)
        return lambda images: run(images) * np.float32(1.01)

    return replace(side, make_runner=make)


def test_channels_that_are_not_there_are_not_matched() -> None:
    _, model = member(3)
    maps = find_feature_maps(prepare(fold(model).model))
    known = [one for one in find_feature_maps(prepare(model)) if not one.runs[0][0].startswith("relu")]
    found = {one.candidate.name for one in match(known, maps)}
    lost = {one.name for one in maps if any(run[0].startswith("relu") for run in one.runs)}
    assert not found & lost


def test_a_side_without_a_graph_is_refused(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rir_deploy.pipeline.layers.kind_of", lambda path: "bundle")
    with open_side(trained.folded) as side, pytest.raises(UsageError, match="shows no layers"):
        open_graph(trained.folded, side, open_views(None, None, side, side).reference, None)
