r"""Numbers that users give to the algebra: checked where they are known, let through where they are traced.

A formula keeps exponents as they are and masses as logarithms: :math:`10^{-50} p` is a density like any other, and its
mass is no float32. What is known is reckoned in NumPy: where a caller is being traced, JAX would trace operations on
known numbers as well, and nothing could be decided any more.
"""

from __future__ import annotations

import reprlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..errors import ArgumentTypeError, ParameterError, ShapeError

#: What to do about a number that is none, by what the number is.
REMEDY = {
    "weight": "Weigh each density with one number, 0.3 * p + 0.7 * q, or many with nd.mixture(..., weights=...).",
    "exponent": "Raise a density to one number, p ** 0.5, or many with nd.product(..., exponents=...).",
}

#: Of a NumPy array with a mask, which an array without one would forget.
MASKED = "{} must hold no masked values; got {}."


def is_traced(value: Any) -> bool:
    """Whether any array of a pytree is being traced."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))


def constant(value: Any) -> jax.Array:
    """A NumPy array as a floating-point array whose values are known, also while something is traced."""
    with jax.ensure_compile_time_eval():
        return jnp.asarray(value, dtype=float)


def floats() -> np.dtype:
    """The floating-point type of the moment: float32, unless x64 is enabled."""
    return np.dtype(jax.dtypes.canonicalize_dtype(float))


def float_range() -> tuple[float, float]:
    """The least positive and the largest number that the floats of the moment hold to full precision."""
    return float(np.finfo(floats()).tiny), float(np.finfo(floats()).max)


def said(value: Any) -> str:
    """What was given, in few words."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"an array of shape {shape}"
    if isinstance(value, bool | np.bool_):
        return f"the boolean {value}"
    return str(value) if isinstance(shape, tuple) else reprlib.repr(value)


def real(what: str, value: Any) -> Any:
    """`value` as a finite float, or a traced real scalar as it is.

    ArgumentTypeError for anything but one real number, ParameterError for NaN and infinity.
    """
    remedy = REMEDY.get(what, "Give one finite number.")
    if not _is_real(value):
        raise ArgumentTypeError(f"{what} must be one real number; got {said(value)}. {remedy}")
    if isinstance(value, Tracer):
        return value
    try:
        number = float(value)
    except OverflowError:
        number = np.inf
    if not np.isfinite(number):
        raise ParameterError(f"{what} must be finite; got {said(value)}. {remedy}")
    return number


def positive(what: str, value: Any, remedy: str, or_zero: bool = False) -> Any:
    """`value` as a finite float above 0, or at least 0, or a traced real scalar as it is; else ParameterError."""
    rule = f"{what} must be {'at least 0' if or_zero else 'positive'} and finite"
    try:
        number = real(what, value)
    except ParameterError as error:
        raise ParameterError(f"{rule}: {error}") from error
    if not is_traced(number) and (number < 0 or (number == 0 and not or_zero)):
        raise ParameterError(f"{rule}; got {number}. {remedy}")
    return number


def finite_array(what: str, value: Any, ndim: int) -> Any:
    """`value` with `ndim` axes, else ShapeError: in double precision and finite, or as it is where it is traced."""
    array = array_of(what, value, f"a numeric array with {ndim} axes")
    if array.ndim != ndim:
        raise ShapeError(f"{what} must have {ndim} axes; got shape {array.shape}.")
    if not is_traced(array) and not np.all(np.isfinite(array)):
        raise ParameterError(f"{what} must be finite; got NaN or infinity.")
    return array


def _is_real(value) -> bool:
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        odd = isinstance(value, bool | str | bytes | complex)
        return not odd and (hasattr(type(value), "__float__") or hasattr(type(value), "__index__"))
    return _is_real_type(dtype) and getattr(value, "shape", None) == ()


def _is_real_type(dtype) -> bool:
    try:
        return bool(jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer))
    except TypeError:  # a dtype of another library
        return False


