"""More chains or more levels? What of the distance to the truth is error of mode weights, and what takes it away.

    python benchmarks/peers/mode_weights.py [--seeds 12] [--only "product, d = 10"]

The problems of `peers.py` that are mixtures. Responsibilities r(x) [K] of their components tell mode weights from what
is left within modes, x less its expected component's mean: of 1,000 samples the mean of either is compared with the
truth's, squared, and divided by the same of 1,000 exact draws, so that 1 is the floor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial
from scipy.special import softmax

import numpyro_diffusion as nd
from benchmarks.paper import gmm_products
from benchmarks.peers import gmm, more_chains
from benchmarks.peers.chains import tempered_smc
from benchmarks.peers.registry import DRAWS, REFERENCE
from benchmarks.posteriors import linear_problem
from benchmarks.posteriors.posterior_gmm import model
from benchmarks.table import arguments, measure
from numpyro_diffusion.diagnose.metrics import sliced_wasserstein2
from numpyro_diffusion.diagnose.thinning import chosen

NAME, FLOOR_SETS = "mode_weights", 20
STEPS = {"num_steps": 1}
#: Number of chains in thousands, and what `nd.anneal` is told beside.
WAYS = {
    "default": (1, {}),
    "accuracy .05": (1, {"accuracy": 0.05}),
    "accuracy .01": (1, {"accuracy": 0.01}),
    "reverse steps, levels .95": (1, STEPS | {"level_ess": 0.95}),
    "reverse steps, levels .98": (1, STEPS | {"level_ess": 0.98}),
    "resampled below .9": (1, {"resample_threshold": 0.9}),
    "4,000 chains": (4, {}),
    "8,000 chains": (8, {}),
}
COLUMNS = ["W2 / floor", "mode weights", "within modes", "families", "levels", "evaluations", "seconds"]
HEADER = """# More chains or more levels

