r"""Guidance: densities made to follow a classifier, or conditions that they were trained with."""

from __future__ import annotations

from typing import Any

from ..checks.numbers import array_of, exponent
from ..density.abstract import check_densities
from ..density.density import Density, combine
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
        density: A density trained with conditions, `nd.fit(..., conditions=...)`.
        condition: Condition vector [k]; ShapeError for another length.
        scale: Guidance scale s, finite; 0 is unconditional, 1 conditional, more exaggerates the condition.
    """
    given = _given("classifier-free guidance", density)
    scale = exponent(scale, "scale")
    return combine("product", [(given(None), exponent(1.0 - scale)), (given(condition), scale)])


def compose_conditions(density: Density, conditions: Any, weights: Any = None) -> Density:
    r"""All conditions at once, :math:`p(x) \prod_i (p(x | c_i) / p(x))^{w_i}` (Du et al. 2023, Eq. 13).

    The exponent of the unconditional density is collected to :math:`1 - \sum_i w_i`, and everything costs one
    batched network call.

    Args:
        density: A density trained with conditions, `nd.fit(..., conditions=...)`.
        conditions: Condition vectors [c, k], c >= 1; ShapeError for another shape, or a k that is not the network's.
        weights: Finite guidance scales w_i [c]; 1 by default.
    """
    given = _given("compose_conditions", density)
    conditions = array_of("conditions", conditions, "an array [c, k]. One condition a row.")
    if conditions.ndim != 2:
        raise ShapeError(f"conditions must have shape [c, k]; got {conditions.shape}. One condition is [1, k].")
    if len(conditions) == 0:
        raise ParameterError("compose_conditions needs at least one condition; got none.")
    weights = [exponent(w) for w in vector_of("weights", weights, len(conditions))]
    terms = [(given(c), w) for c, w in zip(conditions, weights, strict=True)]
    return combine("product", [(given(None), exponent(1.0 - sum(weights))), *terms])


def _given(what: str, density: Any):
    given = getattr(density, "given", None)
    if given is None:
        raise ArgumentTypeError(
            f"{what} needs a density trained with conditions, nd.fit(..., conditions=...); got {density!r}. "
            "For densities of their own, use product, guided or p / q ** alpha."
        )
    return given
