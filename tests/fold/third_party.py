"""Models that other packages ship, and what the fold makes of them.

python -m pip install ".[host,dev,models]"
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from tests.fold.torch_graphs import randomize

Exporter = Literal["dynamo", "torchscript"]


@dataclass(frozen=True)
class Shipped:
    """``convs`` are left of the model, of which ``blocks`` do the work of several branches.

    ``whole``: every block is one convolution and its activation, and nothing stands between them.
    """

    package: str
    name: str
    size: int
    convs: int
    blocks: int
    whole: bool = True
    exporters: tuple[Exporter, ...] = ("torchscript",)

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    def build(self) -> nn.Module:
        """With random weights. Raises ImportError where the package is not there."""
        module, function = self.package, self.name
        arguments: dict[str, Any] = {}
        if self.package == "timm":
            function, arguments = "create_model", {"model_name": self.name, "num_classes": 5}
        factory = getattr(importlib.import_module(module), function)
        return randomize(factory(**arguments))


BOTH: tuple[Exporter, ...] = ("dynamo", "torchscript")
_CV = "pytorchcv.models"
SHIPPED = (
    Shipped(f"{_CV}.rir_cifar", "rir_cifar10", 32, 18, 17, exporters=BOTH),
    Shipped(f"{_CV}.rir_cifar", "rir_cifar100", 32, 18, 17),
    Shipped(f"{_CV}.rir_cifar", "rir_svhn", 32, 18, 17),
    # Two streams that meet in every unit, across a shortcut that stays an addition.
    Shipped(f"{_CV}.shakeshakeresnet_cifar", "shakeshakeresnet20_2x16d_cifar10", 32, 27, 22, whole=False),
    Shipped(f"{_CV}.resnet_cifar", "resnet20_cifar10", 32, 21, 0, whole=False),
    Shipped("timm", "repvgg_a0", 64, 22, 22, exporters=BOTH),
    Shipped("timm", "repvgg_b1g4", 64, 28, 28),
    # A stem, then 21 blocks of a depthwise and a pointwise convolution.
    Shipped("timm", "mobileone_s0", 64, 43, 43, exporters=BOTH),
    Shipped("timm", "repghostnet_050", 64, 95, 32, whole=False),
    Shipped("timm", "fastvit_t8", 64, 52, 20, whole=False),
)
