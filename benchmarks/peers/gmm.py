"""Products of Gaussian mixtures in 2, 10 and 30 dimensions, and the mixture of forty modes: problems of `peers.py`.

The products are those of `paper/gmm_products.py`. The forty modes are those of Midgley et al. (2023, arXiv:2208.01893):
means uniform in [-40, 40]^2, standard deviations softplus(1), equal shares; one of them, all seeds alike.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.tree_util import Partial

import numpyro_diffusion as nd
from benchmarks.paper import gmm_products
from benchmarks.peers import more_chains
from benchmarks.peers.chains import nuts, tempered_smc
from benchmarks.peers.fkc import fkc
from benchmarks.peers.registry import DRAWS, REFERENCE, Method, Problem, by_w2, sets_of
from benchmarks.peers.superdiff import superdiff
from benchmarks.score_only.problems import ScoreOf

#: Evaluations of value and gradient per sample that all peers have.
BUDGET = {2: 200, 10: 400, 30: 400}
#: What a level costs with two HMC steps of two leapfrogs, its share of the pilot counted, and with one by line integrals.
PER_LEVEL, PER_SCORE_LEVEL = 7.5, 11
MORE_CHAINS = "default, as many chains as the evaluations allow, `nd.thinned`"
MORE_PARTICLES = f"{more_chains.TIMES * DRAWS:,} of them, `nd.thinned`"
HALF, STD, FORTY_BUDGET, WIDE = 40.0, float(np.log1p(np.e)), 400, 30.0


def log_density(density, x):
    """At t = 0, of a point [d]."""
    return density.log_density(x, 0.0)


def annealed(key, p, q, levels=None):
    """Ours: samples [n, d] of p q, and evaluations, the pilot's counted."""
    options = {} if levels is None else {"levels": levels, "num_steps": 2}
    run = nd.anneal(key, p * q, num_chains=DRAWS, progress_bar=False, **options)
    return run.samples, run.evaluations_per_chain + run.pilot_evaluations


def crowded(key, p, q, budget):
    """Ours by its defaults, with as many chains as the evaluations allow."""
    return more_chains.annealed(key, lambda count: nd.anneal(key, p * q, num_chains=count, progress_bar=False), budget)


def of_scores(key, p, q, budget):
    """Metropolis steps by line integrals, of scores alone and without weights; what tunes them is not counted."""
    levels = int(budget / PER_SCORE_LEVEL)
    run = nd.anneal(
        key, ScoreOf(p) * ScoreOf(q), nd.HMC(), num_chains=DRAWS, levels=levels, num_steps=1, progress_bar=False,
        resample_threshold=0.0,
    )  # fmt: skip
    return run.samples, run.evaluations_per_chain


def reverse(key, p, q, budget):
    """Reverse diffusion along the sum of scores."""
    levels = (p * q).schedule.levels(budget, smallest=0.005)
    run = nd.anneal(key, p * q, nd.Reverse(), num_chains=DRAWS, levels=levels, progress_bar=False)
    return run.samples, run.evaluations_per_chain + run.pilot_evaluations


def product(d: int) -> Problem:
    """The table of the product of two mixtures in d dimensions."""
    budget, levels = BUDGET[d], int(BUDGET[d] / PER_LEVEL)

    def row(sample):
        """Function of the seed that scores what `sample(key, p, q)` -> (x [n, d], evaluations) returns."""

        def compute(seed: int) -> dict:
            p, q, means, log_w, _ = gmm_products.problem(d, seed)
            rng = np.random.default_rng(seed)
            draw = functools.partial(gmm_products.draw_product, rng, means, log_w)
            truth = draw(REFERENCE)
            x, cost = (draw(DRAWS), None) if sample is None else sample(jax.random.key(seed), p, q)
            return by_w2(x, truth, sets_of(draw, truth), cost)

        return compute

    def at_zero(method, times=1):
        def sample(key, p, q):
            start_key, key = jax.random.split(key)
            start = p.sample(start_key, times * DRAWS)
            return method(key, Partial(log_density, p), Partial(log_density, q), start, budget)

        return sample

    methods = {
        "exact draws": Method("the floor itself", row(None)),
        "ours, default": Method("`nd.anneal(key, p * q)`", row(annealed)),
        "ours, equal evaluations": Method(
            f"{levels} levels, two HMC steps", row(functools.partial(annealed, levels=levels))
        ),
        "ours, more chains": Method(MORE_CHAINS, row(functools.partial(crowded, budget=budget))),
        "reverse diffusion": Method("sum of scores; Liu et al. 2022", row(functools.partial(reverse, budget=budget))),
        "Feynman-Kac correctors": Method(
            "Skreta et al. 2025, rewritten", row(lambda key, p, q: (fkc(key, p * q, DRAWS, budget).samples, budget))
        ),
        "SuperDiff AND": Method(
            "Skreta et al. 2024, rewritten",
            row(lambda key, p, q: (superdiff(key, p * q, DRAWS, budget, is_or=False), budget)),
        ),
        "line-integral HMC": Method(
            "Du et al. 2023, scores alone, unweighted", row(functools.partial(of_scores, budget=budget))
        ),
        "tempered SMC": Method("BlackJAX, from p's draws", row(at_zero(tempered_smc))),
        "tempered SMC, more particles": Method(MORE_PARTICLES, row(at_zero(more_chains.tempered, more_chains.TIMES))),
        "NUTS": Method("NumPyro, from p's draws", row(at_zero(nuts))),
    }
    text = f"""Two mixtures of four components, standard deviation 0.3, means uniform in [-1, 1]^{d}, two in common; another pair for each seed. Distance: sliced W2 of
{DRAWS:,} samples to {REFERENCE:,} exact draws. {budget} evaluations of both factors for every peer; `ours, default` takes what it takes, its pilot's counted. Tempered SMC
and NUTS know p and q at t = 0 alone. SuperDiff AND aims at points where both densities are equal, which is not the product."""
    return Problem(text, methods)


