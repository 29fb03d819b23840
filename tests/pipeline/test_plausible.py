"""Calibration images that are not what the network was trained on: refused, warned of, or none of the two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from rir_deploy.artifacts import Provenance
from rir_deploy.data.dataset import Dataset
from rir_deploy.data.preprocess import Preprocessing
from rir_deploy.data.sources import open_source
from rir_deploy.errors import InputError
from rir_deploy.onnx_file import write_provenance
from rir_deploy.pipeline.calibrate import open_session
from rir_deploy.pipeline.plausible import check_images, doubtful, repeated_images, too_low
from tests.quantize.graphs import writer

COLOURS = Preprocessing((8, 8), "RGB", (0.5,) * 3, (0.25,) * 3)


def judge() -> ir.Model:
    """Says which colour an image has the most of."""
    w = writer()
    return w.model(w.op("Flatten", [w.op("GlobalAveragePool", [w.input(3)], 3)], 3))


def images(share_right: float, folder: Path, exchange: bool = False) -> Dataset:
    """400 images whose label is their strongest colour, but for some."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    pixels = rng.integers(0, 100, (400, 8, 8, 3)).astype(np.uint8)
    pixels[np.arange(400), :, :, labels] += 80
    wrong = rng.permutation(400)[round(share_right * 400) :]
    labels[wrong] = (labels[wrong] + 1) % 3
    np.savez(folder / "images.npz", images=pixels[..., ::-1] if exchange else pixels, labels=labels)
    return Dataset(open_source(str(folder / "images.npz")), COLOURS)


def check(dataset: Dataset, expected: float | None, recorded: float | None = None) -> tuple[str, ...]:
    model = judge()
    write_provenance(model, Provenance(tool="test", top1=recorded))
    return check_images(model, dataset, np.arange(len(dataset)), expected, open_session)


def test_red_and_blue_exchanged_are_seen_without_any_figure_to_compare_with(tmp_path: Path) -> None:
    assert check(images(0.9, tmp_path), None) == ()
    (warning,) = check(images(0.9, tmp_path, exchange=True), None)
    assert "90.0 %" in warning
    assert "with red and blue exchanged" in warning
    assert "BGR" in warning


@pytest.mark.parametrize("vouched", [True, False])
def test_lower_than_chance_explains_is_warned_of_and_far_lower_is_refused(vouched: bool, tmp_path: Path) -> None:
    def found(expected: float) -> tuple[str, ...]:
        dataset = images(0.8, tmp_path)
        return check(dataset, expected) if vouched else check(dataset, None, expected)

    assert found(0.78) == found(0.85) == ()  # 0.85: more than 3 points, and chance
    (warning,) = found(0.9)
    assert "80.0 % of 400 calibration images" in warning
    assert ("--expect-top1 says" if vouched else "the checkpoint records") + " 90.0 %" in warning
    assert "order of the channels" in warning
    far = images(0.6, tmp_path)
    with pytest.raises(InputError, match="prepared otherwise"):
        check(far, 0.95)


@pytest.mark.parametrize("images", [64, 512, 5000])
@pytest.mark.parametrize("expected", [0.3, 0.8, 0.93, 0.99])
def test_images_like_those_of_the_proof_raise_no_alarm(expected: float, images: int) -> None:
    """Even these: on images of the training top-1 is higher. Binomial draws, and one warning in a thousand at most."""
    shares = np.random.default_rng(1).binomial(images, expected, 4000) / images
    assert np.mean([doubtful(share, images, expected) for share in shares]) <= (
        0.004 if images * (1 - expected) > 5 else 0.02
    )
    assert not any(too_low(share, images, expected) for share in shares)
    assert doubtful(expected - 0.15, max(images, 512), expected)


@pytest.mark.parametrize(("distinct", "warned"), [(1, True), (40, True), (200, True), (201, False), (400, False)])
def test_images_that_repeat_a_few_are_warned_of(distinct: int, warned: bool, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (distinct, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=np.resize(pixels, (400, 8, 8, 3)))
    dataset = Dataset(open_source(str(tmp_path / "images.npz")), COLOURS)
    found = repeated_images(dataset, np.arange(400))
    assert (found is not None) == warned
    assert found is None or f"of the 400 calibration images of '{tmp_path / 'images.npz'}' only {distinct} " in found
