"""The page as a file: self-contained, safe, the same every time."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

import matplotlib

from rir_deploy.report.html import render
from tests.report.page import read
from tests.report.sample import fill, sample

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{ 7 * 7 }}$\\frac{1}$\x00\x1b\ud800"


@pytest.fixture(scope="module")
def html() -> str:
    return render(sample())


def test_the_same_record_gives_the_same_bytes(html: str) -> None:
    """Also in another process with another hash seed and another user's matplotlib settings."""
    with matplotlib.rc_context({"font.size": 30, "xtick.labelsize": 30, "patch.force_edgecolor": True}):
        assert render(sample()) == html
    code = "from tests.report.sample import sample; from rir_deploy.report.html import render; print(render(sample()))"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        cwd=root,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(root), "PYTHONIOENCODING": "utf-8"},
    )
    assert done.stdout.decode() == html + "\n"


def test_drawing_leaves_the_users_settings_alone() -> None:
    with matplotlib.rc_context({"font.size": 30}):
        render(sample())
        assert matplotlib.rcParams["font.size"] == 30


def test_it_needs_nothing_else(html: str) -> None:
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    page = read(html)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    sources = [attributes["src"] for _, attributes in page.elements if "src" in attributes]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    targets = [value for _, attributes in page.elements for key, value in attributes.items() if "href" in key]
    targets += re.findall(r"url\(([^)]*)\)", html)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert all(target.startswith("#") and target[1:] in ids for target in targets)
    assert len(html.encode()) < 1_000_000


def test_it_is_well_formed_and_accessible(html: str) -> None:
    page = read(html)  # asserts that elements are closed in order
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    for tag, attributes in page.elements:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
    labelled = [attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes]
    assert set(labelled) <= set(ids)
    assert ("html", {"lang": "en"}) in page.elements


def test_plots_take_their_colours_from_the_page(html: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    used = {name for drawing in drawings for name in re.findall(r"var\(--(\w+)\)", drawing)}
    assert {
        "ink",
        "soft",
        "line",
        "before",
        "after",
        "fp32",
        "fp16",
        "int8",
        "bad",
        "card",
        "series0",
        "series1",
    } <= used
    for drawing in drawings:
        assert not re.search(r"#[0-9a-f]{6}\b", drawing)
    style = html[html.index("<style>") : html.index("</style>")]
    light, dark, printed = style.count("--page:"), style.count("--ink:"), style.count("--soft:")
    assert light == dark == printed == 3
    for name in used:
        assert style.count(f"--{name}:") == 3


def test_hostile_names_are_text() -> None:
    run = sample()
    fill(run, HOSTILE)
    run["export"]["fold"]["ops"]["before"][HOSTILE] = 3
    run["bench"]["settings"][HOSTILE] = HOSTILE
    run["engines"][0]["realized"] = {HOSTILE: [HOSTILE, {"deep": {"deeper": {"deepest": HOSTILE}}}]}
    html = render(run)
    page = read(html)
    known = {(tag, *sorted(attributes)) for tag, attributes in read(render(sample())).elements}
    assert {(tag, *sorted(attributes)) for tag, attributes in page.elements} <= known
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    assert (
        "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{ 7 * 7 }}$\\frac{1}$\ufffd\ufffd" in page.text
    )
    assert "<script>" in "".join(page.svg_texts)
    html.encode("utf-8")


def test_names_in_plots_are_shortened_and_any_script_is_taken() -> None:
    run = sample()
    run["engines"][0]["name"] = "引擎-" + "very-long-name-" * 20 + "end"
    page = read(render(run))
    drawn = next(words for words in page.svg_texts if words.startswith("引擎-very"))
    assert len(drawn) < 50
    assert drawn.endswith("end")


def test_many_engines_and_far_apart_figures() -> None:
    run = sample()
    first = run["bench"]["results"][0]
    for index in range(40):
        copied = copy.deepcopy(run["engines"][0]) | {"name": f"engine-{index}", "precision": f"p{index % 5}"}
        run["engines"].append(copied)
        ms = {"median": 10.0 ** (index % 12 - 6), "p90": 1e3, "p95": 1e4, "p99": 1e6}
        run["bench"]["results"].append(first | {"engine": f"e/{index}", "backend": "x", "latency_ms": ms})
    run["bench"]["results"][1]["latency_ms"] = {"median": 0, "p90": 0, "p95": 0, "p99": 0}
    html = render(run)
    assert len(html.encode()) < 1_000_000
    read(html)


def test_without_jinja_the_way_out_is_named(rir: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.json").write_text(json.dumps(sample()))
    for name in ("jinja2", "matplotlib"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, name, None)
            ran = rir("report", tmp_path)
        assert ran.code == 4
        assert ran.err.strip() == (
            f'rir-deploy: error: {name} is not installed; run: python -m pip install "rir-deploy[host]"'
        )
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
