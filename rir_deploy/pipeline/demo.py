"""demo: the whole job on the digits that ship with scikit-learn."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rir_deploy.engines import BACKENDS, get_backend
from rir_deploy.errors import GateError
from rir_deploy.pipeline.build import BuildRequest, EngineBuilt, build_engine
from rir_deploy.pipeline.export import Exported, ExportRequest, export_file
from rir_deploy.pipeline.progress import Progress, silent
from rir_deploy.pipeline.train import TrainRequest, train_recipe
from rir_deploy.pipeline.verify import Verified, VerifyRequest, verify_files

if TYPE_CHECKING:
    from rir_deploy.models.train import OnStep, TrainResult

RECIPE = "digits"
# What the recipe reaches with room to spare; a demo that trains worse is broken.
MIN_TOP1 = 0.97


@dataclass(frozen=True)
class Demo:
    """What the demo made and found."""

    folder: Path
    trained: TrainResult
    exported: Exported
    engines: tuple[tuple[EngineBuilt, Verified], ...]
    seconds: float

    def to_dict(self) -> dict[str, object]:
        return {
            "folder": str(self.folder),
            "top1": self.trained.top1,
            "export": self.exported.to_dict(),
            "engines": [{**built.to_dict(), "verify": verified.to_dict()} for built, verified in self.engines],
            "passed": all(verified.result.passed for _, verified in self.engines),
            "seconds": self.seconds,
        }


def run_demo(folder: Path, on_step: OnStep | None = None, progress: Progress = silent) -> Demo:
    """Train, export, fold, build for every backend that works here, and verify each engine against the checkpoint.

    Raises:
        BackendError: torch is not installed.
        GateError: the training fell short.
    """
    started = time.perf_counter()
    trained = train_recipe(TrainRequest(RECIPE, folder / "training"), on_step, progress)
    if trained.top1 < MIN_TOP1:
        raise GateError(f"the demo trained to {trained.top1:.2%}, under {MIN_TOP1:.0%}; report it with doctor's output")
    onnx = folder / "model.onnx"
    exported = export_file(ExportRequest(trained.checkpoint), onnx, force=True, progress=progress)
    engines = []
    for name in BACKENDS:
        if get_backend(name).availability().can_build:
            output = folder / f"{name}-fp32"
            built = build_engine(BuildRequest(onnx, name), output, force=True, progress=progress)
            verified = verify_files(VerifyRequest(trained.checkpoint, output), progress)
            engines.append((built, verified))
    return Demo(folder, trained, exported, tuple(engines), time.perf_counter() - started)
