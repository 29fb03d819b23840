"""A run in its folder: what all of its steps share, and the first of them: training and export."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rir_deploy import __version__
from rir_deploy.artifacts import sha256_file
from rir_deploy.bench.options import MODE_CHOICES, BenchOptions
from rir_deploy.data.dataset import Dataset
from rir_deploy.errors import UsageError
from rir_deploy.pipeline.evaluation import Evaluation, read_evaluation
from rir_deploy.pipeline.export import ExportRequest, export_file
from rir_deploy.pipeline.images import choose_images
from rir_deploy.pipeline.matrix import GraphSpec, usable_backends
from rir_deploy.pipeline.plan import Plan
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.sides import kind_of
from rir_deploy.pipeline.sources import open_dataset
from rir_deploy.pipeline.steps import RunFolder
from rir_deploy.pipeline.train import TrainRequest, train_recipe
from rir_deploy.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from rir_deploy.models.train import OnStep

_TRAINED = "training/model.safetensors"


def export_step(folded: bool) -> str:
    """The name of the step that makes the FP32 graph."""
    return "export" if folded else "export unfolded"


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
        self.bench_options()
        parts = [] if checkpoint is not None else ["train"]
        parts += ["calibration"] if set(self.plan.precisions) - {"fp32"} else []
        for part in [*parts, "test"]:
            self.dataset(part)
        self.evaluation = self._evaluation()

    def _evaluation(self) -> Evaluation | None:
        """The images that a budget of accuracy is kept on, where there is one: a choice made on images of the proof
        would prove nothing."""
        if self.plan.search is None or "int8" not in self.plan.precisions:
            return None
        found = read_evaluation(self.recipe, self.plan.search, self.progress)
        if found is not None:
            calibration = self.dataset("calibration")
            indices = choose_images(calibration, self.recipe.calibration)
            found.refuse("the calibration images of the run", calibration, indices)
            found.refuse("the test images of the run", self.dataset("test"))
        return found

    def checkpoint(self) -> Path:
        """The checkpoint to deploy, trained first where the plan names none."""
        if self.plan.checkpoint is not None:
            return self.plan.checkpoint
        data = {part: self.dataset(part).source for part in ("train", "test")}
        inputs = {"recipe": self.recipe.to_dict(), **{part: source.fingerprint() for part, source in data.items()}}
        self.step("train", inputs, [_TRAINED], self._train)
        return self.folder.path / _TRAINED

    def _train(self) -> dict[str, Any]:
        data = self.plan.data
        request = TrainRequest(
            self.plan.recipe, (self.folder.path / _TRAINED).parent, data.get("train"), data.get("test")
        )
        result = train_recipe(request, self.on_step, self.progress)
        return {"top1": result.top1, "images": result.test_images, "epochs": len(result.history)}

    def export(self, checkpoint: Path, *, folded: bool = True) -> dict[str, Any]:
        """The FP32 graph, folded or as it was traced."""
        sha256, file = sha256_file(checkpoint), GraphSpec("fp32", folded=folded).file
        inputs = {"checkpoint": sha256, "recipe": self.recipe.to_dict(), "factory": self.plan.factory, **self.weights}
        request = ExportRequest(
            checkpoint,
            self.plan.recipe,
            self.plan.factory,
            data=self.source("test"),
            fold=folded,
            weights=self.plan.weights,
        )
        path = self.folder.path / file
        return self.step(
            export_step(folded),
            inputs,
            [file],
            lambda: self.local(export_file(request, path, force=True, progress=self.progress).to_dict()),
            [sha256],
        )

    @property
    def weights(self) -> dict[str, Any]:
        """What was chosen among several sets of weights, among the inputs of a step."""
        return {} if self.plan.weights is None else {"weights": self.plan.weights}

    def model(self, checkpoint: Path, export: dict[str, Any]) -> dict[str, Any]:
        """What the run began with, for the record."""
        accuracy = export.get("accuracy") or {}
        local = checkpoint.is_relative_to(self.folder.path)
        return {
            "checkpoint": str(checkpoint.relative_to(self.folder.path) if local else checkpoint.name),
            "sha256": sha256_file(checkpoint),
            "layout": export["layout"],
            "parameters": export["parameters"],
            "recorded_top1": accuracy.get("top1"),
            **({} if export.get("weights") is None else {"weights": export["weights"]}),
        }

    def calibration(self) -> dict[str, Any]:
        """What was calibrated on, for the record."""
        options = self.recipe.calibration
        name = self.dataset("calibration").source.name
        return self.local({"data": name, "images": options.samples, "method": options.method})

    def bench_options(self) -> BenchOptions | None:
        """None where the plan leaves the timing out."""
        plan = self.plan.bench
        if plan.duration_s == 0:
            return None
        return BenchOptions(
            duration_s=plan.duration_s,
            rounds=plan.rounds,
            batches=plan.batches,
            threads=plan.threads,
            modes=MODE_CHOICES[plan.mode],
            streams=plan.streams,
        )

    def step(
        self,
        name: str,
        inputs: dict[str, Any],
        outputs: list[str],
        make: Callable[[], dict[str, Any]],
        parents: Sequence[str] = (),
    ) -> dict[str, Any]:
        """A step of this version of the tool: another version may make something else of the same inputs."""
        return self.folder.step(name, {**inputs, "tool": __version__}, outputs, make, parents)

    def local(self, result: dict[str, Any]) -> dict[str, Any]:
        """A result with paths as they are inside the run folder, wherever that is, and of what lies beside the plan by
        name alone: a record tells nothing of the machine's folders.
        """
        text = json.dumps(result)
        named = [Path(path) for path in (self.plan.checkpoint, *self.plan.data.values()) if path is not None]
        folders = {self.folder.path, *(path.parent for path in named if path.is_absolute())}
        for folder in sorted(folders - {Path("/")}, key=lambda path: -len(str(path))):
            text = text.replace(json.dumps(f"{folder}/")[1:-1], "")
        return dict(json.loads(text))

    def source(self, part: str) -> str | None:
        """The source that the plan names; calibration images are training images where it names none."""
        data = self.plan.data
        return data.get(part) or (data.get("train") if part == "calibration" else None)

    def dataset(self, part: str) -> Dataset:
        """ "train", "calibration" or "test": as the plan says, or the recipe's own."""
        return open_dataset(self.source(part), self.recipe, "test" if part == "test" else "train")
