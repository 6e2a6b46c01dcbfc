r"""Guidance: densities made to follow a classifier, or conditions that they were trained with."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..checks.numbers import array_of, exponent, is_traced
from ..density.algebra import combine
from ..density.density import Density
from ..density.operands import check_densities
from ..errors import ArgumentTypeError, ParameterError, ShapeError
from .operators import vector_of


def guided(density: Density, classifier: Density, scale: Any = 1.0) -> Density:
    r"""Classifier guidance, :math:`p(x, t) \, p(y | x, t)^s`; s = 1 is Bayes' rule.

    See Dhariwal and Nichol (2021), Section 4, and Du et al. (2023), Section 3.3.

    Args:
        density: The density p.
        classifier: The likelihood log p(y | x, t) of one y as a factor, from `nd.as_density`. To be right at every
            noise level, it must have been trained on noised points.
        scale: Guidance scale s, finite.
    """
    check_densities("guidance", (density, classifier))
    return combine("product", [(density, 1.0), (classifier, exponent(scale, "scale"))])


def classifier_free_guided(density: Density, condition: Any, scale: Any) -> Density:
    r"""Classifier-free guidance, :math:`p(x)^{1-s} \, p(x | c)^s`, in one batched network call (Ho and Salimans 2022).

    Args:
        density: A density that takes conditions, of `nd.fit(..., conditions=...)` or `nd.from_*(..., conditions=...)`.
        condition: A condition of the network's shape, [k] for `nd.fit`, or a caption; ShapeError for another shape.
        scale: Guidance scale s, finite; 0 is unconditional, 1 conditional, more exaggerates the condition.
    """
    given = given_of("classifier-free guidance", density)
    scale = exponent(scale, "scale")
    return combine("product", [(given(None), exponent(1.0 - scale)), (given(condition), scale)])


def compose_conditions(density: Density, conditions: Any, weights: Any = None) -> Density:
    r"""All conditions at once, :math:`p(x) \prod_i (p(x | c_i) / p(x))^{w_i}` (Du et al. 2023, Eq. 13).

    The exponent of the unconditional density is collected to :math:`1 - \sum_i w_i`, and everything costs one
    batched network call.

    Args:
        density: A density that takes conditions, of `nd.fit(..., conditions=...)` or `nd.from_*(..., conditions=...)`.
        conditions: c >= 1 conditions of the network's shape, [c, k] for `nd.fit`, [c] for class numbers, or a list of
            captions; ShapeError for another shape.
        weights: Finite guidance scales w_i [c]; 1 by default.
    """
    given = given_of("compose_conditions", density)
    ndim = 1 + density.condition_ndim  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(conditions, list | tuple) and conditions and all(isinstance(c, str) for c in conditions):
        return _together(given, conditions, weights)
    shape = {1: "[c]", 2: "[c, k]"}.get(ndim, f"[c, ...] of {ndim} axes")
    conditions = _rows(conditions, f"an array {shape}. One condition a row.")
    if conditions.ndim != ndim:
        raise ShapeError(
            f"conditions must have shape {shape}; got {conditions.shape}. One condition has a first axis of one."
        )
    if len(conditions) == 0:
        raise ParameterError("compose_conditions needs at least one condition; got none.")
    return _together(given, conditions, weights)


def _together(given, conditions, weights) -> Density:
    weights = [exponent(w) for w in vector_of("weights", weights, len(conditions))]
    terms = [(given(c), w) for c, w in zip(conditions, weights, strict=True)]
    return combine("product", [(given(None), exponent(1.0 - sum(weights))), *terms])


def _rows(conditions: Any, what: str):
    """Conditions as an array; class numbers stay whole."""
    if is_traced(conditions):
        return jnp.asarray(conditions)
    checked = array_of("conditions", conditions, what)
    whole = np.asarray(conditions)
    return whole if whole.dtype.kind in "iu" else checked


def given_of(what: str, density: Any):
    """The method `given` of a density that takes conditions, or an ArgumentTypeError."""
    given = getattr(density, "given", None)
    if given is None:
        raise ArgumentTypeError(
            f"{what} needs a density trained with conditions, nd.fit(..., conditions=...) or nd.from_*; got "
            f"{density!r}. For densities of their own, use product, guided or p / q ** alpha."
        )
    return given
