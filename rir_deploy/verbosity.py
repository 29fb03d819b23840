"""Whether runtimes and libraries may speak: their own warnings, which say little of a user's files, are asked for.

It is asked of Python's logging: the level INFO of the logger ``rir_deploy``, which the command line's ``-v`` sets.
"""

from __future__ import annotations

import logging

LOGGER = "rir_deploy"


def is_verbose() -> bool:
    """Whether warnings of runtimes are shown."""
    return logging.getLogger(LOGGER).isEnabledFor(logging.INFO)


def pass_on(text: str) -> None:
    """Hand over what a runtime wrote; shown where that was asked for."""
    for line in text.splitlines():
        logging.getLogger(LOGGER).info("%s", line)
