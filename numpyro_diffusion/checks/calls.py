"""Calls of public functions and classes: what they do not take is refused by name, with what may be meant."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import ArgumentTypeError

#: How alike names are that may mean one thing, in [0, 1], where they have no word in common.
LEAST_ALIKE = 0.8


def check_call(public: Callable, args: tuple, given: dict[str, Any], parts: dict[str, type]) -> None:
    """Raise ArgumentTypeError for arguments that `public` does not take; those that are missing are for Python to say.

    `parts` are classes by the argument that takes one of theirs, whose own arguments may be meant: `steps` of `nd.fit`
    are `training=nd.TrainingConfig(num_steps=...)`.
    """
    signature = inspect.signature(public)
    try:
        signature.bind_partial(*args, **given)
    except TypeError as error:
        unknown = next((name for name in given if name not in signature.parameters), "")
        known = {"{}=...": list(signature.parameters)} | {
            f"{part}=nd.{cls.__name__}({{}}=...)": list(inspect.signature(cls).parameters)
            for part, cls in parts.items()
        }
        raise ArgumentTypeError(f"{public.__name__}(): {error}. {meant(unknown, known)}") from None


def meant(name: str, known: Mapping[str, Sequence[str]]) -> str:
    """What may be meant by an unknown argument: the most similar of those that are known, by how they are written."""

    def likeness(other: str) -> tuple[int, float]:
        words, others = ([word for word in text.split("_") if word not in ("n", "num")] for text in (name, other))
        return len({*words} & {*others}), difflib.SequenceMatcher(None, "".join(words), "".join(others)).ratio()

    # Of equals the first: an argument of its own before one of a part.
    best, written = max(((n, how) for how, names in known.items() for n in names), key=lambda pair: likeness(pair[0]))
    num_common, alike = likeness(best)
    if num_common or alike >= LEAST_ALIKE:
        return f"Did you mean {written.format(best)}?"
    first, *others = known.items()
    return (
        f"It takes {', '.join(first[1])}"
        + "".join(f"; {how.format('').replace('=...', '...')} takes {', '.join(names)}" for how, names in others)
        + "."
    )


def checked_call(**parts: type):
    """Decorator of a public function whose calls are checked by `check_call`."""

    def decorate[F: Callable](function: F) -> F:
        @functools.wraps(function)
        def checked(*args, **given):
            check_call(function, args, given, parts)
            return function(*args, **given)

        return checked  # pyright: ignore[reportReturnType]

    return decorate


class CheckedCall:
    """Base of public classes whose constructors are checked by `check_call`; `parts` stand beside the bases."""

    _parts: dict[str, type] = {}

    def __init_subclass__(cls, **parts: type):
        super().__init_subclass__()
        cls._parts = parts or cls._parts

    def __new__(cls, *args, **given):
        check_call(cls, args, given, cls._parts)
        return super().__new__(cls)
