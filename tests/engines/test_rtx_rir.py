"""RiRs, folded and as traced, through NVIDIA's own parser and builder for every GPU that it knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import pytest

from rir_deploy.cli import cli
from rir_deploy.cli.common import run_command
from rir_deploy.engines import tensorrt as backend_module
from rir_deploy.engines.base import BuildOptions
from rir_deploy.engines.tensorrt_gpu import NoGpu
from rir_deploy.engines.tensorrt_rtx import BACKEND
from rir_deploy.engines.tensorrt_targets import known_targets
from rir_deploy.onnx_file import load_onnx, save_onnx
from rir_deploy.precision import to_fp16
from tests.conftest import Made, Runner
from tests.engines.graphs import Quantised, quantised

trt = pytest.importorskip("tensorrt_rtx")
TURING = "sm75"


@dataclass(frozen=True)
class Rir:
    graph: ir.Model
    precision: str
    rest: str = ""


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "probe_gpu", lambda: NoGpu("no NVIDIA driver"))


@pytest.fixture(scope="module")
def forms(made: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    traced = tmp_path_factory.mktemp("traced") / "traced.onnx"
    assert run_command(cli, ["export", str(made.checkpoint), "-o", str(traced), "--no-fold"]) == 0
    return {"traced": traced, "folded": made.onnx}


@pytest.fixture(
    scope="module",
    params=[(form, one) for form in ("traced", "folded") for one in ("fp32", "fp16", "int8", "int8-rest-fp32")],
    ids="-".join,
)
def rir_graph(request: pytest.FixtureRequest, forms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Rir:
    form, precision = request.param
    if not precision.startswith("int8"):
        model = load_onnx(forms[form])
        return Rir(model if precision == "fp32" else to_fp16(model).model, precision)
    quantised = tmp_path_factory.mktemp("int8") / "int8.onnx"
    command = ["quantize", str(forms[form]), "-o", str(quantised), "--qdq", "tensorrt", "--samples", "16"]
    rest = ["--rest", "fp32"] if precision == "int8-rest-fp32" else []  # by default it is FP16, as in an engine
    assert run_command(cli, [*command, *rest]) == 0
    model = load_onnx(quantised)
    kinds = {node.inputs[1].dtype for node in model.graph if node.op_type == "QuantizeLinear"}  # type: ignore[union-attr]
    assert kinds == {ir.DataType.FLOAT if rest else ir.DataType.FLOAT16}
    return Rir(model, "int8", "f32" if rest else "f16")


def test_every_gpu_is_built_for_and_computes_in_the_precision_of_the_graph(rir_graph: Rir, tmp_path: Path) -> None:
    for target in known_targets(trt):
        built = BACKEND.build(rir_graph.graph, tmp_path, BuildOptions(targets=(target,)))
        assert (built.targets, built.file) == ((target,), "engine.rtx")
        kinds = built.realized["conv"]
        wanted = {"fp32": "f32", "fp16": "f16", "int8": "i8"}[rir_graph.precision]
        assert isinstance(kinds, dict)
        # Turing has no INT8 in NVIDIA's support matrix: the builder takes the graph and computes it in float.
        assert list(kinds) == [rir_graph.rest if (target, wanted) == (TURING, "i8") else wanted], target
        assert sum(kinds.values()) >= 6


def test_int8_for_turing_is_refused_beside_other_gpus_too(rir: Runner, made: Made, tmp_path: Path) -> None:
    """With Turing among its targets an engine is float for all of them."""
    build = (
        "build-engine",
        made.onnx,
        "--int8",
        "--samples",
        16,
        "--backend",
        "tensorrt-rtx",
        "-o",
        tmp_path / "engine",
    )
    for targets in ("sm75", "sm75,sm89"):
        ran = rir(*build, "--target", targets)
        assert ran.code == 4
        assert (
            "computes no convolution of the int8 graph in integers here (6 in f16); build for sm75 on its own"
            in ran.err
        )
        assert not list(tmp_path.iterdir())
    ran = rir(*build, "--target", "sm80,sm89,sm121", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["realized"]["conv"] == {"i8": 6}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Quantised(int32_bias=True), "'DequantizeLinear_b0'"),
        (Quantised(activations="uint8"), "uint8"),
        (Quantised(zero_point=3), "is not 0 everywhere"),
    ],
    ids=["int32-bias", "uint8", "zero-point"],
)
def test_what_a_user_reads_of_a_graph_that_it_misreads(
    rir: Runner, options: Quantised, words: str, tmp_path: Path
) -> None:
    source = tmp_path / "model.onnx"
    save_onnx(quantised(options), source, force=False)
    ran = rir("build-engine", source, "--backend", "tensorrt-rtx", "--target", "sm89", "-o", tmp_path / "engine")
    assert ran.code == 5
    assert ran.err.count("\n") == 1
    assert words in ran.err
    assert "--qdq tensorrt" in ran.err
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--builder-level", "9"), 2, "builder level 9: give 0 to 5"),
        (("--builder-level", "3"), 2, "the same engine at every level; leave it out"),
        (("--timing-cache", "t"), 2, "a timing cache has no effect there; leave it out"),
        (("--hardware-compatible", "ampere"), 2, "did you mean 'ampere-plus'"),
        (("--strip-weights",), 4, "needs a GPU to build with --refit or --strip-weights"),
    ],
    ids=str,
)
def test_options_that_do_nothing_here_are_refused_before_any_work(
    rir: Runner, made: Made, flags: tuple[str, ...], code: int, words: str, tmp_path: Path
) -> None:
    ran = rir("build-engine", made.onnx, "--backend", "tensorrt-rtx", *flags, "-o", tmp_path / "engine")
    assert (ran.code, words in ran.err) == (code, True), ran.err
    assert not list(tmp_path.iterdir())


def test_what_was_asked_for_is_in_the_manifest(rir: Runner, made: Made, tmp_path: Path) -> None:
    output = tmp_path / "engine"
    ran = rir("build-engine", made.onnx, "--backend", "tensorrt-rtx", "--workspace", 512, "--fp16", "-o", output)
    assert ran.code == 0, ran.err
    assert "convolutions computed in: f16 (6)" in ran.out
    manifest = rir("inspect", output, "--json").json
    assert manifest["options"] == {"workspace_mib": 512}
    assert (manifest["precision"], manifest["realized"]["conv"]) == ("fp16", {"f16": 6})
    assert (manifest["gpu"], manifest["targets"], manifest["batch"]) == ("", [], [1, 1, 32])
    assert "--workspace 512" in manifest["command"]
