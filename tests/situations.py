"""Situations in which what a run depends on changes between two calls, though its call reads the same.

Each is a model of one latent x ~ N(0, 1) with two observations y_i ~ N(x, s), and something it reads: `call()` gives
(model, args, kwargs), `change()` changes what is read, `log_evidence()` is that of the present values in closed form.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.stats import multivariate_normal

import numpyro_diffusion as nd

PRIOR = nd.exact.GaussianMixture(np.zeros((1, 1)), np.ones((1, 1, 1)), name="prior")
BEFORE, AFTER = np.array([1.0, 0.4]), np.array([-0.7, 1.9])


class Situation(NamedTuple):
    """See the module; `compiles` says whether the change is one of the program, not of values alone."""

    call: Callable[[], tuple[Any, tuple, dict]]
    change: Callable[[], None]
    log_evidence: Callable[[], float]
    compiles: bool = False


def evidence(y, s=1.0, variance=1.0, mean=0.0) -> float:
    """log p(y) for y_i ~ N(x, s), x ~ N(mean, variance)."""
    y = np.atleast_1d(np.asarray(y, dtype=float))
    covariance = variance * np.ones((len(y), len(y))) + np.asarray(s, dtype=float) ** 2 * np.eye(len(y))
    return float(multivariate_normal(np.full(len(y), mean), covariance).logpdf(y))


def observe(y, s=1.0, prior=PRIOR):
    """The model's body, given what it has read."""
    x = numpyro.sample("x", nd.DiffusionPrior(prior))
    numpyro.sample("y", dist.Normal(x[0], s).expand(jnp.shape(y)).to_event(jnp.ndim(y)), obs=y)


class Box:
    """An object that holds something; equal to itself alone, as most are."""

    def __init__(self, **held):
        self.__dict__.update(held)


@dataclasses.dataclass
class Record:
    y: Any
    s: float = 1.0


class Fields(NamedTuple):
    y: Any


def situation(held: Box, model, args=(), kwargs=None, *, change, of=lambda held: evidence(held.y), compiles=False):
    """A situation whose model and arguments are those at hand, and whose truth is a function of `held`."""
    return Situation(lambda: (model, args, kwargs or {}), change, lambda: of(held), compiles)


def setter(held, **values):
    def change():
        held.__dict__.update(values)

    return change
