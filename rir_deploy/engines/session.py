"""What the sessions of all backends share."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

from rir_deploy.engines.base import Array, TensorSpec
from rir_deploy.errors import InputError, UsageError

Opened = TypeVar("Opened", bound="SessionBase")


class SessionBase:
    """What all sessions share; a backend sets the specs, calls `_open_slots`, and writes ``_run``, ``_close`` and
    ``runs_on``.

    A slot is what one request occupies while it runs: as many run at once as there are slots, the others wait.
    """

    _input: TensorSpec
    _outputs: tuple[TensorSpec, ...]
    _batches: tuple[int, int] | None = None

    def __init__(self) -> None:
        self._slots: SimpleQueue[Any] = SimpleQueue()
        self._streams = 0
        self._closing = threading.Lock()
        self._closed = False

    @property
    def streams(self) -> int:
        return self._streams

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
        slot = self._slots.get()
        try:
            if self._closed:
                raise UsageError("the engine's session is closed; load the engine again")
            return self._run(batch, slot)
        finally:
            self._slots.put(slot)

    def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            slots = [self._slots.get() for _ in range(self._streams)]  # waits for the requests under way
            self._closed = True
            for _ in slots:
                self._slots.put(None)
            self._close()

    def _open_slots(self, slots: Iterable[Any]) -> None:
        for slot in slots:
            self._slots.put(slot)
            self._streams += 1

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self, batch: Array, slot: Any) -> dict[str, Array]:
        """One synchronous request on a slot that nothing else has meanwhile."""
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError


def usable_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
