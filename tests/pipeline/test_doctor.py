"""What doctor says is what was seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from rir_deploy.engines import BACKENDS
from rir_deploy.pipeline import doctor, doctor_worker
from rir_deploy.pipeline.doctor import diagnose
from tests.conftest import Runner
from tests.engines.stand_ins import ADA, stand_in


@pytest.fixture(scope="module")
def seen() -> doctor.Diagnosis:
    return diagnose()


def test_every_backend_is_tried_and_those_that_run_are_held_against_numpy(seen: doctor.Diagnosis) -> None:
    found = {one.backend: one for one in seen.backends}
    assert list(found) == list(BACKENDS)
    assert seen.runs
    for name in ("onnxruntime", "openvino"):
        one = found[name]
        assert (one.works, one.max_abs_error is not None and one.max_abs_error < 1e-4) == ("runs", True)
        assert one.detail.startswith(f"{name} {one.version} ")
    for one in seen.backends:
        assert one.install.startswith("python -m pip install")
        assert (one.works == "runs") is (one.max_abs_error is not None)
        assert one.detail


def test_the_machine_is_described(seen: doctor.Diagnosis) -> None:
    assert seen.machine.cores >= 1
    assert (seen.cuda is None) is seen.gpu.startswith("none: no NVIDIA driver")
    versions = {one.name: one.version for one in seen.libraries}
    assert versions["numpy"] == np.__version__
    assert all(one.install.startswith("python -m pip install") for one in seen.libraries)


def test_the_command_prints_it_and_json_is_one_object(
    rir: Runner, seen: doctor.Diagnosis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "diagnose", lambda: seen)
    ran = rir("doctor", "--json")
    assert (ran.code, ran.json) == (0, json.loads(json.dumps(seen.to_dict())))
    ran = rir("doctor")
    assert ran.code == 0
    for word in ("AVX" if "AVX2" in seen.machine.features else "cores", "onnxruntime-cuda", "numpy", "GPU"):
        assert word in ran.out


def test_where_nothing_runs_the_exit_code_is_4(rir: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "BACKENDS", {"tensorrt": BACKENDS["tensorrt"]})
    ran = rir("doctor", "--json")
    if ran.json["runs"]:
        pytest.skip("there is a GPU with TensorRT")
    assert ran.code == 4


def test_a_runtime_that_ends_its_process_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.run_job

    def killed(module: str, job: dict[str, Any], name: str) -> dict[str, Any]:
        return real("tests.bench.odd_worker", {"do": "kill", "signal": 11}, name)

    monkeypatch.setattr(doctor, "run_job", killed)
    monkeypatch.setattr(doctor, "BACKENDS", {"openvino": BACKENDS["openvino"]})
    (one,) = diagnose().backends
    assert (one.works, one.version) == ("no", None)
    assert one.detail == "the process of openvino died with SIGSEGV: last words"


def test_a_backend_that_computes_something_else_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    right = doctor_worker.convolve
    monkeypatch.setattr(doctor_worker, "convolve", lambda *data: right(*data) + np.float32(0.001))
    answer = doctor_worker.work({"backend": "onnxruntime"})
    assert answer["works"] == "no"
    assert "a convolution that is 0.001" in answer["detail"]
    monkeypatch.setattr(doctor_worker, "convolve", lambda *data: right(*data) * np.float32("nan"))
    assert doctor_worker.work({"backend": "onnxruntime"})["works"] == "no"


def test_numpys_convolution_is_onnxs() -> None:
    kernel, bias, image = doctor_worker.tiny_data()
    (expected,) = ReferenceEvaluator(ir.to_proto(doctor_worker.tiny_model(kernel, bias))).run(None, {"image": image})
    assert np.abs(doctor_worker.convolve(kernel, bias, image) - expected).max() < 1e-5
    assert (expected > 0).any()


def test_tensorrt_is_tried_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in("10.3.0") as found:
        monkeypatch.setattr(doctor_worker, "get_backend", lambda name: found.backend)
        answer = doctor_worker.work({"backend": "tensorrt"})
    assert (answer["works"], answer["detail"]) == ("runs", f"tensorrt 10.3.0 {ADA.label}")
    assert answer["max_abs_error"] < 1e-4


def test_a_jetson_says_its_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = tmp_path / "nv_tegra_release"
    monkeypatch.setattr(doctor, "TEGRA", release)
    assert doctor._tegra() is None
    release.write_text("")
    assert doctor._tegra() is None
    release.write_text("# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic\nmore\n")
    assert doctor._tegra() == "R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic"
