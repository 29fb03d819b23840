"""One suite that every backend has to pass: those that run here, a GPU's where there is one, and the code for a GPU on
stand-ins where there is none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from rir_deploy.engines import BACKENDS, get_backend
from rir_deploy.engines.base import (
    GRAPH_NAME,
    Array,
    Backend,
    BatchRange,
    BuildOptions,
    Built,
    Session,
    TensorSpec,
    input_spec,
    output_specs,
)
from rir_deploy.engines.gpu_options import GpuOptions
from rir_deploy.engines.loading import load_engine
from rir_deploy.engines.manifest import Manifest, check_engine, record_file, write_manifest
from rir_deploy.engines.tensorrt_options import TensorRtOptions
from rir_deploy.errors import BackendError, InputError, RirDeployError, UsageError
from tests.engines.graphs import camera, classifier, images, many_outputs, reference, to_half, unknown_operator
from tests.engines.stand_ins import VERSIONS, label, ort_stand_in, stand_in

BATCHES = BatchRange(2, 3, 7)


@dataclass(frozen=True)
class Made:
    """A backend, and engines that it built: by the name of the graph."""

    backend: Backend
    device: str
    folder: Path

    def build(self, name: str, model: ir.Model, batch: BatchRange = BatchRange(1, 2, 8)) -> tuple[Built, Path]:
        folder = self.folder / name
        folder.mkdir()
        ir.save(model, folder / GRAPH_NAME)
        built = self.backend.build(model, folder, BuildOptions(batch))
        return built, folder / built.file


STAND_INS = {
    **{f"{label(version)} {version}": lambda version=version: stand_in(version) for version in VERSIONS},
    **{name: lambda name=name: ort_stand_in(name) for name in ("onnxruntime-cuda", "onnxruntime-rtx")},
}


@pytest.fixture(scope="module", params=[*sorted(BACKENDS), *(f"stand-in of {name}" for name in STAND_INS)])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    with ExitStack() as stack:
        if request.param.startswith("stand-in of "):
            backend: Backend = stack.enter_context(STAND_INS[request.param.removeprefix("stand-in of ")]()).backend
        else:
            backend = get_backend(request.param)
        found = backend.availability()
        if not found.can_run:
            pytest.skip(f"{request.param}: {found.reason}")
        device = {"onnxruntime": "CPUExecutionProvider", "openvino": "CPU"}.get(backend.name, "(sm")
        yield Made(backend, device, tmp_path_factory.mktemp("engines"))


@dataclass(frozen=True)
class Engine:
    backend: Backend
    built: Built
    path: Path
    device: str

    def open(self, threads: int | None = None) -> Session:
        return self.backend.load(self.path, threads)


@pytest.fixture(scope="module")
def engine(made: Made) -> Engine:
    built, path = made.build("classifier", classifier())
    return Engine(made.backend, built, path, made.device)


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with engine.open() as opened:
        yield opened


def close_to(result: dict[str, Array], expected: dict[str, Array], atol: float = 1e-4) -> bool:
    return result.keys() == expected.keys() and all(
        result[name].shape == expected[name].shape
        and np.allclose(result[name].astype(float), expected[name].astype(float), rtol=0, atol=atol)
        for name in expected
    )


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8])
def test_outputs_are_the_reference_evaluators(session: Session, batch: int) -> None:
    assert close_to(session.run(images(batch)), reference(classifier(), images(batch)))


def test_the_smallest_the_tuned_the_largest_and_odd_batches_in_any_order(made: Made) -> None:
    _, path = made.build("range", classifier(), BATCHES)
    with made.backend.load(path) as session:
        for batch in (7, 2, 3, 5, 2, 7, 6):
            assert close_to(session.run(images(batch)), reference(classifier(), images(batch))), batch
        assert session.batches in (None, (2, 7))
        if session.batches is not None:
            for batch in (1, 8):
                with pytest.raises(InputError, match=f"takes batches of 2 to 7, not {batch}"):
                    session.run(images(batch))
            assert close_to(session.run(images(3)), reference(classifier(), images(3)))


def test_a_model_of_one_batch_size_takes_that_one(made: Made) -> None:
    model = classifier()
    model.graph.inputs[0].shape = ir.Shape([4, 3, 8, 8])
    model.graph.outputs[0].shape = ir.Shape([4, 5])
    _, path = made.build("fixed", model)
    with made.backend.load(path) as session:
        assert (session.input.shape, session.batches) == ((4, 3, 8, 8), (4, 4))
        assert close_to(session.run(images(4)), reference(classifier(), images(4)))
        for batch in (1, 5):
            with pytest.raises(InputError, match=f"takes batches of 4, not {batch}"):
                session.run(images(batch))


def test_all_outputs_come_by_their_names(made: Made) -> None:
    _, path = made.build("many", many_outputs())
    with made.backend.load(path) as session:
        expected = reference(many_outputs(), images(3))
        assert [spec.name for spec in session.outputs] == list(expected)
        assert [spec.shape for spec in session.outputs] == [(None, 5), (None, 8, 8, 8), (None, 8, 1, 1)]
        assert close_to(session.run(images(3)), expected)


def test_pixels_go_in_as_uint8(made: Made) -> None:
    _, path = made.build("camera", camera())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    with made.backend.load(path) as session:
        assert session.input.dtype == "uint8"
        assert close_to(session.run(pixels), reference(camera(), pixels))


def test_an_fp16_graph_keeps_its_types_at_the_ends(made: Made) -> None:
    model = to_half(classifier())
    _, path = made.build("half", model)
    with made.backend.load(path) as session:
        assert (session.input.dtype, session.outputs[0].dtype) == ("float16", "float16")
        assert close_to(session.run(images(2, np.float16)), reference(model, images(2, np.float16)), atol=0.02)


@pytest.mark.parametrize("streams", [3, None])
def test_requests_in_flight_do_not_mix(engine: Engine, streams: int | None) -> None:
    """Callers with images and batch sizes of their own, as many as there are streams and one more, each get theirs."""
    engine.backend.import_runtime()
    with engine.backend.load(engine.path, 2, streams=streams) as session:
        assert session.streams >= 1 if streams is None else session.streams == streams
        callers = session.streams + 1
        inputs = [images(1 + caller) + caller for caller in range(callers)]
        expected = [reference(classifier(), batch) for batch in inputs]
        with ThreadPoolExecutor(callers) as pool:
            runs = [(caller, pool.submit(session.run, inputs[caller])) for _ in range(5) for caller in range(callers)]
            assert all(close_to(run.result(), expected[caller]) for caller, run in runs)
    with pytest.raises(UsageError, match="closed"):
        session.run(images(1))


def test_a_result_stays_when_the_session_runs_again(session: Session) -> None:
    first = session.run(images(3))
    kept = {name: result.copy() for name, result in first.items()}
    session.run(images(7))
    session.run(images(3) + 1)
    assert all(np.array_equal(first[name], kept[name]) for name in kept)


def test_the_same_batch_gives_the_same_bits(engine: Engine, session: Session) -> None:
    first = session.run(images(5))
    session.run(images(2))
    with engine.open() as other:
        for again in (session.run(images(5)), other.run(images(5))):
            assert all(np.array_equal(first[name], again[name]) for name in first)


def test_the_batch_is_left_as_it_was(session: Session) -> None:
    batch = images(3)
    session.run(batch)
    assert np.array_equal(batch, images(3))


def test_strided_input_is_read_right(session: Session) -> None:
    batch = images(3)
    strided = np.ascontiguousarray(batch.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert close_to(session.run(strided), reference(classifier(), batch))
    assert close_to(session.run(images(6)[::2]), reference(classifier(), images(6)[::2]))


def test_tensors_are_described(session: Session) -> None:
    assert (session.input.name, session.input.dtype, session.input.shape) == ("x", "float32", (None, 3, 8, 8))
    assert [(spec.dtype, spec.shape) for spec in session.outputs] == [("float32", (None, 5))]


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 3, 9, 8), np.float32),
        np.zeros((1, 4, 8, 8), np.float32),
        np.zeros((3, 8, 8), np.float32),
        np.zeros((), np.float32),
        np.zeros((1, 3, 8, 8), np.float64),
        np.zeros((1, 3, 8, 8), np.uint8),
    ],
    ids=lambda batch: f"{batch.dtype}-{batch.shape}",
)
def test_a_wrong_batch_is_refused_and_the_session_lives_on(session: Session, batch: Array) -> None:
    with pytest.raises(InputError, match="takes float32 Nx3x8x8"):
        session.run(batch)
    assert close_to(session.run(images(2)), reference(classifier(), images(2)))


def test_an_empty_batch_is_refused(session: Session) -> None:
    with pytest.raises(InputError, match=r"takes batches of .*, not 0"):
        session.run(images(0))


def test_a_closed_session_says_so_and_closes_twice(engine: Engine) -> None:
    with engine.open() as opened:
        opened.run(images(1))
    for _ in range(2):
        opened.close()
        with pytest.raises(UsageError, match="closed"):
            opened.run(images(1))


def test_two_sessions_at_once_do_not_meet(engine: Engine) -> None:
    with engine.open() as one, engine.open() as two:
        for batch in (2, 5, 3):
            assert close_to(one.run(images(batch)), reference(classifier(), images(batch)))
            assert close_to(two.run(images(batch) + 1), reference(classifier(), images(batch) + 1))
        one.close()
        assert close_to(two.run(images(4)), reference(classifier(), images(4)))


def test_threads_may_share_a_session(session: Session) -> None:
    expected = {batch: reference(classifier(), images(batch)) for batch in (1, 2, 4, 7)}
    wrong: list[object] = []

    def work(batch: int) -> None:
        try:
            wrong.extend(batch for _ in range(5) if not close_to(session.run(images(batch)), expected[batch]))
        except BaseException as error:
            wrong.append(error)

    workers = [threading.Thread(target=work, args=(batch,)) for batch in expected]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_threads_of_the_runtime_are_taken(engine: Engine) -> None:
    with engine.open(threads=1) as opened:
        assert close_to(opened.run(images(2)), reference(classifier(), images(2)))


def test_runs_on_names_runtime_version_and_device(engine: Engine, session: Session) -> None:
    version = engine.backend.availability().version
    assert session.runs_on.startswith(f"{engine.backend.name} {version} ")
    assert (engine.built.backend, engine.built.backend_version) == (engine.backend.name, version)
    assert engine.device in session.runs_on


def test_every_file_that_is_needed_is_named(engine: Engine, tmp_path: Path) -> None:
    """The files a backend names, moved elsewhere alone, still are the whole engine."""
    for name in (engine.built.file, *engine.built.extra_files):
        (tmp_path / name).write_bytes((engine.path.parent / name).read_bytes())
    with engine.backend.load(tmp_path / engine.built.file) as opened:
        assert close_to(opened.run(images(1)), reference(classifier(), images(1)))


def test_an_operator_that_it_does_not_know_is_bad_input_and_leaves_nothing(made: Made, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(InputError, match=r"Frobnicate|strange") as refusal:
        made.backend.build(unknown_operator(), tmp_path, BuildOptions())
    assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("data", [b"", b"engine", bytes(range(256))])
def test_a_file_that_is_no_engine_is_one_sentence(engine: Engine, data: bytes, tmp_path: Path) -> None:
    for name in engine.built.extra_files:
        (tmp_path / name).write_bytes(data)
    (tmp_path / engine.built.file).write_bytes(data)
    with pytest.raises((InputError, BackendError)) as refusal:
        engine.backend.load(tmp_path / engine.built.file)
    assert "\n" not in str(refusal.value)
    assert engine.built.file in str(refusal.value)


def test_a_target_is_refused_where_it_means_nothing(made: Made, tmp_path: Path) -> None:
    options = BuildOptions(targets=("sm999",))
    for refused in (
        lambda: made.backend.check(None, options),
        lambda: made.backend.build(classifier(), tmp_path, options),
    ):
        with pytest.raises(UsageError, match=r"target|sm999"):
            refused()
    assert not list(tmp_path.iterdir())


def test_options_of_tensorrt_are_refused_elsewhere(made: Made, engine: Engine) -> None:
    if made.backend.name.startswith("tensorrt"):
        made.backend.check("fp32", BuildOptions(tensorrt=TensorRtOptions(workspace_mib=64)))
        return
    with pytest.raises(UsageError, match=r"--workspace, --refit: only TensorRT's builder knows that"):
        made.backend.check("fp32", BuildOptions(tensorrt=TensorRtOptions(workspace_mib=64, refit=True)))
    with pytest.raises(UsageError, match="CUDA graphs and runtime caches are TensorRT's"):
        made.backend.load(engine.path, gpu=GpuOptions(cuda_graph=True))


def test_availability_is_truthful(made: Made) -> None:
    found = made.backend.availability()
    assert (found.backend, found.can_build, found.can_run, found.reason) == (made.backend.name, True, True, "")
    assert found.version is not None
    assert set(made.backend.precisions) <= {"fp32", "fp16", "int8"}


@pytest.fixture
def folder(engine: Engine) -> Path:
    """The engine's folder with its manifest, as the pipeline writes it."""
    model, built, folder = classifier(), engine.built, engine.path.parent
    manifest = Manifest(
        backend=built.backend,
        backend_version=built.backend_version,
        precision="fp32",
        engine=record_file(engine.path),
        graph=record_file(folder / GRAPH_NAME),
        input=input_spec(model),
        outputs=output_specs(model),
        parents={},
        recipe=None,
        batch=(1, 2, 8),
        extra=tuple(record_file(folder / name) for name in built.extra_files),
        targets=built.targets,
        gpu=built.gpu,
    )
    write_manifest(folder, manifest)
    return folder


