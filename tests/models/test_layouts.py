"""Foreign state dicts against the foreign networks, written down here from their names and nothing of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from rir_deploy.errors import InputError
from rir_deploy.models import Stage
from rir_deploy.models.checkpoint import load_checkpoint
from rir_deploy.models.rir import count_parameters
from tests.models.networks import norm, randomise

State = dict[str, Tensor]


def add_conv(state: State, name: str, shape: tuple[int, ...], bias: bool) -> None:
    state[f"{name}.weight"] = torch.randn(shape) / (shape[1] * 3)
    if bias:
        state[f"{name}.bias"] = torch.zeros(shape[0])


def add_norm(state: State, name: str, width: int) -> None:
    for part in ("weight", "bias", "running_mean", "running_var"):
        state[f"{name}.{part}"] = torch.zeros(width)
    state[f"{name}.num_batches_tracked"] = torch.tensor(7)


def pytorchcv_state(stages: list[list[int]], stem: int = 4, classes: int = 5, channels: int = 3) -> State:
    torch.manual_seed(0)
    state: State = {}
    for stream in ("res", "trans"):
        add_conv(state, f"features.init_block.{stream}_conv.conv", (stem, channels, 3, 3), False)
        add_norm(state, f"features.init_block.{stream}_conv.bn", stem)
    before = stem
    for i, widths in enumerate(stages, 1):
        for j, width in enumerate(widths, 1):
            name = f"features.stage{i}.unit{j}"
            for conv in ("res_pass_conv", "trans_pass_conv", "res_cross_conv", "trans_cross_conv"):
                add_conv(state, f"{name}.{conv}", (width, before, 3, 3), False)
            for stream in ("res", "trans"):
                add_norm(state, f"{name}.{stream}_postactiv.bn", width)
            if width != before or (j == 1 and i > 1):
                add_conv(state, f"{name}.identity_conv", (width, before, 1, 1), False)
            before = width
    add_conv(state, "output.final_conv.conv", (classes, 2 * before, 1, 1), False)
    add_norm(state, "output.final_conv.bn", classes)
    randomise(state)
    return state


def pytorchcv_forward(state: State, stages: list[list[int]], x: Tensor) -> Tensor:
    """CIFARRiR: a cross conv is named by the stream it reads."""

    def conv(name: str, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        return functional.conv2d(x, state[f"{name}.weight"], None, stride, padding)

    def stem(stream: str) -> Tensor:
        name = f"features.init_block.{stream}_conv"
        return functional.relu(norm(state, f"{name}.bn", conv(f"{name}.conv", x)))

    res, trans = stem("res"), stem("trans")
    for i, widths in enumerate(stages, 1):
        for j in range(1, len(widths) + 1):
            name, stride = f"features.stage{i}.unit{j}", 2 if j == 1 and i > 1 else 1
            identity = res
            if f"{name}.identity_conv.weight" in state:
                identity = conv(f"{name}.identity_conv", res, stride, 0)
            new_res = (
                conv(f"{name}.res_pass_conv", res, stride) + identity + conv(f"{name}.trans_cross_conv", trans, stride)
            )
            new_trans = conv(f"{name}.trans_pass_conv", trans, stride) + conv(f"{name}.res_cross_conv", res, stride)
            res = functional.relu(norm(state, f"{name}.res_postactiv.bn", new_res))
            trans = functional.relu(norm(state, f"{name}.trans_postactiv.bn", new_trans))
    y = norm(state, "output.final_conv.bn", conv("output.final_conv.conv", torch.cat([res, trans], 1), 1, 0))
    return functional.avg_pool2d(y, 8, 1).flatten(1)


WIDTHS = [4, 4, 6, 6, 6, 8, 8, 8]


def cifar100_state(layers: int = 2, classes: int = 5, channels: int = 3) -> State:
    torch.manual_seed(0)
    state: State = {}
    for stream in ("residual", "transient"):
        add_conv(state, f"{stream}_pre_conv.0", (4, channels, 3, 3), True)
        add_norm(state, f"{stream}_pre_conv.1", 4)
    before = 4
    for i, width in enumerate(WIDTHS, 1):
        for j in range(layers):
            name = f"rir{i}.resnetinit.generalized layers{j}"
            for stream in ("residual", "transient"):
                add_conv(state, f"{name}.{stream}_stream_conv", (width, before, 3, 3), True)
                add_conv(state, f"{name}.{stream}_stream_conv_across", (width, before, 3, 3), True)
                add_norm(state, f"{name}.{stream}_bn_relu.0", width)
            if width != before:
                add_conv(state, f"{name}.short_cut.0", (width, before, 1, 1), True)
            before = width
    add_conv(state, "conv1.0", (7, 2 * before, 3, 3), True)
    add_norm(state, "conv1.1", 7)
    add_conv(state, "classifier.0", (11, 63), True)
    add_conv(state, "classifier.3", (classes, 11), True)
    randomise(state)
    return state


def cifar100_forward(state: State, layers: int, x: Tensor) -> Tensor:
    """ResnetInResneet of the repository's rir.py."""

    def conv(name: str, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding)

    def stem(name: str) -> Tensor:
        return functional.relu(norm(state, f"{name}.1", conv(f"{name}.0", x)))

    r, t = stem("residual_pre_conv"), stem("transient_pre_conv")
    for i in range(1, 9):
        for j in range(layers):
            name, stride = f"rir{i}.resnetinit.generalized layers{j}", 2 if i in (3, 6) and j == 0 else 1
            shortcut = conv(f"{name}.short_cut.0", r, stride, 0) if stride == 2 else r
            new_r = conv(f"{name}.residual_stream_conv", r, stride)
            new_r = new_r + conv(f"{name}.transient_stream_conv_across", t, stride) + shortcut
            new_t = conv(f"{name}.residual_stream_conv_across", r, stride)
            new_t = new_t + conv(f"{name}.transient_stream_conv", t, stride)
            r = functional.relu(norm(state, f"{name}.residual_bn_relu.0", new_r))
            t = functional.relu(norm(state, f"{name}.transient_bn_relu.0", new_t))
    y = functional.relu(norm(state, "conv1.1", conv("conv1.0", torch.cat([r, t], 1), 2, 0))).flatten(1)
    y = functional.relu(functional.linear(y, state["classifier.0.weight"], state["classifier.0.bias"]))
    return functional.linear(y, state["classifier.3.weight"], state["classifier.3.bias"])


