"""The session's logic on host memory: what is asked in which order, and that all of it is freed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rir_deploy.engines.cuda_stream import CudaStream, load_cudart
from rir_deploy.engines.gpu_options import GpuOptions, GpuTimes
from rir_deploy.engines.tensorrt_flavour import RTX, TENSORRT
from rir_deploy.engines.tensorrt_gpu import Gpu
from rir_deploy.engines.tensorrt_session import TensorRtSession
from rir_deploy.errors import BackendError, InputError, UsageError
from tests.engines.fake_cuda import FakeCudart
from tests.engines.fake_runtime import FakeTensorRt, doubler
from tests.engines.surface import FULL_VERSIONS, RTX_VERSION

GRAPHS = GpuOptions(cuda_graph=True)


@pytest.fixture
def cudart() -> FakeCudart:
    return FakeCudart()


@pytest.fixture(params=FULL_VERSIONS)
def module(cudart: FakeCudart, request: pytest.FixtureRequest) -> FakeTensorRt:
    return FakeTensorRt(cudart, request.param)


@pytest.fixture
def rtx(cudart: FakeCudart) -> FakeTensorRt:
    return FakeTensorRt(cudart, RTX_VERSION)


def load(
    module: Any,
    folder: Path,
    options: GpuOptions = GpuOptions(),
    name: str = "engine.trt",
    plan: bytes | None = None,
    streams: int | None = 1,
) -> TensorRtSession:
    path = folder / name
    path.write_bytes(doubler() if plan is None else plan)
    flavour = RTX if module.__version__ == RTX_VERSION else TENSORRT
    return TensorRtSession(module, flavour, Gpu("Orin", (8, 7)), path, module.cudart, options, streams)


def rows(count: int) -> Any:
    return np.arange(3 * count, dtype=np.float32).reshape(count, 3)


@pytest.mark.parametrize("counts", [(1, 8, 3), (8, 1), (5, 5)])
def test_each_batch_size_is_computed_in_turn(module: FakeTensorRt, tmp_path: Path, counts: tuple[int, ...]) -> None:
    with load(module, tmp_path) as session:
        for count in counts:
            assert np.array_equal(session.run(rows(count))["y"], 2 * rows(count).sum(axis=1))


def test_buffers_grow_and_are_used_again(module: FakeTensorRt, cudart: FakeCudart, tmp_path: Path) -> None:
    with load(module, tmp_path) as session:
        for count in (4, 1, 2, 4):
            session.run(rows(count))
        assert cudart.allocations == 2
        session.run(rows(8))
        assert (cudart.allocations, len(cudart.memory)) == (4, 2)


def test_closing_frees_everything_and_twice_is_fine(module: FakeTensorRt, cudart: FakeCudart, tmp_path: Path) -> None:
    with load(module, tmp_path) as session:
        session.run(rows(2))
        assert cudart.memory
    session.close()
    assert not cudart.memory
    assert not cudart.streams


def test_tensors_and_place_are_described(module: FakeTensorRt, tmp_path: Path) -> None:
    with load(module, tmp_path) as session:
        assert (session.input.name, session.input.dtype, session.input.shape) == ("x", "float32", (None, 3))
        assert [(spec.name, spec.shape) for spec in session.outputs] == [("y", (None,))]
        assert session.batches == (1, 8)
        assert session.runs_on == f"tensorrt {module.__version__} Orin (sm87)"
        assert session.layers() == "JSON at (4, 3)"  # the batch size that the profile is tuned for
        assert session.run(rows(2))["y"].shape == (2,)


def test_a_batch_outside_of_the_profile_is_refused(module: FakeTensorRt, tmp_path: Path) -> None:
    with load(module, tmp_path) as session:
        with pytest.raises(InputError, match="batches of 1 to 8, not 9"):
            session.run(rows(9))
        with pytest.raises(InputError, match="takes float32 Nx3"):
            session.run(rows(2).astype(np.float64))


def test_an_engine_of_another_machine_is_a_backend_error(
    module: FakeTensorRt, cudart: FakeCudart, tmp_path: Path
) -> None:
    module.loads = False
    with pytest.raises(BackendError, match=r"on Orin \(sm87\): Serialization: wrong tag; build it on this machine"):
        load(module, tmp_path)
    assert not cudart.streams


def test_an_engine_of_two_inputs_is_refused_and_freed(module: FakeTensorRt, cudart: FakeCudart, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 inputs"):
        load(module, tmp_path, plan=doubler(inputs=2))
    assert not cudart.streams


def test_a_run_that_fails_waits_for_its_copies(module: FakeTensorRt, cudart: FakeCudart, tmp_path: Path) -> None:
    with load(module, tmp_path) as session:
        module.runs = False
        with pytest.raises(BackendError, match="did not run"):
            session.run(rows(2))
        assert cudart.synchronized == 1


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaMemcpyAsync", "cudaStreamSynchronize"])
def test_cudas_own_words_are_passed_on(module: FakeTensorRt, cudart: FakeCudart, tmp_path: Path, function: str) -> None:
    with load(module, tmp_path) as session:
        cudart.fail = function
        with pytest.raises(BackendError, match=f"{function} failed: out of memory"):
            session.run(rows(2))
        cudart.fail = ""
        assert np.array_equal(session.run(rows(3))["y"], 2 * rows(3).sum(axis=1))
    assert not cudart.memory
    assert not cudart.streams


def test_no_stream_no_buffers(cudart: FakeCudart) -> None:
    cudart.fail = "cudaStreamCreate"
    with pytest.raises(BackendError, match="cudaStreamCreate failed"):
        CudaStream(cudart)


def test_a_session_that_is_closed_says_so(module: FakeTensorRt, tmp_path: Path) -> None:
    session = load(module, tmp_path)
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.run(rows(1))


def test_a_cuda_graph_is_captured_for_a_shape_and_replayed(
    module: FakeTensorRt, cudart: FakeCudart, tmp_path: Path
) -> None:
    with load(module, tmp_path, GRAPHS) as session:
        for run, image in enumerate((rows(3), rows(3) + 1, rows(3) + 2, rows(3) + 3)):
            assert ("in a CUDA graph" in session.runs_on) is (run > 1)
            assert np.array_equal(session.run(image)["y"], 2 * image.sum(axis=1))
        assert cudart.log == ["capture", "launch", "launch", "launch"]  # the first run is as it is
        assert module.did.count("enqueue") == 2


def test_another_shape_undoes_the_graph_before_anything_it_holds_changes(
    module: FakeTensorRt, cudart: FakeCudart, tmp_path: Path
) -> None:
    """The stand-ins refuse a new shape, a freed buffer or a changed context under a graph that lives."""
    with load(module, tmp_path, GRAPHS) as session:
        for count in (2, 2, 5, 2, 2, 2, 8, 8):
            assert np.array_equal(session.run(rows(count))["y"], 2 * rows(count).sum(axis=1))
        session.layers()
        session.run(rows(8))
    once, twice = ["capture", "launch", "destroy"], ["capture", "launch", "launch", "destroy"]
    assert cudart.log == [*once, *twice, *once]
    assert not cudart.graphs


@pytest.mark.parametrize("function", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_an_engine_that_cannot_be_captured_is_an_error_and_leaks_nothing(
    module: FakeTensorRt, cudart: FakeCudart, tmp_path: Path, function: str
) -> None:
    with load(module, tmp_path, GRAPHS) as session:
        session.run(rows(2))
        cudart.fail = function
        with pytest.raises(BackendError, match=f"{function} failed"):
            session.run(rows(2))
        cudart.fail = ""
    assert not cudart.graphs
    assert not cudart.memory


def test_a_failing_enqueue_ends_the_capture(module: FakeTensorRt, cudart: FakeCudart, tmp_path: Path) -> None:
    with load(module, tmp_path, GRAPHS) as session:
        session.run(rows(2))
        module.runs = False
        with pytest.raises(BackendError, match="did not run"):
            session.run(rows(2))
        assert cudart.capturing is None
        assert not cudart.graphs


def test_requests_in_flight_have_a_context_a_stream_and_buffers_each(
    module: FakeTensorRt, cudart: FakeCudart, tmp_path: Path
) -> None:
    with load(module, tmp_path, GRAPHS, streams=3) as session:
        assert session.streams == 3
        assert len(cudart.streams) == 1 + 3  # the first made the CUDA context
        for run in range(9):
            image = rows(2) + run
            assert np.array_equal(session.run(image)["y"], 2 * image.sum(axis=1))
        assert len(cudart.memory) == 3 * 2
        assert cudart.log.count("capture") == 3
    assert not cudart.graphs
    assert not cudart.memory
    assert not cudart.streams
    with load(module, tmp_path, streams=None) as session:
        assert session.streams == 2


def test_a_request_is_timed_by_events(module: FakeTensorRt, cudart: FakeCudart, tmp_path: Path) -> None:
    """The stand-in's GPU takes 1 ms a copy and 4 ms for the kernels."""
    times: list[GpuTimes] = []
    options = GpuOptions(cuda_graph=True, on_times=times.append)
    with load(module, tmp_path, options) as session:
        for _ in range(3):
            session.run(rows(2))
        assert len(cudart.events) == 4
    assert [(one.upload_ms, one.compute_ms, one.download_ms) for one in times] == [(1, 4, 1)] * 3
    assert all(0 < one.enqueue_ms < 1000 for one in times)
    assert not cudart.events


