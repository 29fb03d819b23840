"""verify through the command line: preprocessing that was changed, batch sizes, bounds and flips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rir_deploy.artifacts import METADATA_KEY
from rir_deploy.engines.manifest import MANIFEST_NAME
from rir_deploy.errors import InputError
from rir_deploy.pipeline.sides import Side
from rir_deploy.pipeline.verify import batch_sizes
from tests.conftest import Made, Runner
from tests.verify.trained import Trained

POWERS = [16, 32, 64, 128, 256, 512, 1024]


def with_recipe(source: Path, target: Path, **preprocess: Any) -> Path:
    """A copy of a graph that records another preprocessing."""
    model = onnx.load(source)
    entry = next(prop for prop in model.metadata_props if prop.key == METADATA_KEY)
    record = json.loads(entry.value)
    record["recipe"]["preprocess"].update(preprocess)
    entry.value = json.dumps(record)
    onnx.save(model, target)
    return target


@pytest.mark.parametrize(
    "change",
    [{"mean": [0.3764], "std": [0.3058]}, {"mean": [0.5], "std": [0.5]}, {"resize": "bilinear"}],
    ids=["swapped", "another data set's", "resize"],
)
def test_another_preprocessing_is_a_failure(
    change: dict[str, Any], trained: Trained, rir: Runner, tmp_path: Path
) -> None:
    """Each side sees the images as it records; a difference fails the gate even where no output tells of it."""
    candidate = with_recipe(trained.folded, tmp_path / "other.onnx", **change)
    ran = rir("verify", trained.checkpoint, candidate, "--json")
    assert ran.code == 3, ran.err
    assert ran.json["first_divergence"] == {"node": None, "block": "preprocessing"}
    assert all(any(key in text for text in ran.json["preprocessing"]) for key in change)
    assert "another preprocessing" in ran.json["failures"][0]
    assert (ran.json["max_relative_error"] > 0.01) == ("mean" in change)


def test_a_shared_wrong_preprocessing_is_seen_by_the_recorded_accuracy(
    trained: Trained, rir: Runner, tmp_path: Path
) -> None:
    """Both sides read the same wrong recipe and agree; the checkpoint knows better."""
    from rir_deploy.models.checkpoint import CheckpointRecord, load_checkpoint, save_checkpoint

    loaded = load_checkpoint(trained.checkpoint)
    assert loaded.recipe is not None
    assert loaded.accuracy is not None
    wrong = json.loads(json.dumps(loaded.recipe))
    wrong["preprocess"].update({"mean": [0.9], "std": [0.9]})
    checkpoint = tmp_path / "model.safetensors"
    save_checkpoint(checkpoint, loaded.model, record=CheckpointRecord(loaded.accuracy, wrong))
    candidate = with_recipe(trained.folded, tmp_path / "wrong.onnx", mean=[0.9], std=[0.9])
    ran = rir("verify", checkpoint, candidate, "--json")
    assert ran.code == 3, ran.err
    assert ran.json["agreement"] == 1.0
    assert f"records {loaded.accuracy['top1']:.2%}" in ran.json["failures"][0]
    assert ran.json["first_divergence"]["block"] == "preprocessing"


def test_a_named_recipe_stands_for_a_reference_that_records_none(trained: Trained, rir: Runner, tmp_path: Path) -> None:
    from rir_deploy.models.checkpoint import load_checkpoint, save_checkpoint

    bare = tmp_path / "bare.safetensors"
    save_checkpoint(bare, load_checkpoint(trained.checkpoint).model)
    candidate = with_recipe(trained.folded, tmp_path / "other.onnx", mean=[0.5])
    assert rir("verify", bare, candidate, "--recipe", "digits").code == 3
    assert rir("verify", bare, trained.folded, "--recipe", "digits").code == 0
    assert rir("verify", trained.checkpoint, candidate, "--recipe", "cifar10").code == 2


def test_sides_of_other_shapes_are_refused(trained: Trained, rir: Runner, tmp_path: Path) -> None:
    candidate = with_recipe(trained.folded, tmp_path / "other.onnx", size=[9, 9])
    ran = rir("verify", trained.checkpoint, candidate)
    assert ran.code == InputError.exit_code
    assert "(1, 9, 9)" in ran.err


def test_an_engine_is_tried_at_the_sizes_it_is_built_for(made: Made, rir: Runner, tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    build = ("build-engine", made.onnx, "-o", engine, "--backend", "onnxruntime", "--batch", "2,4,9")
    assert rir(*build).code == 0
    ran = rir("verify", made.checkpoint, engine, "--json", "--batch", 4)
    assert ran.code == 0, ran.err
    assert [check["size"] for check in ran.json["batches"]] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert all(check["passed"] for check in ran.json["batches"])


def test_layers_of_an_engine_whose_smallest_batch_is_large(made: Made, rir: Runner, tmp_path: Path) -> None:
    """Larger than the images that are usually looked at: one batch is."""
    engine = tmp_path / "engine"
    build = ("build-engine", made.onnx, "-o", engine, "--backend", "onnxruntime", "--batch", "40,40,64")
    assert rir(*build).code == 0
    ran = rir("verify", made.checkpoint, engine, "--json", "--layers", "--batch", 45)
    assert ran.code == 0, ran.err
    assert ran.json["layers"]["images"] == 40
    assert ran.json["layers"]["rows"]


def test_layers_of_an_engine_that_is_trusted(made: Made, rir: Runner, tmp_path: Path) -> None:
    """Its graph is not the file that the manifest vouches for, though it computes the same."""
    engine = tmp_path / "engine"
    shutil.copytree(made.engine, engine)
    graph = engine / json.loads((engine / MANIFEST_NAME).read_text())["graph"]["name"]
    model = onnx.load(graph)
    model.doc_string = "touched"
    onnx.save(model, graph)
    assert rir("verify", made.checkpoint, engine, "--layers").code == InputError.exit_code
    ran = rir("verify", made.checkpoint, engine, "--layers", "--trust", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["layers"]["rows"]


@pytest.mark.parametrize(
    ("batch", "optimum", "sizes"),
    [
        ((1, 32), 8, [*range(1, 9), 16, 31, 32]),
        ((1, 1), 1, [1]),
        ((2, 6), 4, [2, 3, 4, 5, 6]),
        ((1, 100), 20, [*range(1, 9), 16, 20, 32, 64, 97, 100]),
        ((1, 5000), 1, [*range(1, 9), *POWERS]),
        ((1, 300), 100, [*range(1, 9), 16, 32, 64, 100, 128, 256, 300]),
        ((1, 4096), None, [*range(1, 9), *POWERS]),
        ((40, 64), 40, [40, 61, 64]),
        ((16, 16), None, [16]),
    ],
)
def test_sizes(batch: tuple[int, int], optimum: int | None, sizes: list[int]) -> None:
    side = Side("x", "engine", "fp32", "", None, "", lambda _: lambda x: x, batch=batch, optimum=optimum)
    assert batch_sizes(side, 16) == sizes


@pytest.mark.parametrize(("image", "largest"), [((1, 8, 8), 1024), ((3, 32, 32), 1024), ((3, 224, 224), 16)])
def test_sizes_are_bounded_by_memory(image: tuple[int, int, int], largest: int) -> None:
    """16 MiB of images; but what was run anyway is tried too."""
    side = Side("x", "onnx", "fp32", "", None, "", lambda _: lambda x: x)
    assert batch_sizes(side, 16, 4 * int(np.prod(image)))[-1] <= 2**24 // (4 * int(np.prod(image)))
    assert max(size for size in batch_sizes(side, 16, 4 * int(np.prod(image))) if size & (size - 1) == 0) == largest
    assert 128 in batch_sizes(side, 128, 4 * int(np.prod(image)))


@pytest.mark.parametrize("size", [3, 5, 8, 64, 512, 1024])
def test_a_fault_at_exactly_one_batch_size_is_found(made: Made, size: int, rir: Runner, tmp_path: Path) -> None:
    """The outputs are doubled where a batch holds so many images, and nowhere else."""
    model = onnx.load(made.onnx)
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["inner" if name == output else name for name in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([size]), "fault_size"))
    model.graph.node.extend(
        [
            onnx.helper.make_node("Shape", ["inner"], ["fault_batch"], start=0, end=1),
            onnx.helper.make_node("Equal", ["fault_batch", "fault_size"], ["fault_here"]),
            onnx.helper.make_node("Add", ["inner", "inner"], ["doubled"]),
            onnx.helper.make_node("Where", ["fault_here", "doubled", "inner"], [output]),
        ]
    )
    onnx.save(model, tmp_path / "faulty.onnx")
    ran = rir("verify", made.checkpoint, tmp_path / "faulty.onnx", "--json")
    assert ran.code == 3
    assert [check["size"] for check in ran.json["batches"] if not check["passed"]] == [size]
    assert f"at batch {size}: " in ran.err


def test_a_file_that_takes_no_more_than_so_many_images(made: Made, rir: Runner, tmp_path: Path) -> None:
    """It has an open batch, and positions of 48 rows: larger ones are not declared, and no failure."""
    model = onnx.load(made.onnx)
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["inner" if name == output else name for name in node.output]
    table = onnx.numpy_helper.from_array(np.zeros(48, np.int64), "rows")
    model.graph.initializer.append(table)
    zero, one = (onnx.numpy_helper.from_array(np.array(value), f"at_{value}") for value in (0, 1))
    model.graph.initializer.extend([zero, one])
    model.graph.node.extend(
        [
            onnx.helper.make_node("Shape", ["inner"], ["count"], start=0, end=1),
            onnx.helper.make_node("Squeeze", ["count"], ["images"]),
            onnx.helper.make_node("Range", ["at_0", "images", "at_1"], ["places"]),
            onnx.helper.make_node("Gather", ["rows", "places"], ["taken"]),
            onnx.helper.make_node("Cast", ["taken"], ["shift"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Unsqueeze", ["shift", "axis"], ["column"]),
            onnx.helper.make_node("Add", ["inner", "column"], [output]),
        ]
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "axis"))
    onnx.save(model, tmp_path / "small.onnx")
    ran = rir("verify", made.checkpoint, tmp_path / "small.onnx", "--json")
    assert (ran.code, ran.json["failures"]) == (0, [])
    assert [check["size"] for check in ran.json["batches"]] == [*range(1, 9), 16, 32]


def test_a_graph_whose_batch_is_baked_in_fails_at_another(made: Made, rir: Runner, tmp_path: Path) -> None:
    """The mean over the images of a batch, added to each: what batch norm in training mode does."""
    model = onnx.load(made.onnx)
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["inner" if name == output else name for name in node.output]
    axes = onnx.numpy_helper.from_array(np.array([0]), "zero")
    model.graph.initializer.append(axes)
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["inner", "zero"], ["middle"]))
    model.graph.node.append(onnx.helper.make_node("Sub", ["inner", "middle"], [output]))
    onnx.save(model, tmp_path / "leaks.onnx")
    ran = rir("verify", tmp_path / "leaks.onnx", tmp_path / "leaks.onnx", "--json")
    assert ran.code == 3
    assert [check["size"] for check in ran.json["batches"] if not check["passed"]] == [*range(2, 9), *POWERS]
    assert "at batch 2" in ran.json["failures"][0]


def test_bounds_by_output(made: Made, rir: Runner, tmp_path: Path) -> None:
    ran = rir("verify", made.checkpoint, made.onnx, "--atol", "logits=1e-12", "--rtol", "0", "--json")
    assert ran.code == 3
    assert (ran.json["gate"]["atol"], ran.json["gate"]["rtol"]) == (1e-12, 0.0)
    assert rir("verify", made.checkpoint, made.onnx, "--atol", "logits=1", "--atol", "1e-12").code == 0
    ran = rir("verify", made.checkpoint, made.onnx, "--rtol", "logit=1e-3")
    assert ran.code == 2
    assert "did you mean 'logits'" in ran.err or "known: logits" in ran.err
    assert rir("verify", made.checkpoint, made.onnx, "--atol", "logits=x").code == 2
    assert rir("verify", made.checkpoint, made.onnx, "--force").code == 2


def test_flips_are_written(made: Made, rir: Runner, tmp_path: Path) -> None:
    """Reversed classes flip nearly everything, and every image is named."""
    model = onnx.load(made.onnx)
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["inner" if name == output else name for name in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(9, -1, -1), "reversed"))
    model.graph.node.append(onnx.helper.make_node("Gather", ["inner", "reversed"], [output], axis=1))
    onnx.save(model, tmp_path / "reversed.onnx")
    ran = rir("verify", made.checkpoint, tmp_path / "reversed.onnx", "--flips", tmp_path / "flips.json", "--json")
    assert ran.code == 3
    flips = json.loads((tmp_path / "flips.json").read_text())
    assert len(flips) == ran.json["flipped"] == 359
    assert len(ran.json["flips"]) == 100
    assert all(flip["candidate"] == 9 - flip["reference"] for flip in flips)
    assert flips[5]["name"] == "digits:test[5]"
    assert flips[5]["classes"] == [str(flips[5]["reference"]), str(flips[5]["candidate"])]
    again = rir("verify", made.checkpoint, made.onnx, "--flips", tmp_path / "flips.json")
    assert again.code == 2
    assert "--force" in again.err


def test_an_output_that_is_no_class_is_named_by_its_number(made: Made, rir: Runner, tmp_path: Path) -> None:
    """Two outputs more than the recipe has classes; the candidate answers with the last of them."""
    sides = {"reference": np.array([-1e3, -1e3]), "candidate": np.array([-1e3, 1e3])}
    for name, values in sides.items():
        model = onnx.load(made.onnx)
        output = model.graph.output[0]
        for node in model.graph.node:
            node.output[:] = ["inner" if one == output.name else one for one in node.output]
        width = output.type.tensor_type.shape.dim[1]
        more = np.zeros((10, 12), np.float32), np.concatenate([np.zeros(10), values]).astype(np.float32)
        more[0][:, :10] = np.eye(10)
        for key, array in zip(("weight", "bias"), more, strict=True):
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, f"more_{key}"))
        node = onnx.helper.make_node("Gemm", ["inner", "more_weight", "more_bias"], [output.name], name="more")
        model.graph.node.append(node)
        width.dim_value = 12
        onnx.save(model, tmp_path / f"{name}.onnx")
    paths = [tmp_path / f"{name}.onnx" for name in sides]
    ran = rir("verify", *paths, "--flips", tmp_path / "flips.json")
    assert ran.code == 3, ran.err
    flips = json.loads((tmp_path / "flips.json").read_text())
    assert {flip["classes"][1] for flip in flips} == {"11"}
    assert len(flips) == 359


def test_what_people_read(trained: Trained, rir: Runner) -> None:
    ran = rir("verify", trained.checkpoint, trained.cpu)
    assert ran.code == 0, ran.err
    for words in (
        "top-1 drop",
        "95 % interval",
        "McNemar",
        "KL of the softmax",
        "batches of 1, 2, 3, 4, 5, 6, 7, 8, 16, 32",
        "passed",
    ):
        assert words in ran.out
