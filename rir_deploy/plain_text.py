"""Text for people. Names come out of files, and a terminal obeys what is not printable."""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` on one line of letters, signs and blanks: all else is spelled out, as Python would.

    That is control characters (ANSI sequences begin with one, a forged line with another), what turns the direction of
    text round, what cannot be seen, and halves of surrogate pairs, which cannot be written.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
