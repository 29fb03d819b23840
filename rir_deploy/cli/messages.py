"""What libraries say: nothing but errors is shown, unless -v asks for it; then all of it, as plain text."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import click

from rir_deploy.plain_text import printable
from rir_deploy.verbosity import LOGGER


class _Plain(logging.Handler):
    """Records as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(printable(f"{record.levelname.lower()}: {record.name}: {record.getMessage()}"), err=True)


@contextmanager
def messages_hidden() -> Iterator[None]:
    """Warnings and logs of libraries are hidden in the block, except for errors; `show_messages` ends that.

    A user who has set Python's own options for warnings (-W, PYTHONWARNINGS) has asked for those.
    """
    root, own, handler = logging.getLogger(), logging.getLogger(LOGGER), _Plain()
    disabled, level = logging.root.manager.disable, own.level
    root.addHandler(handler)
    logging.disable(max(disabled, logging.WARNING))
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(handler)
        own.setLevel(level)
        logging.disable(disabled)


def show_messages() -> None:
    """Show what is hidden. Called within `messages_hidden`, which puts everything back."""
    logging.disable(logging.NOTSET)
    logging.getLogger(LOGGER).setLevel(logging.INFO)
    warnings.simplefilter("default")
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    click.echo(printable(f"{filename}:{lineno}: {category.__name__}: {message}"), err=True)


def _verbose(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        show_messages()


def verbose_option() -> click.Option:
    """-v, which goes before a command's name or behind it."""
    return click.Option(
        ["-v", "--verbose"],
        is_flag=True,
        expose_value=False,
        callback=_verbose,
        help="Show the warnings of runtimes and libraries.",
    )
