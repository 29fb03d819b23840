"""Headless Chromium, for those who look at a page."""

from __future__ import annotations

import shutil
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Nothing but the page: no network of its own, no updates, no questions.
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --virtual-time-budget=5000"
)


def find_browser() -> str | None:
    """The program; None where there is none."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


def browser_command(browser: str, profile: Path, *, dark: bool) -> list[str]:
    """How it is started, without a page; ``profile`` is a folder that is not there yet."""
    theme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    return [browser, *_FLAGS.split(), f"--user-data-dir={profile}", theme]
