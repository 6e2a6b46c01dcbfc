r"""Posterior expectations and quantiles of particles, with standard errors by genealogy.

Particles of one founding chain (a family) are related, families are not: resampling is where they share a past, and
each founder was drawn by itself. With weights :math:`W_i` that sum to one and :math:`\mu = \sum_i W_i f_i`,

.. math:: e^2 = \sum_g \frac{\big( \sum_{i \in g} W_i (f_i - \mu) \big)^2}{1 - 2 W_g + s}, \qquad s = \sum_g W_g^2,

summed over families g of weight :math:`W_g`: the genealogical estimate of Lee and Whiteley (2018). The final weights
suffice: normalisers of earlier resamplings cancel in an expectation, and what a resampling did to a family (its
offspring) is in the family's weight. The denominators undo that the mean was fitted, to large families above all.
Relatives are never worth more than strangers: the same sum with every particle a family of its own is a lower limit,
which matters where few families are left. With one family there is nothing to compare, and the error is infinite.

Intervals are Student's, of as many degrees of freedom as variances of families count (Satterthwaite): a family of
correlation rho between relatives contributes :math:`\rho W_g^2 + (1 - \rho) \sum_{i \in g} W_i^2`, rho such that the
sum of these is the error.

A region that no draw has shown is not known to be empty, nor one that all are in to be everything. Of a share p, n
independent draws all miss it with probability :math:`(1 - p)^n`, so at the confidence 1 - a

.. math:: p \le 1 - a^{1/n} \approx -\log(a) / n, \qquad n = 1 / \sum_g W_g^2,

which is 3 / n at 95 %: Clopper and Pearson's limit, exact for strangers of equal weights, and wider for others. It
holds as far as what was missed would weigh no more than what was seen.

A quantile is where the distribution function F, itself an expectation, takes a value; of F(q) = p known from
effectively n draws, :math:`n = p (1 - p) / e^2`, the interval is that of Beta(n p + 1, n (1 - p) + 1), read off the
quantile function (as ArviZ does with effective sample sizes of chains). All of n draws lie below the quantile with
probability :math:`p^n`: where that is not small, nothing bounds it from above.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import betaincinv, ndtr, stdtrit

from ..errors import ArgumentTypeError, check_number
from .by_draw import by_draw
from .weights import normalised, pareto_tail, tied

#: Shape above which the contributions of a few families, seen or not, rule an error (Vehtari et al. 2024).
MOST_PARETO_K = 0.7


class Particles(NamedTuple):
    """Draws of a run: `samples`, a pytree [M, ...], `weight` [M] that sums to one, `founder` [M], of which of
    `num_chains` founding chains, and `island` [M], of which population (None for a single one)."""

    samples: Any
    weight: np.ndarray
    founder: np.ndarray
    num_chains: int
    island: np.ndarray | None = None

    @property
    def num_effective(self) -> float:
        """Effective number of families, 1 / sum of their squared weights."""
        return float(1 / np.sum(_sums(self.weight, self.founder) ** 2))


class Estimate(NamedTuple):
    """An expectation or a quantile, all fields of its shape.

    Attributes:
        value: The estimate.
        error: Its standard error, by genealogy; infinite where all particles descend from one chain. Of a function that
            is 0 at all draws, or 1, as of a region that none has shown, or none left: 1 / `num_effective`.
        num_effective: Independent draws of the same error: var f / error^2; of a quantile those of its distribution
            function.
        lower, upper: Confidence interval, wider than by a normal law where families are few. Of a quantile a limit is
            infinite where there are too few draws beyond it to tell; of what is 0 at all draws the upper one is about
            3 / `num_effective` at 95 %, see the module.
        pareto_k: Shape of the tail of families' contributions to the error of an expectation; above .7 a few, seen or
            not, rule it. NaN for quantiles, and where many of the largest are equal, as of an indicator.
        island_error: Standard error by islands, NaN unless there are at least two.
    """

    value: np.ndarray
    error: np.ndarray
    num_effective: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    pareto_k: np.ndarray
    island_error: np.ndarray


def expectation(run, fn: Callable | None = None, *, confidence: float = 0.95) -> Any:
    """Posterior expectation of a function, with its standard error by families of related particles.

    Args:
        run: Result of `nd.anneal`, or an `nd.AnnealedMCMC` that has run.
        fn: Function of one sample x [*event_shape], or of one draw's values by site; an array or a pytree of them. The
            sample itself by default.
        confidence: Of the interval, in (0, 1).

    Returns:
        Estimate, or a pytree of them like what `fn` returns.

    Raises:
        TypeError: if `run` is neither, or `fn` no function that JAX can map over draws.
        ParameterError: if `confidence` is out of range, or `fn` asks for a site that is not there.

    References:
        Lee and Whiteley (2018), Variance estimation in the particle filter. Biometrika 105(3).
    """
    confidence = check_number("confidence", confidence, 0.0, 1.0, ends="()")
    return _of_each(run, fn, partial(mean_of if fn is None else share_of, confidence=confidence))


def quantile(run, prob: float, fn: Callable | None = None, *, confidence: float = 0.95) -> Any:
    """Posterior quantile of a function, with its standard error by families of related particles.

    Args:
        run, fn, confidence: As for `expectation`; every number that `fn` returns has a quantile of its own.
        prob: Mass below the quantile, in (0, 1).

    Returns:
        Estimate, or a pytree of them like what `fn` returns. The error is half the length of the interval of one
        standard error, in units of f. NaN where `fn` is NaN at a draw, as for `expectation`.

    Raises:
        TypeError, ParameterError: as for `expectation`, and if `prob` is out of range.
    """
    shares = {
        "prob": check_number("prob", prob, 0.0, 1.0, ends="()"),
        "confidence": check_number("confidence", confidence, 0.0, 1.0, ends="()"),
    }
    return _of_each(run, fn, partial(quantile_of, **shares))


def _of_each(run, fn, estimate):
    if not hasattr(run, "particles"):
        raise ArgumentTypeError(
            f"expectations are those of the result of nd.anneal or of an nd.AnnealedMCMC; got {type(run).__name__}."
        )
    particles = run.particles
    values = particles.samples if fn is None else by_draw(fn, particles.samples, particles.weight > 0)
    return jax.tree.map(lambda leaf: estimate(np.asarray(leaf, dtype=float), particles), values)


def mean_of(values: np.ndarray, particles: Particles, confidence: float = 0.95) -> Estimate:
    """The mean of values [M, ...]."""
    values, particles = _alive(values, particles)
    mean, deviation = _centred(values, particles.weight)
    error, islands = _errors(deviation, particles)
    variance = np.tensordot(particles.weight, (values - mean) ** 2, 1)
    half = _student(variance, error, particles, confidence) * error
    return Estimate(
        mean, error, _effective(variance, error, particles), mean - half, mean + half, _shape(deviation, particles),
        islands,
    )  # fmt: skip


def share_of(values: np.ndarray, particles: Particles, confidence: float = 0.95) -> Estimate:
    """The mean of values [M, ...], bounded where they are 0 or 1 at all draws, as an indicator's may be."""
    found = mean_of(values, particles, confidence)
    values, particles = _alive(values, particles)
    never, always = (np.all(values == value, axis=0) for value in (0, 1))
    n = particles.num_effective
    most, error = 1 - (1 - confidence) ** (1 / n), np.where(never | always, 1 / n, found.error)
    lower, upper = np.where(always, 1 - most, found.lower), np.where(never, most, found.upper)
    return found._replace(error=error, lower=lower, upper=upper)


