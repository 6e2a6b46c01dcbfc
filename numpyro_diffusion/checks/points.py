"""Points and numbers at points, checked: of densities, and of what metrics compare."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ParameterError, ShapeError
from .numbers import real_array
from .text import shown


def real(name, value) -> np.ndarray:
    """The argument `name` as an array of floats, or a ShapeError; booleans are 0 and 1."""
    try:
        return real_array(value, are_booleans_fine=True)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{name} must be an array of real numbers; got {shown(value)}.") from error


def points(name, value) -> np.ndarray:
    """The argument `name` as finite points [n, d], n >= 1 and d >= 1, or a ShapeError or ParameterError."""
    array = real(name, value)
    if array.ndim != 2 or array.size == 0:
        raise ShapeError(f"{name} must have shape [n, d] with n >= 1; got {array.shape}. Flatten the event axes.")
    if not np.all(np.isfinite(array)):
        raise ParameterError(f"{name} must be finite; got {np.sum(~np.isfinite(array))} NaN or infinite values.")
    return array


def each(name, values, n: int) -> np.ndarray:
    """What a user's function makes of n points: a number each, none of them NaN."""
    array = real(name, values)
    if array.shape != (n,):
        raise ShapeError(f"{name} must give a number for each of {n} points, [{n}]; got {array.shape}.")
    if wrong := int(np.sum(np.isnan(array))):
        raise ParameterError(f"{name} is NaN at {wrong} of {n} points. Leave these samples out, and count them.")
    return array


def pair(x, y) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of points of one shape [n, d]."""
    x, y = points("x", x), points("y", y)
    if x.shape != y.shape:
        raise ShapeError(f"x and y must have one shape; got {x.shape} and {y.shape}. Draw as many of each.")
    return x, y


def as_points(x, event_shape: tuple[int, ...]) -> jax.Array:
    """`x` as floating-point array [*batch, *event_shape], or a typed error with expected and got."""
    try:
        x = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"points must be a numeric array [*batch, {event_shape}]; got {type(x).__name__}.") from error
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        raise ShapeError(f"points must be real numbers; got dtype {x.dtype}. Convert with .astype(float).")
    if x.ndim < len(event_shape) or x.shape[x.ndim - len(event_shape) :] != event_shape:
        raise ShapeError(f"points must have shape [*batch, *{event_shape}]; got {x.shape}.")
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)
