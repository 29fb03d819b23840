"""Small networks of every kind in the family, and the same function written down a second time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rir_deploy.models import RiRConfig, Stage
from rir_deploy.models.rir import RiR

BASE: dict[str, Any] = {
    "num_classes": 5,
    "in_channels": 2,
    "image_size": (12, 10),
    "stem": (3, 4),
    "stages": (Stage(3, 4, 2), Stage(5, 6, 2, 2)),
}
RESIDUAL_ONLY = {"stem": (6, 0), "stages": (Stage(6, 0, 2), Stage(8, 0, 4, 2))}
TRANSIENT_ONLY = {"stem": (0, 6), "stages": (Stage(0, 6, 2), Stage(0, 8, 2, 2))}

# One entry or more for every value of every option.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "biases": {"stem_bias": True, "conv_bias": True, "projection_bias": True},
    "projection-norm": {"projection_norm": True},
    "zero-pad": {"shortcut": "zero-pad"},
    "stride-second": {"stride_position": "second"},
    "stride-second-zero-pad": {"stride_position": "second", "shortcut": "zero-pad"},
    "depth-2": {"shortcut_depth": 2},
    "depth-2-zero-pad": {"shortcut_depth": 2, "shortcut": "zero-pad", "stride_position": "second"},
    "outer-residual-after": {"outer": "residual"},
    "outer-residual-before": {"outer": "residual", "outer_position": "before-relu", "shortcut": "zero-pad"},
    "outer-both-after": {"outer": "both", "shortcut": "zero-pad"},
    "outer-both-before": {"outer": "both", "outer_position": "before-relu"},
    "uniform": {"branch_scale": "uniform"},
    "decreasing": {"branch_scale": "decreasing"},
    "branch-norm": {"norm": "branch", "branch_scale": "decreasing"},
    "resnet-init": {"resnet_init": True, "shortcut": "zero-pad"},
    "resnet-init-outer": {"resnet_init": True, "shortcut": "zero-pad", "outer": "both", "conv_bias": True},
    "mlp": {"head": "mlp", "mlp_widths": (7, 9)},
    "resnet": {**RESIDUAL_ONLY, "shortcut_depth": 2, "norm": "branch", "shortcut": "zero-pad"},
    "cnn": TRANSIENT_ONLY,
    "stream-begins": {"stem": (0, 4), "stages": (Stage(0, 4, 1), Stage(3, 4, 2), Stage(4, 0, 1, 2))},
}


def config_of(variant: str) -> RiRConfig:
    """The config of a variant."""
    return RiRConfig(**{**BASE, **VARIANTS[variant]})


def network(config: RiRConfig, seed: int = 0) -> RiR:
    """A network in eval mode whose every number, batch norm statistics included, is random."""
    torch.manual_seed(seed)
    model = RiR(config).eval()
    randomise(model.state_dict())
    return model


def randomise(state: Mapping[str, Tensor]) -> None:
    """Fill batch norms, biases and anything else that is trivial at the start with random numbers, in place."""
    with torch.no_grad():
        for name, tensor in state.items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.ndim == 1:
                tensor.normal_()


def images(config: RiRConfig, count: int = 3, seed: int = 1) -> Tensor:
    """Random float32 input."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, config.in_channels, *config.image_size, generator=generator)


