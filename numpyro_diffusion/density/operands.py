"""What may be the terms of a formula."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Self

from ..errors import ArgumentTypeError, ParameterError


class Operand(abc.ABC):
    """A density of some kind, which can stand in one formula with others of its kind."""

    #: False for score-only models, whose log densities are known by integrals of the score alone.
    has_log_density: bool = True
    #: True if the density integrates to one.
    is_calibrated: bool = True
    name: str | None = None

    @abc.abstractmethod
    def check_beside(self, what: str, other: Self) -> None:
        """Raise where this and another of one kind cannot be terms of `what`: they are densities of other points."""

    @classmethod
    @abc.abstractmethod
    def kind(cls) -> str:
        """What it is a density of, for messages."""

    def __repr__(self):
        return self.name or type(self).__name__


def check_densities(what: str, densities: Sequence[Any]) -> None:
    """Raise unless these can be terms of one formula: at least one density, all of the same points."""
    if not densities:
        raise ParameterError(f"{what} needs at least one density; got none.")
    for density in densities:
        if not isinstance(density, Operand):
            raise ArgumentTypeError(
                f"{what} takes densities; got {type(density).__name__}. Give numbers by keyword, and wrap functions "
                "in nd.as_density."
            )
    first, *others = densities
    for density in others:
        if density.kind() != first.kind():
            raise ArgumentTypeError(
                f"{what} takes densities of one kind; got {first!r}, of {first.kind()}, and {density!r}, of "
                f"{density.kind()}. Compose each kind by itself."
            )
        first.check_beside(what, density)
