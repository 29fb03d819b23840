"""How a network is trained: one frozen, validated record whose defaults are the paper's recipe.

Targ et al. 2016 (arXiv 1603.08029): SGD with momentum 0.9 and batches of 500, L2 of 1e-4, 82 epochs, learning
rate divided by 10 after epochs 42 and 62, crops out of 4 pixels of padding, horizontal flips. The initial
learning rate is not certain; 0.1 works.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from rir_deploy.errors import InputError
from rir_deploy.models.checks import check_choice, check_flag, check_integer, check_keys, check_number

Schedule = Literal["step", "cosine", "onecycle"]
Precision = Literal["auto", "fp32", "bf16"]
_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")


@dataclass(frozen=True)
class TrainOptions:
    """A training recipe.

    Attributes:
        schedule: "step" multiplies the rate by ``gamma`` after each epoch of ``milestones``; "cosine" lets it
            fall to zero; "onecycle" warms up over 3 tenths of the steps, then falls to zero.
        learning_rate: the highest rate of any schedule.
        crop_padding: pixels of value 0 around an image before a random crop of its own size.
        seed: of the initial weights, the order of images and their augmentation.
        precision: of the forward and backward pass; weights and updates are float32. "auto" takes bf16
            autocast where the hardware multiplies it.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
        threads: of the CPU; 0 leaves PyTorch's own choice. 1 suits tiny networks, whose operations are too short
            to share: on a busy machine it is faster, and the result does not depend on the number of cores.

    Raises:
        InputError: a value is out of range.
    """

    epochs: int = 82
    batch_size: int = 500
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: Schedule = "step"
    milestones: tuple[int, ...] = (42, 62)
    gamma: float = 0.1
    crop_padding: int = 4
    flip: bool = True
    seed: int = 0
    label_smoothing: float = 0.0
    precision: Precision = "auto"
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("epochs", 1, 100_000),
            ("batch_size", 1, 65_536),
            ("crop_padding", 0, 1024),
            ("seed", 0, 2**63 - 1),
            ("threads", 0, 1024),
        ):
            check_integer(name, getattr(self, name), low, high)
        for name, least, most in (
            ("learning_rate", 1e-9, 1e3),
            ("momentum", 0, 0.9999),
            ("weight_decay", 0, 1),
            ("gamma", 1e-6, 1),
            ("label_smoothing", 0, 0.99),
        ):
            check_number(name, getattr(self, name), least, most)
        self._check_names()

    def _check_names(self) -> None:
        check_flag("nesterov", self.nesterov)
        check_flag("flip", self.flip)
        check_choice("schedule", self.schedule, get_args(Schedule))
        check_choice("precision", self.precision, get_args(Precision))
        if not isinstance(self.milestones, tuple):
            raise InputError(f"milestones must be a list of epochs, not {self.milestones!r}")
        for milestone in self.milestones:
            check_integer("each milestone", milestone, 1, 100_000)
        if self.nesterov and not self.momentum:
            raise InputError("nesterov needs a momentum above 0; raise it or leave nesterov out")
        if not isinstance(self.device, str) or not _DEVICE.fullmatch(self.device):
            raise InputError(f"device must be auto, cpu, cuda or cuda:N, not {self.device!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` reads them back to an equal record."""
        return {**asdict(self), "milestones": list(self.milestones)}

    @staticmethod
    def from_dict(data: object) -> TrainOptions:
        """The record that ``data`` (parsed JSON or TOML) describes; absent keys take their defaults.

        Raises:
            InputError: an unknown key (the closest known one is suggested) or a value out of range.
        """
        values = dict(check_keys("the training options", data, [field.name for field in fields(TrainOptions)]))
        if isinstance(values.get("milestones"), list):
            values["milestones"] = tuple(values["milestones"])
        return TrainOptions(**values)