`python benchmarks/peers/mode_weights.py`: mixtures of `peers.py`, another problem for each seed (of forty modes other keys). Mean ± standard error over seeds, of 1,000 samples. Mode weights, within modes:
squared error of the mean responsibilities, and of the mean distance to the expected component's mean, over those of 1,000 exact draws. Evaluations: of value and gradient per sample *kept*,
the pilot's included. Families: effective number of founding chains. Of 4,000 and 8,000 chains every fourth or eighth is kept, or 1,000 by `nd.thinned`; tempered SMC has the budget of `peers.py`, of 4,000 particles a quarter
of it. Accuracy .05 is the default of `nd.anneal`,
.01 asks for as many levels as are of use. Reverse steps: weighted ones where the pilot finds that they pay, levels .95 or .98 apart in conditional ESS; .95 is the default of `nd.AnnealedMCMC`, by which
forty modes and posteriors are run.
"""


class Mixture(NamedTuple):
    """A problem: exact draws `draw(n)`, components, their points `centre` within x, `run(key, num_chains, **options)`,
    and `tempered(key, method, num_starts)`."""

    draw: Callable
    log_weights: np.ndarray
    means: np.ndarray
    centres: np.ndarray
    variance: float
    run: Callable
    tempered: Callable

    def parts(self, x):
        """Mean responsibilities [K], and mean of x less the expected centre [d]."""
        squared = np.sum(x**2, 1)[:, None] - 2 * x @ self.means.T + np.sum(self.means**2, 1)
        share = softmax(self.log_weights - 0.5 * squared / self.variance, axis=1)
        return share.mean(0), (x - share @ self.centres).mean(0)


def product(d: int, seed: int) -> Mixture:
    """The product of two mixtures of `gmm_products.py`."""
    p, q, means, log_w, _ = gmm_products.problem(d, seed)
    rng = np.random.default_rng(seed)

    def tempered(key, method, num_starts):
        start_key, key = jax.random.split(key)
        ends = Partial(gmm.log_density, p), Partial(gmm.log_density, q)
        return method(key, *ends, p.sample(start_key, num_starts), gmm.BUDGET[d])

    def run(key, num_chains, **options):
        return nd.anneal(key, p * q, num_chains=num_chains, progress_bar=False, **options)

    draw = functools.partial(gmm_products.draw_product, rng, means, log_w)
    return Mixture(draw, log_w, means, means, gmm_products.STD**2 / 2, run, tempered)


def forty(seed: int) -> Mixture:
    """Forty modes of which the log density alone is known."""
    means = np.asarray(gmm.forty().means, np.float64)

    def tempered(key, method, num_starts):
        start_key, key = jax.random.split(key)
        start = gmm.WIDE * jax.random.normal(start_key, (num_starts, 2))
        return method(key, Partial(gmm.log_wide), Partial(gmm.over_wide, gmm.forty()), start, gmm.FORTY_BUDGET)

    run = functools.partial(of_model, gmm.forty_model, (gmm.forty(),))
    draw = functools.partial(gmm.draw_forty, np.random.default_rng([40, seed]))
    return Mixture(draw, np.zeros(len(means)), means, means, gmm.STD**2, run, tempered)


def posterior(d: int, d_y: int, seed: int) -> Mixture:
    """The posterior of `linear_problem.py` under the exact prior."""
    from benchmarks.peers.linear import BUDGET, log_likelihood, log_prior

    p, prior = linear_problem.problem(d, d_y, seed), linear_problem.exact_prior(d)
    arrays = [jax.numpy.asarray(a, dtype=float) for a in (p.A, p.sigma_y, p.y)]
    covariance = p.A @ p.A.T + p.sigma_y**2 * np.eye(d_y)
    centres = p.means + np.linalg.solve(covariance, (p.y - p.means @ p.A.T).T).T @ p.A

    def tempered(key, method, num_starts):
        start = linear_problem.draw_prior(np.random.default_rng([3, seed]), p.means, p.log_weights, num_starts)
        return method(key, Partial(log_prior, prior), Partial(log_likelihood, *arrays), start, BUDGET)

    run = functools.partial(of_model, model, (prior, *arrays))
    draw = functools.partial(linear_problem.draw_posterior, np.random.default_rng([1, d, d_y, seed]), p)
    # Components lie 16 or more standard deviations apart: the nearest is the one, whatever its weight.
    return Mixture(draw, np.zeros(len(p.means)), p.means, centres, 1.0, run, tempered)


def of_model(of, arguments_, key, num_chains, **options):
    """`nd.AnnealedMCMC` that has run."""
    mcmc = nd.AnnealedMCMC(of, num_chains=num_chains, progress_bar=False, **options)
    mcmc.run(key, *arguments_)
    return mcmc


PROBLEMS = {f"product, d = {d}": functools.partial(product, d) for d in (2, 10, 30)} | {"forty modes": forty}
PROBLEMS |= {
    f"posterior, d = {d}, d_y = {d_y}": functools.partial(posterior, d, d_y) for d in (8, 80) for d_y in (1, 2)
}


@functools.cache
def reference(name: str, seed: int):
    """(problem, exact draws [REFERENCE, d], their parts, and the squared errors of FLOOR_SETS sets of exact draws)."""
    problem = PROBLEMS[name](seed)
    truth = problem.draw(REFERENCE)
    parts = problem.parts(truth)
    floor = np.mean([errors(problem, truth, parts, problem.draw(DRAWS)) for _ in range(FLOOR_SETS)], axis=0)
    return problem, truth, parts, floor


def errors(problem: Mixture, truth, parts, x):
    """W2, and squared errors of both parts."""
    return [sliced_wasserstein2(x, truth)] + [
        np.sum((a - b) ** 2) for a, b in zip(problem.parts(x), parts, strict=True)
    ]


def figures(name: str, sample, seed: int) -> dict:
    """The figures of `sample(problem, key)` -> (samples, more figures)."""
    problem, truth, parts, floor = reference(name, seed)
    x, more = sample(problem, jax.random.key(seed))
    found = errors(problem, truth, parts, np.asarray(x, np.float64).reshape(len(x), -1)) / floor
    return dict(zip(COLUMNS[:3], found, strict=True)) | more


def annealed(problem: Mixture, key, times: int, options: dict, *, thinned: bool):
    """A run of `times` x 1,000 chains."""
    found = problem.run(key, times * DRAWS, **options)
    run = getattr(found, "annealed", found)
    _, sizes = np.unique(np.asarray(run.ancestors), return_counts=True)
    x = nd.thinned(jax.random.fold_in(key, 1), run, DRAWS) if thinned else run.samples[::times]
    return x, {
        "families": len(run.samples) ** 2 / np.sum(sizes**2.0), "levels": len(run.levels),
        "evaluations": times * (found.evaluations_per_chain + run.pilot_evaluations),
    }  # fmt: skip


def exact(problem: Mixture, key, times: int):
    """Exact draws, of several times as many thinned."""
    x = problem.draw(times * DRAWS)
    return x[chosen(key, x, np.full(len(x), 1 / len(x)), DRAWS)], {}


def tempered(problem: Mixture, key, method, times: int):
    x, spent = problem.tempered(key, method, times * DRAWS)
    return x, {"evaluations": spent}


def all_rows(name: str):
    """(row name, function of the seed)."""
    ways = {
        "exact draws": functools.partial(exact, times=1),
        "8,000 exact draws, thinned": functools.partial(exact, times=8),
    }
    for way, (times, options) in WAYS.items():
        if times > 1:
            given = {"times": times, "options": options}
            ways[f"{way}, every {'fourth' if times == 4 else 'eighth'}"] = functools.partial(
                annealed, thinned=False, **given
            )
            ways[f"{way}, thinned"] = functools.partial(annealed, thinned=True, **given)
        else:
            ways[way] = functools.partial(annealed, times=1, options=options, thinned=False)
    ways["tempered SMC"] = functools.partial(tempered, method=tempered_smc, times=1)
    ways["tempered SMC, 4,000 particles, thinned"] = functools.partial(
        tempered, method=more_chains.tempered, times=more_chains.TIMES
    )
    return [(f"{name}: {way}", functools.partial(figures, name, sample)) for way, sample in ways.items()]


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=12)
    # Problem by problem: a killed table is whole for those it has.
    for name in list(PROBLEMS)[: 1 if options.quick else None]:
        measure(NAME, options, all_rows(name), HEADER, COLUMNS)
        options.fresh = False
