r"""Compositional sculpting: harmonic means, contrasts, their general form, and chains (Garipov et al. 2023).

With calibrated densities all are exact as they stand; no classifier has to learn the ratios.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..checks.numbers import is_traced, log_mass, real
from ..density.algebra import combine
from ..density.density import Density
from ..density.operands import check_densities
from ..errors import ArgumentTypeError, ParameterError, check_integer
from .operators import log_rest, log_weights_of


def harmonic_mean(p: Density, q: Density, *more: Density, alpha: Any = None, weights: Any = None) -> Density:
    r"""Density :math:`p q / (\alpha p + (1 - \alpha) q)` (unnormalised), high where both are high.

    For any number of densities it is the weighted harmonic mean

    .. math:: \Big(\sum_i \frac{w_i}{p_i}\Big)^{-1} = \frac{\prod_i p_i}{\sum_i w_i \prod_{j \ne i} p_j},

    in which alpha stands beside p and hence belongs to 1 / q: weights = (1 - alpha, alpha). Zero where any is zero.
    Exact for calibrated densities; otherwise the weights absorb the unknown ratios of normalisers, and a warning
    says so. See Garipov et al. (2023).

    Args:
        p, q, *more: Densities; one call evaluates each of them once.
        alpha: Weight of `p` in the denominator, in (0, 1), for two densities only; 0.5 by default.
        weights: Instead of alpha: positive weights w_i of 1 / p_i, normalised to sum one; equal by default.
    """
    densities = (p, q, *more)
    check_densities("a harmonic mean", densities)
    log_shares = _log_shares(alpha, weights, len(densities), alpha_first=False)
    # Written with products, not with inverses: a density that is zero then kills the numerator, and no 1 / 0 arises.
    # From last to first, so that two densities print as p * q / (alpha * p + (1 - alpha) * q).
    terms = []
    for i in reversed(range(len(densities))):
        others = [(d, 1.0) for j, d in enumerate(densities) if j != i]
        terms.append((others[0][0] if len(others) == 1 else combine("product", others), log_shares[i]))
    denominator = combine("mixture", terms)
    return combine("product", [*((d, 1.0) for d in densities), (denominator, -1.0)])


def contrast(p: Density, q: Density, *more: Density, alpha: Any = None, weights: Any = None) -> Density:
    r"""Density :math:`p^2 / (\alpha p + (1 - \alpha) q)` (unnormalised), high where p is high and q is not.

    Against several densities it is :math:`p^2 / (w_0 p + \sum_i w_i q_i)`. It is at most :math:`p / w_0`, so unlike a
    negation it always has finite mass. Exact for calibrated densities; otherwise the weights absorb the unknown
    ratios of normalisers, and a warning says so. See Garipov et al. (2023).

    Args:
        p: The density to keep.
        q, *more: The densities to avoid.
        alpha, weights: As of `harmonic_mean`; weights are those in the denominator, p first.
    """
    densities = (p, q, *more)
    check_densities("a contrast", densities)
    log_shares = _log_shares(alpha, weights, len(densities), alpha_first=True)
    denominator = combine("mixture", list(zip(densities, log_shares, strict=True)))
    return combine("product", [(p, 2.0), (denominator, -1.0)])


def sculpt(densities: Sequence[Density], labels: Sequence[int], *, weights: Any = None) -> Density:
    r"""Density :math:`p(x | y_1, ..., y_k)` (unnormalised) of what a mixture's densities y_1, ..., y_k all claim.

    Let x come from the mixture, and let k observers say, each by itself, which density it came from. Given answers
    y_1, ..., y_k, Bayes' rule makes of :math:`P(y | x) = w_y p_y(x) / \sum_i w_i p_i(x)`

    .. math::
        p(x | y_1, ..., y_k) \propto \Big( \sum_i w_i p_i(x) \Big)
        \prod_{j=1}^k \frac{p_{y_j}(x)}{\sum_i w_i p_i(x)} ,

    where constant factors w_y are left out. Two different labels of two densities are their harmonic mean, two equal
    ones a contrast: `sculpt([p, q], [1, 2], weights=[a, 1 - a])` is `harmonic_mean(p, q, alpha=a)`, and labels [1, 1]
    `contrast(p, q, alpha=a)`. More of one label sharpen the contrast; n different labels of n densities are high where
    all of them are. Exact for calibrated densities; otherwise the weights absorb the unknown ratios of normalisers, and
    a warning says so. See Garipov et al. (2023), Eq. 10.

    Args:
        densities: n >= 1 densities; one call evaluates each of them once.
        labels: Answers y_1, ..., y_k, at least one: numbers of densities from 1 to n, which may repeat.
        weights: Positive prior weights w_i, one per density, normalised to sum one; equal by default.
    """
    observed, mixed, count = _answers("sculpting", densities, labels, weights)
    prior = [] if count == 1 else [(mixed, 1.0 - count)]
    return combine("product", [*observed, *prior])


def observe(
    density: Density, densities: Sequence[Density], labels: int | Sequence[int], *, weights: Any = None
) -> Density:
    r"""Density :math:`p(x) \prod_j p_{y_j}(x) / \sum_i w_i p_i(x)` (unnormalised): p, once observers have answered.

    Sculpting goes on from whatever density there is: p is any composition, a sculpted one too, and each answer
    multiplies it by :math:`P(y_j | x)`, constant factors w_y left out. Chained they are `sculpt`:
    `observe(sculpt(d, [1]), d, [2, 3])` is `sculpt(d, [1, 2, 3])`, and `observe(mixture(*d), d, y)` is `d[y - 1]`. The
    observers of each call may know other densities than those of the call before: a tree of choices is a chain.

    Args:
        density: The density p. An answer is at most one, up to its factor w_y: what had finite mass still has.
        densities: What the observers choose among; one call evaluates each of them, and `density`, once.
        labels: One answer, or several.
        weights: Of `densities`, as of `sculpt`.
    """
    several = labels if isinstance(labels, list | tuple | np.ndarray) and np.ndim(labels) else [labels]
    observed, mixed, count = _answers("an observation", densities, several, weights)
    check_densities("an observation", (density, *densities))
    return combine("product", [(density, 1.0), *observed, (mixed, -float(count))])


def _answers(what: str, densities, labels, weights) -> tuple[list, Any, int]:
    """(the densities that labels name, and how often each; the densities' mixture; the number of labels)."""
    if not isinstance(densities, list | tuple):
        raise ArgumentTypeError(f"{what} takes a list of densities; got {type(densities).__name__}.")
    check_densities(what, densities)
    numbers = checked_labels(labels, len(densities))
    log_weights = log_weights_of(weights, len(densities))
    mixed = combine("mixture", list(zip(densities, log_weights, strict=True)))
    observed = [(density, float(numbers.count(i))) for i, density in enumerate(densities, 1) if i in numbers]
    return observed, mixed, len(numbers)


def checked_labels(labels: Any, count: int) -> list[int]:
    """Labels of `count` densities: numbers from 1, at least one."""
    if not isinstance(labels, list | tuple | np.ndarray) or np.ndim(labels) != 1 or len(labels) == 0:
        raise ParameterError(f"labels must be a list of at least one; got {labels!r}. Name densities by their numbers.")
    remedy = f"Labels are the densities' numbers: 1 is the first, {count} the last."
    return [check_integer("each of labels", label, 1, count, remedy) for label in labels]


def _log_shares(alpha: Any, weights: Any, count: int, alpha_first: bool) -> list[Any]:
    """Logarithms of the weights [count], which are given in either of two ways."""
    if alpha is None:
        return log_weights_of(weights, count)
    if weights is not None:
        pair = "(alpha, 1 - alpha)" if alpha_first else "(1 - alpha, alpha)"
        raise ParameterError(f"give alpha or weights, not both: weights = {pair}.")
    if count > 2:
        raise ParameterError(f"alpha weights two densities; got {count}. Give weights, one per density.")
    alpha = real("alpha", alpha)
    if not is_traced(alpha) and not 0 < alpha < 1:
        raise ParameterError(f"alpha must lie in (0, 1); got {alpha}. At the ends only one density is left: take that.")
    shares = [log_mass(alpha), log_rest(alpha)]
    return shares if alpha_first else shares[::-1]
