"""How INT8 was chosen, and what folding is worth to it: the figures on the page, and who is better at what."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from rir_deploy.report.console import show
from rir_deploy.report.html import render
from rir_deploy.report.pairs import find_pairs
from rir_deploy.report.plots_int8 import sensitivity_plots
from rir_deploy.report.schema import read_run
from rir_deploy.report.tables_int8 import candidates_table, pairs_table, ranking_table
from tests.report.page import Page, read
from tests.report.sample import ranking, sample


@pytest.fixture(scope="module")
def page() -> Page:
    return read(render(sample()))


def test_the_ways_to_quantise_and_the_one_taken(page: Page) -> None:
    assert page.tables["candidates-int8-cpu"] == [
        ["ranges by", "weights by", "equalised", "SQNR (dB)", "choice"],
        ["mse", "gptq", "yes", "40.3", ""],
        ["entropy", "gptq", "yes", "39.2", "taken"],
        ["minmax", "gptq", "no", "33.0", ""],
    ]
    assert "int8-cpu: ways to quantise, on 501 images, by the SQNR on those held back" in page.text
    assert "candidates-int8-cpu-unfolded" in page.tables


def test_a_way_that_was_asked_for_is_no_choice() -> None:
    run = sample()
    run["graphs"][1]["calibration"] |= {"sqnr_db": None, "candidates": []}
    page = read(render(run))
    assert page.tables["candidates-int8-cpu"][1:] == [["entropy", "gptq", "yes", "–", "taken"]]
    assert "int8-cpu: ways to quantise, on 501 images" in page.text
    assert "int8-cpu: ways to quantise, on 501 images, by" not in page.text


def test_the_ranking_is_drawn_with_what_was_kept(page: Page) -> None:
    words = page.svg_texts
    start = words.index("Conv_7")
    assert words[start : start + 9] == [
        *("Conv_7", "26.0 dB, float", "layers.1 computes block1/r, block1/t"),
        *("Conv_0", "46.0 dB", "stem residual"),
        *("Gemm_9", "no error", "computes logits"),
    ]
    flat = " ".join(page.text.split())
    # 10 ** (-26.02 / 20) is 5 %: 26.02 dB are a factor of 20.
    assert (
        "■ becomes INT8; the whole width is an error (rms) of 5.00 % of the output "
        "■ stays in float: 1 of 3, so that 0.13 of at most 0.25 points of top-1 are lost (95 % interval -0.03 to 0.29)"
        in flat
    )
    assert "int8-cpu: each layer quantised alone, on 127 images" in flat


def test_bars_are_as_long_as_the_error_is_large() -> None:
    """20 dB less are a tenth: read off the drawn paths."""
    graph = read_run(sample()).graphs[1]
    (plot,) = sensitivity_plots(graph)
    widths = []
    for path in re.findall(r'<path d="([^"]*)" style="fill: var\(--(?:int8|fp32)\)"', plot.svg):
        xs = [float(x) for x in re.findall(r"[ML] (\S+) ", path)]
        widths.append(max(xs) - min(xs))
    assert len(widths) == 3
    assert widths[1] / widths[0] == pytest.approx(0.1, abs=0.005)
    assert widths[2] == 0.0


@pytest.mark.parametrize(("layers", "plots"), [(1, 1), (18, 1), (24, 1), (25, 2), (69, 3)])
def test_a_long_ranking_becomes_several_plots_on_one_scale(layers: int, plots: int) -> None:
    run = sample()
    run["graphs"][1]["sensitivity"] = ranking(layers)
    drawn = sensitivity_plots(read_run(run).graphs[1])
    assert len(drawn) == plots
    assert all("error (rms) of 3.16 % of the output" in plot.legend[0].text for plot in drawn)  # 30 dB
    if plots > 1:
        assert f"{layers - layers % 24 + 1} to {layers} of {layers}" in drawn[-1].caption
    assert sum(plot.svg.count("computes ") for plot in drawn) == layers


def test_folded_against_unfolded(page: Page) -> None:
    assert page.tables["pairs"][0][5] == "median (ms) at batch 1"
    assert page.row("pairs", "openvino-int8") == [
        *("folded", "99.73 %", "28.3", "98.89 %", "0.021", "61.2 kB", "1"),
        *("agreement, latency, size level: top-1", "passed"),
    ]
    assert page.row("pairs", "openvino-int8-unfolded") == [
        *("unfolded", "95.00 %", "30.3", "97.21 %", "0.042", "87.7 kB", "0", "SQNR", "passed"),
    ]


def change(run: dict[str, Any], **figures: float) -> dict[str, str]:
    """The verdicts with some figures of the unfolded engine changed; by default it is the folded one's equal."""
    folded, unfolded = run["engines"][1], run["unfolded"]["engines"][0]
    images = figures.get("images", 1000)
    folded["verify"] |= {"images": images, "agreement": 0.99, "sqnr_db": 30.0}
    folded["verify"]["candidate"] |= {"top1": 0.86}
    unfolded["verify"] = {**folded["verify"], "agreement": figures.get("agreement", 0.99)}
    unfolded["verify"] |= {"sqnr_db": figures.get("sqnr_db", 30.0)}
    unfolded["verify"]["candidate"] = {**folded["verify"]["candidate"], "top1": figures.get("top1", 0.86)}
    unfolded["size_bytes"] = figures.get("size", folded["size_bytes"])
    for result in run["bench"]["results"]:
        if result["engine"] == "engines/openvino-int8-unfolded":
            result["latency_ms"]["median"] = figures.get("latency", 0.021)
    (pair,) = find_pairs(read_run(run))
    return dict(pair.verdicts)