def real_array(value: Any, are_booleans_fine: bool = False) -> np.ndarray:
    """`value` in double precision. Raises TypeError or ValueError for what is no array of real numbers, or masked."""
    if np.ma.is_masked(value):
        raise ValueError(MASKED.format("the array", np.ma.count_masked(value)))
    array = np.asarray(value)
    fine = all(_is_real(v) for v in array.flat) if array.dtype == object else _is_real_type(array.dtype)
    if array.size and not (fine or (are_booleans_fine and array.dtype == bool)):
        raise TypeError(f"numbers must be real; got dtype {array.dtype}.")
    return array.astype(np.float64)


def array_of(name: str, value: Any, what: str, error: type[Exception] = ShapeError) -> Any:
    """`value` as an array in double precision, or where it is traced, as it is; `error` for no array of real numbers.

    `what` says what it must be, and the remedy may follow after a full stop.
    """
    try:
        return jnp.asarray(value, dtype=float) if is_traced(value) else real_array(value)
    except (TypeError, ValueError, OverflowError) as cause:
        must, _, remedy = what.partition(". ")
        raise error(f"{name} must be {must}; got {said(value)}. {remedy or 'Give real numbers.'}") from cause


def log_shares(weights: Any) -> Any:
    """Logarithms of weights over their sum, of an array as `array_of` gives it."""
    if is_traced(weights):
        return jnp.log(weights) - jnp.log(jnp.sum(weights))
    if not np.all(weights > 0):
        raise ParameterError(f"weights must be positive; got {weights}. Leave out what has no weight.")
    return np.log(weights) - np.logaddexp.reduce(np.log(weights))


def check_held(what: str, array: np.ndarray, are_scales: bool = False) -> None:
    """Raise ParameterError where the floats of the moment would make infinity, or of `are_scales` zero, of a number."""
    low, high = float_range()
    size = np.abs(array)
    wrong = (size > high) | (size < low) if are_scales else size > high
    if wrong.any():
        span = f"from {low:.2g} to {high:.2g}" if are_scales else f"at most {high:.2g} in size"
        raise ParameterError(
            f"{what} must be {span}, which is what {floats()} holds; got {array[wrong][0]:.6g}. Choose other units."
        )


def check_squares_held(what: str, value: float, margin: float, remedy: str, source: str = "") -> None:
    """Raise ParameterError where the square of a number is no float, or within a factor margin^2 of none."""
    low, high = (limit**0.5 for limit in float_range())
    if not margin * low <= value <= high / margin:
        raise ParameterError(
            f"{what} must lie in [{margin * low:.2g}, {high / margin:.2g}], whose squares {floats()} holds; got "
            f"{value:.6g}{source}. {remedy}"
        )


def exponent(value: Any, what: str = "exponent", given: str = "") -> Any:
    """An exponent for `density.combine`: rounded as it will be kept, so that what cancels does; a tracer passes.

    ParameterError where the floats of the moment would make zero or infinity of it. `given` is what the user gave, if
    that is another number.
    """
    number, (low, high) = real(what, value), float_range()
    if isinstance(number, Tracer):
        return number
    if number != 0 and not low <= abs(number) <= high:
        double = ", or enable double precision" if floats() == np.float32 else ""
        raise ParameterError(
            f"{what} must be 0 or from {low:.2g} to {high:.2g} in size, which is what {floats()} holds; got "
            f"{given or f'{number:.6g}'}. Choose another{double}."
        )
    return float(floats().type(number))


def log_mass(value: Any) -> Any:
    """The logarithm of a positive mass, for `density.combine`."""
    number = real("weight", value)
    if isinstance(number, Tracer):
        return jnp.log(number)
    if number <= 0:
        raise ParameterError(f"weight must be positive; got {number}. For 'and not q' write p / q ** alpha.")
    return float(np.log(number))
