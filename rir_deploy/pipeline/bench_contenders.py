"""What can be timed, as the parent process sees it: engine folders, ONNX files, checkpoints, what a bundle holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rir_deploy.artifacts import sha256_file
from rir_deploy.bundle import Bundle
from rir_deploy.engines.base import TensorSpec, input_spec
from rir_deploy.engines.graph import model_precision
from rir_deploy.engines.manifest import check_engine
from rir_deploy.errors import UsageError
from rir_deploy.onnx_file import load_onnx
from rir_deploy.pipeline.sides import Kind, kind_of


@dataclass(frozen=True)
class Contender:
    """``batches`` are the smallest and largest batch size it takes, None where it takes any; ``label`` is what it is
    called where its path is a temporary one.
    """

    path: Path
    kind: Kind
    backend: str
    precision: str
    sha256: str
    batches: tuple[int, int] | None = None
    channels_last: bool = False
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or str(self.path)

    def refusal(self, batch: int) -> UsageError | None:
        """Why this batch size cannot be timed; None where it can."""
        if self.batches is None or self.batches[0] <= batch <= self.batches[1]:
            return None
        low, high = self.batches
        sizes = f"batch {low}" if low == high else f"batches {low} to {high}"
        return UsageError(f"'{self.name}' takes {sizes}, not {batch}; choose with --batch or build it again")


def find_contenders(path: Path, channels_last: bool = False, trust: bool = False) -> list[Contender]:
    """What a path is to be timed as, read without loading any runtime.

    A checkpoint is timed in PyTorch eager mode, and with ``channels_last`` in that memory layout as well. With
    ``trust``, an engine's files are taken as they are.

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
        precision = model_precision(model)
        return [Contender(path, kind, "onnxruntime", precision, sha256_file(path), _static_batch(input_spec(model)))]
    folder = path if path.is_dir() else path.parent
    manifest = check_engine(folder, trust=trust)
    batches = _static_batch(manifest.input) or (manifest.batch[0], manifest.batch[2])
    return [Contender(folder, kind, manifest.backend, manifest.precision, manifest.engine.sha256, batches)]


def bundled_contenders(bundle: Bundle, names: Sequence[str] = ()) -> list[Contender]:
    """The engines of an opened bundle, or its graphs where it has none; with ``names``, those graphs and engines.

    Raises:
        UsageError: an unknown name.
        InputError: an engine that its manifest does not vouch for.
    """
    items = bundle.choose(names)
    chosen = items if names else [item for item in items if item.kind == "engine"] or items
    found = [(item, one) for item in chosen for one in find_contenders(bundle.file(item))]
    return [replace(one, label=f"{bundle.path}/{item.name}") for item, one in found]


def _static_batch(spec: TensorSpec) -> tuple[int, int] | None:
    size = spec.shape[0] if spec.shape else None
    return None if size is None else (size, size)
