"""The builder's options against stand-ins of each version: set where there is such a thing, refused where not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from rir_deploy.engines import tensorrt as backend_module
from rir_deploy.engines.base import BuildOptions
from rir_deploy.engines.tensorrt import TensorRtBackend
from rir_deploy.engines.tensorrt_build import build_plan
from rir_deploy.engines.tensorrt_flavour import RTX, TENSORRT
from rir_deploy.engines.tensorrt_gpu import Gpu, NoGpu
from rir_deploy.engines.tensorrt_options import TensorRtOptions
from rir_deploy.errors import BackendError, InputError, UsageError
from tests.engines.fake_builder import Module, rtx
from tests.engines.graphs import classifier
from tests.engines.surface import FULL_VERSIONS

ORIN = Gpu("Orin", (8, 7))
VERSIONS = pytest.mark.parametrize("version", FULL_VERSIONS)


def install(monkeypatch: pytest.MonkeyPatch, module: Any, gpu: Gpu | NoGpu) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(backend_module, "probe_gpu", lambda: gpu)


def built_with(module: Any, **options: Any) -> Any:
    """The builder's configuration after a build with these options."""
    build_plan(module, TENSORRT, ORIN, classifier(), BuildOptions(tensorrt=TensorRtOptions(**options)))
    return module.log.config


@VERSIONS
def test_the_builders_options_reach_it(version: str) -> None:
    assert built_with(Module(version), workspace_mib=256).pools == {"WORKSPACE": 256 << 20}
    assert built_with(Module(version), builder_level=5).builder_optimization_level == 5
    assert built_with(Module(version)).builder_optimization_level == 3
    assert built_with(Module(version), version_compatible=True).flags == {"VERSION_COMPATIBLE"}
    assert built_with(Module(version), refit=True).flags == {"REFIT"}
    assert built_with(Module(version), strip_weights=True).flags == {"STRIP_PLAN", "REFIT_IDENTICAL"}
    assert built_with(Module(version), strip_weights=True, refit=True).flags == {"STRIP_PLAN", "REFIT"}
    assert built_with(Module(version), hardware="ampere-plus").hardware_compatibility_level.name == "AMPERE_PLUS"


def test_a_level_of_compatibility_that_a_version_has_not_is_refused() -> None:
    with pytest.raises(UsageError, match=r"TensorRT 10\.3\.0 does not build for 'same-capability'"):
        built_with(Module("10.3.0"), hardware="same-capability")
    assert built_with(Module("11.4.0"), hardware="same-capability").hardware_compatibility_level == 2


def test_a_flag_that_the_builder_does_not_keep_is_refused() -> None:
    module = Module("11.4.0")
    module.refused = ("VERSION_COMPATIBLE",)
    with pytest.raises(UsageError, match="does not build with 'version compatible'"):
        built_with(module, version_compatible=True)


@VERSIONS
def test_a_timing_cache_is_begun_and_read_again(version: str, tmp_path: Path) -> None:
    path = tmp_path / "timings"
    built_with(Module(version), timing_cache=path)
    assert path.read_bytes() == b" and more"
    built_with(Module(version), timing_cache=path)
    assert path.read_bytes() == b" and more and more"


@pytest.mark.parametrize("known", [b"garbage", b"another GPU"])
def test_a_timing_cache_of_another_machine_is_refused_and_kept(known: bytes, tmp_path: Path) -> None:
    path = tmp_path / "timings"
    path.write_bytes(known)
    with pytest.raises(InputError, match="is no timing cache of TensorRT"):
        built_with(Module("10.3.0"), timing_cache=path)
    assert path.read_bytes() == known
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match="cannot read the timing cache"):
        built_with(Module("10.3.0"), timing_cache=path)


def test_a_build_that_fails_leaves_the_timing_cache(tmp_path: Path) -> None:
    path, module = tmp_path / "timings", Module("11.4.0")
    module.error = "no kernel"
    with pytest.raises(InputError):
        built_with(module, timing_cache=path)
    assert not list(tmp_path.iterdir())


