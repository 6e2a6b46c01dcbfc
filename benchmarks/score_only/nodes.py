"""How many nodes of a line integral a step of a score-only density needs: bias of log evidences by their number.

python benchmarks/score_only/nodes.py [--seeds 10] [--only "d = 10"]
"""

from __future__ import annotations

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.score_only.problems import ScoreOf, loaders, problem
from benchmarks.table import arguments, measure

NAME, CHAINS, PROBLEMS = "score_nodes", 1000, 5
NAMES = ("product", "GMM product d = 10")
KERNELS = {
    "MALA, log density": nd.MALA(),
    **{f"MALA, {n} nodes": nd.MALA(num_nodes=n) for n in (3, 5, 9)},
    "HMC, 9 nodes": nd.HMC(num_nodes=9),
}
#: Two modes that steps cross between, in one dimension: the share of mass on the left of what parts them.
TWO, PARTING = "two modes", -0.2
LEVELS = {"": {}, ", 60 levels": {"levels": 60}}
COLUMNS = ["log Z error", "|log Z error|", "its own error", "left - truth", "acceptance", "evaluations", "seconds"]
HEADER = """# Nodes of line integrals

`python benchmarks/score_only/nodes.py`. Mean ± standard error over seeds; 1,000 chains, all else by default. Densities in closed form, of which only the score is read (or,
`log density`, both): ring * bar (`product`), narrow modes far apart, and products p q of `gmm_products.py` (five problems, by turns). log Z error: to the truth, in nats; its own
error: the standard error that runs report. A mean of the first beyond two of its standard errors is bias. `two modes`: .3 N(-1, .1) + .7 N(1.5, .3) times N(0, .5), whose modes
long steps cross between; left - truth: the share of draws below -.2, less that of the density.
"""


def row(name: str, kernel: nd.MALA | nd.HMC, is_score: bool):
    """Function of the seed."""

    def compute(seed: int) -> dict:
        asked = problem(name, seed % PROBLEMS)
        load = loaders("exact score" if is_score else "exact energy")
        if name != "product":
            load = ScoreOf if is_score else lambda density: density
        key, density = jax.random.key(seed), asked.compose(load, 0.0)
        run = nd.anneal(key, density, kernel, num_chains=CHAINS, progress_bar=False)
        error = run.log_evidence - asked.log_evidence
        return {
            "log Z error": error, "|log Z error|": abs(error), "its own error": run.log_evidence_error,
            "acceptance": np.mean(run.stats["acceptance_rate"]), "evaluations": run.evaluations_per_chain,
        }  # fmt: skip

    return compute


def two_modes(kernel: nd.MALA | nd.HMC, is_score: bool, settings: dict):
    """Function of the seed."""
    p = nd.exact.GaussianMixture([[-1.0], [1.5]], [[[0.1]], [[0.3]]], weights=[0.3, 0.7])
    q = nd.exact.GaussianMixture([[0.0]], [[[0.5]]])
    grid = np.linspace(-14, 14, 28_001)
    mass = np.exp(np.asarray((p * q).log_prob(grid[:, None]), np.float64))
    share, log_evidence = mass[grid < PARTING].sum() / mass.sum(), np.log(mass.sum() * (grid[1] - grid[0]))

    def compute(seed: int) -> dict:
        density = ScoreOf(p) * ScoreOf(q) if is_score else p * q
        run = nd.anneal(jax.random.key(seed), density, kernel, num_chains=CHAINS, progress_bar=False, **settings)
        left = nd.expectation(run, lambda x: x[0] < PARTING).value
        error = run.log_evidence - log_evidence
        return {
            "log Z error": error, "|log Z error|": abs(error), "its own error": run.log_evidence_error,
            "left - truth": float(left) - share, "acceptance": np.mean(run.stats["acceptance_rate"]),
            "evaluations": run.evaluations_per_chain,
        }  # fmt: skip

    return compute


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=10)
    rows = [
        (f"{name}: {title}", row(name, kernel, "nodes" in title)) for name in NAMES for title, kernel in KERNELS.items()
    ]
    rows += [
        (f"{TWO}{more}: {title}", two_modes(kernel, "nodes" in title, settings))
        for more, settings in LEVELS.items()
        for title, kernel in KERNELS.items()
    ]
    measure(NAME, options, rows, HEADER, COLUMNS)
