"""ONNX Runtime's providers: what runs is what was asked for, or it is refused."""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir
import pytest

from rir_deploy.engines import get_backend, ort_provider
from rir_deploy.engines.base import BuildOptions
from rir_deploy.engines.tensorrt_gpu import NoGpu
from rir_deploy.errors import BackendError, InputError, UsageError
from tests.conftest import Made, Runner
from tests.engines.fake_ort import FakeOrt
from tests.engines.graphs import Quantised, classifier, quantised, to_half
from tests.engines.stand_ins import ort_stand_in

ort = pytest.importorskip("onnxruntime")
CUDA, RTX = "onnxruntime-cuda", "onnxruntime-rtx"
BOTH = pytest.mark.parametrize("name", [CUDA, RTX])


@pytest.mark.parametrize(
    ("model", "convs"),
    [
        (classifier(), {"f32": 2}),
        (to_half(classifier()), {"f32": 2}),  # stored in FP16, computed in FP32
        (quantised(Quantised(activations="uint8")), {"f32": 1, "i8": 2}),  # the last one is not quantised after
        (quantised(), {"f32": 3}),  # TensorRT's flavour: symmetric int8 activations have no kernel here
    ],
    ids=["fp32", "fp16", "cpu-int8", "tensorrt-int8"],
)
def test_what_the_cpu_really_computes_in_is_read_from_what_it_made_of_the_graph(
    model: ir.Model, convs: dict[str, int], tmp_path: Path
) -> None:
    realized = get_backend("onnxruntime").build(model, tmp_path, BuildOptions()).realized
    assert realized["conv"] == convs
    assert "CPUExecutionProvider" in str(realized["runs_on"])
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]


def test_an_int8_graph_that_the_cpu_would_compute_in_float_is_no_int8_engine(rir: Runner, tmp_path: Path) -> None:
    ir.save(quantised(), tmp_path / "model.onnx")
    ran = rir("build-engine", tmp_path / "model.onnx", "--backend", "onnxruntime", "-o", tmp_path / "engine")
    assert ran.code == 4
    assert "onnxruntime computes no convolution of the int8 graph in integers here (3 in f32)" in ran.err
    assert "quantize the FP32 model with --qdq cpu" in ran.err
    assert not (tmp_path / "engine").exists()


def save(model: ir.Model, folder: Path) -> Path:
    ir.save(model, folder / "graph.onnx")
    return folder / "graph.onnx"


@BOTH
def test_a_provider_that_does_not_load_is_an_error_and_not_the_cpu(name: str, tmp_path: Path) -> None:
    words = "does not load here and ONNX Runtime would have used CPUExecutionProvider"
    with ort_stand_in(name) as found:
        assert found.backend.availability().can_run
        found.module.loads = False
        with pytest.raises(BackendError, match=words):
            found.backend.load(save(classifier(), tmp_path))
        missing = found.backend.availability()
        assert (missing.can_build, missing.can_run, words in missing.reason) == (False, False, True)


@BOTH
def test_nodes_that_would_go_to_the_cpu_are_named(name: str, tmp_path: Path) -> None:
    with ort_stand_in(name) as found:
        found.module.on_cpu = ("conv_0", "conv_2", "gemm", "flat")
        with pytest.raises(BackendError, match=r"would leave 4 of its nodes \(conv_0, conv_2, gemm, ...\) to the CPU"):
            found.backend.build(classifier(), tmp_path, BuildOptions())
    assert not list(tmp_path.iterdir())


@BOTH
def test_nothing_is_printed(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with ort_stand_in(name) as found:
        found.backend.build(classifier(), tmp_path, BuildOptions())
        assert found.module.severity == 4
    assert capfd.readouterr() == ("", "")


def test_cuda_computes_fp32_in_fp32(tmp_path: Path) -> None:
    with ort_stand_in(CUDA) as found:
        found.backend.load(save(classifier(), tmp_path)).close()
        assert found.module.provider_options == {"use_tf32": "0"}


def test_cuda_takes_no_int8_and_says_why(
    rir: Runner, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before images are read, and for a graph that is INT8 already."""
    ir.save(quantised(), tmp_path / "model.onnx")
    with ort_stand_in(CUDA) as found:
        for source, *flags in ((made.onnx, "--int8"), (tmp_path / "model.onnx",)):
            ran = rir("build-engine", source, *flags, "--backend", CUDA, "-o", tmp_path / "engine")
            assert ran.code == 2, ran.err
            assert "has no INT8 convolutions and would compute this graph in float; build FP16, or take" in ran.err
        with pytest.raises(UsageError, match="no INT8 convolutions"):
            found.backend.build(quantised(), tmp_path, BuildOptions())
    assert not (tmp_path / "engine").exists()


def test_the_plugin_is_registered_once_and_holds_int8_to_tensorrts_rules(tmp_path: Path) -> None:
    with ort_stand_in(RTX) as found:
        for _ in range(2):
            assert found.backend.availability().can_run
        assert found.module.registered == 1
        with pytest.raises(InputError, match="--qdq tensorrt"):
            found.backend.build(quantised(Quantised(activations="uint8")), tmp_path, BuildOptions())
        found.backend.build(quantised(), tmp_path, BuildOptions())


def test_fp32_on_a_gpu_is_told_to_be_without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """By ONNX Runtime's option where there is one, else in the environment, before the plugin is loaded."""
    variable = "NVIDIA_TF32_OVERRIDE"
    monkeypatch.setenv(variable, "1")
    for name, unset, told in ((RTX, False, "1"), (CUDA, True, None), (RTX, True, "0")):
        if unset:
            os.environ.pop(variable, None)
        with ort_stand_in(name) as found:
            ort_provider.load_runtime(found.backend.provider)
        assert os.environ.get(variable) == told


def test_why_the_plugin_does_not_work() -> None:
    with ort_stand_in(RTX) as found:
        found.module.loads = False
        assert "does not load: Failed to load library plugin.so: libcuda.so.1" in found.backend.availability().reason
    with ort_stand_in(RTX) as found:
        found.module.has_device = False
        for _ in range(2):
            assert "finds no GPU that it takes (Ampere or later)" in found.backend.availability().reason


def test_an_onnx_runtime_before_plugins_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(FakeOrt, "register_execution_provider_library")
    with ort_stand_in(RTX) as found:
        assert "takes no plugins; install 1.24 or later" in found.backend.availability().reason


def test_a_gpu_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (CUDA, RTX):
        with ort_stand_in(name) as found:
            monkeypatch.setattr(ort_provider, "probe_gpu", lambda: NoGpu("no NVIDIA driver"))
            missing = found.backend.availability()
            assert (missing.can_build, missing.can_run) == (False, False)
            assert missing.version == ort.__version__
            assert missing.reason.endswith("needs an NVIDIA GPU: no NVIDIA driver")
            assert found.module.registered == 0


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this one has the provider")
def test_the_cpus_package_has_no_cuda_and_says_what_to_do() -> None:
    reason = get_backend(CUDA).availability().reason
    assert "has no CUDAExecutionProvider; uninstall it" in reason
    assert "onnxruntime-gpu[cuda,cudnn]" in reason
