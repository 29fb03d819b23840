"""A matplotlib figure as SVG that lives inside a page: its colours are the page's, and follow its theme.

Figures are drawn in stand-in colours (`paint`), one a role; in the SVG each becomes a CSS variable, which the page
defines for the light and for the dark theme. Text stays text, in the page's font. The same figure gives the same bytes.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES = 6
# What is drawn: text, secondary text, lines, the fold's before and after, one colour a precision, what is wrong, the
# ground of a box, one colour a series.
PAINTS = (
    "ink",
    "soft",
    "line",
    "before",
    "after",
    "fp32",
    "fp16",
    "int8",
    "other",
    "bad",
    "card",
    *(f"series{index}" for index in range(SERIES)),
)
_PREFIX = "#0f0f"
_TAG = re.compile(r"<[^<>]*>")
_PAINTED = re.compile(_PREFIX + "([0-9a-f]{2})")
# Rewritten in every tag: ids of groups (the same in every figure), namespaces (HTML knows them), fonts, the size.
_TIDY = (
    (re.compile(r'(?<=<g) id="[^"]*"'), ""),
    (re.compile(r' xmlns(:\w+)?="[^"]*"'), ""),
    (re.compile(r' (width|height)="[\d.]+pt"'), ""),
    (re.compile(r" font-family: [^;\"]*;?"), ""),
)


def paint(name: str) -> str:
    """The stand-in colour of a role; a role not in `PAINTS` (a precision of another kind) is drawn as "other"."""
    return f"{_PREFIX}{PAINTS.index(name if name in PAINTS else 'other'):02x}"


@contextmanager
def drawing(salt: str) -> Iterator[None]:
    """Draw and save inside: matplotlib's own defaults, whatever the user's are. ``salt`` makes ids unique."""
    import matplotlib

    ours: dict[Any, object] = {
        "font.size": 9.5,
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.parse_math": False,  # a name may hold a dollar sign
        "text.color": paint("ink"),
    }
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Text is set by the browser: a glyph that matplotlib's own font lacks is no loss.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(ours)
        yield


def to_svg(figure: Figure, label: str) -> str:
    """The figure as an ``<svg>`` element; ``label`` says to those who do not see it what it shows."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", metadata=nothing)
    whole = stream.getvalue()
    drawn = _TAG.sub(lambda tag: _themed(tag.group()), whole[whole.index("<svg") :])
    # The style element would hold for the whole page.
    drawn = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", drawn, count=1, flags=re.DOTALL)
    drawn = re.sub(r"\s*\n\s*", "\n", drawn.strip())
    return drawn.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def _themed(tag: str) -> str:
    """A tag in the page's colours. Only tags are rewritten: what a name says stays as it is."""
    for pattern, new in _TIDY:
        tag = pattern.sub(new, tag)
    return _PAINTED.sub(lambda found: f"var(--{PAINTS[int(found.group(1), 16)]})", tag)