def doubled(state: State) -> State:
    return {name: tensor.double() for name, tensor in state.items()}


def check_equal(found: Tensor, expected: Tensor) -> None:
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("stages", "channels"),
    [([[4, 4], [6, 6, 6], [8]], 3), ([[6, 6], [6]], 1), ([[4], [4, 8, 8]], 3), ([[5, 4], [4]], 2)],
)
def test_pytorchcv(stages: list[list[int]], channels: int, tmp_path: Path) -> None:
    # There the average pool is 8x8, which is the global one of ours where the last map has that size.
    size = 8 * 2 ** (len(stages) - 1)
    state = pytorchcv_state(stages, channels=channels)
    torch.save(state, tmp_path / "a.pth")
    loaded = load_checkpoint(tmp_path / "a.pth", (size, size))
    assert (loaded.layout, loaded.accuracy, loaded.recipe) == ("pytorchcv", None, None)
    x = torch.randn(2, channels, size, size, dtype=torch.float64)
    with torch.no_grad():
        check_equal(loaded.model.double()(x), pytorchcv_forward(doubled(state), stages, x))


def test_pytorchcv_config_is_read_off(tmp_path: Path) -> None:
    torch.save(pytorchcv_state([[4, 4], [6, 6, 6], [8]], classes=9), tmp_path / "a.pth")
    config = load_checkpoint(tmp_path / "a.pth").config
    assert (config.num_classes, config.in_channels, config.image_size, config.stem) == (9, 3, (32, 32), (4, 4))
    assert config.stages == (Stage(4, 4, 2), Stage(6, 6, 3, 2), Stage(8, 8, 1, 2))


def test_pytorchcv_itself(tmp_path: Path) -> None:
    package = pytest.importorskip("pytorchcv.models.rir_cifar")
    torch.manual_seed(0)
    theirs = package.CIFARRiR([[8] * 2, [12] * 3, [16] * 2], 8, 32, num_classes=7).eval()
    randomise(theirs.state_dict())
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "a.pt")
    ours = load_checkpoint(tmp_path / "a.pt").model
    assert count_parameters(ours) == sum(parameter.numel() for parameter in theirs.parameters())
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        check_equal(ours.double()(x.double()), theirs.double()(x.double()))


