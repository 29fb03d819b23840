"""What can be timed: engine folders, ONNX files and checkpoints, as the parent process sees them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rir_deploy.artifacts import sha256_file
from rir_deploy.engines.base import TensorSpec, input_spec
from rir_deploy.engines.manifest import check_engine
from rir_deploy.errors import UsageError
from rir_deploy.onnx_file import load_onnx, read_provenance
from rir_deploy.pipeline.sides import Kind, kind_of


@dataclass(frozen=True)
class Contender:
    """``batches`` are the smallest and largest batch size it takes, None where it takes any."""

    path: Path
    kind: Kind
    backend: str
    precision: str
    sha256: str
    batches: tuple[int, int] | None = None
    channels_last: bool = False

    def refusal(self, batch: int) -> UsageError | None:
        """Why this batch size cannot be timed; None where it can."""
        if self.batches is None or self.batches[0] <= batch <= self.batches[1]:
            return None
        low, high = self.batches
        sizes = f"batch {low}" if low == high else f"batches {low} to {high}"
        return UsageError(f"'{self.path}' takes {sizes}, not {batch}; choose with --batch or build it again")


def find_contenders(path: Path, channels_last: bool = False) -> list[Contender]:
    """What a path is to be timed as, read without loading any runtime.

    A checkpoint is timed in PyTorch eager mode, and with ``channels_last`` in that memory layout as well.

    Raises:
        UsageError, InputError: there is no such thing, or it is malformed.
    """
    kind = kind_of(path)
    if kind == "checkpoint":
        eager = Contender(path, kind, "pytorch", "fp32", sha256_file(path))
        extra = replace(eager, backend="pytorch-channels-last", channels_last=True)
        return [eager, extra] if channels_last else [eager]
    if kind == "onnx":
        model = load_onnx(path)
        provenance = read_provenance(model)
        precision = "fp32" if provenance is None else provenance.precision
        return [Contender(path, kind, "onnxruntime", precision, sha256_file(path), _static_batch(input_spec(model)))]
    folder = path if path.is_dir() else path.parent
    manifest = check_engine(folder)
    batches = _static_batch(manifest.input) or (manifest.batch[0], manifest.batch[2])
    return [Contender(folder, kind, manifest.backend, manifest.precision, manifest.engine.sha256, batches)]


def _static_batch(spec: TensorSpec) -> tuple[int, int] | None:
    size = spec.shape[0] if spec.shape else None
    return None if size is None else (size, size)