def test_without_transfers_the_input_of_a_shape_is_copied_once(
    module: FakeTensorRt, cudart: FakeCudart, tmp_path: Path
) -> None:
    times: list[GpuTimes] = []
    with load(module, tmp_path, GpuOptions(transfers=False, on_times=times.append)) as session:
        for count in (2, 2, 2, 5, 5):
            assert session.run(rows(count)) == {}
        assert cudart.copies == [1, 1]  # host to device, one a shape
        assert module.did.count("enqueue") == 5
    assert [(one.upload_ms, one.compute_ms, one.download_ms) for one in times] == [(None, 4, None)] * 5


@pytest.mark.parametrize("function", ["cudaEventCreate", "cudaEventRecord", "cudaEventElapsedTime"])
def test_events_that_fail_leak_nothing(module: FakeTensorRt, cudart: FakeCudart, tmp_path: Path, function: str) -> None:
    cudart.fail = function
    with pytest.raises(BackendError, match=f"{function} failed"):  # noqa: SIM117
        with load(module, tmp_path, GpuOptions(on_times=print)) as session:
            session.run(rows(2))
    assert not cudart.events
    assert not cudart.memory
    assert not cudart.streams


def test_rtx_captures_by_itself(rtx: FakeTensorRt, cudart: FakeCudart, tmp_path: Path) -> None:
    with load(rtx, tmp_path, GRAPHS) as session:
        for count in (2, 2, 2):
            assert np.array_equal(session.run(rows(count))["y"], 2 * rows(count).sum(axis=1))
        assert session.runs_on == "tensorrt-rtx 1.7.1 Orin (sm87), in a CUDA graph"
    assert "context with strategy WHOLE_GRAPH_CAPTURE" in rtx.did
    assert cudart.log == []
    rtx.takes_strategy = False
    with pytest.raises(BackendError, match="does not run this engine in a CUDA graph"):
        load(rtx, tmp_path, GRAPHS)
    assert not cudart.streams


