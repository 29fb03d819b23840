"""bench with CUDA graphs and RTX's runtime cache, on stand-ins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from rir_deploy.engines.base import BatchRange, BuildOptions, input_spec, output_specs
from rir_deploy.engines.manifest import Manifest, record_file, write_manifest
from rir_deploy.pipeline.bench_worker import open_contender
from tests.engines.graphs import classifier
from tests.engines.stand_ins import StandIn, stand_in


def engine(found: StandIn, folder: Path) -> Path:
    """An engine's folder, as the pipeline writes it."""
    model = classifier()
    ir.save(model, folder / "graph.onnx")
    built = found.backend.build(model, folder, BuildOptions(BatchRange(1, 2, 8)))
    manifest = Manifest(
        backend=built.backend,
        backend_version=built.backend_version,
        precision="fp32",
        engine=record_file(folder / built.file),
        graph=record_file(folder / "graph.onnx"),
        input=input_spec(model),
        outputs=output_specs(model),
        parents={},
        recipe=None,
        batch=(1, 2, 8),
        targets=built.targets,
        gpu=built.gpu,
    )
    write_manifest(folder, manifest)
    return folder


@pytest.mark.parametrize(
    ("version", "words"), [("10.3.0", "in a CUDA graph"), ("1.7.1", "in a CUDA graph, runtime cache")]
)
def test_what_was_asked_for_is_what_is_timed_and_said(
    version: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job: dict[str, Any] = {"path": str(tmp_path), "kind": "engine", "batch": 2, "threads": 1}
    asked = {"cuda_graph": True, "runtime_cache": str(tmp_path / "kernels"), "trust": False}
    with stand_in(version) as found:
        engine(found, tmp_path)
        monkeypatch.setattr("rir_deploy.engines.loading.get_backend", lambda name: found.backend)
        with open_contender({**job, **asked}) as opened:
            for _ in range(3):
                opened.run()
            assert words in opened.runs_on()
        with open_contender(job) as opened:
            for _ in range(3):
                opened.run()
            assert opened.runs_on() == f"{found.backend.name} {version} NVIDIA L4 (sm89)"
    assert (tmp_path / "kernels").exists() is (version == "1.7.1")  # the full TensorRT compiles nothing at run time


def test_other_engines_are_timed_beside_them_as_they_are(tmp_path: Path) -> None:
    ir.save(classifier(), tmp_path / "model.onnx")
    job = {"path": str(tmp_path / "model.onnx"), "kind": "onnx", "batch": 2, "threads": 1, "cuda_graph": True}
    with open_contender(job) as opened:
        opened.run()
        assert opened.runs_on().endswith("CPUExecutionProvider")
