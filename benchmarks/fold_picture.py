"""Draw docs/folding.svg: one generalized residual block before and after the fold.

python benchmarks/fold_picture.py docs/folding.svg
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

RESIDUAL, TRANSIENT, JOINED, PLAIN = "#2f6fab", "#b5651d", "#4b7f52", "#555555"
STYLE = "font-family: 'DejaVu Sans', Helvetica, Arial, sans-serif; font-size: 13px;"


@dataclass
class Picture:
    """SVG elements on a white page."""

    width: int
    height: int
    parts: list[str] = field(default_factory=list)

    def text(
        self, x: float, y: float, words: str, colour: str = "#222222", size: int = 13, anchor: str = "middle"
    ) -> None:
        attributes = f'x="{x}" y="{y}" fill="{colour}" font-size="{size}" text-anchor="{anchor}"'
        self.parts.append(f"<text {attributes}>{words}</text>")

    def box(self, x: float, y: float, words: str, colour: str = PLAIN, width: int = 92, height: int = 28) -> None:
        """A node, centred at (x, y)."""
        left, top = x - width / 2, y - height / 2
        shape = f'x="{left}" y="{top}" width="{width}" height="{height}" rx="5"'
        self.parts.append(f'<rect {shape} fill="#ffffff" stroke="{colour}" stroke-width="1.6"/>')
        self.text(x, y + 4.5, words, colour)

    def arrow(self, *points: tuple[float, float], colour: str = PLAIN, dashed: bool = False) -> None:
        line = " ".join(f"{x},{y}" for x, y in points)
        dash = ' stroke-dasharray="5 3"' if dashed else ""
        self.parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.4"{dash} marker-end="url(#tip)"/>'
        )

    def cell(self, x: float, y: float, words: str, colour: str, width: float, height: float) -> None:
        """A block of a weight matrix, by its corner."""
        shape = f'x="{x}" y="{y}" width="{width}" height="{height}"'
        self.parts.append(f'<rect {shape} fill="{colour}" fill-opacity="0.12" stroke="{colour}"/>')
        self.text(x + width / 2, y + height / 2 + 4.5, words, colour)

    def to_svg(self) -> str:
        tip = '<path d="M0,0 L7,3.5 L0,7 z" fill="#555555"/>'
        shape = 'markerWidth="7" markerHeight="7" refX="6.5" refY="3.5" orient="auto"'
        marker = f'<defs><marker id="tip" {shape}>{tip}</marker></defs>'
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        page = f'<rect width="{self.width}" height="{self.height}" fill="#ffffff"/>'
        body = "\n".join([marker, page, *self.parts])
        return f'<svg xmlns="http://www.w3.org/2000/svg" {size} style="{STYLE}">\n{body}\n</svg>\n'


def before(p: Picture) -> None:
    """The block as a tracer writes it: two streams, four convolutions."""
    r, t = 100.0, 400.0
    p.text(250, 28, "as traced: 11 nodes", size=15)
    p.box(r, 62, "r", RESIDUAL, 40)
    p.box(t, 62, "t", TRANSIENT, 40)
    for x, words, colour, source in (
        (r - 8, "conv Wrr", RESIDUAL, r),
        (r + 98, "conv Wrt", RESIDUAL, r),
        (t - 98, "conv Wtr", TRANSIENT, t),
        (t + 16, "conv Wtt", TRANSIENT, t),
    ):
        p.arrow((source, 76), (source, 96), (x, 96), (x, 130), colour=colour)
        p.box(x, 145, words, colour)
    p.box(r, 215, "add", RESIDUAL, 60)
    p.box(r, 262, "add", RESIDUAL, 60)
    p.box(t, 240, "add", TRANSIENT, 60)
    p.arrow((r - 8, 159), (r - 8, 200))
    p.arrow((t - 98, 159), (t - 98, 215), (r + 31, 215))
    p.arrow((r + 98, 159), (r + 98, 240), (t - 31, 240))
    p.arrow((t + 16, 159), (t + 16, 225))
    p.arrow((r, 229), (r, 247))
    p.arrow((r - 20, 62), (28, 62), (28, 262), (r - 31, 262), colour=RESIDUAL, dashed=True)
    p.text(34, 190, "shortcut", RESIDUAL, 11, "start")
    for x, colour, name, start in ((r, RESIDUAL, "r'", 276), (t, TRANSIENT, "t'", 254)):
        p.arrow((x, start), (x, 305))
        p.box(x, 320, "batch norm", colour)
        p.arrow((x, 334), (x, 355))
        p.box(x, 370, "relu", colour, 60)
        p.arrow((x, 384), (x, 404))
        p.box(x, 420, name, colour, 40)


def after(p: Picture) -> None:
    """The same block folded, with what stands in its weight."""
    x = 590.0
    p.text(720, 28, "folded: 2 nodes", size=15)
    p.box(x, 62, "[r; t]", JOINED, 60)
    p.arrow((x, 76), (x, 226))
    p.box(x, 241, "conv W, b", JOINED)
    p.arrow((x, 255), (x, 355))
    p.box(x, 370, "relu", JOINED, 60)
    p.arrow((x, 384), (x, 404))
    p.box(x, 420, "[r'; t']", JOINED, 60)
    left, top, wide, high = 690.0, 190.0, 92.0, 46.0
    p.text(left - 8, top + high + 5, "W =", "#222222", 14, "end")
    p.cell(left, top, "s (Wrr + I)", RESIDUAL, wide, high)
    p.cell(left + wide, top, "s Wtr", TRANSIENT, wide, high)
    p.cell(left, top + high, "s Wrt", RESIDUAL, wide, high)
    p.cell(left + wide, top + high, "s Wtt", TRANSIENT, wide, high)
    p.text(left + wide / 2, top - 10, "reads r", RESIDUAL, 11)
    p.text(left + wide * 1.5, top - 10, "reads t", TRANSIENT, 11)
    p.text(left + wide, top + 2 * high + 26, "b = β − s · mean,  s = γ / √(var + ε), row by row", "#222222", 12)
    p.text(left + wide, top + 2 * high + 48, "I: the shortcut, one tap at the centre", "#222222", 12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    picture = Picture(960, 450)
    before(picture)
    picture.parts.append('<line x1="505" y1="45" x2="505" y2="430" stroke="#cccccc"/>')
    after(picture)
    parser.parse_args().output.write_text(picture.to_svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