def quantile_of(values: np.ndarray, particles: Particles, prob: float, confidence: float = 0.95) -> Estimate:
    """The quantile of values [M, ...] below which the mass `prob` lies."""
    values, particles = _alive(values, particles)
    order = np.argsort(values, axis=0)
    weight = particles.weight.reshape(-1, *[1] * (values.ndim - 1))
    mass = np.cumsum(np.take_along_axis(np.broadcast_to(weight, values.shape), order, 0), axis=0)
    ascending = np.take_along_axis(values, order, 0)

    def inverse(p):
        # Half of a particle's own mass lies below it.
        middle = mass - 0.5 * np.take_along_axis(np.broadcast_to(weight, values.shape), order, 0)
        return _interpolated(p, middle, ascending)

    value = inverse(np.full(values.shape[1:], prob))
    mean, deviation = _centred((values <= value).astype(float), particles.weight)
    error, islands = _errors(deviation, particles)
    n = np.maximum(_effective(mean * (1 - mean), error, particles), 1.0)
    n = np.where(np.isinf(error), 0.0, n)  # one family: nothing is known
    wide = ndtr(_student(mean * (1 - mean), error, particles, confidence))

    def quantile(p):
        """Of the value, whose mass below has a beta law."""
        return inverse(betaincinv(n * prob + 1, n * (1 - prob) + 1, p))

    low, high = quantile(ndtr(-1.0)), quantile(ndtr(1.0))
    spread = np.where(np.isinf(error), np.inf, 0.5 * (high - low))
    with np.errstate(invalid="ignore", divide="ignore"):
        islands = np.asarray(islands * np.where(error > 0, spread / error, np.nan))
    least = 0.5 - 0.5 * confidence
    lower = np.where((1 - prob) ** n > least, -np.inf, quantile(1 - wide))
    upper = np.where(prob**n > least, np.inf, quantile(wide))
    # The tail of an indicator says nothing; and what is no number has no place among the others.
    found = Estimate(value, spread, n, lower, upper, np.full(value.shape, np.nan), islands)
    return Estimate(*(np.where(np.isnan(values).any(axis=0), np.nan, field) for field in found))


