from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from rir_deploy.engines import BACKENDS, get_backend
from rir_deploy.engines.base import BatchRange, BuildOptions
from rir_deploy.engines.graph import model_bytes
from rir_deploy.errors import BackendError, UsageError
from tests.engines.graphs import classifier, images, reference, with_external_data

RUNTIMES = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "cuda", "torch")


def test_an_unknown_backend_is_a_usage_error_with_a_hint() -> None:
    with pytest.raises(UsageError, match="did you mean 'openvino'"):
        get_backend("openvno")


def test_no_runtime_is_loaded_before_it_is_used() -> None:
    script = (
        "import sys, rir_deploy.engines as e\n"
        "for name in e.BACKENDS: assert e.get_backend(name).name == name\n"
        f"print([m for m in {RUNTIMES!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert len(BACKENDS) == 6


@pytest.mark.parametrize("bad", [(0, 1, 1), (2, 1, 4), (1, 5, 4)])
def test_a_batch_range_out_of_order_is_refused(bad: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="1 <= min <= opt <= max"):
        BatchRange(*bad)


def test_options_default_to_no_progress() -> None:
    assert BuildOptions().on_progress is None


def test_model_bytes_hold_the_weights_of_external_files(tmp_path: Path) -> None:
    data = model_bytes(with_external_data(classifier(), tmp_path))
    for file in tmp_path.iterdir():
        file.unlink()
    again = ir.from_proto(onnx.load_from_string(data))
    (expected,) = reference(classifier(), images(2)).values()
    (result,) = reference(again, images(2)).values()
    assert (expected == result).all()


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_without_its_package_it_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "onnxruntime_ep_nv_tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)
    backend = get_backend(name)
    found = backend.availability()
    assert (found.backend, found.can_build, found.can_run, found.version) == (name, False, False, None)
    assert found.install.startswith("python -m pip install")
    assert found.install in found.reason
    attempts: list[Callable[[], object]] = [
        lambda: backend.build(classifier(), tmp_path, BuildOptions()),
        lambda: backend.load(tmp_path / "engine"),
    ]
    for attempt in attempts:
        with pytest.raises(BackendError) as refusal:
            attempt()
        assert found.install in str(refusal.value)
    assert not list(tmp_path.iterdir())
