"""What a checkpoint holds beside the weights that are taken: other sets of the same network, which may be better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from rir_deploy.models.same_tensors import same_values
from rir_deploy.models.weight_sets import WeightSet, clean_names, is_optimizer, listed

_DEPTH = 3


def left_aside(content: object, sets: Sequence[WeightSet], taken: WeightSet) -> str | None:
    """What to say of other weights that nobody asked about: averaged ones, those of the same names and shapes with
    other values, and lists of tensors of the network's shapes; None where there are none."""
    averaged = [one for one in sets if one.averaged and one is not taken]
    if averaged and not taken.averaged:
        return (
            f"also holds averaged weights ({listed(averaged)}), and {taken} is used, which is not averaged: where the "
            "reported accuracy is that of the average, pass --weights ema (--weights model says that this is meant)"
        )
    others = [one for one in sets if one is not taken and _is_other(one, taken)]
    if others:
        return (
            f"also holds other weights of the same network ({listed(others)}), and {taken} is used: choose with "
            "--weights KEY"
        )
    lists = [key for key, tensors in _lists(content, "", 0) if _is_list_of(tensors, taken)]
    if lists:
        return (
            f"also holds tensors of the same shapes without names ('{lists[0]}'), as averages are kept, and {taken} is "
            "used: where the average is meant, load it into the network and save its state_dict() alone"
        )
    return None


def _is_other(one: WeightSet, taken: WeightSet) -> bool:
    """Whether a set is of the same network, with other values."""
    left, right = clean_names(one.tensors), clean_names(taken.tensors)
    if {name: tensor.shape for name, tensor in left.items()} != {name: tensor.shape for name, tensor in right.items()}:
        return False
    return not same_values((tensor, right[name]) for name, tensor in left.items())


def _lists(content: object, key: str, depth: int) -> Iterator[tuple[str, list[Tensor]]]:
    """Lists of tensors, and the keys that they are under."""
    if isinstance(content, list | tuple) and content and all(isinstance(one, Tensor) for one in content):
        yield key, list(content)
    if isinstance(content, Mapping) and depth <= _DEPTH:
        for name, value in content.items():
            if isinstance(name, str) and not is_optimizer(name):
                yield from _lists(value, f"{key}.{name}" if key else name, depth + 1)


def _is_list_of(tensors: Sequence[Tensor], taken: WeightSet) -> bool:
    """Whether a list has the set's tensors in their order, statistics left out or not, with other values."""
    own, pairs = iter(taken.tensors.values()), []
    for tensor in tensors:
        twin = next((one for one in own if one.shape == tensor.shape), None)
        if twin is None:
            return False
        pairs.append((tensor, twin))
    kernels = sum(one.dim() > 1 for one in taken.tensors.values())
    return sum(tensor.dim() > 1 for tensor in tensors) == kernels and not same_values(pairs)
