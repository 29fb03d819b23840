"""A page as a reader of it sees it: its tables, its plots, its text, its elements."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "br", "link", "img", "input", "hr"}
Attributes = dict[str, str]


@dataclass
class Page(HTMLParser):
    """``tables`` maps a table's id to its rows, a row to its cells; the first row holds the titles."""

    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    elements: list[tuple[str, Attributes]] = field(default_factory=list)
    text: str = ""
    svg_texts: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    table: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {key: value or "" for key, value in attrs}
        self.elements.append((tag, attributes))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "table":
            self.table = attributes["id"]
            self.tables[self.table] = []
        elif tag == "tr":
            self.tables[self.table].append([])
        elif tag in ("td", "th"):
            self.tables[self.table][-1].append("")
        elif tag == "text":
            self.svg_texts.append("")
        if tag in ("td", "th") and "title" in attributes:
            self.titles[f"{self.table}/{len(self.tables[self.table]) - 1}/{attributes['data-label']}"] = attributes[
                "title"
            ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if "text" in self.open:
            self.svg_texts[-1] += data
        elif "td" in self.open or "th" in self.open:
            self.tables[self.table][-1][-1] += data

    @property
    def flat(self) -> str:
        """All words, with one space between them."""
        return " ".join(self.text.split())

    def row(self, table: str, name: str, skip: int = 0) -> list[str]:
        """The cells of the row of that name, the ``skip``-th after the first, without the name."""
        return [row for row in self.tables[table] if row[0].split("\n")[0] == name][skip][1:]


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert not page.open, f"left open: {page.open}"
    for rows in page.tables.values():
        rows[:] = [[" ".join(cell.split()) for cell in row] for row in rows]
    return page
