"""A network from the user's own code: the only place that imports it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from rir_deploy.errors import UsageError
from rir_deploy.models.fit import fitted
from rir_deploy.models.tensor_files import TensorFile, check_finite, read_tensors


def load_factory(
    spec: str, checkpoint: Path | None = None, weights: str | None = None
) -> tuple[nn.Module, TensorFile | None]:
    """Call "package.module:factory", load ``checkpoint`` into the network it returns, switch that to eval mode.

    Modules of the current folder are found too, after the installed ones. ``checkpoint`` is read as by
    `read_tensors`, which ``weights`` is for too: no code in it runs.

    Returns:
        The network, and the file that was loaded into it.

    Raises:
        UsageError: the spec is malformed, its module or factory is missing or fails, or it returns no module.
        InputError: ``checkpoint`` is malformed or does not fit the module.
    """
    with _current_folder_importable():
        model = _call(spec)
    if not isinstance(model, nn.Module):
        raise UsageError(f"'{spec}' returned {type(model).__name__}, not a torch.nn.Module; return the model")
    file = None if checkpoint is None else read_tensors(checkpoint, weights, masks=True)
    if checkpoint is not None and file is not None:
        expected = model.state_dict()
        found = fitted(checkpoint, file.tensors, expected)
        check_finite(checkpoint, {name: tensor for name, tensor in found.items() if not _is_mask(model, name)})
        model.load_state_dict({**expected, **found})
    return model.eval(), file


def _is_mask(model: nn.Module, name: str) -> bool:
    """Whether a tensor may hold infinities: a buffer that is no statistic, as an attention's mask."""
    buffers = dict(model.named_buffers(remove_duplicate=False))
    return name in buffers and not name.endswith(("running_mean", "running_var"))


def _call(spec: str) -> object:
    module_name, colon, attribute = spec.partition(":")
    if not colon or not module_name or not attribute.isidentifier():
        raise UsageError(f"'{spec}' names no factory; write it as package.module:factory")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the user's code may raise anything
        raise UsageError(f"importing '{module_name}' failed ({error!r}); check name and path") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise UsageError(f"module '{module_name}' has no function '{attribute}'; check the name")
    try:
        return factory()
    except Exception as error:
        raise UsageError(f"'{spec}' failed ({error!r}); it must build the model without arguments") from error


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    added = folder not in sys.path
    if added:
        sys.path.append(folder)
    try:
        yield
    finally:
        # The user's code may have changed the path itself.
        if added and folder in sys.path:
            sys.path.remove(folder)
