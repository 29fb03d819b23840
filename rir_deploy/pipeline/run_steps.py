"""The steps of a run: each does its part unless its record says that it is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rir_deploy import __version__
from rir_deploy.artifacts import sha256_file
from rir_deploy.bench.options import BenchOptions
from rir_deploy.data.dataset import Dataset
from rir_deploy.engines import get_backend
from rir_deploy.errors import UsageError
from rir_deploy.onnx_file import load_onnx, save_onnx
from rir_deploy.pipeline.bench import BenchRequest, bench_files
from rir_deploy.pipeline.build import BuildRequest, build_engine
from rir_deploy.pipeline.calibrate import CalibrationRequest, calibrate, calibrate_int8, weights_path, write_ranges
from rir_deploy.pipeline.export import ExportRequest, export_file
from rir_deploy.pipeline.lower import PrecisionRequest, lower_precision
from rir_deploy.pipeline.matrix import EngineSpec, reason_of, rebuild_command, targets_of, usable_backends
from rir_deploy.pipeline.plan import Plan
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.sides import kind_of, runnable
from rir_deploy.pipeline.sources import open_dataset
from rir_deploy.pipeline.steps import RunFolder
from rir_deploy.pipeline.train import TrainRequest, train_recipe
from rir_deploy.pipeline.verify import VerifyRequest, verify_files
from rir_deploy.quantize import QuantizeOptions
from rir_deploy.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from rir_deploy.models.train import OnStep

_TRAINED = "training/model.safetensors"


def ranges_name(graph: str) -> str:
    """The range table of a graph, in the run folder."""
    return f"graphs/{graph}.ranges.json"


class RunSteps:
    """A run in its folder: opened, it has checked that everything it will need is there.

    Raises:
        UsageError, InputError, BackendError: the recipe, the checkpoint, the data or a backend cannot be used.
    """

    def __init__(self, plan: Plan, folder: Path, on_step: OnStep | None = None, progress: Progress = silent) -> None:
        self.plan, self.progress, self.on_step = plan, progress, on_step
        self.recipe: Recipe = load_recipe(plan.recipe)
        self.backends = usable_backends(plan)
        self._check()
        self.folder = RunFolder(folder)

    def _check(self) -> None:
        """What would only be missed after an hour of work is missed now."""
        checkpoint = self.plan.checkpoint
        if checkpoint is not None and kind_of(checkpoint) != "checkpoint":
            raise UsageError(f"'{checkpoint}' is not a checkpoint; a run starts from one")
        self._bench_options()
        parts = [] if checkpoint is not None else ["train"]
        parts += ["calibration"] if set(self.plan.precisions) - {"fp32"} else []
        for part in [*parts, "test"]:
            self.dataset(part)

    def checkpoint(self) -> Path:
        """The checkpoint to deploy, trained first where the plan names none."""
        if self.plan.checkpoint is not None:
            return self.plan.checkpoint
        data = {part: self.dataset(part).source for part in ("train", "test")}
        inputs = {"recipe": self.recipe.to_dict(), **{part: source.fingerprint() for part, source in data.items()}}
        self._step("train", inputs, [_TRAINED], self._train)
        return self.folder.path / _TRAINED

    def _train(self) -> dict[str, Any]:
        data = self.plan.data
        request = TrainRequest(
            self.plan.recipe, (self.folder.path / _TRAINED).parent, data.get("train"), data.get("test")
        )
        result = train_recipe(request, self.on_step, self.progress)
        return {"top1": result.top1, "images": result.test_images, "epochs": len(result.history)}

    def export(self, checkpoint: Path) -> dict[str, Any]:
        inputs = {"checkpoint": sha256_file(checkpoint), "recipe": self.recipe.to_dict(), "factory": self.plan.factory}
        return self._step(
            "export", inputs, ["graphs/fp32.onnx"], lambda: self._export(checkpoint), [sha256_file(checkpoint)]
        )

    def _export(self, checkpoint: Path) -> dict[str, Any]:
        request = ExportRequest(checkpoint, self.plan.recipe, self.plan.factory, data=self._spec("test"))
        return export_file(request, self.folder.path / "graphs/fp32.onnx", force=True, progress=self.progress).to_dict()

    def calibration(self) -> dict[str, Any]:
        """What was calibrated on, for the record."""
        options = self.recipe.calibration
        return {
            "data": self.dataset("calibration").source.name,
            "images": options.samples,
            "method": options.method,
        }

    def _ranges(self, name: str, flavour: str | None) -> str:
        """The range table that a graph is made with; its path in the run folder."""
        parent = self.folder.sha256("export", "graphs/fp32.onnx")
        file = ranges_name(name)
        inputs = {
            "graph": parent,
            "options": asdict(self.recipe.calibration),
            "data": self.dataset("calibration").source.fingerprint(),
            "flavour": flavour,
        }
        files = [file] if flavour is None else [file, str(weights_path(Path(file)))]
        self._step(f"ranges {name}", inputs, files, lambda: self._calibrate(file, flavour), [parent])
        return file

    def _calibrate(self, file: str, flavour: str | None) -> dict[str, Any]:
        model = load_onnx(self.folder.path / "graphs/fp32.onnx")
        request = CalibrationRequest(data=self._spec("calibration"))
        path = self.folder.path / file
        if flavour is None:
            table = calibrate(model, self.recipe, request, self.progress)
            write_ranges(table, path, force=True)
            return {"images": table.samples, "method": table.method}
        options = QuantizeOptions(flavour)  # type: ignore[arg-type]
        tuned = calibrate_int8(model, self.recipe, request, options, self.progress)
        write_ranges(tuned, path, options, force=True)
        return {"images": tuned.table.samples, **tuned.to_dict()}

    def graph(self, name: str, precision: str, flavour: str | None) -> dict[str, Any]:
        """The graph of a precision, described for the record."""
        file = f"graphs/{name}.onnx"
        parent = self.folder.sha256("export", "graphs/fp32.onnx")
        kept, calibration = [], None
        step = "export"
        if precision != "fp32":
            table = self._ranges(name, flavour)
            calibration = self.folder.steps[f"ranges {name}"].result if flavour is not None else None
            step, ranges = f"graph {name}", self.folder.sha256(f"ranges {name}", table)
            inputs = {"graph": parent, "ranges": ranges, "precision": precision, "flavour": flavour}
            parents = [parent, ranges]
            kept = self._step(step, inputs, [file], lambda: self._graph(file, table, precision, flavour), parents)[
                "kept"
            ]
        return {
            "name": name,
            "file": file,
            "precision": precision,
            "flavour": flavour,
            "size_bytes": (self.folder.path / file).stat().st_size,
            "sha256": self.folder.sha256(step, file),
            "kept": kept,
            "calibration": calibration,
        }

    def _graph(self, file: str, table: str, precision: str, flavour: str | None) -> dict[str, Any]:
        model = load_onnx(self.folder.path / "graphs/fp32.onnx")
        request = PrecisionRequest(
            precision,  # type: ignore[arg-type]
            QuantizeOptions(flavour or "tensorrt"),  # type: ignore[arg-type]
            CalibrationRequest(table=self.folder.path / table),
        )
        lowered = lower_precision(model, self.recipe, request, self.progress)
        save_onnx(lowered.model, self.folder.path / file, force=True)
        return lowered.to_dict()

    def engine(self, spec: EngineSpec, checkpoint: Path) -> dict[str, Any]:
        """Build an engine and hold it against the checkpoint."""
        graph = f"graphs/{spec.graph}.onnx"
        parent = sha256_file(self.folder.path / graph)
        output = f"engines/{spec.name}"
        backend = get_backend(spec.backend)
        found = backend.availability()
        inputs = {"graph": parent, "backend": spec.backend, "version": found.version, **self._build_inputs(spec)}
        built = self._step(f"engine {spec.name}", inputs, [output], lambda: self._build(spec, graph, output), [parent])
        test = self.dataset("test").source
        engine = sorted(self.folder.steps[f"engine {spec.name}"].files.items())
        checks = {"engine": engine, "data": test.fingerprint(), "checkpoint": sha256_file(checkpoint)}
        verified = self._step(
            f"verify {spec.name}",
            {**checks, "can_run": runnable(spec.backend, tuple(built["targets"])) is None},
            [],
            lambda: self._verify(output, checkpoint),
        )
        missing = runnable(spec.backend, tuple(built["targets"]))
        status = "failed" if not verified["passed"] else "verified" if missing is None else "built, not run"
        return {
            **{key: built[key] for key in ("backend", "backend_version", "precision", "size_bytes", "targets")},
            **{key: built[key] for key in ("realized", "seconds")},
            "name": spec.name,
            "flavour": spec.flavour,
            "status": status,
            "reason": reason_of(spec, missing),
            "verify": verified,
        }

    def _build_inputs(self, spec: EngineSpec) -> dict[str, Any]:
        batch = self.plan.batch
        return {"batch": [batch.min, batch.opt, batch.max], "targets": list(targets_of(self.plan, spec.backend))}

    def _build(self, spec: EngineSpec, graph: str, output: str) -> dict[str, Any]:
        request = BuildRequest(
            self.folder.path / graph,
            spec.backend,
            batch=self.plan.batch,
            targets=targets_of(self.plan, spec.backend),
            command=rebuild_command(spec, self.plan, graph, output),
        )
        return build_engine(request, self.folder.path / output, force=True, progress=self.progress).to_dict()

    def _verify(self, output: str, checkpoint: Path) -> dict[str, Any]:
        request = VerifyRequest(
            checkpoint,
            self.folder.path / output,
            self._spec("test"),
            self.plan.recipe,
            self.plan.factory,
            simulate=True,
        )
        return self._local(verify_files(request, self.progress).to_dict())

    def bench(self, checkpoint: Path, engines: list[dict[str, Any]]) -> dict[str, Any] | None:
        """PyTorch eager and every engine, side by side."""
        plan = self.plan.bench
        if plan.duration_s == 0:
            return None
        paths = [checkpoint, *(self.folder.path / "engines" / engine["name"] for engine in engines)]
        options = BenchOptions(
            duration_s=plan.duration_s, rounds=plan.rounds, batches=plan.batches, threads=plan.threads
        )
        inputs = {
            "options": options.to_dict(),
            "checkpoint": sha256_file(checkpoint),
            "engines": [sorted(self.folder.steps[f"engine {engine['name']}"].files.items()) for engine in engines],
        }
        request = BenchRequest(tuple(paths), options, self.plan.recipe, self.plan.factory)
        return self._step("bench", inputs, [], lambda: self._bench(request))

    def _bench_options(self) -> BenchOptions | None:
        plan = self.plan.bench
        if plan.duration_s == 0:
            return None
        return BenchOptions(duration_s=plan.duration_s, rounds=plan.rounds, batches=plan.batches, threads=plan.threads)

    def _bench(self, request: BenchRequest) -> dict[str, Any]:
        """The timing, with paths as they are inside the run folder."""
        return self._local(bench_files(request, self.progress).to_dict())

    def _local(self, result: dict[str, Any]) -> dict[str, Any]:
        """A result with paths as they are inside the run folder, wherever that is."""
        folder = json.dumps(f"{self.folder.path}/")[1:-1]
        return dict(json.loads(json.dumps(result).replace(folder, "")))

    def model(self, checkpoint: Path, export: dict[str, Any]) -> dict[str, Any]:
        accuracy = export.get("accuracy") or {}
        local = checkpoint.is_relative_to(self.folder.path)
        return {
            "checkpoint": str(checkpoint.relative_to(self.folder.path) if local else checkpoint.name),
            "sha256": sha256_file(checkpoint),
            "layout": export["layout"],
            "parameters": export["parameters"],
            "recorded_top1": accuracy.get("top1"),
        }

    def _step(
        self,
        name: str,
        inputs: dict[str, Any],
        outputs: list[str],
        make: Callable[[], dict[str, Any]],
        parents: Sequence[str] = (),
    ) -> dict[str, Any]:
        """A step of this version of the tool: another version may make something else of the same inputs."""
        return self.folder.step(name, {**inputs, "tool": __version__}, outputs, make, parents)

    def _spec(self, part: str) -> str | None:
        """The source that the plan names; calibration images are training images where it names none."""
        data = self.plan.data
        return data.get(part) or (data.get("train") if part == "calibration" else None)

    def dataset(self, part: str) -> Dataset:
        """ "train", "calibration" or "test": as the plan says, or the recipe's own."""
        return open_dataset(self._spec(part), self.recipe, "test" if part == "test" else "train")
