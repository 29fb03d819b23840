"""Whether tensors are those of a network: their names, shapes and kinds, and which are one tensor under two names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rir_deploy.errors import InputError
from rir_deploy.models.same_tensors import view_of
from rir_deploy.models.weight_sets import clean_names, levels

_LISTED = 8
# Names that a near one is looked for among, and misses that one is looked for of: it costs their product.
_COMPARED, _HINTS = 500, 4


def check_fit(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise one InputError that lists what is missing, unexpected or of the wrong shape or kind.

    Beside what is missing stands the nearest name that the file has for it, and the other way round.
    ``num_batches_tracked`` may be missing: PyTorch before 0.4.1 did not write it and inference does not read it. An
    average of weights may have made it a float.
    """
    missing = [name for name in expected if name not in found and not is_counter(name)]
    unexpected = [name for name in found if name not in expected]
    problems = [
        *_with_nearest("missing", missing, "the file", unexpected or list(found)),
        *_with_nearest("unexpected", unexpected, "the model", missing or list(expected)),
    ]
    problems += [
        f"{name} is {_describe(found[name])} where {_describe(tensor)} is expected"
        for name, tensor in expected.items()
        if name in found and not _alike(name, found[name], tensor)
    ]
    if problems:
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        listed = "; ".join(problems[:_LISTED])
        raise InputError(f"the tensors of '{path}' do not fit the model: {listed}{more}")


def fitted(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``found`` by the names of ``expected``: prefixes that either has as a whole are no difference, and a tensor that
    the network ties to another may be left out.

    Raises:
        InputError: they do not fit (see `check_fit`), or differ where the network has one tensor.
    """
    named = _renamed(found, expected)
    twins: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in expected.items():
        twins.setdefault(view_of(tensor), []).append(name)
    for names in twins.values():
        held = [name for name in names if name in named]
        for name in names[1:] if len(held) == len(names) else ():
            if not torch.equal(named[name], named[names[0]]):
                raise InputError(
                    f"'{path}' has different values for {names[0]} and {name}, which are one tensor in the model; "
                    "build the model without tying them, or save the checkpoint of the tied one"
                )
        named |= {name: named[held[0]] for name in names if held and name not in named}
    check_fit(path, named, expected)
    return named


def is_counter(name: str) -> bool:
    """Whether ``name`` is the step counter of a batch norm, which inference does not read."""
    return name.endswith("num_batches_tracked")


def _renamed(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the expected names, where both sides are the same but for what all names begin with; else as they are."""
    short = {name: name for name in found}
    cleaned = dict(zip(clean_names(dict(expected)), expected, strict=True))
    theirs = list(levels(short))
    for ours in (dict(zip(expected, expected, strict=True)), *levels(cleaned)):
        needed = {name for name, whole in ours.items() if not is_counter(whole)}
        for names in theirs:
            if _same(needed, names, ours, expected):
                return {ours.get(name, name): found[whole] for name, whole in names.items()}
    return dict(found)


def _same(needed: set[str], names: Mapping[str, str], ours: Mapping[str, str], expected: Mapping[str, Tensor]) -> bool:
    """Whether the names are the needed ones, counters and the further names of tied tensors aside."""
    if any(name not in ours and not is_counter(name) for name in names):
        return False
    there = {view_of(expected[ours[name]]) for name in names if name in ours}
    return all(name in names or view_of(expected[ours[name]]) in there for name in needed)


def _with_nearest(what: str, names: Sequence[str], side: str, others: Sequence[str]) -> Iterable[str]:
    for place, name in enumerate(names):
        near = _nearest(name, others) if place < _HINTS else None
        yield f"{what} {name}" + ("" if near is None else f" ({side} has {near})")


def _nearest(name: str, others: Sequence[str]) -> str | None:
    """One that ends or begins as the other does, else the one most like it."""
    some = others[:_COMPARED]
    whole = [other for other in some if other.endswith(name) or name.endswith(other)]
    leaf = [other for other in some if other.rpartition(".")[2] == name.rpartition(".")[2]]
    close = difflib.get_close_matches(name, leaf or some, n=1, cutoff=0.0)
    return next(iter([*whole, *close]), None)


def _alike(name: str, found: Tensor, expected: Tensor) -> bool:
    if is_counter(name):
        return found.shape == expected.shape
    return _describe(found) == _describe(expected)


def _describe(tensor: Tensor) -> str:
    return f"{'float' if tensor.is_floating_point() else 'integer'} {list(tensor.shape)}"
