"""What libraries say: nothing but errors is shown, unless -v asks for it; then all of it, as plain text."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import click

from rir_deploy.plain_text import printable
from rir_deploy.verbosity import LOGGER, is_verbose

# What ONNX Runtime colours its lines with.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class _Plain(logging.Handler):
    """Warnings and what is worse as lines on stderr, and all that this package passes on."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.name == LOGGER

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
    """Show what Python's libraries say. Called within `messages_hidden`, which puts everything back."""
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


@contextmanager
def native_text_plain() -> Iterator[None]:
    """What native code writes to stderr goes through a pipe, and out of it as plain lines that say whose they are:
    names of a model are in them.

    Python's own stderr stays what it is, so that progress bars are drawn on a terminal.
    """
    before = sys.stderr
    if before is None:
        yield
        return
    encoding, real, (reading, writing) = before.encoding, os.dup(2), os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    copier = threading.Thread(target=_copy_plain, args=(reading, real), daemon=True)
    copier.start()
    if before is sys.__stderr__:
        sys.stderr = os.fdopen(os.dup(real), "w", buffering=1, encoding=encoding, errors="backslashreplace")
    try:
        yield
    finally:
        if sys.stderr is not before:
            sys.stderr.close()
            sys.stderr = before
        os.dup2(real, 2)  # the end of the pipe, unless a child has it open
        copier.join(timeout=1)
        os.close(real)


def _copy_plain(source: int, target: int) -> None:
    with os.fdopen(source, encoding="utf-8", errors="backslashreplace", newline="\n") as lines:
        for line in lines:
            text = printable(_COLOUR.sub("", line.removesuffix("\n")))
            os.write(target, f"runtime: {text}\n".encode(errors="backslashreplace"))


def _verbose(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not is_verbose():
        show_messages()
        ctx.find_root().with_resource(native_text_plain())


def verbose_option() -> click.Option:
    """-v, which goes before a command's name or behind it."""
    return click.Option(
        ["-v", "--verbose"],
        is_flag=True,
        expose_value=False,
        callback=_verbose,
        help="Show the warnings of runtimes and libraries.",
    )
