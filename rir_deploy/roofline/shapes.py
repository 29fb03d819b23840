"""The convolutions on which a machine's ceilings are measured."""

from __future__ import annotations

from dataclasses import dataclass

from rir_deploy.errors import UsageError

# A call below this is mostly the call itself: shapes that can be chained are repeated until they reach it.
CHAIN_MACS = 600_000_000
MAX_REPEATS = 16


@dataclass(frozen=True, order=True)
class Shape:
    """A chain of ``repeats`` equal convolutions, each with a bias and a relu, of ``batch`` images.

    ``size`` is the height and width of the input, and ``kernel`` that of the kernel, which is padded by half of itself.
    A product of matrices [m, k] x [k, n] is the 1x1 convolution of k to n channels on m places.

    Raises:
        UsageError: a number under 1, an even kernel, or a chain whose links do not fit each other.
    """

    channels_in: int
    channels_out: int
    size: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    groups: int = 1
    batch: int = 1
    repeats: int = 1

    def __post_init__(self) -> None:
        numbers = (self.channels_in, self.channels_out, *self.size, *self.kernel, *self.stride, self.groups)
        if min(*numbers, self.batch, self.repeats) < 1:
            raise UsageError(f"a convolution has no size under 1: {self}")
        if any(side % 2 == 0 for side in self.kernel) or self.channels_in % self.groups:
            raise UsageError(f"only odd kernels and whole groups of channels are measured: {self}")
        if self.repeats > 1 and not self.chains:
            raise UsageError(f"the links of this chain do not fit each other: {self}")

    @property
    def chains(self) -> bool:
        """Whether its output can be its input."""
        return self.channels_in == self.channels_out and self.stride == (1, 1)

    @property
    def output_size(self) -> tuple[int, int]:
        (height, width), (down, across) = self.size, self.stride
        return -(-height // down), -(-width // across)

    @property
    def macs(self) -> int:
        """Multiply-adds of the whole chain, padding counted as if it were multiplied too."""
        height, width = self.output_size
        kernel = self.kernel[0] * self.kernel[1]
        weights = self.channels_out * self.channels_in // self.groups * kernel
        return self.repeats * self.batch * weights * height * width

    @property
    def label(self) -> str:
        """3x3 96 to 192 at 32x32 by 2, batch 1, 4 times."""
        parts = [f"{_by(self.kernel)} {self.channels_in} to {self.channels_out} at {_by(self.size)}"]
        parts += [f" by {self.stride[0]}" if len(set(self.stride)) == 1 else f" by {_by(self.stride)}"]
        parts[1] = "" if self.stride == (1, 1) else parts[1]
        parts += [f" in {self.groups} groups"] if self.groups > 1 else []
        return "".join(parts) + f", batch {self.batch}" + (f", {self.repeats} times" if self.repeats > 1 else "")

    def chained(self) -> Shape:
        """The same convolution as often as it takes to hide the cost of a call, if it can be chained at all."""
        if not self.chains:
            return self
        one = self.macs // self.repeats
        return _repeat(self, max(1, min(MAX_REPEATS, -(-CHAIN_MACS // one))))


def general_shapes() -> tuple[Shape, ...]:
    """Shapes that suit a CPU: 3x3 convolutions of several widths and products of matrices, small and large.

    They are here so that a network whose own layers are all awkward is not held against itself alone.
    """
    square = [
        Shape(width, width, (side, side), batch=batch)
        for width, side, batch in ((64, 32, 1), (128, 16, 1), (128, 28, 1), (256, 16, 1), (256, 14, 8), (512, 8, 8))
    ]
    products = [
        Shape(width, width, (side, side), kernel=(1, 1))
        for width, side in ((256, 32), (512, 32), (1024, 32), (2048, 16))
    ]
    return tuple(shape.chained() for shape in (*square, *products))


def _repeat(shape: Shape, repeats: int) -> Shape:
    return Shape(
        shape.channels_in,
        shape.channels_out,
        shape.size,
        shape.kernel,
        shape.stride,
        shape.groups,
        shape.batch,
        repeats,
    )


def _by(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"
