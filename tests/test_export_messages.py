"""What is said where a module cannot be exported: the cause, and not how the exporter is organised."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rir_deploy.errors import InputError
from rir_deploy.export import ExportOptions, export


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


class Branches(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


class Loops(Net):
    def forward(self, x: Tensor) -> Tensor:
        while x.max() > 1:
            x = x / 2
        return super().forward(x)


class Raises(Net):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("the frobnicator is \x1b[31mnot tuned\x1b[0m\nand more")


class Eigen(Net):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(x.mean(1)).real + super().forward(x).sum()


class Shapes(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :2])


class TwoInputs(Net):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return super().forward(x + y)


CASES = [
    (Net().half(), ("Half", "its parameters are float16", "model.float()")),
    (Net().bfloat16(), ("BFloat16", "its parameters are bfloat16", "model.float()")),
    (Net().double(), ("double", "its parameters are float64", "model.float()")),
    (Branches(), ("branches on values", "torch.where")),
    (Loops(), ("branches on values", "torch.where")),
    (Raises(), ("ValueError: the frobnicator is not tuned",)),
    (Eigen(), ("operator aten.linalg_eig",)),
    (Shapes(), ("to have 3 channels, but got 2 channels instead",)),
    (TwoInputs(), ("missing a required argument: 'y'",)),
]


@pytest.mark.parametrize(("module", "words"), CASES, ids=lambda one: type(one).__name__)
def test_the_cause_is_shown(module: nn.Module, words: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="cannot be traced with an input of 3x8x8: ") as caught:
        export(module, ExportOptions((3, 8, 8)))
    message = str(caught.value)
    for word in words:
        assert word in message
    for noise in ("\x1b", "step 1/3", "step 3/3", "Next steps", "\n", "Failed to"):
        assert noise not in message
    assert capfd.readouterr() == ("", "")
