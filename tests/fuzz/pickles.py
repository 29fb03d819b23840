"""Mutations of PyTorch files: their bytes, what their pickle builds, and pickles that would run code."""

from __future__ import annotations

import builtins
import importlib
import io
import os
import pickle
import random
import subprocess
import zipfile
from collections.abc import Callable
from typing import Any

import torch

from tests.fuzz.archives import mutate_archive
from tests.fuzz.noise import ODD, mutate_bytes

# Each would leave a file named "executed" in the current folder.
_TOUCH = "open('executed', 'w').close()"
PAYLOADS: tuple[tuple[Callable[..., Any], tuple[Any, ...]], ...] = (
    (os.system, ("touch executed",)),
    (builtins.exec, (_TOUCH,)),
    (builtins.eval, (_TOUCH,)),
    (subprocess.Popen, (["touch", "executed"],)),
    (builtins.open, ("executed", "w")),
    (os.mkdir, ("executed",)),
    (importlib.import_module, ("antigravity",)),
    (os.unlink, ("worker.log",)),
    (torch.load, ("executed",)),
    (torch.save, ({}, "executed")),
)


class _Runs:
    """Pickles as a call."""

    def __init__(self, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._call = call, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def mutate_torch(rng: random.Random, whole: bytes) -> tuple[str, bytes]:
    """One change of a file that ``torch.save`` wrote."""
    change = rng.choice(("bytes", "zip", "content", "payload", "payload", "pickle"))
    if change == "bytes":
        return mutate_bytes(rng, whole)
    if change == "zip":
        return mutate_archive(rng, whole)
    if change == "pickle":  # the program that builds the tensors
        return _with_pickle(rng, whole)
    state = torch.load(io.BytesIO(whole), weights_only=True)
    if change == "payload":
        return _payload(rng, state)
    name = rng.choice(list(state))
    values = (torch.zeros(0), torch.zeros(()), state[name].to(torch.float64) * 1e300, state[name].to_sparse())
    wide = torch.zeros(1).expand(10**6, 10**6)
    state[name] = rng.choice((*values, wide, state[name].half(), state[name].int(), state[name] * float("nan"), *ODD))
    if rng.random() < 0.3:
        del state[rng.choice(list(state))]
    return "content", _saved(rng.choice((state, {"state_dict": state}, {"model": {"net": state}}, [state], (state,))))


def _payload(rng: random.Random, state: dict[str, Any]) -> tuple[str, bytes]:
    call, arguments = rng.choice(PAYLOADS)
    evil = _Runs(call, arguments)
    content = rng.choice((evil, {**state, "evil": evil}, {"state_dict": state, "optimizer": evil}, [evil]))
    form = rng.choice(("zip", "legacy", "bare"))
    if form == "bare":
        return "would run code", pickle.dumps(content, protocol=rng.choice((0, 2, 4)))
    return "would run code", _saved(content, zipped=form == "zip")


def _with_pickle(rng: random.Random, whole: bytes) -> tuple[str, bytes]:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as source, zipfile.ZipFile(out, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            if info.filename.endswith("data.pkl"):
                mutation, data = mutate_bytes(rng, data)
            target.writestr(info.filename, data)
    return f"pickle, {mutation}", out.getvalue()


def _saved(content: object, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()
