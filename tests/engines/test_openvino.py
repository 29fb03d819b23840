from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from rir_deploy.engines.base import BuildOptions
from rir_deploy.engines.graph import model_bytes
from rir_deploy.engines.openvino import BACKEND, INTEGERS, OpenVinoSession, _check_hint, precision_hint
from rir_deploy.errors import BackendError, InputError, UsageError
from tests.engines.graphs import (
    Quantised,
    classifier,
    images,
    quantised,
    reference,
    to_half,
    unknown_operator,
    with_external_data,
)

ov = pytest.importorskip("openvino")


def build(model: ir.Model, folder: Path) -> Any:
    built = BACKEND.build(model, folder, BuildOptions())
    assert (built.file, built.extra_files) == ("engine.xml", ("engine.bin",))
    return built.realized


def test_the_hint_is_f32_and_read_back(tmp_path: Path) -> None:
    realized = build(classifier(), tmp_path)
    assert realized["hint"] == "f32"
    assert realized["conv"] == {"f32": 2}
    with OpenVinoSession(tmp_path / "engine.xml") as session:
        assert session._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
        assert session._compiled.get_property("PERFORMANCE_HINT") == "LATENCY"
        assert session._compiled.get_property("NUM_STREAMS") == 1
        assert "0 of 2 convolutions in int8" in session.runs_on


@pytest.mark.parametrize("options", [Quantised(), Quantised(activations="uint8"), Quantised(float_type=np.float16)])
def test_quantised_convolutions_run_in_integers(options: Quantised, tmp_path: Path) -> None:
    model = quantised(options)
    realized = build(model, tmp_path)
    assert set(realized["conv"]) <= INTEGERS
    assert sum(realized["conv"].values()) == options.convs
    batch = images(3, options.float_type)
    expected = reference(model, batch)["r2"].astype(np.float64)
    with OpenVinoSession(tmp_path / "engine.xml") as session:
        result = session.run(batch)["r2"].astype(np.float64)
        assert "3 of 3 convolutions in int8" in session.runs_on
    # Integer kernels round as the graph says but for a few ties: one step of 0.04 through the last convolution.
    assert np.abs(result - expected).max() < 0.04
    assert np.abs(result - expected).mean() < 0.002


@pytest.mark.parametrize(("capabilities", "hint"), [(["FP32", "BF16"], "f32"), (["FP32", "FP16"], "f16")])
def test_an_fp16_graph_computes_in_f16_only_where_the_cpu_does(capabilities: list[str], hint: str) -> None:
    model = ov.Core().read_model(model_bytes(to_half(classifier())))
    assert precision_hint(model, capabilities) == hint
    assert precision_hint(ov.Core().read_model(model_bytes(classifier())), capabilities) == "f32"


def test_an_fp16_graph_keeps_its_types_at_the_ends(tmp_path: Path) -> None:
    model = to_half(classifier())
    build(model, tmp_path)
    batch = images(2, np.float16)
    (expected,) = reference(model, batch).values()
    with OpenVinoSession(tmp_path / "engine.xml") as session:
        assert session.input.dtype == session.outputs[0].dtype == "float16"
        (result,) = session.run(batch).values()
    assert result.dtype == np.float16
    assert np.abs(result.astype(float) - expected.astype(float)).max() < 0.02


def test_another_precision_than_asked_for_is_an_error() -> None:
    compiled = SimpleNamespace(get_property=lambda name: SimpleNamespace(get_type_name=lambda: "bf16"))
    with pytest.raises(BackendError, match="asked for f32 and runs in bf16"):
        _check_hint(compiled, "f32")


def test_threads_reach_the_runtime(tmp_path: Path) -> None:
    build(classifier(), tmp_path)
    with OpenVinoSession(tmp_path / "engine.xml", threads=1) as session:
        assert session._compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_external_weights_end_up_in_the_engine(tmp_path: Path) -> None:
    source, engine = tmp_path / "source", tmp_path / "engine"
    source.mkdir()
    engine.mkdir()
    build(with_external_data(classifier(), source), engine)
    for file in source.iterdir():
        file.unlink()
    with OpenVinoSession(engine / "engine.xml") as session:
        (result,) = session.run(images(2)).values()
    (expected,) = reference(classifier(), images(2)).values()
    assert np.allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("lost", ["engine.xml", "engine.bin"])
def test_a_lost_file_is_bad_input(lost: str, tmp_path: Path) -> None:
    build(classifier(), tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(InputError, match=r"engine\.xml"):
        OpenVinoSession(tmp_path / "engine.xml")


def test_refusals_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        BACKEND.build(unknown_operator(), tmp_path, BuildOptions())
    assert "\n" not in str(refusal.value)
    assert "src/" not in str(refusal.value)
    with pytest.raises(UsageError, match="leave --target out"):
        BACKEND.build(classifier(), tmp_path, BuildOptions(targets=("sm89",)))


def test_without_openvino_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = BACKEND.availability()
    assert (found.can_build, found.can_run, found.version) == (False, False, None)
    with pytest.raises(BackendError, match="pip install openvino"):
        BACKEND.load(tmp_path / "engine.xml")


def test_nothing_is_reported_to_anyone() -> None:
    """Importing openvino starts a thread that calls its vendor, unless it is kept from it."""
    script = (
        "import sys, threading\n"
        "from rir_deploy.engines.openvino import BACKEND\n"
        "assert BACKEND.availability().can_run\n"
        "print(threading.active_count(), 'openvino' in sys.modules, 'openvino_telemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "True", "False"]