@pytest.mark.parametrize(("layers", "classes", "channels"), [(2, 5, 3), (1, 3, 1), (3, 100, 3)])
def test_cifar100(layers: int, classes: int, channels: int, tmp_path: Path) -> None:
    state = cifar100_state(layers, classes, channels)
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "a.pth")
    loaded = load_checkpoint(tmp_path / "a.pth")
    assert loaded.layout == "pytorch-cifar100"
    assert loaded.config.stages == tuple(
        Stage(width, width, blocks * layers, stride) for width, blocks, stride in ((4, 2, 1), (6, 3, 2), (8, 3, 2))
    )
    assert loaded.config.mlp_widths == (7, 11)
    x = torch.randn(2, channels, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        check_equal(loaded.model.double()(x), cifar100_forward(doubled(state), layers, x))


def test_a_foreign_layout_in_safetensors(tmp_path: Path) -> None:
    save_file(pytorchcv_state([[4]]), tmp_path / "a.safetensors")
    assert load_checkpoint(tmp_path / "a.safetensors").layout == "pytorchcv"


def test_counters_may_be_missing(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in pytorchcv_state([[4]]).items() if "num_batches" not in name}
    torch.save(state, tmp_path / "a.pt")
    assert load_checkpoint(tmp_path / "a.pt").layout == "pytorchcv"


def test_an_unknown_layout_names_the_known_ones(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"pytorchcv or pytorch-cifar100.*'weight'"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("drop", "words"),
    [
        ("features.stage1.unit1.trans_cross_conv.weight", "missing features.stage1.unit1.trans_cross_conv.weight"),
        ("features.stage2.unit1.identity_conv.weight", "missing features.stage2.unit1.identity_conv.weight"),
        ("features.stage2.unit2.res_pass_conv.weight", "unexpected features.stage2.unit2.trans_pass_conv.weight"),
        ("features.stage1.unit2.trans_pass_conv.weight", "features.stage1.unit2.trans_pass_conv.weight"),
        ("output.final_conv.conv.weight", "output.final_conv.conv.weight"),
        ("features.init_block.trans_conv.bn.running_var", "missing features.init_block.trans_conv.bn.running_var"),
        ("features.stage1.unit1.res_pass_conv.weight", "number of stages"),
    ],
)
def test_a_missing_tensor_is_named_as_there(drop: str, words: str, tmp_path: Path) -> None:
    state = pytorchcv_state([[4, 4], [6, 6]])
    del state[drop]
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(InputError, match=words):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("key", ["conv1.0.weight", "rir3.resnetinit.generalized layers0.short_cut.0.bias"])
def test_a_missing_tensor_of_cifar100(key: str, tmp_path: Path) -> None:
    state = cifar100_state()
    del state[key]
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(InputError, match=key):
        load_checkpoint(tmp_path / "a.pt")


def test_unexpected_and_misshapen_tensors(tmp_path: Path) -> None:
    state = pytorchcv_state([[4, 4], [6, 6]])
    state["features.stage9.unit1.extra"] = torch.ones(1)
    state["features.stage1.unit1.res_cross_conv.weight"] = torch.ones(4, 4, 5, 5)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(InputError) as caught:
        load_checkpoint(tmp_path / "a.pt")
    assert "unexpected features.stage9.unit1.extra" in str(caught.value)
    assert "res_cross_conv.weight is float [4, 4, 5, 5] where float [4, 4, 3, 3] is expected" in str(caught.value)


def test_the_image_size_of_an_mlp_head_must_fit(tmp_path: Path) -> None:
    torch.save(cifar100_state(), tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"classifier.0.weight is float \[11, 63\] where float \[11, 343\]"):
        load_checkpoint(tmp_path / "a.pt", (64, 64))


def test_nan_is_named(tmp_path: Path) -> None:
    state = pytorchcv_state([[4]])
    state["output.final_conv.bn.bias"][1] = float("nan")
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"output.final_conv.bn.bias.*NaN"):
        load_checkpoint(tmp_path / "a.pt")
