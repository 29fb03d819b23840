"""The report: one HTML file that needs nothing else, made from a run's record alone.

The page has no script and asks for nothing over the network; its plots are inline SVG in the page's own colours. The
same record gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rir_deploy.errors import BackendError
from rir_deploy.report import text
from rir_deploy.report.compare import Compared
from rir_deploy.report.schema import Run, read_run
from rir_deploy.report.sections import sections
from rir_deploy.report.summary import summarize
from rir_deploy.report.tables_compare import measures_table, runs_table

if TYPE_CHECKING:
    from jinja2 import Template


def render(run: Mapping[str, Any], source: str = "run.json") -> str:
    """The report on a run as HTML.

    Args:
        run: the record as plain JSON data; see `schema`.
        source: names the record in messages.

    Raises:
        InputError: the record is malformed.
        BackendError: jinja2 or matplotlib is not installed.
    """
    return render_run(read_run(run, source))


def render_run(run: Run) -> str:
    """`render` for a record that was read already."""
    page = _template("report.html.jinja")
    return page.render(run=run, data=text.file_name(run.data), summary=summarize(run), sections=sections(run))


def render_compared(compared: Compared) -> str:
    """Runs side by side as HTML.

    Raises:
        BackendError: jinja2 or matplotlib is not installed.
    """
    tables = runs_table(compared), measures_table(compared)
    return _template("compare.html.jinja").render(compared=compared, tables=tables)


def _template(name: str) -> Template:
    try:
        import jinja2
        import markupsafe
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise BackendError(f'{error.name} is not installed; run: python -m pip install "rir-deploy[host]"') from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rir_deploy.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["markup"] = markupsafe.Markup
    return environment.get_template(name)
