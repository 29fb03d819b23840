"""What the feature map of a sound layer may be off by, in each precision, by the layer's own doing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Wide = NDArray[np.float64]

# A channel's error is held against its own size and this share of its tensor's: a channel that is small beside the
# others is computed from numbers, and read beside numbers, of their size.
_TENSOR_SHARE = 0.1
_STEPS = 255


@dataclass(frozen=True)
class Limit:
    """Bounds on the root mean square of the errors of a channel.

    Float: ``relative``, as a share of rms(channel) + 0.1 rms(tensor). INT8: steps of 1/255 of the range that the
    tensor spans, at most ``channel_steps`` in each channel and ``tensor_steps`` in all of it.

    Attributes:
        shows_in_output: whether a wrong layer cannot but show in the output.
        reason: why these bounds.
    """

    relative: float | None = None
    channel_steps: float | None = None
    tensor_steps: float | None = None
    shows_in_output: bool = True
    reason: str = ""

    def errors(self, reference: Wide, error: Wide, span: float) -> Wide:
        """How far each channel is off, as a multiple of what is allowed.

        Args:
            reference, error: mean squares [channels] of the reference's numbers and of what they are off by.
            span: largest minus smallest number of the reference's tensor, 0 among them.

        Returns:
            [channels]; 0 where nothing is off, infinite where what is not finite is.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.relative is not None:
                scale = self.relative * (np.sqrt(reference) + _TENSOR_SHARE * math.sqrt(float(reference.mean())))
                found = np.sqrt(error) / scale
            else:
                found = self._steps(np.sqrt(error), np.sqrt(error.mean()), np.float64(span / _STEPS))
        found = np.where(error == 0.0, 0.0, found)
        return np.asarray(np.where(np.isnan(found), np.inf, found))

    def _steps(self, channels: Wide, tensor: np.float64, step: np.float64) -> Wide:
        assert self.channel_steps is not None
        assert self.tensor_steps is not None
        alone = channels / (step * self.channel_steps)
        # Where the tensor as a whole is off, the channels are to blame that are so more than on average.
        together = np.where(channels >= tensor * (1 - 1e-9), tensor / (step * self.tensor_steps), 0.0)
        return np.asarray(np.maximum(alone, together))


LIMITS: dict[str, Limit] = {
    "fp32": Limit(
        relative=2e-5,
        reason="another order of additions costs some 1e-6 at most; a kernel rounded to bfloat16 costs 1e-3",
    ),
    "fp16": Limit(
        relative=5e-3,
        reason="rounding inputs, weights and result to 11 bits costs some 7e-4",
    ),
    "int8": Limit(
        channel_steps=10.0,
        tensor_steps=2.0,
        shows_in_output=False,
        reason="rounding weights and result costs up to 1 step in all, and clipping 1 value in 1000 up to 7 in a "
        "channel; a range 16 times too wide costs 2.3 and more in all, a dead channel more than 14 in that one",
    ),
}
