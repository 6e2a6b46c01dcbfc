r"""The named compositions of the literature, on top of the algebra of `density`.

Each returns the formula that the operators would build, with its arguments checked:

======================== ====================================================================
product                  :math:`\prod_i p_i^{a_i}`
mixture                  :math:`\sum_i w_i p_i`
negation                 :math:`p / q^\alpha`
temper                   :math:`p^{1/T}`
guided                   :math:`p(x) \, p(y | x)^s`
classifier_free_guided   :math:`p(x)^{1-s} \, p(x | c)^s`
compose_conditions       :math:`p(x) \prod_i (p(x | c_i) / p(x))^{w_i}`
======================== ====================================================================

Harmonic means and contrasts are in `sculpting`. Exponents and weights are traced, so changing them compiles nothing
anew. They may be tracers themselves; a tracer's value cannot be checked.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..checks.numbers import exponent, is_traced, log_mass, real, real_array, representable, said
from ..density.abstract import check_densities
from ..density.density import Density, combine
from ..errors import ArgumentTypeError, ParameterError, ShapeError


def product(*densities: Density, exponents: Any = None) -> Density:
    r"""Density :math:`\prod_i p_i^{a_i}` (unnormalised), high where all are high.

    Args:
        *densities: At least one density, on one event shape under one noise schedule.
        exponents: Real numbers a_i, one per density; 1 by default.

    Raises:
        ParameterError: if there are no densities, or exponents are not finite or not one per density.
        ShapeError, ScheduleError: if event shapes or schedules differ.

    References:
        Du et al. (2023), arXiv:2302.11552, Section 4.1.
    """
    check_densities("a product", densities)
    exponents = vector_of("exponents", exponents, len(densities))
    return combine("product", [(d, exponent(a)) for d, a in zip(densities, exponents, strict=True)])


def mixture(*densities: Density, weights: Any = None) -> Density:
    r"""Density :math:`\sum_i w_i p_i` with :math:`\sum_i w_i = 1`, high where any is high.

    Exact for calibrated densities; otherwise the shares are arbitrary, and a warning says so.

    Args:
        *densities: At least one density, on one event shape under one noise schedule.
        weights: Positive numbers, one per density, normalised to sum one; equal by default.

    Raises:
        ParameterError: if there are no densities, or weights are not positive or not one per density.
        ShapeError, ScheduleError: if event shapes or schedules differ.
        ScoreOnlyError: if a density has no log density.

    References:
        Du et al. (2023), arXiv:2302.11552, Section 4.1.
    """
    check_densities("a mixture", densities, needs_log_density=True)
    log_weights = log_weights_of(weights, len(densities))
    return combine("mixture", list(zip(densities, log_weights, strict=True)))


def negation(density: Density, negated: Density, alpha: Any = 0.5, *, floor: Any = 0.0) -> Density:
    r"""Density :math:`p / ((1 - f) q + f p)^\alpha` (unnormalised): high where p is high, less so where q is high.

    With `floor` f = 0 this is the paper's :math:`p / q^\alpha`, which is unbounded wherever q vanishes faster than p:
    for calibrated densities it may have no finite mass at low noise, and its samples then run away from both. A small
    floor keeps it proper at every noise level, and suppresses q's region by about :math:`(f p / q)^\alpha`.

    Args:
        density: The density p.
        negated: The density q.
        alpha: Strength of the negation, in (0, 1].
        floor: Share f of p in the denominator, in [0, 1).

    Raises:
        ParameterError: if alpha is outside (0, 1], or floor outside [0, 1).
        ShapeError, ScheduleError: if event shapes or schedules differ.
        ScoreOnlyError: for a score-only density with floor > 0.

    References:
        Du et al. (2023), arXiv:2302.11552, Section 4.1; the floor is ours.
    """
    check_densities("a negation", (density, negated))
    alpha, floor = exponent(alpha, "alpha"), real("floor", floor)
    if not is_traced(alpha) and not 0 < alpha <= 1:
        raise ParameterError(f"alpha of a negation must lie in (0, 1]; got {alpha}. For more, write p / q ** alpha.")
    if not is_traced(floor) and not 0 <= floor < 1:
        raise ParameterError(f"floor of a negation must lie in [0, 1); got {floor}. 0 is none, 0.01 is usual.")
    if not is_traced(floor) and floor == 0:
        return combine("product", [(density, 1.0), (negated, -alpha)])
    below = combine("mixture", [(negated, log_rest(floor)), (density, log_mass(floor))])
    return combine("product", [(density, 1.0), (below, -alpha)])


def temper(density: Density, temperature: Any) -> Density:
    r"""Density :math:`p^{1/T}` (unnormalised): flatter for temperature T > 1, sharper for T < 1.

    Raises:
        ParameterError: if the temperature is not positive.
    """
    check_densities("tempering", (density,))
    temperature = real("temperature", temperature)
    if not is_traced(temperature) and not temperature > 0:
        raise ParameterError(f"temperature must be positive; got {temperature}. 1 leaves the density as it is.")
    power = representable("1 / temperature", 1.0 / temperature, given=f"1 / {temperature}")
    return combine("product", [(density, exponent(power))])


def guided(density: Density, classifier: Density, scale: Any = 1.0) -> Density:
    r"""Classifier guidance, :math:`p(x, t) \, p(y | x, t)^s`; s = 1 is Bayes' rule.

    Args:
        density: The density p.
        classifier: The likelihood log p(y | x, t) of one y as a factor, from `nd.as_density`. To be right at every
            noise level, it must have been trained on noised points.
        scale: Guidance scale s.

    Raises:
        ParameterError: if the scale is not finite.
        ShapeError, ScheduleError: if event shapes or schedules differ.

    References:
        Dhariwal and Nichol (2021), arXiv:2105.05233, Section 4; Du et al. (2023), arXiv:2302.11552, Section 3.3.
    """
    check_densities("guidance", (density, classifier))
    return combine("product", [(density, 1.0), (classifier, exponent(scale, "scale"))])


def classifier_free_guided(density: Density, condition: Any, scale: Any) -> Density:
    r"""Classifier-free guidance, :math:`p(x)^{1-s} \, p(x | c)^s`, in one batched network call.

    Args:
        density: A density trained with conditions, `nd.fit(..., conditions=...)`.
        condition: Condition vector [k].
        scale: Guidance scale s; 0 is unconditional, 1 conditional, more exaggerates the condition.

    Raises:
        TypeError: if the density cannot be conditioned.
        ShapeError: if the condition has the wrong length.
        ParameterError: if the scale is not finite.

    References:
        Ho and Salimans (2022), arXiv:2207.12598.
    """
    given = _given("classifier-free guidance", density)
    scale = exponent(scale, "scale")
    return combine("product", [(given(None), exponent(1.0 - scale)), (given(condition), scale)])


def compose_conditions(density: Density, conditions: Any, weights: Any = None) -> Density:
    r"""All conditions at once, :math:`p(x) \prod_i (p(x | c_i) / p(x))^{w_i}`.

    The exponent of the unconditional density is collected to :math:`1 - \sum_i w_i`, and everything costs one
    batched network call.

    Args:
        density: A density trained with conditions, `nd.fit(..., conditions=...)`.
        conditions: Condition vectors [c, k].
        weights: Guidance scales w_i [c]; 1 by default.

    Raises:
        TypeError: if the density cannot be conditioned.
        ShapeError: if `conditions` is not [c, k] with the k of the network.
        ParameterError: if there are no conditions, or weights are not finite or not one per condition.

    References:
        Du et al. (2023), arXiv:2302.11552, Eq. 13.
    """
    given = _given("compose_conditions", density)
    try:
        conditions = jnp.asarray(conditions, dtype=float) if is_traced(conditions) else real_array(conditions)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"conditions must be an array [c, k]; got {said(conditions)}. One condition a row.") from error
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


def log_rest(share: Any) -> Any:
    """log(1 - share), traced or not."""
    return jnp.log1p(-share) if is_traced(share) else float(np.log1p(-share))


def vector_of(name: str, values: Any, count: int) -> Any:
    """`values` as [count] finite numbers, ones by default; in NumPy unless traced."""
    if values is None:
        return np.ones(count)
    try:
        vector = jnp.asarray(values, dtype=float) if is_traced(values) else real_array(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise ArgumentTypeError(
            f"{name} must be {count} real numbers; got {said(values)}. Give one for each."
        ) from error
    if vector.shape != (count,):
        raise ParameterError(f"{name} must be {count} numbers, one for each; got shape {vector.shape}.")
    if not is_traced(vector) and not np.all(np.isfinite(vector)):
        raise ParameterError(f"{name} must be finite; got {vector}.")
    return vector


def log_weights_of(values: Any, count: int) -> list[Any]:
    """Logarithms [count] of positive weights normalised to sum one; of equal ones if None."""
    weights = vector_of("weights", values, count)
    if is_traced(weights):
        return list(jnp.log(weights) - jnp.log(jnp.sum(weights)))
    if not np.all(weights > 0):
        raise ParameterError(f"weights must be positive; got {weights}. Leave out what has no weight.")
    return [float(w) for w in np.log(weights) - np.logaddexp.reduce(np.log(weights))]
