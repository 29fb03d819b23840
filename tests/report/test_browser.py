"""The pages in a real browser: in both themes, at the widths of a phone and of a desk."""

from __future__ import annotations

import html as entities
import json
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from benchmarks.browser import browser_command, find_browser
from rir_deploy.report.compare import compare_runs
from rir_deploy.report.html import render, render_compared
from rir_deploy.report.schema import read_run
from tests.report.sample import fill, ranking, sample
from tests.report.sample_losses import flip

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


def _pages(names: str) -> str:
    run = sample()
    if names == "deep":
        run["graphs"][1]["sensitivity"] = ranking(69)
        run["engines"][0]["verify"] |= {"flipped": 40, "flips": [flip(40 + i, "five", 2.0, 0.1) for i in range(16)]}
        row = run["layers"][1]["rows"][0]
        run["layers"][1]["rows"] = [row | {"node": f"conv_{i}/Conv", "block": f"layers.{i}"} for i in range(40)]
        run["bench"]["results"][1] |= {"first_inference_ms": 123456.7, "peak_memory_mb": 12345.6}
        for result in run["bench"]["results"][:2]:
            result["quantiles_ms"] = [0.02 + 0.0001 * i * i / 40 for i in range(41)]
            result["latency_ms"] |= {"median": 1234.567, "iqr": 1500.0}
        parts = dict.fromkeys(("upload", "compute", "download", "enqueue"), run["bench"]["results"][1]["latency_ms"])
        run["bench"]["results"][1] |= {"import_ms": 12345.6, "engine_memory_mb": 12345.6, "gpu_ms": parts}
    if names == "long":
        fill(run, "WideNames_OfGraphsAndEngines/" * 9)
        for index, name in enumerate(("漢字" * 90, "W" * 90, "UPPERCASE" * 90)):
            run["engines"][index]["name"] = name
    if names == "compared":
        return render_compared(compare_runs([(f"run{index}" * 9, read_run(run)) for index in range(3)]))
    return render(run)


@pytest.mark.skipif(find_browser() is None, reason="no Chromium here")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("names", ["usual", "long", "deep", "compared"])
def test_layout_in_a_browser(names: str, theme: str, tmp_path: Path) -> None:
    page = json.dumps(_pages(names)).replace("</", "<\\/")
    tables = "p" if names == "long" else ".table"  # where every cell holds an absurd name, a table may scroll
    (tmp_path / "measure.html").write_text(_MEASURE.replace("TABLES", tables).replace("PAGE", page), encoding="utf-8")
    command = browser_command(str(find_browser()), tmp_path / "user", dark=theme == "dark")
    command += ["--enable-logging=stderr", "--window-size=1400,1000", "--dump-dom"]
    url = (tmp_path / "measure.html").as_uri()
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=60, check=True)
    assert "measured " in done.stdout, done.stdout[-2000:]
    found = json.loads(entities.unescape(done.stdout.split("measured ")[1].rpartition(" measured")[0]))
    assert found == {"390": [], "1280": [], "ground": _GROUNDS[theme]}
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]
