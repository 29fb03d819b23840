"""Which of the sets of weights in a checkpoint is meant, and its names without what wrappers put before them.

A training's checkpoint holds the weights of a network under a key ("state_dict", "model"), and often a second time as
their average over the steps ("state_dict_ema", "model_ema"), beside an optimiser's state and counters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rir_deploy.errors import InputError, UsageError

Tensors = dict[str, Tensor]

# Where both are there, the first of these is the network's.
KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "params",
    "weights",
    "model_weights",
)
# Words of a key that mean averaged weights: timm's state_dict_ema, torchvision's model_ema, BasicSR's params_ema.
_AVERAGED = {"ema", "ewa", "swa", "averaged", "average", "avg", "shadow", "polyak"}
# What DataParallel, torch.compile and Lightning put before every name.
PREFIXES = ("module.", "_orig_mod.", "model.")
# What wrappers of single modules put into the middle of names; no module of one's own is called so.
_WITHIN = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Counters that keepers of averages store among the weights.
_BOOKKEEPING = ("n_averaged", "num_updates", "decay")
_DEPTH = 3


@dataclass(frozen=True)
class WeightSet:
    """``key`` is where it lies in the file, "" for the file itself, with dots between levels or the common prefix."""

    key: str
    tensors: Tensors

    @property
    def averaged(self) -> bool:
        return is_averaged(self.key)

    def __str__(self) -> str:
        return f"'{self.key}'" if self.key else "the weights without a prefix"


def is_averaged(key: str) -> bool:
    """Whether a key says that its weights are an average over training steps."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", key)
    return any(word.lower() in _AVERAGED for word in words)


def is_optimizer(key: str) -> bool:
    """Whether what is under a key belongs to the training alone."""
    return key.startswith(("optim", "lr_sched", "scheduler", "scaler"))


def weight_sets(content: object) -> list[WeightSet]:
    """Every set of weights in what a file holds, in the file's order; those of an optimiser have no names."""
    return [part for found in _find(content, "", 0) for part in _split(found)]


def choose_set(path: object, sets: list[WeightSet], wanted: str | None) -> WeightSet:
    """The set that ``wanted`` says: "model", "ema" or a key; None takes the weights that are not averaged.

    Raises:
        UsageError: there is none, or there are several and none of `KEYS` among them.
    """
    if wanted is not None and (exact := [found for found in sets if found.key == wanted]):
        return exact[0]
    raw, averaged = ([found for found in sets if found.averaged is kind] for kind in (False, True))
    if wanted is None:
        return _one(path, raw or averaged)
    fitting = {"model": raw, "ema": averaged}.get(wanted, [])
    if not fitting:
        kind = {"model": "weights that are not averaged", "ema": "averaged weights"}.get(wanted, "weights")
        under = "" if wanted in ("model", "ema") else f" under '{wanted}'"
        raise UsageError(f"'{path}' holds no {kind}{under} (it holds {listed(sets)}); choose with --weights")
    return _one(path, fitting)


def clean_names(tensors: Mapping[str, Tensor]) -> Tensors:
    """The same tensors without the prefixes that all share, in whichever order they were put there."""
    names = {_WITHIN.sub("", name): tensor for name, tensor in tensors.items()}
    found = names if len(names) == len(tensors) else dict(tensors)
    while found and (prefix := next((p for p in PREFIXES if all(_starts(name, p) for name in found)), None)):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def levels(names: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """``names`` (shortened to whole), then again and again without the first part that all have in common."""
    current = dict(names)
    while True:
        yield current
        heads = {name.partition(".")[0] for name in current}
        if len(heads) != 1 or not all("." in name for name in current):
            return
        current = {name.partition(".")[2]: whole for name, whole in current.items()}


def _starts(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and len(name) > len(prefix)


def _find(content: object, key: str, depth: int) -> Iterator[WeightSet]:
    if not isinstance(content, Mapping) or not content or depth > _DEPTH:
        return
    if all(isinstance(value, Tensor) for value in content.values()):
        if all(isinstance(name, str) for name in content):
            yield WeightSet(key, dict(content))
        return
    for name, value in content.items():
        if isinstance(name, str) and not is_optimizer(name):
            yield from _find(value, f"{key}.{name}" if key else name, depth + 1)


def _split(found: WeightSet) -> list[WeightSet]:
    """A set whose names say that it holds an average beside the weights themselves (Lightning's callbacks), as two."""
    tensors = _without_bookkeeping(found.tensors)
    heads = dict.fromkeys(name.partition(".")[0] for name in tensors)
    parts = {
        head: {n: t for n, t in tensors.items() if n.startswith(f"{head}.")} for head in heads if is_averaged(head)
    }
    rest = {name: tensor for name, tensor in tensors.items() if name.partition(".")[0] not in parts}
    shape = {name: tensor.shape for name, tensor in clean_names(rest).items()}
    twins = {head: _bare(part) for head, part in parts.items()}
    if not rest or not parts or any({n: t.shape for n, t in twin.items()} != shape for twin in twins.values()):
        return [WeightSet(found.key, tensors)]
    prefix = f"{found.key}." if found.key else ""
    return [WeightSet(found.key, rest), *(WeightSet(f"{prefix}{head}", twin) for head, twin in twins.items())]


def _bare(part: Tensors) -> Tensors:
    return clean_names(_without_bookkeeping({name.partition(".")[2]: tensor for name, tensor in part.items()}))


def _without_bookkeeping(tensors: Tensors) -> Tensors:
    """Without the counters of an average, which stand alone beside the weights."""
    return {name: t for name, t in tensors.items() if not (name in _BOOKKEEPING and t.numel() == 1)} or tensors


def _one(path: object, sets: list[WeightSet]) -> WeightSet:
    if len(sets) == 1:
        return sets[0]
    by_key = {found.key: found for found in sets}
    for key in KEYS:
        if key in by_key:
            return by_key[key]
    kind = "averaged weights" if all(found.averaged for found in sets) else "weights"
    raise UsageError(f"'{path}' holds several sets of {kind}: {listed(sets)}; choose one with --weights KEY")


def listed(sets: list[WeightSet]) -> str:
    return ", ".join(str(found) for found in sets[:6]) + (f" and {len(sets) - 6} more" if len(sets) > 6 else "")


def no_weights(path: object, content: Any) -> InputError:
    """The error for a file without any."""
    keys = ", ".join(repr(str(key))[:40] for key in list(content)[:6]) if isinstance(content, Mapping) else ""
    has = f"; it has the keys {keys}" if keys else ""
    return InputError(
        f"'{path}' holds no state dict (names to tensors), neither bare nor under {', '.join(KEYS[:4])} or another "
        f"key{has}; save model.state_dict()"
    )