def test_a_workspace_that_is_too_small_is_named() -> None:
    module = Module("11.4.0")
    module.error = "Tactic Selection: no tactics to implement the operation within workspace limit."
    with pytest.raises(InputError, match=r"within a workspace of 1 MiB.*give more with --workspace"):
        built_with(module, workspace_mib=1)


REFUSED = [
    (
        TensorRtOptions(builder_level=3),
        "--builder-level: TensorRT-RTX builds the same engine at every level",
    ),
    (TensorRtOptions(timing_cache=Path("t")), "--timing-cache: TensorRT-RTX times nothing"),
    (TensorRtOptions(version_compatible=True), "--version-compatible: TensorRT-RTX's engines load"),
    (TensorRtOptions(hardware="ampere-plus"), "--hardware-compatible: .* that --target names"),
]


@pytest.mark.parametrize(("options", "reason"), REFUSED)
def test_rtx_refuses_what_would_have_no_effect(
    monkeypatch: pytest.MonkeyPatch, options: TensorRtOptions, reason: str, tmp_path: Path
) -> None:
    install(monkeypatch, rtx(), ORIN)
    with pytest.raises(UsageError, match=reason):
        TensorRtBackend(RTX).build(classifier(), tmp_path, BuildOptions(tensorrt=options))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["refit", "strip_weights"])
def test_refitting_needs_a_gpu(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    install(monkeypatch, rtx(), NoGpu("no NVIDIA driver"))
    with pytest.raises(BackendError, match="needs a GPU to build with --refit or --strip-weights: no NVIDIA driver"):
        TensorRtBackend(RTX).check("fp32", BuildOptions(tensorrt=TensorRtOptions(**{option: True})))


@pytest.mark.parametrize(
    ("options", "file", "extra", "targets"),
    [
        (TensorRtOptions(), "engine.trt", (), ("sm87",)),
        (TensorRtOptions(version_compatible=True), "engine.lean.trt", (), ("sm87",)),
        (TensorRtOptions(strip_weights=True), "engine.stripped.trt", ("graph.onnx",), ("sm87",)),
        (TensorRtOptions(hardware="ampere-plus"), "engine.trt", (), ("sm80+",)),
    ],
)
def test_what_an_engine_needs_is_in_its_name(
    monkeypatch: pytest.MonkeyPatch,
    options: TensorRtOptions,
    file: str,
    extra: tuple[str, ...],
    targets: tuple[str, ...],
    tmp_path: Path,
) -> None:
    install(monkeypatch, Module("11.4.0"), ORIN)
    built = TensorRtBackend(TENSORRT).build(classifier(), tmp_path, BuildOptions(tensorrt=options))
    assert (built.file, built.extra_files, built.targets, built.gpu) == (file, extra, targets, "Orin (sm87)")
    assert {path.name for path in tmp_path.iterdir()} == {file, *extra}


def test_what_the_builder_says_of_its_layers_is_kept_where_the_engine_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = rtx()
    module.says = (
        "Layers:\nName: c, LayerType: correlation, Inputs: [ { Datatype: Int8 }], Constants: [], "
        "Outputs: [ { Datatype: Float }], TacticName: t"
    )
    install(monkeypatch, module, NoGpu("no NVIDIA driver"))
    realized = TensorRtBackend(RTX).build(classifier(), tmp_path, BuildOptions()).realized
    assert (realized["source"], realized["conv"], realized["leaves_int8_first"]) == ("build log", {"i8": 1}, ["c"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workspace_mib": 0}, "a workspace of 0 MiB: give 1 to"),
        ({"workspace_mib": 1 << 21}, "give 1 to 1048576"),
        ({"builder_level": -1}, "builder level -1: give 0 to 5"),
        ({"hardware": "turing"}, r"unknown hardware compatibility 'turing' \(known: ampere-plus, same-capability\)"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TensorRtOptions(**options)


def test_what_was_asked_for_is_told_apart_from_what_was_not() -> None:
    assert TensorRtOptions().given == {}
    asked = TensorRtOptions(builder_level=0, timing_cache=Path("t"), refit=True)
    assert asked.given == {"builder_level": 0, "timing_cache": "t", "refit": True}
