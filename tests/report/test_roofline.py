"""The roofline in the report: its figures are the record's, and its drawing can be read."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from rir_deploy.errors import InputError
from rir_deploy.report.html import render
from rir_deploy.report.plots_roofline import roofline_plots
from rir_deploy.report.reader import read_record
from rir_deploy.report.schema import read_run
from rir_deploy.report.schema_roofline import Roofline
from rir_deploy.report.svg import SERIES
from tests.report.page import read
from tests.report.sample import machine, sample


def layer(node: str, macs: int, size: int, ceiling_ms: float, measured_ms: float | None) -> dict[str, Any]:
    bound = "memory" if macs < size else "compute"
    head = {"node": node, "block": None, "precision": "int8", "macs": macs, "bytes": size}
    return {**head, "ceiling_ms": ceiling_ms, "measured_ms": measured_ms, "bound": bound}


def engine(name: str, precision: str, batch: int, median_ms: float) -> dict[str, Any]:
    layers = [
        layer("stem", 2_654_208, 104_448, 0.007, 0.061),
        layer("wide", 84_934_656, 280_032, 0.193, 0.211),
        layer("fused", 84_934_656, 280_032, 0.193, None),
        layer("tail", 1_000, 64_000, 0.002, 0.017),
    ]
    macs, size = sum(one["macs"] for one in layers), sum(one["bytes"] for one in layers)
    return {
        "engine": f"engines/{name}",
        "backend": "openvino",
        "precision": precision,
        "batch": batch,
        "median_ms": median_ms,
        "fastest_ms": 0.9 * median_ms,
        "ceiling_ms": 0.395,
        "share": 0.395 / median_ms,
        "fastest_share": 0.395 / median_ms / 0.9,
        "macs": macs,
        "bytes": size,
        "gmac_per_s": macs / median_ms / 1e6,
        "rest_ms": 0.021,
        "layers": layers,
        "rest": [{"node": "input_reorder", "op": "Reorder", "measured_ms": 0.021}],
        "warnings": ["the times are odd"],
    }


def roofline() -> dict[str, Any]:
    ceilings = [("int8", "openvino", 441.3), ("int8", "onnxruntime", 398.7), ("bf16", "openvino", 219.2)]
    return {
        "machine": machine("Imaginary 9000"),
        "threads": 2,
        "cached": 0,
        "ceilings": [
            {"precision": kind, "backend": backend, "gmac_per_s": speed, "shape": "3x3 64 to 64 at 32x32, batch 1"}
            for kind, backend, speed in [*ceilings, ("fp32", "openvino", 113.9)]
        ],
        "copy_gb_per_s": 21.5,
        "copies": [
            {"working_set_bytes": 1 << 20, "gb_per_s": 118.4},
            {"working_set_bytes": 256 << 20, "gb_per_s": 21.5},
        ],
        "engines": [
            engine("openvino-int8", "int8", 1, 0.44),
            engine("openvino-fp32", "fp32", 1, 1.7),
            engine("a", "int8", 8, 0.43),
        ],
        "notes": ["the machine now computes int8 at 71% of its ceiling"],
    }


@pytest.fixture(scope="module")
def html() -> str:
    return render(sample() | {"roofline": roofline()})


def test_tables(html: str) -> None:
    page = read(html)
    assert page.row("roofline", "openvino-int8") == [
        *("openvino", "int8", "1", "0.440", "0.395", "89.8 %", "99.7 %", "392.1", "0.021")
    ]
    assert page.tables["roofline-layers"][1] == [
        *("openvino-int8", "1", "stem", "–", "2.7", "0.061", "0.007", "11.5 %", "multiply-adds")
    ]
    assert [row[2] for row in page.tables["roofline-layers"][1:4]] == ["stem", "wide", "tail"]
    assert page.tables["roofline-layers"][3][-2:] == ["11.8 %", "bytes"]
    assert ["int8", "onnxruntime", "398.7 GMAC/s", "3x3 64 to 64 at 32x32, batch 1"] in page.tables["ceilings"]
    assert ["copy", "–", "21.5 GB/s", "268.4 MB"] in page.tables["ceilings"]
    assert "the machine now computes int8 at 71% of its ceiling" in page.text
    assert "openvino-int8 at batch 1: the times are odd" in page.text


def test_a_run_without_one_has_no_section() -> None:
    assert read_run(sample()).roofline is None
    assert "section-roofline" not in render(sample())


def plots() -> list[ET.Element]:
    drawn = [plot.svg for plot in roofline_plots(read_record(Roofline, roofline(), "roofline"))]
    # Namespaces are left to HTML; ElementTree asks for them.
    return [ET.fromstring(re.sub(r"xlink:", "", svg)) for svg in drawn]


def test_a_mark_for_every_engine_and_every_layer_that_was_timed() -> None:
    first, second = plots()
    marks = [
        sum(f"--series{index})" in (one.get("style") or "") for one in first.iter("use")) for index in range(SERIES)
    ]
    assert marks == [4, 4, *[0] * (SERIES - 2)]  # the engine and three of its four layers
    assert sum("--series" in (one.get("style") or "") for one in second.iter("use")) == 4
    assert "openvino-int8 392.1 GMAC/s, 89.8 % of the ceiling" in str(first.get("aria-label"))


def test_no_layer_is_drawn_above_the_roof_that_bounds_it() -> None:
    """Places in the drawing, against the roof's own: y grows downwards."""
    drawn = plots()[0]
    marks = [one for one in drawn.iter("use") if "--series0)" in (one.get("style") or "")]
    roof = next(one for one in drawn.iter("path") if "var(--int8)" in (one.get("style") or ""))
    height = float(re.findall(r"[ML] [\d.]+ ([\d.]+)", str(roof.get("d")))[0])
    assert all(float(str(mark.get("y"))) >= height for mark in marks)
    # Logarithmic in both: equal ratios are equal distances.
    (x0, y0), (x1, y1), (x2, y2) = ((float(str(m.get("x"))), float(str(m.get("y")))) for m in marks[:3])
    assert x2 > x0 > x1
    assert y1 > y0
    assert y1 > y2


def test_words_of_the_plot_do_not_overlap_and_are_inside() -> None:
    for drawn in plots():
        *_, width, height = map(float, str(drawn.get("viewBox")).split())
        boxes = []
        for one in drawn.iter("text"):
            style, words = str(one.get("style")), one.text or ""
            place = re.search(r"translate\(([\d.]+) ([\d.]+)\)", str(one.get("transform")))
            x, y = (float(one.get("x", 0)), float(one.get("y", 0))) if place is None else map(float, place.groups())
            wide = 0.6 * 9.5 * len(words)
            left = x - (wide / 2 if "middle" in style else wide if "end" in style else 0)
            boxes.append((left, left + wide, y - 9.5, y, words))
        assert len(boxes) > 4
        for index, (left, right, top, bottom, words) in enumerate(boxes):
            assert left >= -2, words
            assert right <= width + 2, words
            assert 0 <= top < bottom <= height, words
            for other in boxes[index + 1 :]:
                assert not (left < other[1] and other[0] < right and top < other[3] and other[2] < bottom), (
                    words,
                    other,
                )


def test_a_record_that_is_none_is_refused() -> None:
    broken = roofline()
    broken["engines"][0]["layers"][1]["bound"] = "luck"
    with pytest.raises(InputError, match=r"roofline\.engines\[0\]\.layers\[1\]\.bound"):
        read_run(sample() | {"roofline": broken})
