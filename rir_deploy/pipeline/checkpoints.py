"""A torch module with what is known of it, from a checkpoint of any layout or from the user's own code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rir_deploy.errors import BackendError, UsageError
from rir_deploy.notices import notice

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn


@dataclass(frozen=True)
class LoadedModule:
    """``input_shape`` is (C, H, W), None where only the recipe can tell; ``accuracy`` is as recorded.

    ``weights`` is the key that they were under in a file that holds more than them, None elsewhere.
    """

    module: nn.Module
    layout: str
    input_shape: tuple[int, int, int] | None
    recipe: dict[str, Any] | None
    accuracy: dict[str, Any] | None
    weights: str | None = None


def load_module(
    path: Path | None,
    factory: str | None = None,
    image_size: tuple[int, int] | None = None,
    weights: str | None = None,
) -> LoadedModule:
    """Load a checkpoint, or call ``factory`` ("package.module:function") and load the checkpoint into what it returns.

    ``weights`` says which of several sets of weights in the file is meant: "model", "ema" or a key. Where averaged ones
    are left aside without it, that is a `Notice`.

    Raises:
        BackendError: torch is not installed.
        UsageError: neither a checkpoint nor a factory is given.
        InputError: the checkpoint is malformed, unknown or untrusted.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise BackendError('torch is not installed; run: python -m pip install "rir-deploy[host]"') from error
    if factory is not None:
        from rir_deploy.models.factory import load_factory

        module, file = load_factory(factory, path, weights)
        _tell(None if file is None else file.note)
        return LoadedModule(module, factory, None, None, None, None if file is None else file.weights)
    if path is None:
        raise UsageError("name a checkpoint, or a model with --model package.module:factory")
    from rir_deploy.models.checkpoint import load_checkpoint

    loaded = load_checkpoint(path, image_size, weights)
    _tell(loaded.note)
    shape = (loaded.config.in_channels, *loaded.config.image_size)
    return LoadedModule(loaded.model, loaded.layout, shape, loaded.recipe, loaded.accuracy, loaded.weights)


def _tell(note: str | None) -> None:
    if note is not None:
        notice(note)


def trace(path: Path, factory: str | None, image: tuple[int, int, int], weights: str | None = None) -> ir.Model:
    """A checkpoint as the exporter leaves it, not folded; ``image`` is (C, H, W).

    Raises:
        BackendError, UsageError, InputError: as `load_module` and `export` do.
    """
    from rir_deploy.export import ExportOptions, export

    return export(load_module(path, factory, weights=weights).module, ExportOptions(image))