def _alive(values, particles: Particles) -> tuple[np.ndarray, Particles]:
    """Without particles of weight zero, whose values need not be finite."""
    keep = particles.weight > 0
    if keep.all() or not keep.any():
        return values, particles
    island = None if particles.island is None else particles.island[keep]
    kept = particles._replace(weight=particles.weight[keep], founder=particles.founder[keep], island=island)
    return values[keep], kept


def _centred(values, weight):
    """Weighted mean [...], and every particle's contribution W (f - mean) to its error [M, ...]."""
    # Exactly, where values are all the same.
    mean = values[0] + np.tensordot(weight, values - values[0], 1)
    return mean, weight.reshape(-1, *[1] * (values.ndim - 1)) * (values - mean)


def _sums(values, group) -> np.ndarray:
    """Sums [G, ...] of values [M, ...] by group."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    return np.add.reduceat(values[order], starts, axis=0)


def _error(deviation, weight, group):
    """Standard error with groups that are independent of one another; infinite for a single one."""
    size = _sums(weight, group)
    fitted = 1 - 2 * size + np.sum(size**2)
    if fitted.min() < 1e-12:
        return np.full(deviation.shape[1:], np.inf)
    return np.sqrt(np.tensordot(1 / fitted, _sums(deviation, group) ** 2, 1))


def _errors(deviation, particles: Particles):
    """Standard errors by families, and by islands."""
    weight, none = particles.weight, np.full(deviation.shape[1:], np.nan)
    # What never changes is known from several families; one has nothing to agree with.
    constant = np.all(deviation == 0, axis=0) & (len(np.unique(particles.founder)) > 1)
    alone = _error(deviation, weight, np.arange(len(weight)))
    error = np.maximum(_error(deviation, weight, particles.founder), alone)
    islands = none if particles.island is None else _error(deviation, weight, particles.island)
    return np.where(constant, 0.0, error), np.asarray(islands)


def _effective(variance, error, particles: Particles):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(error > 0, variance / error**2, particles.num_effective)


def _student(variance, error, particles: Particles, confidence: float) -> np.ndarray:
    """Standard errors [...] that make a confidence interval."""
    related = _sums(particles.weight, particles.founder) ** 2
    strange = _sums(particles.weight**2, particles.founder)
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = (error**2 / variance - strange.sum()) / (related.sum() - strange.sum())
    # Where all are strangers, both are the same.
    rho = np.clip(np.where(np.isfinite(rho), rho, 1.0), 0.0, 1.0)
    total = rho * related.sum() + (1 - rho) * strange.sum()
    both = 2 * rho * (1 - rho) * (related @ strange)
    squares = rho**2 * (related @ related) + both + (1 - rho) ** 2 * (strange @ strange)
    return stdtrit(np.maximum(total**2 / squares - 1, 1.0), 0.5 + 0.5 * confidence)


def _interpolated(p, mass, ascending):
    """Values at masses p [...], of ascending masses and values [M, ...]."""
    flat = (a.reshape(len(mass), -1).T for a in (mass, ascending))
    found = [np.interp(q, m, a) for q, m, a in zip(np.ravel(p), *flat, strict=True)]
    return np.reshape(found, np.shape(p))


def _shape(deviation, particles: Particles):
    """Pareto shapes [...] of the families' contributions."""
    by_founder = np.zeros((particles.num_chains, *deviation.shape[1:]))
    by_founder[np.unique(particles.founder)] = _sums(deviation, particles.founder)
    size = np.abs(by_founder).reshape(len(by_founder), -1)
    share = size / np.maximum(size.max(0), 1e-300)
    with np.errstate(divide="ignore"):
        shapes = np.asarray(_pareto(jnp.asarray(np.log(share).T)), dtype=float)
    return np.where(tied(share), np.nan, shapes).reshape(deviation.shape[1:])


_pareto = jax.jit(jax.vmap(lambda log_size: pareto_tail(log_size).pareto_k))


def particles_of(samples, log_weights, ancestors=None, num_islands: int = 1, num_draws: int = 1) -> Particles:
    """`num_draws` successive draws of each chain, of log weights [N] and founders [N] (each its own by default).

    `samples` are those of the first chain, then of the second, and so on; founders are numbered island by island.
    """
    weight = normalised(log_weights)
    founder = np.arange(len(weight)) if ancestors is None else np.asarray(ancestors)
    island = founder // (len(weight) // num_islands) if num_islands > 1 else None
    repeated = [None if a is None else np.repeat(a, num_draws) for a in (weight / num_draws, founder, island)]
    return Particles(samples, *repeated[:2], len(weight), repeated[2])  # pyright: ignore
