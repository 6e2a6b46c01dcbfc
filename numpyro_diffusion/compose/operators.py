"""Products, mixtures, negations and powers. Exponents and weights are traced: others compile nothing anew."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..checks.numbers import array_of, exponent, is_traced, log_mass, log_shares, real
from ..density.algebra import combine
from ..density.density import Density
from ..density.operands import check_densities
from ..errors import ArgumentTypeError, ParameterError


def product(*densities: Density, exponents: Any = None) -> Density:
    r"""Density :math:`\prod_i p_i^{a_i}` (unnormalised), high where all are high (Du et al. 2023, Section 4.1).

    Args:
        *densities: At least one density.
        exponents: Finite numbers a_i, one per density; 1 by default.
    """
    exponents = vector_of("exponents", exponents, len(densities))
    return combine("product", [(d, exponent(a)) for d, a in zip(densities, exponents, strict=True)])


def mixture(*densities: Density, weights: Any = None) -> Density:
    r"""Density :math:`\sum_i w_i p_i` with :math:`\sum_i w_i = 1`, high where any is (Du et al. 2023, Section 4.1).

    Exact for calibrated densities; otherwise the shares are arbitrary, and a warning says so.

    Args:
        *densities: At least one density.
        weights: Positive numbers, one per density, normalised to sum one; equal by default.
    """
    check_densities("a mixture", densities)
    log_weights = log_weights_of(weights, len(densities))
    return combine("mixture", list(zip(densities, log_weights, strict=True)))


def negation(density: Density, negated: Density, alpha: Any = 0.5, *, floor: Any = 0.0) -> Density:
    r"""Density :math:`p / ((1 - f) q + f p)^\alpha` (unnormalised): high where p is high, less so where q is high.

    With `floor` f = 0 this is :math:`p / q^\alpha` as in Du et al. (2023), Section 4.1. It is unbounded wherever q
    vanishes faster than p: for calibrated densities it may have no finite mass at low noise, and its samples then run
    away from both. A small floor, which is ours, keeps it proper at every noise level, and suppresses q's region by
    about :math:`(f p / q)^\alpha`.

    Args:
        density: The density p.
        negated: The density q.
        alpha: Strength of the negation, in (0, 1].
        floor: Share f of p in the denominator, in [0, 1).
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
    r"""Density :math:`p^{1/T}` (unnormalised): flatter for a temperature T > 1, sharper for 0 < T < 1."""
    check_densities("tempering", (density,))
    temperature = real("temperature", temperature)
    if not is_traced(temperature) and not temperature > 0:
        raise ParameterError(f"temperature must be positive; got {temperature}. 1 leaves the density as it is.")
    return combine("product", [(density, exponent(1.0 / temperature, "1 / temperature", given=f"1 / {temperature}"))])


def log_rest(share: Any) -> Any:
    """log(1 - share), traced or not."""
    return jnp.log1p(-share) if is_traced(share) else float(np.log1p(-share))


def vector_of(name: str, values: Any, count: int) -> Any:
    """`values` as [count] finite numbers, ones by default; in NumPy unless traced."""
    if values is None:
        return np.ones(count)
    vector = array_of(name, values, f"{count} real numbers. Give one for each.", ArgumentTypeError)
    if vector.shape != (count,):
        raise ParameterError(f"{name} must be {count} numbers, one for each; got shape {vector.shape}.")
    if not is_traced(vector) and not np.all(np.isfinite(vector)):
        raise ParameterError(f"{name} must be finite; got {vector}.")
    return vector


def log_weights_of(values: Any, count: int) -> list[Any]:
    """Logarithms [count] of positive weights normalised to sum one; of equal ones if None."""
    return list(log_shares(vector_of("weights", values, count)))
