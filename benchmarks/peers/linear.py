"""Linear inverse problems under a mixture prior in eight dimensions: problems of `peers.py`, see `posteriors/linear_problem.py`."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import numpyro_diffusion as nd
from benchmarks.peers.chains import tempered_smc
from benchmarks.peers.registry import DRAWS, Method, Problem
from benchmarks.posteriors import linear_problem
from benchmarks.posteriors.linear_problem import draw_prior, exact_prior
from benchmarks.posteriors.posterior_gmm import Case, model

#: Evaluations per sample, and what a level of ours costs with two HMC steps of two leapfrogs, its pilot's share counted.
DIMENSION, BUDGET, PER_LEVEL = 8, 250, 7.5


def log_prior(density, x):
    """At t = 0, of a point [d]."""
    return density.log_density(x, 0.0)


def log_likelihood(A, sigma_y, y, x):
    """log N(y; A x, sigma_y^2 I) up to a constant."""
    return -0.5 * jnp.sum((y - A @ x) ** 2) / sigma_y**2


class Inverse(Case):
    """The methods of `posteriors/posterior_gmm.py` with one budget, and two more."""

    def budget(self, seed: int, of: str = "ours") -> int:
        return BUDGET

    def ours_with(self, seed: int, **options) -> dict:
        """By other levels."""
        A, sigma_y, y = self._arrays(seed)
        mcmc = nd.AnnealedMCMC(model, num_chains=DRAWS, progress_bar=False, **options)
        mcmc.run(jax.random.key(seed), exact_prior(self.d), A, sigma_y, y)
        found = linear_problem.figures(mcmc.get_samples()["x"], self.d, self.d_y, seed)
        return found | {"evaluations": mcmc.evaluations_per_chain, "pilot": mcmc.annealed.pilot_evaluations}

    def tempered(self, seed: int) -> dict:
        """BlackJAX, from draws of the prior."""
        p, arrays = linear_problem.problem(self.d, self.d_y, seed), self._arrays(seed)
        start = draw_prior(np.random.default_rng([3, seed]), p.means, p.log_weights, DRAWS)
        x, spent = tempered_smc(
            jax.random.key(seed),
            Partial(log_prior, exact_prior(self.d)),
            Partial(log_likelihood, *arrays),
            start,
            BUDGET,
        )
        return linear_problem.figures(x, self.d, self.d_y, seed) | {"evaluations": spent}


def as_distance(run):
    """The figures of a row by the names of the registry; ours counts its pilot."""

    def compute(seed: int) -> dict:
        found = run(seed)
        cost = found.pop("evaluations", None), found.pop("pilot", 0.0)
        floor = {"distance": found["W2"], "floor": found["W2"] / found["W2 / floor"]}
        return found | floor | ({} if cost[0] is None else {"evaluations": cost[0] + cost[1]})

    return compute


def inverse(d_y: int) -> Problem:
    """The table of d = 8 with d_y observations."""
    case = Inverse(DIMENSION, d_y, quick=False)
    equal = {"levels": int(BUDGET / PER_LEVEL), "num_steps": 2}
    rows = {
        "exact draws": ("the floor itself", case.floor),
        "ours, default": ("`nd.AnnealedMCMC(model)`", case.ours),
        "ours, equal evaluations": (
            f"{equal['levels']} levels, two HMC steps",
            functools.partial(case.ours_with, **equal),
        ),
        "ours, closer levels": (
            "`level_ess=0.98, num_steps=1`",
            functools.partial(case.ours_with, level_ess=0.98, num_steps=1),
        ),
        "DPS": ("Chung et al. 2023, rewritten; step weight tuned by the truth", case.dps),
        "TDS": ("Wu et al. 2023, rewritten", case.tds),
        "TDS, matched": ("the same, twist as in Song et al. 2023", functools.partial(case.tds, matched=True)),
        "tempered SMC": ("BlackJAX, from prior draws", case.tempered),
        "NUTS": ("NumPyro, from prior draws", case.nuts),
    }
    text = f"""y = A x + sigma_y eps, x of a mixture of 25 Gaussians (Cardoso et al. 2023), d = {DIMENSION}, d_y = {d_y}; another A, sigma_y and y for each seed. Distance: sliced W2 of {DRAWS:,}
samples to 20,000 exact posterior draws; lost samples count as prior draws. {BUDGET} evaluations of the prior for every peer. All know the exact prior, DPS and TDS at every noise level, tempered SMC and
NUTS at t = 0. DPS and TDS are made for linear or differentiable likelihoods of x alone."""
    return Problem(text, {name: Method(who, as_distance(run)) for name, (who, run) in rows.items()})
