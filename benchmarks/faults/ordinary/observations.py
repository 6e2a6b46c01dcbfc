"""Situations whose data are no plain floats: counts, labels, masks, groups, sparse designs."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import scipy.sparse
from scipy import stats
from scipy.special import logsumexp
from situations import BEFORE, PRIOR, Box, Situation, evidence, setter, situation

import numpyro_diffusion as nd

GRID = np.linspace(-9.0, 9.0, 6001)


def by_quadrature(log_likelihood) -> float:
    """log of the integral of N(x; 0, 1) exp(log_likelihood(x [n])), in double precision."""
    return float(logsumexp(stats.norm.logpdf(GRID) + log_likelihood(GRID)) + np.log(GRID[1] - GRID[0]))


def latent():
    return numpyro.sample("x", nd.DiffusionPrior(PRIOR))[0]


def _discrete(likelihood, of, before, after):
    """Observations that are no floats, changed from `before` to `after`, as an argument."""
    held = Box(y=before)

    def model(y):
        numpyro.sample("y", likelihood(latent()).expand(jnp.shape(y)).to_event(1), obs=y)

    call = lambda: (model, (held.y,), {})
    truth = lambda: by_quadrature(lambda x: sum(of(np.asarray(y), x) for y in held.y))
    return Situation(call, setter(held, y=after), truth)


def counts():
    poisson = lambda y, x: stats.poisson.logpmf(y, np.exp(x))
    return _discrete(lambda x: dist.Poisson(jnp.exp(x)), poisson, np.array([0, 0, 0]), np.array([5, 7, 4]))


def small_counts_in_bytes():
    binomial = lambda y, x: stats.binom.logpmf(int(y), 9, 1 / (1 + np.exp(-x)))
    likelihood = lambda x: dist.Binomial(9, logits=x)
    return _discrete(likelihood, binomial, np.array([8, 7], np.uint8), np.array([2, 1], np.uint8))


def booleans():
    bernoulli = lambda y, x: stats.bernoulli.logpmf(int(y), 1 / (1 + np.exp(-x)))
    likelihood = lambda x: dist.Bernoulli(logits=x)
    return _discrete(likelihood, bernoulli, np.array([True, True, True]), np.array([False, True, False]))


def labels():
    score = np.array([1.0, 0.0, -1.0])
    categorical = lambda y, x: score[int(y)] * x - logsumexp(score[:, None] * x, axis=0)
    likelihood = lambda x: dist.Categorical(logits=jnp.asarray(score) * x)
    return _discrete(likelihood, categorical, np.array([0, 0, 1]), np.array([2, 1, 2]))


def a_number_of_trials():
    held = Box(n=9)
    model = lambda: numpyro.sample("y", dist.Binomial(held.n, logits=latent()), obs=4)
    of = lambda held: by_quadrature(lambda x: stats.binom.logpmf(4, held.n, 1 / (1 + np.exp(-x))))
    return situation(held, model, change=setter(held, n=5), of=of)


def a_masked_array():
    held = Box(y=np.ma.MaskedArray(BEFORE, [False, True]))

    def model(y, is_there):
        x = latent()
        with numpyro.plate("i", 2), numpyro.handlers.mask(mask=jnp.asarray(is_there)):
            numpyro.sample("y", dist.Normal(x, 1.0), obs=jnp.asarray(y))

    call = lambda: (model, (held.y.data, ~held.y.mask), {})
    change = setter(held, y=np.ma.MaskedArray(BEFORE, [True, False]))
    return Situation(call, change, lambda: evidence(held.y.compressed()))


def a_sparse_design():
    held = Box(a=scipy.sparse.csr_matrix([[1.0], [0.0]]))

    def model(design):
        loc = jnp.asarray(design.toarray()) @ latent()[None]
        numpyro.sample("y", dist.Normal(loc, 1.0).to_event(1), obs=BEFORE)

    def of(held):
        loc = GRID[:, None] * held.a.toarray().ravel()
        return by_quadrature(lambda _: stats.norm.logpdf(BEFORE, loc).sum(-1))

    def change():
        held.a[0, 0], held.a[1, 0] = -2.0, 1.0

    return situation(held, model, (held.a,), change=change, of=of)


def groups_of_a_frame():
    frame = pd.DataFrame({"y": [1.0, 0.4, -0.7], "group": pd.Categorical(["a", "b", "b"])})
    weight = jnp.array([1.0, -2.0])

    def model(frame):
        loc = latent() * weight[jnp.asarray(frame["group"].cat.codes.to_numpy().astype(np.int32))]
        numpyro.sample("y", dist.Normal(loc, 1.0), obs=frame["y"].to_numpy())

    def change():
        frame["group"] = pd.Categorical(["b", "a", "a"])

    def of(frame):
        loc = GRID[:, None] * np.asarray(weight)[frame["group"].cat.codes.to_numpy()]
        return by_quadrature(lambda _: stats.norm.logpdf(frame["y"].to_numpy(), loc).sum(-1))

    return situation(frame, model, (frame,), change=change, of=of)
