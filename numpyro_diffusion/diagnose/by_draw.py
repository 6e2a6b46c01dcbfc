"""A user's function of one draw, of all draws: what it cannot be asked, and what it makes of some, is told."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ..errors import ArgumentTypeError, ParameterError, warn
from ..program import ASKS_FOR_VALUES, indices_checked


def by_draw(fn: Any, draws: Any, counted: np.ndarray) -> Any:
    """`fn` of each of M draws, arrays [M, ...] or a dict of them; warns where it is not finite at one `counted` [M].

    Raises:
        TypeError: for what is no function, or none that JAX can map.
        ParameterError: for a site that no draw has.
        ShapeError: for an index beyond the end of an axis.
    """
    if not callable(fn):
        raise ArgumentTypeError(f"fn must be a function of one draw; got {fn!r}. Of a site: lambda draw: draw['x'].")
    try:
        with indices_checked():
            values = jax.vmap(fn)(draws)
    except KeyError as error:
        if not isinstance(draws, dict):
            raise
        raise ParameterError(f"fn asks for {error}, which no draw has. A draw has: {', '.join(draws)}.") from error
    except ASKS_FOR_VALUES as error:
        raise ArgumentTypeError(
            "fn must compute by JAX, as it is mapped over all draws: write jnp. for np., and jnp.where for an if."
        ) from error
    if not jax.tree.leaves(values):
        raise ArgumentTypeError(f"fn must return numbers of one draw; got {values!r}. Does it lack a return?")
    finite = counted.copy()
    for leaf in jax.tree.leaves(values):
        values_of = np.asarray(leaf, dtype=float)
        finite &= np.isfinite(values_of).all(axis=tuple(range(1, values_of.ndim)))
    if bad := int(counted.sum() - finite.sum()):
        warn(
            f"fn is not finite at {bad} of {int(counted.sum())} draws, so that its expectation is not finite either, "
            "and quantiles are NaN where fn is. Make it finite at every draw, by jnp.where for instance."
        )
    return values
