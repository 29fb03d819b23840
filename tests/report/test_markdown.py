"""The Markdown report: the tables of the page, and nothing that a name could break."""

from __future__ import annotations

from markdown_it import MarkdownIt

from rir_deploy.report.markdown import escape, to_markdown
from rir_deploy.report.schema import read_run
from rir_deploy.report.sections import sections
from tests.report.sample import sample


def rows(markdown: str) -> list[list[str]]:
    """The cells of every row of a table, as a parser of its own reads them."""
    found: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "tr_open":
            found.append([])
        elif token.type == "inline" and found and token.map and markdown.splitlines()[token.map[0]].startswith("|"):
            found[-1].append("".join(child.content for child in token.children or () if child.type != "html_inline"))
    return found


def test_it_holds_every_table_of_the_page() -> None:
    run = read_run(sample())
    markdown = to_markdown(run)
    wanted = [len(table.columns) for part in sections(run) for table in part.tables for _ in range(len(table.rows) + 1)]
    assert [len(row) for row in rows(markdown)] == wanted
    assert markdown.startswith("## Deployment of training/model.safetensors: passed\n")
    assert ["openvino-int8", "359", "99.17 %", "98.89 %"] in [row[:4] for row in rows(markdown)]
    assert markdown.count("<details>") == markdown.count("</details>") == 4  # two graphs' layers, one ranking, recall
    assert "**To be wary of:** int8-cpu diverges first at the node 'mid/Conv' (layers.0, residual)" in markdown


def test_a_failed_run_says_so_in_its_title() -> None:
    assert "**FAILED**" in to_markdown(read_run(sample() | {"passed": False})).splitlines()[0]


def test_names_are_no_markup() -> None:
    run = sample()
    hostile = "a|b <img src=x> `c` [d](javascript:e) *f* @user #1\nnew row\\|x"
    run["engines"][1]["name"] = hostile
    run["model"]["checkpoint"] = hostile
    plain, changed = rows(to_markdown(read_run(sample()))), rows(to_markdown(read_run(run)))
    assert [len(row) for row in changed] == [len(row) for row in plain]
    assert "a|b <img src=x> `c` [d](javascript:e) *f* @user #1 new row\\|x" in {row[0] for row in changed}
    assert escape("a|b\n`c` <d>") == r"a\|b \`c\` \<d\>"
