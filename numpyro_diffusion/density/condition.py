"""One condition as users give it: checked where it is known, let through where it is traced."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.numbers import is_traced, real_array, said
from ..errors import ParameterError, ShapeError


def condition_of(value: Any, layout: jax.ShapeDtypeStruct, of_text: str) -> Any:
    """`value` as an array of the layout's shape, or as it is where it is traced; booleans are 0 and 1.

    `of_text` is the remedy for a caption.

    Raises:
        ShapeError: for another shape.
        ParameterError: for what is no array of real numbers, of whole ones where the layout has these, or not finite.
    """
    is_whole = not jnp.issubdtype(layout.dtype, jnp.floating)
    numbers = "whole numbers" if is_whole else "real numbers"
    kind = f"an array {list(layout.shape)} of {numbers}" if layout.shape else f"one of the {numbers}"
    remedy = of_text if isinstance(value, str) else f"Give {numbers}."
    try:
        array = jnp.asarray(value) if is_traced(value) else real_array(value, are_booleans_fine=True)
        dtype = array.dtype if is_traced(value) else np.asarray(value).dtype
        if is_whole and dtype.kind not in "biu":
            raise TypeError(f"numbers must be whole; got dtype {dtype}.")
    except (TypeError, ValueError, OverflowError) as error:
        raise ParameterError(f"a condition must be {kind}; got {said(value)}. {remedy}") from error
    if array.shape != layout.shape:
        raise ShapeError(f"a condition must have shape {layout.shape}; got {array.shape}. {_remedy(array, layout)}")
    if isinstance(array, np.ndarray) and not np.all(np.isfinite(array)):
        got = np.array2string(array, threshold=16)
        raise ParameterError(f"a condition must be finite; got {got}. Without one, give None.")
    return array


def _remedy(array, layout) -> str:
    """What to give instead of an array of another shape."""
    if array.shape == () and len(layout.shape) == 1 and layout.shape[0] > 1:
        return f"If this is the number of a class, give its one-hot vector: numpy.eye({layout.shape[0]})[number]."
    if array.shape[1:] == layout.shape:
        return "Give one of these; all of them together are nd.compose_conditions(density, conditions)."
    return "Give one condition."
