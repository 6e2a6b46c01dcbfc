"""The exceptions and warnings of the package.

Every error states the rule, the value that broke it and the remedy. Each class also derives from the built-in
exception a caller would expect (`ValueError`, `TypeError`, `KeyError`), so code that knows nothing of this package
can still catch it; `DiffusionError` catches them all.
"""

import math


class DiffusionError(Exception):
    """Base of every exception raised by this package on purpose."""


class ScoreOnlyError(DiffusionError, TypeError):
    """A log density is needed, but the model offers only its gradient, the score."""


class ShapeError(DiffusionError, ValueError):
    """An array has the wrong shape or dtype, or two event shapes differ."""


class ScheduleError(DiffusionError, ValueError):
    """A noise level lies outside [0, 1], levels do not decrease, or two noise schedules differ."""


class ParameterError(DiffusionError, ValueError):
    """A value lies outside its range."""


class ArgumentTypeError(ParameterError, TypeError):
    """An argument or operand is of a wrong kind: no density where one is needed, no number where one is needed."""


class DivisionByZeroError(ParameterError, ZeroDivisionError):
    """A density was divided by zero."""


class UnsupportedModelError(DiffusionError, NotImplementedError):
    """A NumPyro model has a site that annealing cannot handle; the message names it."""


class CheckpointError(DiffusionError, ValueError):
    """A file cannot be written, or cannot be read as a checkpoint of this package."""


class UnknownNameError(DiffusionError, KeyError):
    """A name is not among the known ones."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which puts a whole sentence between quotes.
        return Exception.__str__(self)


class DiagnosticWarning(UserWarning):
    """The result exists, but a diagnostic says not to trust it as it is."""


def check_number(name: str, value, low: float, high: float = math.inf) -> None:
    """Raise ParameterError unless the value is a number in [low, high]."""
    try:
        fine = not isinstance(value, str | bool) and low <= float(value) <= high
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise ParameterError(f"{name} must lie in [{low:g}, {high:g}]; got {value!r}.")
