"""The session's logic on host memory: what is asked in which order, and that all of it is freed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rir_deploy.engines.cuda_buffers import CudaBuffers, load_cudart
from rir_deploy.engines.tensorrt_flavour import TENSORRT
from rir_deploy.engines.tensorrt_gpu import Gpu
from rir_deploy.engines.tensorrt_session import TensorRtSession
from rir_deploy.errors import BackendError, InputError
from tests.engines.fake_tensorrt import FakeCudart, FakeRuntime


@pytest.fixture
def cudart() -> FakeCudart:
    return FakeCudart()


@pytest.fixture
def module(cudart: FakeCudart) -> FakeRuntime:
    return FakeRuntime(cudart)


def load(module: FakeRuntime, folder: Path) -> TensorRtSession:
    path = folder / "engine.trt"
    path.write_bytes(b"plan")
    return TensorRtSession(module, TENSORRT, Gpu("Orin", (8, 7)), path, module.cudart)


def rows(count: int) -> Any:
    return np.arange(3 * count, dtype=np.float32).reshape(count, 3)


@pytest.mark.parametrize("counts", [(1, 8, 3), (8, 1), (5, 5)])
def test_each_batch_size_is_computed_in_turn(module: FakeRuntime, tmp_path: Path, counts: tuple[int, ...]) -> None:
    with load(module, tmp_path) as session:
        for count in counts:
            assert np.array_equal(session.run(rows(count))["y"], 2 * rows(count).sum(axis=1))


def test_buffers_grow_and_are_used_again(module: FakeRuntime, cudart: FakeCudart, tmp_path: Path) -> None:
    with load(module, tmp_path) as session:
        for count in (4, 1, 2, 4):
            session.run(rows(count))
        assert cudart.allocations == 2
        session.run(rows(8))
        assert (cudart.allocations, len(cudart.memory)) == (4, 2)


def test_closing_frees_everything_and_twice_is_fine(module: FakeRuntime, cudart: FakeCudart, tmp_path: Path) -> None:
    with load(module, tmp_path) as session:
        session.run(rows(2))
        assert cudart.memory
    session.close()
    assert not cudart.memory
    assert not cudart.streams


def test_tensors_and_place_are_described(module: FakeRuntime, tmp_path: Path) -> None:
    with load(module, tmp_path) as session:
        assert (session.input.name, session.input.dtype, session.input.shape) == ("x", "float32", (None, 3))
        assert [(spec.name, spec.shape) for spec in session.outputs] == [("y", (None,))]
        assert session.runs_on == "tensorrt 10.3.0 Orin (sm87)"
        assert session.layers() == "json at (4, 3)"  # the batch size that the profile is tuned for


def test_a_batch_outside_of_the_profile_is_refused(module: FakeRuntime, tmp_path: Path) -> None:
    with load(module, tmp_path) as session:
        with pytest.raises(InputError, match="batches of 1 to 8, not 9"):
            session.run(rows(9))
        with pytest.raises(InputError, match="takes float32 Nx3"):
            session.run(rows(2).astype(np.float64))


def test_an_engine_of_another_machine_is_a_backend_error(
    module: FakeRuntime, cudart: FakeCudart, tmp_path: Path
) -> None:
    module.loads = False
    with pytest.raises(BackendError, match=r"on Orin \(sm87\): Serialization: wrong tag; build it on this machine"):
        load(module, tmp_path)
    assert not cudart.streams


def test_an_engine_of_two_inputs_is_refused_and_freed(module: FakeRuntime, cudart: FakeCudart, tmp_path: Path) -> None:
    module.inputs = ("x", "y")
    with pytest.raises(InputError, match="2 inputs"):
        load(module, tmp_path)
    assert not cudart.streams


def test_a_run_that_fails_waits_for_its_copies(module: FakeRuntime, cudart: FakeCudart, tmp_path: Path) -> None:
    with load(module, tmp_path) as session:
        module.runs = False
        with pytest.raises(BackendError, match="did not run"):
            session.run(rows(2))
        assert cudart.synchronized == 1


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaMemcpyAsync", "cudaStreamSynchronize"])
def test_cudas_own_words_are_passed_on(module: FakeRuntime, cudart: FakeCudart, tmp_path: Path, function: str) -> None:
    with load(module, tmp_path) as session:
        cudart.fail = function
        with pytest.raises(BackendError, match=f"{function} failed: out of memory"):
            session.run(rows(2))
        cudart.fail = ""
    assert not cudart.memory
    assert not cudart.streams


def test_no_stream_no_buffers(cudart: FakeCudart) -> None:
    cudart.fail = "cudaStreamCreate"
    with pytest.raises(BackendError, match="cudaStreamCreate failed"):
        CudaBuffers(cudart)


def test_cuda_python_has_the_functions_that_are_called() -> None:
    module = pytest.importorskip("cuda.bindings.runtime")
    assert load_cudart("install it") is module
    for name in (name for name in dir(FakeCudart) if name.startswith("cuda")):
        assert hasattr(module, name)
    assert hasattr(module.cudaMemcpyKind, "cudaMemcpyHostToDevice")
    assert int(module.cudaError_t.cudaSuccess) == 0


def test_without_cuda_python_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match="run: install it"):
        load_cudart("install it")