def test_an_engine_is_loaded_by_its_manifest(engine: Engine, folder: Path) -> None:
    manifest = check_engine(folder)
    assert engine.backend.mismatch(manifest) is None
    with open_by_manifest(engine, folder, manifest) as opened:
        assert close_to(opened.run(images(2)), reference(classifier(), images(2)))


def open_by_manifest(engine: Engine, folder: Path, manifest: Manifest, trust: bool = False) -> Session:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rir_deploy.engines.loading.get_backend", lambda name: engine.backend)
        return load_engine(folder, manifest, trust=trust)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("input", ("y", "float32", (None, 3, 8, 8)), "takes another input"),
        ("input", ("x", "float32", (None, 3, 9, 8)), "takes another input"),
        ("input", ("x", "float16", (None, 3, 8, 8)), "takes another input"),
        ("outputs", (), "gives other outputs"),
        ("batch", (1, 2, 9), "takes other batch sizes"),
        ("batch", (2, 2, 8), "takes other batch sizes"),
    ],
)
def test_an_engine_that_is_not_what_its_manifest_says_is_refused_unless_trusted(
    engine: Engine, folder: Path, field: str, value: object, words: str
) -> None:
    manifest = check_engine(folder)
    told = TensorSpec(*value) if field == "input" else value  # type: ignore[misc]
    wrong = replace(manifest, **{field: told})  # type: ignore[arg-type]
    with engine.open() as opened:
        any_batch = opened.batches is None
    if field == "batch" and any_batch:
        open_by_manifest(engine, folder, wrong).close()  # the runtime takes any batch: there is nothing to contradict
        return
    with pytest.raises(InputError, match=f"{words} than its manifest says; rebuild it with build-engine"):
        open_by_manifest(engine, folder, wrong)
    with open_by_manifest(engine, folder, wrong, trust=True) as opened:
        assert close_to(opened.run(images(2)), reference(classifier(), images(2)))


def test_errors_are_of_this_project(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(RirDeployError):
        engine.backend.load(tmp_path / "nothing-there" / engine.built.file)