LEVEL = dict.fromkeys(("agreement", "top-1", "SQNR", "latency", "size"), "level")


def test_equals_are_level() -> None:
    assert change(sample()) == LEVEL


@pytest.mark.parametrize(
    ("figure", "within", "beyond", "measure", "winner"),
    [
        ("sqnr_db", 30.4, 30.6, "SQNR", "unfolded"),
        ("sqnr_db", 29.6, 29.4, "SQNR", "folded"),
        ("latency", 0.0218, 0.0222, "latency", "folded"),
        ("latency", 0.0202, 0.0198, "latency", "unfolded"),
        ("size", 61800, 61900, "size", "folded"),
    ],
)
def test_a_difference_has_to_be_worth_it(figure: str, within: float, beyond: float, measure: str, winner: str) -> None:
    assert change(sample(), **{figure: within}) == LEVEL
    assert change(sample(), **{figure: beyond}) == {**LEVEL, measure: winner}


@pytest.mark.parametrize("images", [200, 1000, 10000])
def test_shares_of_images_are_told_apart_by_more_than_chance(images: int) -> None:
    """The folded engine flips 1 %. How many flips more are no chance, counted out by the binomial distribution."""
    flips = images // 100
    more = next(n for n in range(flips, images) if _chance(flips, n) < 0.05) - flips
    for extra, winner in ((0.6 * more, "level"), (1.5 * more, "folded")):
        assert change(sample(), images=images, agreement=0.99 - extra / images)["agreement"] == winner
    # Of top-1, all the flips there are: those of both.
    more = next((n for n in range(2 * flips + 1) if _chance(flips - n // 2, flips + (n + 1) // 2) < 0.05), 2 * flips)
    for extra, winner in ((0.6 * more, "level"), (1.5 * more, "folded")):
        assert change(sample(), images=images, top1=0.86 - extra / images)["top-1"] == winner


def _chance(fewer: int, more: int) -> float:
    """Of a split of all flips as uneven as this, or more so, where either engine is as likely to make one."""
    total = fewer + more
    return min(1.0, 2.0 * sum(math.comb(total, k) for k in range(fewer + 1)) / 2.0**total)


def test_what_could_not_be_built_is_compared_by_its_graph() -> None:
    run = sample()
    run["unfolded"]["engines"][0] |= {"size_bytes": None, "seconds": None, "status": "not built", "reason": "no GPU"}
    run["unfolded"]["engines"][0]["verify"]["simulation"] = True
    run["bench"] = None
    page = read(render(run))
    assert page.row("pairs", "openvino-int8")[4:7] == ["–", "38.1 kB the graph", "1"]
    assert page.row("pairs", "openvino-int8-unfolded")[4:] == [
        *("–", "51.2 kB the graph", "0", "SQNR", "not built: no GPU simulation: passed"),
    ]
    absent = page.tables["absent"]
    assert ["engine openvino-int8-unfolded", "not built: no GPU"] in absent
    assert "openvino-int8-unfolded" not in [row[0] for row in page.tables["runtimes"]]
    assert "INT8, folded to unfolded" not in page.text


def test_a_proof_that_the_unfolded_engine_fails_fails_no_run() -> None:
    run = sample()
    run["unfolded"]["engines"][0] |= {"status": "failed"}
    run["unfolded"]["engines"][0]["verify"] |= {"passed": False, "failures": ["agreement 95.0000% is under 97.0000%"]}
    page = read(render(run))
    assert "PASSED All 2 engines" in " ".join(page.text.split())
    assert page.row("pairs", "openvino-int8-unfolded")[-1] == "failed agreement 95.0000% is under 97.0000%"


def test_what_was_left_out_is_said() -> None:
    run = sample()
    run["unfolded"], run["graphs"][1]["sensitivity"] = None, None
    absent = read(render(run)).tables["absent"]
    assert ["ranking of the layers of int8-cpu", "it was left out"] in absent
    assert ["INT8 of the unfolded network", "it was left out"] in absent
    run["export"]["fold"]["modified"] = False
    absent = read(render(run)).tables["absent"]
    assert ["INT8 of the unfolded network", "there is but one graph: nothing folded"] in absent
    run["graphs"], run["calibration"] = run["graphs"][:1], None
    assert "INT8" not in " ".join(word for row in read(render(run)).tables["absent"] for word in row)


def test_the_terminal_shows_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    run = read_run(sample())
    for table in (candidates_table(run.graphs[1]), ranking_table(run.graphs[1], 2), pairs_table(run)):
        assert table is not None
        show(table)
    out = capsys.readouterr().out
    for line in (
        ("entropy", "gptq", "yes", "39.2", "taken"),
        ("Conv_7", "layers.1", "26.0 dB", "float", "block1/r, block1/t"),
        ("Conv_0", "stem residual", "46.0 dB", "INT8", "–"),
        ("openvino-int8-unfolded", "unfolded", "95.00 %", "30.3", "97.21 %", "0.042", "87.7 kB", "0", "SQNR", "passed"),
    ):
        assert any([cell.strip() for cell in row.split("│")[1:-1]] == list(line) for row in out.splitlines()), line
    assert "Gemm_9" not in out
