"""The images that an engine is timed on: random ones, since speed does not depend on them."""

from __future__ import annotations

import numpy as np

from rir_deploy.engines.base import Array, TensorSpec
from rir_deploy.errors import InputError, UsageError

SEED = 0
ImageShape = tuple[int, int, int]


def random_batch(spec: TensorSpec, batch: int, image: ImageShape | None, seed: int = SEED) -> Array:
    """Seeded random images as an input takes them: uint8 pixels [N, H, W, C], or normal floats [N, C, H, W].

    ``image`` (C, H, W) stands in for sizes that the input leaves open.

    Raises:
        UsageError: a size is open and no ``image`` given, or the two disagree.
        InputError: an input of another type.
    """
    dtype = np.dtype(spec.dtype)
    if dtype != np.uint8 and dtype.kind != "f":
        raise InputError(f"the input '{spec.name}' takes {spec.dtype}; only float and uint8 images can be made up")
    given = None if image is None else (*image[1:], image[0]) if dtype == np.uint8 else image
    shape = (batch, *_fill(spec, given))
    random = np.random.default_rng(seed)
    if dtype == np.uint8:
        return random.integers(0, 256, size=shape, dtype=np.uint8)
    return random.standard_normal(shape, dtype=np.float32).astype(dtype)


def _fill(spec: TensorSpec, given: tuple[int, ...] | None) -> tuple[int, ...]:
    sizes = spec.shape[1:]
    if given is None:
        if None in sizes:
            raise UsageError(f"the input '{spec.name}' leaves its image size open; name one with --recipe")
        return tuple(size for size in sizes if size is not None)
    if len(sizes) != len(given) or any(size not in (None, want) for size, want in zip(sizes, given, strict=True)):
        open_sizes = "x".join("N" if size is None else str(size) for size in sizes)
        raise UsageError(
            f"the recipe's images are {'x'.join(map(str, given))} and the input '{spec.name}' takes {open_sizes}; "
            "leave --recipe out or name the right one"
        )
    return given


def spec_of(name: str, batch: Array) -> TensorSpec:
    return TensorSpec(name, str(batch.dtype), batch.shape)
