"""The page as a file: self-contained, safe, the same every time."""

from __future__ import annotations

import copy
import html as entities
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

import matplotlib

from rir_deploy.report.compare import compare_runs
from rir_deploy.report.html import render, render_compared
from rir_deploy.report.schema import read_run
from tests.report.page import read
from tests.report.sample import flip, ranking, sample

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


def _strings(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all texts in the record."""
    if isinstance(data, dict):
        return [place for key, value in data.items() for place in _strings(value, (*path, key))]
    if isinstance(data, list):
        return [place for index, value in enumerate(data) for place in _strings(value, (*path, index))]
    if not isinstance(data, str) or path[0] == "pictures" or path[-1] in ("status", "verdict"):
        return []
    return [] if path[0] == "block" and (path[-1] == "name" or "inputs" in path) else [path]


def _fill(run: dict[str, Any], words: str) -> None:
    """Put ``words`` into every text of a record."""
    for place in _strings(run):
        target: Any = run
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = words


def test_hostile_names_are_text() -> None:
    run = sample()
    _fill(run, HOSTILE)
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


# Run in the page's own frames, one a width: what sticks out of the window or of its box, words of plots that overlap or
# are cut off, and text that does not stand out from its ground (WCAG 2.1, 1.4.3: 4.5 to 1; 3 to 1 what is large, and
# marks).
_MEASURE = """
<body><script>
const light = colour => {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3)
    .map(value => value / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
const ground = (view, element) => {
  for (let one = element; one; one = one.parentElement) {
    const colour = view.getComputedStyle(one).backgroundColor;
    if (!colour.endsWith(", 0)")) return colour;
  }
};
const hidden = element => {
  const one = element.closest("thead, .hidden");
  return one && one.getBoundingClientRect().width <= 1;
};
const measure = (frame, width) => {
  const doc = frame.contentDocument, view = frame.contentWindow, found = [];
  doc.querySelectorAll("details").forEach(one => one.open = true);
  if (doc.documentElement.scrollWidth > width) found.push("page is " + doc.documentElement.scrollWidth);
  for (const svg of doc.querySelectorAll("svg")) {
    const edge = svg.getBoundingClientRect();
    const boxes = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
    boxes.forEach(([name, box], index) => {
      if (box.left < edge.left - 1 || box.right > edge.right + 1 || box.bottom > edge.bottom + 1)
        found.push("cut off: " + name);
      for (const [other, its] of boxes.slice(index + 1))
        if (box.left < its.right && its.left < box.right && box.top + 2 < its.bottom && its.top + 2 < box.bottom)
          found.push(name + " overlaps " + other);
    });
  }
  for (const box of doc.querySelectorAll("td, th, li, dt, dd, p, figcaption, summary, TABLES"))
    if (box.scrollWidth > box.clientWidth + 1 && !hidden(box)) found.push("too wide: " + box.textContent.trim());
  for (const box of doc.querySelectorAll("body *, svg text")) {
    const own = [...box.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !box.getClientRects().length || hidden(box)) continue;
    const style = view.getComputedStyle(box), ink = box.closest("svg") ? style.fill : style.color;
    const size = parseFloat(style.fontSize), mark = box.getAttribute("aria-hidden");
    const large = mark || size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const ratio = contrast(ink, ground(view, box));
    if (ratio < (large ? 3 : 4.5)) found.push("faint (" + ratio.toFixed(2) + "): " + box.textContent.trim());
  }
  return found;
};
const widths = [390, 1280], found = {};
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.style.cssText = "border:0;height:900px;width:" + width + "px";
  frame.srcdoc = PAGE;
  frame.onload = () => {
    found[width] = measure(frame, width);
    found.ground = frame.contentWindow.getComputedStyle(frame.contentDocument.body).backgroundColor;
    if (widths.every(one => found[one])) document.body.textContent = "measured " + JSON.stringify(found) + " measured";
  };
  document.body.append(frame);
}
</script></body>
"""
_GROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}


def _browser() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


def _pages(names: str) -> str:
    run = sample()
    if names == "deep":
        run["graphs"][1]["sensitivity"] = ranking(69)
        run["engines"][0]["verify"] |= {"flipped": 40, "flips": [flip(40 + i, "five", 2.0, 0.1) for i in range(16)]}
        row = run["layers"][1]["rows"][0]
        run["layers"][1]["rows"] = [row | {"node": f"conv_{i}/Conv", "block": f"layers.{i}"} for i in range(40)]
        run["bench"]["results"][1] |= {"first_inference_ms": 123456.7, "peak_memory_mb": 12345.6}
    if names == "long":
        _fill(run, "WideNames_OfGraphsAndEngines/" * 9)
        for index, name in enumerate(("漢字" * 90, "W" * 90, "UPPERCASE" * 90)):
            run["engines"][index]["name"] = name
    if names == "compared":
        return render_compared(compare_runs([(f"run{index}" * 9, read_run(run)) for index in range(3)]))
    return render(run)


@pytest.mark.skipif(_browser() is None, reason="no Chromium here")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("names", ["usual", "long", "deep", "compared"])
def test_layout_in_a_browser(names: str, theme: str, tmp_path: Path) -> None:
    page = json.dumps(_pages(names)).replace("</", "<\\/")
    tables = "p" if names == "long" else ".table"  # where every cell holds an absurd name, a table may scroll
    (tmp_path / "measure.html").write_text(_MEASURE.replace("TABLES", tables).replace("PAGE", page), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = f"--disable-component-update --disable-sync --virtual-time-budget=5000 --user-data-dir={tmp_path / 'user'}"
    dark = f"--blink-settings=preferredColorScheme={0 if theme == 'dark' else 1} --enable-logging=stderr"
    url = (tmp_path / "measure.html").as_uri()
    command = [str(_browser()), *flags.split(), *more.split(), *dark.split(), "--window-size=1400,1000"]
    done = subprocess.run([*command, "--dump-dom", url], capture_output=True, text=True, timeout=60, check=True)
    assert "measured " in done.stdout, done.stdout[-2000:]
    found = json.loads(entities.unescape(done.stdout.split("measured ")[1].rpartition(" measured")[0]))
    assert found == {"390": [], "1280": [], "ground": _GROUNDS[theme]}
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]