def norm(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Batch norm at inference, from its definition."""
    scale = state[f"{name}.weight"] / torch.sqrt(state[f"{name}.running_var"] + 1e-5)
    shift = state[f"{name}.bias"] - state[f"{name}.running_mean"] * scale
    return x * scale[:, None, None] + shift[:, None, None]


def conv(state: Mapping[str, Tensor], name: str, x: Tensor | None, stride: int = 1, padding: int = 1) -> Tensor | None:
    """A conv where the state has one of that name and there is an input."""
    if x is None or f"{name}.weight" not in state:
        return None
    return functional.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride, padding)


def total(*terms: Tensor | None) -> Tensor | None:
    """The sum of what is there."""
    present = [term for term in terms if term is not None]
    return sum(present[1:], present[0]) if present else None


class Reference:
    """A dual-stream network (arXiv 1603.08029, equation 1) as a function of its state dict, in float64.

    It shares no code with the package: layers are counted and strides found from sizes here.
    """

    def __init__(self, config: RiRConfig, state: Mapping[str, Tensor]) -> None:
        self.config = config
        self.state = {name: tensor.double() for name, tensor in state.items()}

    def __call__(self, x: Tensor) -> Tensor:
        config = self.config
        seen = [tuple(self.stem(stream, x.double()) for stream in ("residual", "transient"))]
        for stage in config.stages:
            for number in range(stage.layers):
                strided = number == (0 if config.stride_position == "first" else 1)
                seen.append(self.layer(len(seen) - 1, seen, stage.stride if strided else 1))
        last = torch.cat([stream for stream in seen[-1] if stream is not None], 1)
        return self.head(last)

    def stem(self, stream: str, x: Tensor) -> Tensor | None:
        y = conv(self.state, f"stem.{stream}.conv", x)
        return None if y is None else torch.relu(norm(self.state, f"stem.{stream}.norm", y))

    def layer(self, index: int, seen: list[Any], stride: int) -> tuple[Tensor | None, Tensor | None]:
        state, (r, t), name = self.state, seen[index], f"layers.{index}"
        depth = self.config.shortcut_depth
        branch = total(
            conv(state, f"{name}.residual_to_residual", r, stride),
            conv(state, f"{name}.transient_to_residual", t, stride),
        )
        other = total(
            conv(state, f"{name}.residual_to_transient", r, stride),
            conv(state, f"{name}.transient_to_transient", t, stride),
        )
        if branch is not None and (index + 1) % depth == 0 and seen[index + 1 - depth][0] is not None:
            skip = self.skip(f"{name}.shortcut", seen[index + 1 - depth][0], branch)
            lam = self.scale(index, seen)
            if self.config.norm == "sum":
                branch = norm(state, f"{name}.residual_norm", lam * branch + skip)
            else:
                branch = lam * norm(state, f"{name}.residual_norm", branch) + skip
        elif branch is not None:
            branch = norm(state, f"{name}.residual_norm", branch)
        other = None if other is None else norm(state, f"{name}.transient_norm", other)
        pair = seen[index - 1] if index % 2 else (None, None)
        outer = {"none": (), "residual": (0,), "both": (0, 1)}[self.config.outer]
        return (
            self.finish(branch, pair[0] if 0 in outer else None, f"{name}.residual_outer"),
            self.finish(other, pair[1] if 1 in outer else None, f"{name}.transient_outer"),
        )

    def finish(self, y: Tensor | None, source: Tensor | None, name: str) -> Tensor | None:
        if y is None or source is None:
            return None if y is None else torch.relu(y)
        skip = self.skip(name, source, y)
        if self.config.outer_position == "before-relu":
            return torch.relu(y + skip)
        return torch.relu(y) + skip

    def skip(self, name: str, source: Tensor, like: Tensor) -> Tensor:
        if source.shape == like.shape:
            return source
        stride = max(round(source.shape[axis] / like.shape[axis]) for axis in (2, 3))
        if self.config.shortcut == "projection":
            y = conv(self.state, f"{name}.conv", source, stride, 0)
            assert y is not None
            return norm(self.state, f"{name}.norm", y) if self.config.projection_norm else y
        padded = torch.zeros_like(like)
        padded[:, : source.shape[1]] = source[:, :, ::stride, ::stride]
        return padded

    def scale(self, index: int, seen: list[Any]) -> float:
        """Lambda; the residual layers are those after which a residual stream goes on from a residual stream."""
        widths = [self.config.stem[0]] + [s.residual for s in self.config.stages for _ in range(s.layers)]
        depth = self.config.shortcut_depth
        ends = [i for i in range(depth, len(widths), depth) if widths[i] and widths[i - depth]]
        number = ends.index(index + 1) + 1
        return {
            "none": 1.0,
            "uniform": len(ends) ** -0.5,
            "decreasing": 1 / (math.sqrt(number) * math.log(number + 1)),
        }[self.config.branch_scale]

    def head(self, x: Tensor) -> Tensor:
        state = self.state
        if self.config.head == "conv1x1":
            y = conv(state, "head.conv", x, 1, 0)
            assert y is not None
            return functional.adaptive_avg_pool2d(norm(state, "head.norm", y), 1).flatten(1)
        y = conv(state, "head.conv", x, 2, 0)
        assert y is not None
        y = torch.relu(norm(state, "head.norm", y)).flatten(1)
        y = torch.relu(y @ state["head.hidden.weight"].T + state["head.hidden.bias"])
        return y @ state["head.classifier.weight"].T + state["head.classifier.bias"]
