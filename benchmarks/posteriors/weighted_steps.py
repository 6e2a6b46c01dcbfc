"""Whether weighted reverse diffusion steps leave evidences unbiased, and what they save: against chains carried along.

python benchmarks/posteriors/weighted_steps.py [--seeds 100] [--only "posterior"]
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.paper.gmm_products import problem as product_problem
from benchmarks.posteriors.linear_problem import exact_prior, log_evidence, problem
from benchmarks.posteriors.posterior_gmm import model
from benchmarks.table import RESULTS, arguments, measure

NAME, CHAINS = "weighted_steps", 200
WAYS = {"carried": False, "steps": True, "chosen": None}
SIZES = [(d, which) for d in (2, 5, 10, 30) for which in range(4)] + [
    (d, d_y) for d in (8, 30, 80) for d_y in (1, 2, 4)
]
COLUMNS = ["ratio", "log Z error", "families", "families per evaluation", "evaluations", "seconds"]
HEADER = """# Evidences by weighted reverse diffusion steps

`python benchmarks/posteriors/weighted_steps.py`. Products of two Gaussian mixtures (`gmm_products.py`; four pairs in each dimension) and posteriors under a mixture prior
(`posterior_gmm.py`, the first problem of each size), whose evidence is known; 200 chains, HMC with one step at a level, levels .95 apart in conditional ESS. Mean ± standard error over seeds of the
sampler. Ratio: estimate of Z over Z, 1 in expectation. Families: effective number of founding chains; per evaluation: in thousandths. `carried`: from level to level in the
frame; `steps`: weighted reverse diffusion steps; `chosen`: level by level by the pilot, the default where `level_ess` is given.
"""


def composition(d: int, which: int, seed: int, way: bool | None) -> dict:
    """A product, `which` of its dimension."""
    p, q, _, _, truth = product_problem(d, which)
    options = {"level_ess": 0.95, "num_steps": 1, "predictor": way, "num_chains": CHAINS, "progress_bar": False}
    return figures(nd.anneal(jax.random.key(seed), p * q, **options), truth)


def posterior(d: int, d_y: int, seed: int, way: bool | None) -> dict:
    """A posterior."""
    p = problem(d, d_y, 0)
    options = {"level_ess": 0.95, "num_steps": 1, "predictor": way, "num_chains": CHAINS, "progress_bar": False}
    mcmc = nd.AnnealedMCMC(model, **options)
    mcmc.run(jax.random.key(seed), exact_prior(d), *(jnp.asarray(a, dtype=float) for a in (p.A, p.sigma_y, p.y)))
    return figures(mcmc.annealed, log_evidence(p))


def figures(run, truth: float) -> dict:
    """What a run found."""
    _, sizes = np.unique(np.asarray(run.ancestors), return_counts=True)
    families, error = CHAINS**2 / np.sum(sizes**2.0), run.log_evidence - truth
    return {
        "ratio": np.exp(error), "log Z error": error, "families": families,
        "families per evaluation": 1e3 * families / CHAINS / run.evaluations_per_chain,
        "evaluations": run.evaluations_per_chain,
    }  # fmt: skip


def report(found: dict) -> str:
    """How far the ratios are from 1, in standard errors."""
    lines = []
    for way in WAYS:
        scores = []
        for row, by_seed in found.items():
            ratios = np.array([f["ratio"] for f in by_seed])
            if row.endswith(f": {way}") and len(ratios) > 2:
                scores.append((ratios.mean() - 1) / (ratios.std(ddof=1) / np.sqrt(len(ratios))))
        if scores:
            within = np.mean(np.abs(scores) < 2)
            lines.append(
                f"{way}: {len(scores)} evidences, {within:.0%} within two standard errors, mean {np.mean(scores):+.2f}, "
                f"largest {np.max(np.abs(scores)):.1f}"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=100)
    rows = []
    for i, (d, which) in enumerate(SIZES[:4] if options.quick else SIZES):
        of, name = (
            (composition, f"product {which}, d = {d}") if i < 16 else (posterior, f"posterior, d = {d}, d_y = {which}")
        )
        rows += [(f"{name}: {way}", functools.partial(of, d, which, way=value)) for way, value in WAYS.items()]
    text = report(measure(NAME, options, rows, HEADER, COLUMNS))
    print(text)
    if not options.quick:
        with (RESULTS / f"{NAME}.md").open("a") as file:
            file.write("\n" + text)
