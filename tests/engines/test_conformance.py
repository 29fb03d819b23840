"""One suite that every backend which runs here has to pass, a GPU's too where there is one."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from rir_deploy.engines import BACKENDS, get_backend
from rir_deploy.engines.base import Array, Backend, BuildOptions, Built, Session
from rir_deploy.errors import InputError, RirDeployError, UsageError
from tests.engines.graphs import classifier, images, reference, unknown_operator

ALWAYS_HERE = {"onnxruntime", "openvino"}


@dataclass(frozen=True)
class Engine:
    backend: Backend
    built: Built
    path: Path


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    backend = get_backend(request.param)
    found = backend.availability()
    if not found.can_run:
        pytest.skip(f"{request.param}: {found.reason}")
    folder = tmp_path_factory.mktemp(request.param)
    built = backend.build(classifier(), folder, BuildOptions())
    return Engine(backend, built, folder / built.file)


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with engine.backend.load(engine.path) as opened:
        yield opened


def close_to(result: dict[str, Array], expected: dict[str, Array]) -> bool:
    return result.keys() == expected.keys() and all(
        np.allclose(result[name], expected[name], rtol=0, atol=1e-4) for name in expected
    )


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_outputs_are_the_reference_evaluators(session: Session, batch: int) -> None:
    assert close_to(session.run(images(batch)), reference(classifier(), images(batch)))


def test_a_result_stays_when_the_session_runs_again(session: Session) -> None:
    first = session.run(images(3))
    kept = {name: result.copy() for name, result in first.items()}
    session.run(images(7))
    session.run(images(3) + 1)
    assert all(np.array_equal(first[name], kept[name]) for name in kept)


def test_strided_input_is_read_right(session: Session) -> None:
    batch = images(3)
    strided = np.ascontiguousarray(batch.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert close_to(session.run(strided), reference(classifier(), batch))


def test_tensors_are_described(session: Session) -> None:
    assert (session.input.name, session.input.dtype, session.input.shape) == ("x", "float32", (None, 3, 8, 8))
    assert [(spec.dtype, spec.shape) for spec in session.outputs] == [("float32", (None, 5))]


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 3, 9, 8), np.float32),
        np.zeros((1, 4, 8, 8), np.float32),
        np.zeros((3, 8, 8), np.float32),
        np.zeros((1, 3, 8, 8), np.float64),
        np.zeros((1, 3, 8, 8), np.uint8),
    ],
)
def test_a_wrong_batch_is_refused(session: Session, batch: Array) -> None:
    with pytest.raises(InputError, match="takes float32 Nx3x8x8"):
        session.run(batch)


def test_leaving_the_context_closes(engine: Engine) -> None:
    with engine.backend.load(engine.path) as opened:
        opened.run(images(1))
    with pytest.raises((AttributeError, TypeError, RirDeployError)):
        opened.run(images(1))


def test_runs_on_names_runtime_and_version(engine: Engine, session: Session) -> None:
    version = engine.backend.availability().version
    assert session.runs_on.startswith(f"{engine.backend.name} {version} ")
    assert engine.built.backend_version == version
    device = {"onnxruntime": "CPUExecutionProvider", "openvino": "CPU"}.get(engine.backend.name, "sm")
    assert device in session.runs_on


def test_threads_are_taken(engine: Engine) -> None:
    with engine.backend.load(engine.path, threads=1) as opened:
        assert close_to(opened.run(images(2)), reference(classifier(), images(2)))


def test_every_file_that_is_needed_is_named(engine: Engine, tmp_path: Path) -> None:
    """The files a backend names, moved elsewhere alone, still are the whole engine."""
    for name in (engine.built.file, *engine.built.extra_files):
        (tmp_path / name).write_bytes((engine.path.parent / name).read_bytes())
    with engine.backend.load(tmp_path / engine.built.file) as opened:
        assert close_to(opened.run(images(1)), reference(classifier(), images(1)))


def test_an_unknown_operator_is_bad_input(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Frobnicate"):
        engine.backend.build(unknown_operator(), tmp_path, BuildOptions())


def test_a_target_is_refused_where_it_means_nothing(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises((InputError, UsageError)):
        engine.backend.build(classifier(), tmp_path, BuildOptions(targets=("sm999",)))


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_availability_is_truthful(name: str) -> None:
    found = get_backend(name).availability()
    assert found.backend == name
    assert found.install.startswith("python -m pip install")
    if found.version is None:
        assert not found.can_build
        assert not found.can_run
        assert found.install in found.reason
    if found.can_run:
        assert found.reason == ""
    if name in ALWAYS_HERE and found.version is not None:
        assert importlib.metadata.version(name).startswith(found.version)
        assert found.can_build
        assert found.can_run
