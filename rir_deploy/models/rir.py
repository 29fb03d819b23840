"""The network: stem, layers, head."""

from __future__ import annotations

import math

from torch import Tensor, nn

from rir_deploy.models.blocks import GeneralizedBlock, ResNetInitBlock
from rir_deploy.models.config import RiRConfig
from rir_deploy.models.ends import Stem, make_head
from rir_deploy.models.plan import plan_layers
from rir_deploy.models.streams import join


class RiR(nn.Module):
    """A network of the RiR family (`RiRConfig`), He-initialised.

    Control flow depends on the configuration only, never on data, so that both of PyTorch's exporters trace
    it.
    """

    def __init__(self, config: RiRConfig) -> None:
        super().__init__()
        self.config = config
        self.plan = plan_layers(config)
        block = ResNetInitBlock if config.resnet_init else GeneralizedBlock
        self.stem = Stem(config)
        self.layers = nn.ModuleList(block(layer, config) for layer in self.plan)
        self.head = make_head(config)
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images N,in_channels,H,W to logits N,num_classes."""
        state = span = pair = self.stem(x)
        for plan, layer in zip(self.plan, self.layers, strict=True):
            span = state if plan.opens_span else span
            pair = state if plan.opens_pair else pair
            state = layer(state, span, pair)
        logits: Tensor = self.head(join(state))
        return logits


def he_initialise(model: nn.Module) -> None:
    """He et al. 2015: weights normal with variance 2 / fan-in, biases zero.

    The convs of a generalized block are parts of one conv over the joined streams, and share its fan-in.
    """
    fan_in: dict[nn.Module, int] = {
        conv: 9 * layer.joined_inputs
        for layer in model.modules()
        if isinstance(layer, GeneralizedBlock)
        for conv in layer.stream_convs()
    }
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            own = module.weight[0].numel()
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_in.get(module, own)))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def count_parameters(model: nn.Module) -> int:
    """Learned numbers of ``model``; batch norm statistics and constants are not counted."""
    return sum(parameter.numel() for parameter in model.parameters())