@functools.cache
def forty() -> nd.exact.GaussianMixture:
    """The mixture of forty modes."""
    means = np.random.default_rng(40).uniform(-HALF, HALF, (40, 2))
    return nd.exact.GaussianMixture(means, np.tile(STD**2 * np.eye(2), (40, 1, 1)), name="forty")


def draw_forty(rng, count: int) -> np.ndarray:
    """Exact draws [count, 2]."""
    means = np.asarray(forty().means, np.float64)
    return means[rng.integers(len(means), size=count)] + STD * rng.standard_normal((count, 2))


def log_wide(x):
    """N(0, WIDE^2 I), from which those who know no noise level begin."""
    return -0.5 * jnp.sum(x**2) / WIDE**2 - x.size * jnp.log(WIDE * jnp.sqrt(2 * jnp.pi))


def over_wide(density, x):
    """Log ratio of the target to what they begin with."""
    return density.log_density(x, 0.0) - log_wide(x)


def forty_model(target):
    """The target as a NumPyro model that knows no noise level of it: a wide normal, and the rest as a factor."""
    wide = nd.exact.GaussianMixture(np.zeros((1, 2)), [WIDE**2 * np.eye(2)], name="wide")
    x = numpyro.sample("x", nd.DiffusionPrior(wide))
    numpyro.factor("rest", over_wide(target, x))


def forty_modes() -> Problem:
    """The table of the mixture of forty modes."""

    def row(sample):
        def compute(seed: int) -> dict:
            draw = functools.partial(draw_forty, np.random.default_rng([40, seed]))
            truth = draw(REFERENCE)
            x, cost = (draw(DRAWS), None) if sample is None else sample(jax.random.key(seed))
            return by_w2(x, truth, sets_of(draw, truth), cost)

        return compute

    def ours(key, kernel=None, **options):
        run = nd.anneal(key, forty(), kernel, num_chains=DRAWS, progress_bar=False, **options)
        return run.samples, run.evaluations_per_chain + run.pilot_evaluations

    def alone(key, **options):
        mcmc = nd.AnnealedMCMC(forty_model, num_chains=DRAWS, progress_bar=False, **options)
        mcmc.run(key, forty())
        return mcmc.get_samples()["x"], mcmc.evaluations_per_chain + mcmc.annealed.pilot_evaluations

    def crowded(key):
        def run(count):
            mcmc = nd.AnnealedMCMC(forty_model, num_chains=count, progress_bar=False)
            mcmc.run(key, forty())
            return mcmc

        return more_chains.annealed(key, run, FORTY_BUDGET)

    def at_zero(method, times=1):
        def sample(key):
            start_key, key = jax.random.split(key)
            start = WIDE * jax.random.normal(start_key, (times * DRAWS, 2))
            return method(key, Partial(log_wide), Partial(over_wide, forty()), start, FORTY_BUDGET)

        return sample

    levels = {"levels": int(FORTY_BUDGET / PER_LEVEL), "num_steps": 2}
    methods = {
        "exact draws": Method("the floor itself", row(None)),
        "ours, default": Method("`nd.anneal(key, density)`", row(ours)),
        "ours, log density alone": Method("`nd.AnnealedMCMC(model)`", row(alone)),
        "ours, log density alone, equal evaluations": Method(
            f"{levels['levels']} levels, two HMC steps", row(functools.partial(alone, **levels))
        ),
        "ours, log density alone, more chains": Method(MORE_CHAINS, row(crowded)),
        "reverse diffusion": Method("exact scores", row(lambda key: ours(key, nd.Reverse(), levels=FORTY_BUDGET))),
        "tempered SMC": Method("BlackJAX", row(at_zero(tempered_smc))),
        "tempered SMC, more particles": Method(MORE_PARTICLES, row(at_zero(more_chains.tempered, more_chains.TIMES))),
        "NUTS": Method("NumPyro", row(at_zero(nuts))),
    }
    text = f"""Forty modes in [-40, 40]^2 (Midgley et al. 2023), one mixture for all seeds. Distance: sliced W2 of {DRAWS:,} samples to {REFERENCE:,} exact draws. `ours, default` and
reverse diffusion know the density at every noise level; the others its log density at t = 0 alone and begin with N(0, {WIDE:g}^2), ours as a factor of a NumPyro model. {FORTY_BUDGET} evaluations
for every peer."""
    return Problem(text, methods)
