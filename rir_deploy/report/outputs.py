"""What a run or a comparison is written as: Markdown and JUnit XML beside the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from rir_deploy.artifacts import atomic_file
from rir_deploy.report.compare import Compared
from rir_deploy.report.html import render_compared
from rir_deploy.report.junit import compared_suites, run_suites, to_junit
from rir_deploy.report.markdown import compared_to_markdown, to_markdown
from rir_deploy.report.schema import Run


def write_run(run: Run, markdown: Path | None, junit: Path | None, *, force: bool) -> dict[str, str]:
    """The files asked for, by kind."""
    return _write(
        {
            "markdown": (markdown, lambda: to_markdown(run)),
            "junit": (junit, lambda: to_junit(run_suites(run), run.created)),
        },
        force,
    )


def write_compared(
    compared: Compared, html: Path | None, markdown: Path | None, junit: Path | None, *, force: bool
) -> dict[str, str]:
    """The files asked for, by kind.

    Raises:
        BackendError: jinja2 or matplotlib, which a page needs, is not installed.
    """
    return _write(
        {
            "html": (html, lambda: render_compared(compared)),
            "markdown": (markdown, lambda: compared_to_markdown(compared)),
            "junit": (junit, lambda: to_junit(compared_suites(compared))),
        },
        force,
    )


def _write(files: Mapping[str, tuple[Path | None, Callable[[], str]]], force: bool) -> dict[str, str]:
    """Files by kind, each with what makes its text; where one cannot be made, none is written."""
    texts = {kind: (path, make()) for kind, (path, make) in files.items() if path is not None}
    for path, text in texts.values():
        with atomic_file(path, force=force) as temporary:
            temporary.write_bytes(text.encode("utf-8"))
    return {kind: str(path) for kind, (path, _) in texts.items()}
