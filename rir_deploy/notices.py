"""What a user is to know of an input that is taken all the same: a Python warning, which the command line prints."""

from __future__ import annotations

import warnings


class Notice(UserWarning):
    """A choice that was made for the user, or a part of an input that is not used; one sentence."""


def notice(text: str) -> None:
    """Say ``text`` to whoever asked: on stderr and in --json by the command line, as a `Notice` in Python."""
    warnings.warn(text, Notice, stacklevel=3)
