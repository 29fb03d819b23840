"""ResNet Init against the dual-stream network of the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rir_deploy.models import RiRConfig
from rir_deploy.models.blocks import partial_identity
from rir_deploy.models.plan import Hop, LayerPlan, plan_layers
from rir_deploy.models.rir import RiR
from tests.models.networks import BASE, Reference, config_of, images, network


def joined_state(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The dual-stream ``state`` as that of the ResNet Init network: [[Wrr, Wtr], [Wrt, Wtt]], joined norms."""
    result = {name: tensor for name, tensor in state.items() if name.startswith("head.")}
    for part in ("conv.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"):
        result[f"stem.residual.{part}"] = torch.cat([state[f"stem.{s}.{part}"] for s in ("residual", "transient")])
    for index in range(layers):
        name = f"layers.{index}"
        rows = [
            torch.cat([state[f"{name}.{source}_to_{target}.weight"] for source in ("residual", "transient")], 1)
            for target in ("residual", "transient")
        ]
        result[f"{name}.conv.weight"] = torch.cat(rows)
        for part in ("weight", "bias", "running_mean", "running_var"):
            norms = [state[f"{name}.{stream}_norm.{part}"] for stream in ("residual", "transient")]
            result[f"{name}.norm.{part}"] = torch.cat(norms)
    return result


@pytest.mark.parametrize("stride_position", ["first", "second"])
@pytest.mark.parametrize("outer", ["none", "both"])
@pytest.mark.parametrize("position", ["before-relu", "after-relu"])
def test_equals_the_dual_stream(stride_position: str, outer: str, position: str) -> None:
    options = {"shortcut": "zero-pad", "outer": outer, "outer_position": position, "stride_position": stride_position}
    config = RiRConfig(**{**BASE, **options})
    state = network(config).double().state_dict()
    model = RiR(RiRConfig(**{**BASE, **options, "resnet_init": True})).double().eval()
    model.load_state_dict(joined_state(state, 4), strict=False)
    x = images(config).double()
    with torch.no_grad():
        torch.testing.assert_close(model(x), Reference(config, state)(x), rtol=1e-11, atol=1e-11)


def test_the_partial_identity_by_hand() -> None:
    plan = LayerPlan((2, 1), (3, 2), 1, True, True, Hop(2, 3, 1), (None, None), None)
    kernel = partial_identity(plan)
    assert kernel.shape == (5, 3, 3, 3)
    assert kernel[:, :, 1, 1].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert float(kernel.sum()) == 2


def test_weight_decay_leaves_the_identity_alone() -> None:
    config = config_of("resnet-init")
    model = RiR(config)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=1.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for layer, plan in zip(model.layers, plan_layers(config), strict=True):
        assert not layer.conv.weight.any()
        assert torch.equal(layer.identity, partial_identity(plan))


def test_the_identity_is_not_stored() -> None:
    assert not [name for name in RiR(config_of("resnet-init")).state_dict() if "identity" in name]
