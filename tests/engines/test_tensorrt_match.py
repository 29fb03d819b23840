"""Which machine an engine is for, by its manifest alone."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rir_deploy.engines.base import TensorSpec
from rir_deploy.engines.loading import load_engine
from rir_deploy.engines.manifest import FileRecord, Manifest
from rir_deploy.engines.tensorrt_flavour import RTX, TENSORRT
from rir_deploy.engines.tensorrt_gpu import Gpu
from rir_deploy.engines.tensorrt_match import serves, why_not_here
from rir_deploy.errors import BackendError
from tests.engines.stand_ins import stand_in

ORIN = Gpu("Orin (nvgpu)", (8, 7), 8)
L4, A10, RTX_5090, T4 = Gpu("L4", (8, 9)), Gpu("A10", (8, 6)), Gpu("RTX 5090", (12, 0)), Gpu("T4", (7, 5))
FILE = FileRecord("engine.trt", "0" * 64, 1)
FULL = Manifest(
    backend="tensorrt",
    backend_version="10.3.0",
    precision="fp16",
    engine=FILE,
    graph=FILE,
    input=TensorSpec("x", "float32", (None, 3, 8, 8)),
    outputs=(),
    parents={},
    recipe=None,
    batch=(1, 2, 8),
    targets=("sm87",),
    gpu=ORIN.label,
)
PORTABLE = replace(FULL, backend="tensorrt-rtx", backend_version="1.7.1", targets=("sm86", "sm89"), gpu="")


@pytest.mark.parametrize(
    ("changes", "version", "gpu", "reason"),
    [
        ({}, "10.3.0", ORIN, None),
        ({}, "10.3.0.30", ORIN, "built with TensorRT 10.3.0, and 10.3.0.30 is here"),
        ({}, "10.4.0", ORIN, "and 10.4.0 is here"),
        ({}, "10.3.0", L4, "built for sm87, and this is L4 (sm89)"),
        (
            {},
            "10.3.0",
            Gpu("another Orin", (8, 7)),
            "built on Orin (nvgpu) (sm87, 8 SMs), and this is another Orin (sm87)",
        ),
        ({}, "10.3.0", replace(ORIN, multiprocessors=16), "(sm87, 8 SMs), and this is Orin (nvgpu) (sm87, 16 SMs)"),
        ({"gpu": ""}, "10.3.0", ORIN, "built on an unknown GPU"),
        ({"options": {"hardware": "same-capability"}}, "10.3.0", Gpu("another Orin", (8, 7)), None),
        ({"options": {"hardware": "same-capability"}}, "10.3.0", L4, "built for sm87"),
        ({"options": {"hardware": "ampere-plus"}, "targets": ("sm80+",)}, "10.3.0", RTX_5090, None),
        ({"options": {"hardware": "ampere-plus"}, "targets": ("sm80+",)}, "10.3.0", T4, "built for sm80+"),
    ],
)
def test_a_full_tensorrt_engine(changes: dict[str, Any], version: str, gpu: Gpu, reason: str | None) -> None:
    found = why_not_here(replace(FULL, **changes), TENSORRT, version, gpu)
    assert found is None if reason is None else reason in str(found)


@pytest.mark.parametrize(
    ("built", "here", "fits"),
    [
        ("10.3.0", "10.3.0", True),
        ("10.3.0", "10.16.1", True),
        ("10.3.0", "11.4.1", True),
        ("10.16.1", "10.3.0", False),
        ("11.0.0", "10.16.1", False),
        ("9.3.0", "11.0.0", False),
        ("11.0.0", "12.0.0", False),
        ("of someone's", "10.3.0", False),
        ("9" * 5000, "10.3.0", False),
    ],
)
def test_a_version_compatible_engine_runs_in_later_versions(built: str, here: str, fits: bool) -> None:
    manifest = replace(FULL, backend_version=built, options={"version_compatible": True})
    assert (why_not_here(manifest, TENSORRT, here, ORIN) is None) is fits
    if built != here:
        assert why_not_here(replace(manifest, options={}), TENSORRT, here, ORIN) is not None


@pytest.mark.parametrize(
    ("changes", "version", "gpu", "reason"),
    [
        ({}, "1.7.1", L4, None),
        ({}, "1.7.1", A10, None),
        ({}, "1.7.1", RTX_5090, "built for sm86, sm89, and this is RTX 5090 (sm120)"),
        ({}, "1.7.0", L4, "built with TensorRT-RTX 1.7.1, and 1.7.0 is here"),
        ({"options": {"version_compatible": False}}, "1.8.0", L4, "1.8.0 is here"),
        ({"targets": ()}, "1.7.1", RTX_5090, None),
        ({"targets": ()}, "1.7.1", T4, "built for GPUs from sm80, and this is T4 (sm75)"),
    ],
)
def test_an_rtx_engine(changes: dict[str, Any], version: str, gpu: Gpu, reason: str | None) -> None:
    found = why_not_here(replace(PORTABLE, **changes), RTX, version, gpu)
    assert found is None if reason is None else reason in str(found)


def test_later_gpus_are_told_by_number_and_nonsense_serves_none() -> None:
    assert serves(("sm80+",), RTX_5090)
    assert serves(("sm120+",), Gpu("later", (13, 0)))
    assert not serves(("sm120+",), L4)
    assert serves(("sm75", "sm80+"), T4)
    for nonsense in ("", "+", "sm+", "sm8+", "smart+", "sm80 +", "SM89", "sm-80+"):
        assert not serves((nonsense,), L4), nonsense


def test_an_engine_of_another_machine_is_refused_with_the_rebuild_command(tmp_path: Path) -> None:
    command = "rir-deploy build-engine model.onnx --backend tensorrt -o engine"
    with stand_in("10.3.0", ORIN) as found, pytest.MonkeyPatch.context() as patch:
        patch.setattr("rir_deploy.engines.loading.get_backend", lambda name: found.backend)
        for changes in ({"backend_version": "10.2.0"}, {"targets": ("sm89",)}, {"gpu": "another"}):
            manifest = replace(FULL, command=command, **changes)  # type: ignore[arg-type]
            with pytest.raises(
                BackendError, match=f"is not for this machine: it was built .*; rebuild it with: {command}"
            ):
                load_engine(tmp_path, manifest)
            # Trusted, it gets as far as the file, which is not there.
            with pytest.raises(Exception, match="cannot read the engine"):
                load_engine(tmp_path, manifest, trust=True)


@pytest.mark.parametrize("key", ["system", "machine"])
def test_a_plan_is_for_the_kind_of_machine_that_built_it(key: str) -> None:
    here = {"system": platform.system(), "machine": platform.machine(), "python": "3.0"}
    assert why_not_here(replace(FULL, host=here), TENSORRT, "10.3.0", ORIN) is None
    found = why_not_here(replace(FULL, host={**here, key: "Amiga"}), TENSORRT, "10.3.0", ORIN)
    assert found == f"it was built on 'Amiga', and this is {here[key]!r}"
    assert why_not_here(replace(PORTABLE, host={**here, key: "Amiga"}), RTX, "1.7.1", L4) is None
