"""What the sessions of all backends share."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from rir_deploy.engines.base import Array, TensorSpec
from rir_deploy.errors import InputError, UsageError

Opened = TypeVar("Opened", bound="SessionBase")


class SessionBase:
    """What all sessions share; a backend sets the specs and writes ``_run``, ``_close`` and ``runs_on``.

    Runs are one at a time: most runtimes' sessions are not for two threads at once.
    """

    _input: TensorSpec
    _outputs: tuple[TensorSpec, ...]
    _batches: tuple[int, int] | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False

    @property
    def input(self) -> TensorSpec:
        return self._input

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        return self._outputs

    @property
    def batches(self) -> tuple[int, int] | None:
        size = self._input.shape[0]
        return self._batches if size is None else (size, size)

    def run(self, batch: Array) -> dict[str, Array]:
        check_batch(batch, self._input, self.batches)
        with self._lock:
            if self._closed:
                raise UsageError("the engine's session is closed; load the engine again")
            return self._run(batch)

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._close()

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self, batch: Array) -> dict[str, Array]:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError


def check_batch(batch: Array, spec: TensorSpec, batches: tuple[int, int] | None = None) -> None:
    """Refuse a batch that the input does not take: InputError naming both shapes, or both sizes."""
    fits = batch.ndim == len(spec.shape) and all(
        want is None or want == have for want, have in zip(spec.shape[1:], batch.shape[1:], strict=True)
    )
    if not fits or batch.dtype != np.dtype(spec.dtype):
        wanted = "x".join("N" if size is None else str(size) for size in spec.shape)
        given = "x".join(map(str, batch.shape))
        raise InputError(
            f"the input '{spec.name}' takes {spec.dtype} {wanted}, not {batch.dtype} {given}; "
            "check the image size and the recipe"
        )
    low, high = (1, None) if batches is None else batches
    if len(batch) < low or (high is not None and len(batch) > high):
        sizes = f"{low} and more" if high is None else f"{low}" if low == high else f"{low} to {high}"
        raise InputError(f"the engine takes batches of {sizes}, not {len(batch)}; build it with another --batch")
