"""Where losses enter: stages, layers, accuracy, flipped images and a block, read back from the page."""

from __future__ import annotations

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from rir_deploy.report.html import render
from tests.report.page import Page, read
from tests.report.sample import sample
from tests.report.sample_losses import PICTURE


@pytest.fixture(scope="module")
def page() -> Page:
    return read(render(sample()))


def test_stages(page: Page) -> None:
    assert page.row("stages", "PyTorch") == ["–", "99.17 %", *["–"] * 7, "reference"]
    assert page.row("stages", "folded ONNX") == [
        *("traced ONNX", "98.89 %", "0.28", "99.44 %", "2.17e-02", "47.3"),
        *("0.28", "99.44 %", "46.9", "passed"),
    ]
    assert page.row("stages", "rtx-fp16 simulation")[4:6] == ["not finite", "–"]
    assert page.row("stages", "rtx-fp16 simulation")[-1] == "failed the outputs hold NaN"


def test_layers(page: Page) -> None:
    assert page.row("errors-int8-cpu", "mid/Conv") == [
        *("layers.0", "residual", "6.0", "1.23e-02", "6.0", "725.0 %", "diverges")
    ]
    assert page.row("errors-fp32", "mid/Conv") == ["layers.0", "residual", "equal", "0", "no error", "0.0 %", "ok"]
    assert "int8-cpu diverges first at the node 'mid/Conv' (layers.0, residual)" in page.text
    label = next(one["aria-label"] for tag, one in page.elements if tag == "svg" and "every layer" in one["aria-label"])
    # 5.5 dB: 10 ** (-5.5 / 20).
    assert "int8-cpu at most 53.088 %, wrong first at mid/Conv" in label


def test_accuracy(page: Page) -> None:
    assert page.row("accuracy", "openvino-int8") == [
        *("359", "99.17 %", "98.89 %", "3", "2", "0.28", "-0.63 to 1.41", "0.62", "1.02"),
        "undecided some 1,234 images would decide",
    ]
    assert page.row("accuracy", "tensorrt-rtx-fp16 simulation")[-1].startswith("undecided")
    lost = ["eight", "37", "97.30 %", "93.24 %", "4.06", "-2.14 to 14.46", "0.2"]
    assert page.row("worst-class", "openvino-int8") == lost
    assert "Non-inferior in top-1 0 of 3 engines 3 undecided" in page.flat
    assert "openvino-int8 eight 37 97.30 % 93.24 % 4.06 -2.14 to 14.46 0.2" in page.flat


def test_flipped_images(page: Page) -> None:
    assert page.row("flips", "openvino-int8") == ["359", "3", "99.73 %"]
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert images == [{"src": f"data:image/png;base64,{PICTURE}", "alt": "digits/41"}]
    flat = page.flat
    assert "digits/41 label eight checkpoint three (by 2.3) openvino-int8 five (by 0.081)" in flat
    assert "no picture kept digits/97 label eight checkpoint three (by 0.51) openvino-int8 not finite" in flat
    assert flat.index("digits/41") < flat.index("digits/97")  # the surer one first


def test_the_block_is_drawn_from_the_record(page: Page) -> None:
    words = page.svg_texts
    start = words.index("r")
    assert words[start : start + 5] == ["r", "t", "Conv", "16 → 16", "3×3"]
    start = words.index("r+t")
    assert words[start : start + 5] == ["r+t", "Conv", "32 → 32", "3×3", "joined"]
    assert "The block layers.0 as it was traced: 6 nodes" in page.text
    assert "The same block folded: 1 node" in page.text
