"""Replica exchange beside annealing: accuracy, evaluations and memory, where the truth is known.

    python benchmarks/tempering/tempering.py [--quick] [--only "d = 80"]

Draws are 1,000 of either engine: the chains of an anneal, or 250 of each of four groups of replicas.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.posteriors.linear_problem import exact_prior, figures, problem
from benchmarks.posteriors.posterior_gmm import model
from benchmarks.speed import time_to_accuracy as accuracy
from benchmarks.table import arguments, measure
from numpyro_diffusion.annealing import advance as onward
from numpyro_diffusion.annealing.plan import Plan
from numpyro_diffusion.annealing.population import start
from numpyro_diffusion.annealing.settings import Settings
from numpyro_diffusion.annealing.tempering.ladder import enter, piece
from numpyro_diffusion.annealing.tempering.placing import PILOT_CHAINS
from numpyro_diffusion.annealing.tempering.rungs import rungs

DRAWS, GROUPS, THINNING = 1000, 4, 8
ENGINES = {
    "annealing": {"num_chains": DRAWS},
    "tempering": {"engine": "tempering", "num_chains": GROUPS, "num_samples": DRAWS // GROUPS, "thinning": THINNING},
}
COLUMNS = [
    "W2 / floor", "folded / floor", "log Z error", "log Z claimed", "evaluations", "replicas", "memory kB", "rungs",
    "swaps", "barrier", "tours", "seconds",
]  # fmt: skip
HEADER = f"""# Replica exchange beside annealing

`python benchmarks/tempering/tempering.py`. Mean ± standard error over seeds. {DRAWS:,} draws by `nd.HMC()` and the defaults of either engine; of tempering {DRAWS // GROUPS} of each of {GROUPS} groups, {THINNING} sweeps apart.

W2 / floor: sliced Wasserstein distance to exact draws, over that of exact draws; folded: of (|x|, |y|), which leaves the weights of the product's two modes out. log Z error: absolute; claimed: the standard error that
the run gives. Evaluations: of value and gradient per draw, the pilot and what places the rungs excluded. Replicas: chains that move at once ({PILOT_CHAINS} in the pilot of tempering, 256 or more in that of annealing). Memory: what the program that moves them takes beside the density: arguments,
results and intermediate values, as the compiler has laid them out, with all chains in one piece (first seed). Swaps: mean rate over pairs of neighbours; barrier: sum of refusal rates; tours: replicas that came from a fresh draw at t = 1 to t = 0. "in x": neighbours exchange
points x instead of frame coordinates (frame="identity"), on as many rungs as that asks for.

The product of Table 1 and the product of mixtures in ten dimensions are those of `speed.py`; posteriors those of `posterior_gmm.py` with the exact prior, d_y = 1, 2, 4 by turns of the seed.
"""


def described(run, density, metric: str, seed: int) -> dict:
    """What a run has cost; its memory, which hardly differs, of the first seed alone."""
    found = {"log Z claimed": run.log_evidence_error, "rungs": len(run.levels)}
    if isinstance(run, nd.TemperedRun):
        replicas = GROUPS * len(run.levels)
        found |= {
            "evaluations": run.evaluations_per_chain * GROUPS / len(run.samples), "swaps": run.stats["swap_rate"].mean(),
            "barrier": run.barrier, "tours": run.tours.sum(),
        }  # fmt: skip
    else:
        replicas = len(run.samples)
        found |= {"evaluations": run.evaluations_per_chain}
    return found | {"replicas": replicas, "memory kB": np.nan if seed else memory(run, density, metric) / 1000}


def memory(run, density, metric: str) -> float:
    """Bytes that the program which moves a run's chains takes, without the density's own arrays."""
    settings = Settings(chain_batch_size=None, metric=metric)
    scale = None if run.scale is None else np.stack([np.asarray(run.scale)] * len(run.levels))
    plan, kernel, key = (
        Plan(run.levels, run.stats["step_size"], scale),
        run.kernel.without_step_size(),
        jax.random.key(0),
    )
    if isinstance(run, nd.TemperedRun):
        levels = rungs(density, plan, "whitened")
        ladder = enter(density, levels, jnp.zeros((len(run.levels), GROUPS, int(np.prod(density.event_shape)))), key)
        centres = jnp.zeros(len(run.levels))
        # A piece of as many draws as a run of this many has.
        made = piece.lower(
            density, kernel, levels, ladder, key, 0, centres, num_draws=DRAWS // GROUPS // 25, thinning=run.thinning,
            settings=settings,
        )  # fmt: skip
    else:
        population = start(density, key, num_chains=DRAWS, frame_kind="whitened")
        made = onward.advance.lower(density, kernel, population, key, plan.at(1), 0.5, settings)
    used = made.compile().memory_analysis()
    own = sum(a.nbytes for a in jax.tree.leaves(density))
    return used.temp_size_in_bytes + used.argument_size_in_bytes + used.output_size_in_bytes - own


def known(name: str, seed: int, kernel=None, **options) -> dict:
    """A problem of `speed.py`."""
    of = accuracy.problem(name)
    run, samples = of.run(jax.random.key(seed), kernel, **options)
    w2, *folded = of.distances(samples) / of.floors
    figures = {"W2 / floor": w2, "log Z error": abs(run.log_evidence - of.evidence)}
    return figures | ({"folded / floor": folded[0]} if folded else {}) | described(run, run.density, "frame", seed)


def posterior(d: int, seed: int, kernel=None, **options) -> dict:
    """A problem of `posterior_gmm.py`."""
    d_y = (1, 2, 4)[seed % 3]
    p = problem(d, d_y, seed // 3)
    if "thinning" in options:
        # Of which every thinning-th is kept, as NumPyro has it.
        options["num_samples"] *= options["thinning"]
    mcmc = nd.AnnealedMCMC(model, kernel, progress_bar=False, **options)
    arrays = (jnp.asarray(a, dtype=float) for a in (p.A, p.sigma_y, p.y))
    mcmc.run(jax.random.key(seed), exact_prior(d), *arrays)
    found = figures(mcmc.get_samples()["x"], d, d_y, seed // 3, mcmc.log_evidence)
    kept = {"W2 / floor": found["W2 / floor"], "log Z error": abs(found["log Z error"])}
    return kept | described(mcmc.annealed, mcmc.joint, "pilot", seed)


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=9)
    problems = {
        "product": functools.partial(known, "product"), "mixtures, d = 10": functools.partial(known, "mixture"),
        "posterior, d = 8": functools.partial(posterior, 8), "posterior, d = 80": functools.partial(posterior, 80),
    }  # fmt: skip
    rows = [
        (f"{title}: {engine}", functools.partial(fn, **settings))
        for title, fn in problems.items()
        for engine, settings in ENGINES.items()
    ]
    in_x = ENGINES["tempering"] | {"frame": "identity"}
    rows.append(("product: tempering in x", functools.partial(problems["product"], **in_x)))
    rows += [
        (f"{title}: tempering, MALA", functools.partial(fn, kernel=nd.MALA(), **ENGINES["tempering"]))
        for title, fn in problems.items()
    ]
    measure("tempering", options, rows, HEADER, COLUMNS)
