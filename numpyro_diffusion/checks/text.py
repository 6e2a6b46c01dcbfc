"""Text that comes from users and files, made fit to be shown: short, and nothing in it that a terminal obeys."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

from ..errors import ParameterError, TextError

#: Most characters of a density's name, and those shown on either side of what is wrong in a text.
LONGEST_NAME, BESIDE = 200, 60

_SHORT = reprlib.Repr(maxstring=80, maxother=80, maxlong=40, maxlist=6, maxtuple=6, maxdict=4, maxlevel=3)


def printable(text: str) -> str:
    """The text with whatever does not print (escapes, controls, broken Unicode) as its backslash code."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shown(value) -> str:
    """A short, printable repr, for messages."""
    try:
        return printable(_SHORT.repr(value))
    except Exception:
        return f"<{type(value).__name__}>"


def layout(values) -> str:
    """Type and shape of an array, such as float32[8, 2]: what a repr has room for."""
    dtype, shape = getattr(values, "dtype", None), getattr(values, "shape", None)
    return shown(values) if dtype is None or shape is None else f"{dtype}{list(shape)}"


def layouts(self) -> str:
    """The `__repr__` of a NamedTuple of arrays: their layouts."""
    fields = (f"{field}={layout(value)}" for field, value in self._asdict().items())
    return f"{type(self).__name__}({', '.join(fields)})"


def check_name(name, what: str = "name") -> None:
    """Raise ParameterError unless a name is None or short printable text."""
    if name is None:
        return
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not name.isprintable():
        got = f"{shown(name)} of {len(name)} characters" if isinstance(name, str) else shown(name)
        raise ParameterError(
            f"{what} must be printable text of at most {LONGEST_NAME} characters; got {got}. Rename it."
        )


def misread(reason: str, text: str, start: int, end: int) -> TextError:
    """The error of a text that is wrong from `start` to `end`: why, and below it the text with the place marked."""
    left, right = max(0, start - BESIDE), min(len(text), max(end, start + BESIDE))
    before, wrong = printable(text[left:start]), printable(text[start:end])
    before, after = ("..." if left else "") + before, printable(text[end:right]) + ("..." if right < len(text) else "")
    marks = " " * len(before) + "^" * max(1, len(wrong))
    error = TextError(f"column {start + 1}: {reason}.\n  {before}{wrong}{after}\n  {marks}")
    error.reason, error.start, error.end = reason, start, end
    return error


def columns(lines: Sequence[Sequence[str]], num_left: int = 0, least: int = 0) -> str:
    """Cells as lines of a table, two spaces apart: the first `num_left` columns flush left, the others flush right.

    `least` is the width that every column has at least.
    """
    widths = [max(least, *map(len, column)) for column in zip(*lines, strict=True)]
    flush = [str.ljust if i < num_left else str.rjust for i in range(len(widths))]
    return "\n".join(
        "  ".join(place(cell, width) for place, cell, width in zip(flush, line, widths, strict=True)).rstrip()
        for line in lines
    )


def uncalibrated_shares(names: Sequence[str]) -> str:
    """What is wrong with a mixture of densities that are not calibrated, and what to do."""
    return (
        f"{', '.join(names)}: not calibrated, so the share of the mixture is arbitrary. "
        "Train with nd.fit(..., calibrated=True), or measure its normaliser with nd.recalibrate."
    )