def test_rtxs_runtime_cache_is_begun_read_and_kept(rtx: FakeTensorRt, tmp_path: Path) -> None:
    options = GpuOptions(runtime_cache=tmp_path / "kernels")
    with load(rtx, tmp_path, options) as session:
        assert session.runs_on.endswith("runtime cache begun")
        assert not (tmp_path / "kernels").exists()
    assert (tmp_path / "kernels").read_bytes() == b"kernels"
    with load(rtx, tmp_path, options) as session:
        assert session.runs_on.endswith("runtime cache read")
        rtx.cache = b"kernels and more"
    assert (tmp_path / "kernels").read_bytes() == b"kernels and more"
    assert rtx.did.count("cache set") == 2
    assert "context with strategy DISABLED" in rtx.did


def test_a_runtime_cache_of_another_gpu_is_begun_anew(rtx: FakeTensorRt, tmp_path: Path) -> None:
    (tmp_path / "kernels").write_bytes(b"of another GPU")
    with load(rtx, tmp_path, GpuOptions(runtime_cache=tmp_path / "kernels")) as session:
        assert session.runs_on.endswith("runtime cache begun")
    assert (tmp_path / "kernels").read_bytes() == b"kernels"
    with pytest.raises(UsageError, match="cannot read the runtime cache"):
        load(rtx, tmp_path, GpuOptions(runtime_cache=tmp_path))
    assert not rtx.cudart.streams


def test_a_full_tensorrt_has_no_runtime_cache(module: FakeTensorRt, cudart: FakeCudart, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no runtime cache"):
        load(module, tmp_path, GpuOptions(runtime_cache=tmp_path / "kernels"))
    assert not cudart.streams


@pytest.mark.parametrize(("name", "allowed"), [("engine.trt", False), ("engine.lean.trt", True)])
def test_host_code_is_allowed_to_an_engine_built_with_it_alone(
    module: FakeTensorRt, tmp_path: Path, name: str, allowed: bool
) -> None:
    load(module, tmp_path, name=name).close()
    assert module.did[0] == f"host code {allowed}"


def test_stripped_weights_come_from_the_graph_beside(module: FakeTensorRt, cudart: FakeCudart, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"weights are in '.*graph\.onnx', which is not there"):
        load(module, tmp_path, name="engine.stripped.trt")
    (tmp_path / "graph.onnx").write_bytes(b"graph")
    load(module, tmp_path, name="engine.stripped.trt").close()
    assert module.did[-2:] == ["weights from graph.onnx", "refit"]
    module.refits = False
    with pytest.raises(BackendError, match="build it without --strip-weights"):
        load(module, tmp_path, name="engine.stripped.trt")
    assert not cudart.streams


def test_cuda_python_has_the_functions_that_are_called() -> None:
    module = pytest.importorskip("cuda.bindings.runtime")
    assert load_cudart("install it") is module
    for name in (name for name in dir(FakeCudart) if name.startswith("cuda")):
        assert hasattr(module, name)
    assert hasattr(module.cudaMemcpyKind, "cudaMemcpyHostToDevice")
    assert hasattr(module.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")
    assert int(module.cudaError_t.cudaSuccess) == 0


def test_without_cuda_python_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match="run: install it"):
        load_cudart("install it")


@pytest.mark.parametrize("refused", ["x", "y"])
def test_a_buffer_that_is_not_taken_is_an_error(
    refused: str, module: FakeTensorRt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT says so by False, and would compute on what was bound before."""
    monkeypatch.setattr(
        "tests.engines.fake_runtime.FakeContext.set_tensor_address", lambda context, name, address: name != refused
    )
    with load(module, tmp_path) as session, pytest.raises(BackendError, match=f"buffer for '{refused}'"):
        session.run(rows(2))
