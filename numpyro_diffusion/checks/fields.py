"""Settings that are given by the user or by a file: whole numbers, choices, and dataclasses of such."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from functools import partial
from typing import Annotated, get_type_hints

from ..errors import ArgumentTypeError, ParameterError, check_integer, check_number
from .calls import CheckedCall
from .text import shown


def check_integers(name: str, values, low: int = 1, high: float = math.inf, remedy: str = "", axes: str = ""):
    """A tuple or list as a tuple of ints, as many as `axes` names ("height, width" say), or a ParameterError."""
    if not isinstance(values, list | tuple) or (axes and len(values) != axes.count(",") + 1):
        rule = f"({axes})" if axes else f"a tuple of integers >= {low}"
        raise ParameterError(f"{name} must be {rule}; got {shown(values)}. {remedy}".rstrip())
    return tuple(check_integer(f"each of {name}", value, low, high, remedy) for value in values)


def check_choice(name: str, value, known: Collection[str], remedy: str = "") -> str:
    """The value, one of the known texts, or a ParameterError."""
    if not isinstance(value, str) or value not in known:
        raise ParameterError(f"{name} must be one of {', '.join(known)}; got {shown(value)}. {remedy}".rstrip())
    return value


def check_instance(name: str, value, *classes: type, remedy: str = "") -> None:
    """Raise ArgumentTypeError unless the value is of one of the classes."""
    if not isinstance(value, classes):
        known = " or ".join(cls.__name__ for cls in classes)
        article = "an" if known[0] in "AEIO" else "a"
        raise ArgumentTypeError(f"{name} must be {article} {known}; got {shown(value)}. {remedy}".rstrip())


def check_flag(name: str, value, remedy: str = "") -> bool:
    """The value, True or False, or a ParameterError."""
    if not isinstance(value, bool):
        raise ParameterError(f"{name} must be True or False; got {shown(value)}. {remedy}".rstrip())
    return value


#: Numbers in (0, inf), [0, inf) and [0, 1).
Positive = Annotated[float, partial(check_number, low=0, ends="()")]
NotNegative = Annotated[float, partial(check_number, low=0, ends="[)")]
Share = Annotated[float, partial(check_number, low=0, high=1, ends="[)")]
Flag = Annotated[bool, check_flag]


class Checked(CheckedCall):
    """Base of frozen dataclasses whose annotations, `Annotated[type, rule]`, say what a field may hold.

    `rule(name, value, remedy=...)` gives what is kept, or raises ParameterError.
    """

    def __post_init__(self):
        hints = get_type_hints(type(self), include_extras=True)
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            for rule in getattr(hints[field.name], "__metadata__", ()):
                value = rule(field.name, getattr(self, field.name), remedy=f"The default is {field.default!r}.")
                object.__setattr__(self, field.name, value)
