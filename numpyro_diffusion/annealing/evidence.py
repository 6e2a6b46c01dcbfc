r"""The standard error of an annealed log evidence, kept up as the run goes.

Whenever weights are folded into the evidence (at a resampling, and at the end) their mean is off by the mean of
:math:`d_i = w_i / \bar w - 1`. Chains of one founder are related, so deviations are summed by founder f, over all
folds, and founders count as independent (the genealogical estimate of Lee and Whiteley 2018, less what systematic
resampling adds to it by rounding numbers of offspring),

.. math:: e^2 = \sum_f \Big( \frac1N \sum_{\text{folds}} \frac{\sum_{i \in f} d_i}{\sqrt{(1 - s)(1 - v)}} \Big)^2 .

s is the sum of squared family sizes, as shares: the mean was fitted. v is the relative variance of the fold; that of
the logarithm, v / (1 - v), has no upper limit. Two things that a genealogy cannot see come on top: what the weights'
tail holds beyond the largest of them, and, for kernels that are not adjusted, how far their corrections, which average
to one at every level, have averaged to something else. Of islands, whose mean evidence is the estimate, deviations are
weighed by their shares of it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from ..diagnose.weights import pareto_tail

#: Standard errors by which the corrections of an unadjusted kernel may miss one.
MOST_CORRECTION = 2.0


class Account(NamedTuple):
    """What the error of an evidence is made of, up to the last fold.

    `deviation` [N] by founder; `tail_nats`, missed beyond the largest weights; `correction`, the log of the mean
    corrections of all levels.
    """

    deviation: jax.Array
    tail_nats: jax.Array
    correction: jax.Array


def new_account(num_chains: int, shape: tuple[int, ...] = ()) -> Account:
    """Of a run that has not begun; `shape` of the numbers of several islands."""
    return Account(jnp.zeros(num_chains), jnp.zeros(shape), jnp.zeros(shape))


def folded(account: Account, log_weight, ancestor, tail_nats=None) -> Account:
    """The account with weights [N] of chains with founders `ancestor` [N] folded in; `tail_nats` computed if None."""
    nats = account.tail_nats + (pareto_tail(log_weight).nats if tail_nats is None else tail_nats)
    return account._replace(deviation=account.deviation + _deviation(log_weight, ancestor), tail_nats=nats)


def together(account: Account, share) -> Account:
    """The account of the mean evidence of islands, whose own make the `share` [J] of it; founders by island [N]."""

    def of_all(values):
        # An island without a living chain has no share, and no error to speak of.
        share_of = share[:, None] if values.ndim > 1 else share
        return jnp.where(share_of > 0, share_of * values, 0.0)

    deviation = of_all(account.deviation.reshape(share.size, -1)).ravel()
    nats = jnp.log1p(jnp.sum(of_all(jnp.expm1(account.tail_nats))))
    return Account(deviation, nats, jnp.sum(of_all(account.correction)))


def _deviation(log_weight, ancestor):
    num_chains = log_weight.size

    def by_founder(values):
        return jnp.zeros(num_chains).at[ancestor].add(values) / num_chains

    relative = jnp.exp(log_weight - logsumexp(log_weight) + jnp.log(num_chains))
    size, deviation = by_founder(jnp.ones(num_chains)), by_founder(relative - 1)
    fitted = 1 - jnp.sum(size**2)
    variance = jnp.sum(deviation**2) / fitted
    scale = jax.lax.rsqrt(jnp.maximum(fitted * (1 - variance), 0.0))
    # One family, or one chain with all the weight: nothing to compare it with.
    lone = (fitted < 1e-6) | (variance > 1 - 1e-6)
    return jnp.where(lone, jnp.inf, jnp.where(deviation == 0, 0.0, deviation * scale))


@jax.jit
def evidence_error(account: Account, log_weight, ancestor, tail_nats=None):
    """Standard error of log Z, in nats, of a population with weights [N]; NaN for one chain, or none alive."""
    return error_of(folded(account, log_weight, ancestor, tail_nats), log_weight)


def error_of(account: Account, log_weight):
    """Standard error of an account into which the weights [N] have been folded."""
    if log_weight.size == 1:
        return jnp.full((), jnp.nan)
    deviation, nats, correction = account
    genealogy = jnp.sqrt(jnp.sum(deviation**2))
    error, gap = jnp.hypot(genealogy, nats), jnp.abs(correction)
    error = jnp.where(gap > MOST_CORRECTION * genealogy, jnp.maximum(error, gap), error)
    return jnp.where(jnp.any(jnp.isfinite(log_weight)), error, jnp.nan)
