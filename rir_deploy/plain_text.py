"""Text for people, and numbers in theirs. Names come out of files, and a terminal obeys what is not printable."""

from __future__ import annotations

# Digits of a number that counts something: more are no size, and Python refuses to read them at all from 4,300 on.
_MOST_DIGITS = 18


def printable(text: str) -> str:
    """``text`` on one line of letters, signs and blanks: all else is spelled out, as Python would.

    That is control characters (ANSI sequences begin with one, a forged line with another), what turns the direction of
    text round, what cannot be seen, and halves of surrogate pairs, which cannot be written.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def whole_number(text: str) -> int | None:
    """The number that ``text`` is in decimal digits, blanks around them aside; None where it is none, or too long."""
    digits = text.strip()
    digits = digits.lstrip("0") or digits[:1]
    return int(digits) if digits.isdecimal() and len(digits) <= _MOST_DIGITS else None
