"""The builder's calls against stand-ins of each version, which offer what NVIDIA's own bindings of it offer: no version
may be asked for anything else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from rir_deploy.engines import tensorrt as backend_module
from rir_deploy.engines.base import BatchRange, BuildOptions
from rir_deploy.engines.tensorrt import TensorRtBackend
from rir_deploy.engines.tensorrt_build import build_plan
from rir_deploy.engines.tensorrt_flavour import RTX, TENSORRT, load_module
from rir_deploy.engines.tensorrt_gpu import Gpu, NoGpu
from rir_deploy.engines.tensorrt_log import clean
from rir_deploy.errors import BackendError, InputError, UsageError
from tests.engines.fake_builder import Module, later, parse_error, rtx
from tests.engines.graphs import classifier


def tensorrt_10_3() -> Module:
    return Module("10.3.0")


def tensorrt_10_16() -> Module:
    return Module("10.16.1")


def tensorrt_11() -> Module:
    return Module("11.4.0")


ORIN = Gpu("Orin", (8, 7))
FULL = pytest.mark.parametrize("make", [tensorrt_10_3, tensorrt_10_16, tensorrt_11, later])


@FULL
def test_a_full_tensorrt_builds_for_the_gpu_that_is_here(make: Callable[[], Any]) -> None:
    module = make()
    options = BuildOptions(BatchRange(2, 4, 16))
    plan = build_plan(module, TENSORRT, ORIN, classifier(), options)
    assert (plan.data, plan.targets) == (b"plan", ("sm87",))
    (profile,) = module.log.config.profiles
    assert profile.shapes == {"x": ((2, 3, 8, 8), (4, 3, 8, 8), (16, 3, 8, 8))}
    assert module.log.config.profiling_verbosity.name == "DETAILED"
    onnx.checker.check_model(onnx.load_from_string(module.log.parsed))


@pytest.mark.parametrize(
    ("make", "flags"), [(tensorrt_10_3, 2), (tensorrt_10_16, 2), (tensorrt_11, 1), (rtx, 1), (later, 0)]
)
def test_networks_are_strongly_typed_by_the_flags_name(make: Callable[[], Any], flags: int) -> None:
    module = make()
    build_plan(module, RTX if make is rtx else TENSORRT, ORIN, classifier(), BuildOptions())
    assert module.log.flags == flags


@FULL
def test_fp32_is_not_computed_in_tf32_and_no_precision_flag_is_set(make: Callable[[], Any]) -> None:
    module = make()
    build_plan(module, TENSORRT, ORIN, classifier(), BuildOptions())
    assert module.log.config.flags == ({"TF32"} if make is later else set())


@FULL
def test_a_full_tensorrt_refuses_another_gpus_target(make: Callable[[], Any]) -> None:
    assert build_plan(make(), TENSORRT, ORIN, classifier(), BuildOptions(targets=("SM87",))).targets == ("sm87",)
    with pytest.raises(UsageError, match=r"GPU of this machine \(sm87\), not for sm89.*tensorrt-rtx"):
        build_plan(make(), TENSORRT, ORIN, classifier(), BuildOptions(targets=("sm89",)))


def test_rtx_sets_each_target_once_and_in_order() -> None:
    module = rtx()
    plan = build_plan(module, RTX, None, classifier(), BuildOptions(targets=("sm120", "sm75", "SM89", "sm89")))
    assert plan.targets == ("sm75", "sm89", "sm120")
    assert module.log.config.targets == {0: "SM75", 1: "SM89", 2: "SM120"}
    assert module.log.config.num_compute_capabilities == 3


@pytest.mark.parametrize("name", ["sm90", "sm87", "none", "current", "89", ""])
def test_rtx_lists_its_targets_for_an_unknown_one(name: str) -> None:
    with pytest.raises(UsageError, match="sm75, sm80, sm86, sm89, sm120, sm121") as refusal:
        build_plan(rtx(), RTX, None, classifier(), BuildOptions(targets=(name,)))
    assert refusal.value.exit_code == 2


def test_a_target_that_the_builder_answers_with_false_is_not_dropped() -> None:
    module = rtx()
    module.refused = ("SM121",)
    with pytest.raises(UsageError, match="refuses the target sm121"):
        build_plan(module, RTX, None, classifier(), BuildOptions(targets=("sm89", "sm121")))


def test_parser_errors_name_node_operator_and_reason() -> None:
    module = tensorrt_10_3()
    module.parse_errors = [parse_error('Assertion failed: creator && "Plugin not found"', 1, "odd", "Foo")]
    with pytest.raises(InputError, match=r"TensorRT 10\.3\.0 does not take the node 'odd' \(Foo\): Plugin not found;"):
        build_plan(module, TENSORRT, ORIN, classifier(), BuildOptions())
    module.parse_errors = [parse_error("Assertion failed: f(a->b): Non-zero zero point is not supported.", 0)]
    with pytest.raises(InputError, match=r"the node 'conv_0' \(Conv\): Non-zero zero point is not supported;"):
        build_plan(module, TENSORRT, ORIN, classifier(), BuildOptions())
    module.parse_errors = [parse_error("false", -1, code="MODEL_DESERIALIZE_FAILED")]
    with pytest.raises(InputError, match="the model: model deserialize failed"):
        build_plan(module, TENSORRT, ORIN, classifier(), BuildOptions())
    module.parse_errors = [parse_error("Type UINT8 is not supported.", 0, "q", "QuantizeLinear")]
    with pytest.raises(InputError, match=r"'q' \(QuantizeLinear\).*; quantize the FP32 model with --qdq tensorrt"):
        build_plan(module, TENSORRT, ORIN, classifier(), BuildOptions())


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("IBuilder::build: Error Code 10: Internal Error (no kernel for node c1. In f at /_src/x.cpp:9)", InputError),
        ("IBuilder::build: Error Code 2: OutOfMemory (Requested amount of GPU memory)", BackendError),
        ("IBuilder::build: Error Code 1: Cuda Runtime (In f at /_src/x.cpp:9 (cudaError 35))", BackendError),
    ],
)
def test_a_failed_build_says_why(text: str, error: type[Exception]) -> None:
    module = tensorrt_11()
    module.error = text
    with pytest.raises(error) as failure:
        build_plan(module, TENSORRT, ORIN, classifier(), BuildOptions())
    assert "/_src" not in str(failure.value)
    assert "Error Code" not in str(failure.value)


def test_progress_is_passed_on_and_can_stop_the_build() -> None:
    module = tensorrt_10_3()
    module.steps = 3
    heard: list[tuple[str, int, int]] = []
    build_plan(module, TENSORRT, ORIN, classifier(), BuildOptions(on_progress=lambda *step: heard.append(step)))
    assert heard == [("Building", done, 3) for done in (0, 1, 2, 3, 3)]

    def stop(phase: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(module, TENSORRT, ORIN, classifier(), BuildOptions(on_progress=stop))


def test_messages_are_cleaned() -> None:
    assert clean("[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (insufficient driver)") == (
        "Cuda Runtime: insufficient driver"
    )
    turing = (
        "Internal Error (Myelin: [pass.cpp:337: check_op] Cannot compile 'n7': FP32 GEMM. In build at /_src/a.cpp:1)"
    )
    assert clean(f"IBuilder::build: Error Code 9: {turing}") == "Internal Error: Cannot compile 'n7': FP32 GEMM"
    assert clean("plain words.") == "plain words"


def install(monkeypatch: pytest.MonkeyPatch, module: Any, gpu: Gpu | NoGpu) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(backend_module, "probe_gpu", lambda: gpu)


def test_a_tensorrt_older_than_jetpack_6_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, SimpleNamespace(__version__="8.6.1"), ORIN)
    found = TensorRtBackend(TENSORRT).availability()
    assert not found.can_build
    assert "8.6.1 is too old; install 10.3 or later" in found.reason


def test_type_stubs_alone_are_no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """They make a folder that Python imports as an empty module."""
    install(monkeypatch, SimpleNamespace(), ORIN)
    found = TensorRtBackend(TENSORRT).availability()
    assert (found.can_build, found.version) == (False, None)
    assert "TensorRT is not installed" in found.reason


def test_a_full_tensorrt_does_not_build_without_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tensorrt_10_3(), NoGpu("no NVIDIA driver"))
    backend = TensorRtBackend(TENSORRT)
    found = backend.availability()
    assert (found.can_build, found.can_run, found.version) == (False, False, "10.3.0")
    assert found.reason == "no NVIDIA driver"
    with pytest.raises(BackendError, match="on a machine with a GPU only: no NVIDIA driver"):
        backend.build(classifier(), tmp_path, BuildOptions())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("capability", "runs"), [((7, 5), True), ((8, 9), True), ((8, 7), False), ((9, 0), False), ((13, 0), True)]
)
def test_rtx_runs_on_gpus_that_it_knows_and_on_later_ones(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], runs: bool
) -> None:
    install(monkeypatch, rtx(), Gpu("some GPU", capability))
    monkeypatch.setattr(backend_module, "load_cudart", lambda install: SimpleNamespace())
    found = TensorRtBackend(RTX).availability()
    assert found.can_build
    assert found.can_run is runs
    assert runs or "has no kernels for some GPU" in found.reason


def test_without_cuda_python_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tensorrt_10_3(), ORIN)
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)
    found = TensorRtBackend(TENSORRT).availability()
    assert (found.can_build, found.can_run) == (True, False)
    assert "cuda-python is not installed" in found.reason


def test_a_profile_that_is_not_taken_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT says so by -1, and would build without it."""
    monkeypatch.setattr("tests.engines.fake_builder.Config.add_optimization_profile", lambda config, profile: -1)
    with pytest.raises(BackendError, match=r"no batches of 2 to 16 of 'x'.*--batch"):
        build_plan(tensorrt_10_3(), TENSORRT, ORIN, classifier(), BuildOptions(BatchRange(2, 4, 16)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise ImportError('libnvinfer.so.10: cannot open\\nmore')", "(libnvinfer.so.10: cannot open)"),
        ("import nothing_of_that_name", "(No module named 'nothing_of_that_name')"),
        ("", "__version__"),
    ],
)
def test_what_an_installed_tensorrt_misses_is_said(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(BackendError, match="TensorRT is not installed as it should be") as raised:
        load_module(TENSORRT)
    sys.modules.pop("tensorrt", None)
    assert words in str(raised.value)
    assert "more" not in str(raised.value)
    assert TENSORRT.install in str(raised.value)
