"""Why a posterior's mode weights scatter: what of an annealed run decides it, one thing at a time.

    python benchmarks/posteriors/ablations.py [--seeds 20] [--only "d = 80, d_y = 1"]

Rows of one case do not depend on each other, but for those of other methods, which take the budget of `before`.
"""

from __future__ import annotations

from unittest import mock

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.posteriors.linear_problem import DRAWS, figures
from benchmarks.posteriors.posterior_gmm import Case, exact_prior, model
from benchmarks.table import arguments, measure
from numpyro_diffusion.annealing import loop

NAME = "posterior_ablations"
#: What an annealed run was before steps had weights, and single changes of it.
BEFORE = {"level_ess": 0.98, "num_steps": 2, "predictor": False}
THREE, FEWER = nd.HMC(num_integration_steps=3), nd.HMC(num_integration_steps=2)
ANNEALED = {
    "before": (THREE, BEFORE),
    "steps": (THREE, BEFORE | {"predictor": True}),
    "as the pilot chooses": (THREE, BEFORE | {"predictor": None}),
    "MALA x 2, levels twice": (nd.MALA(), BEFORE | {"level_ess": 0.99}),
    "MALA x 2, levels twice, steps": (nd.MALA(), BEFORE | {"level_ess": 0.99, "predictor": True}),
    "MALA x 2, as many evaluations, steps": (nd.MALA(), BEFORE | {"level_ess": 0.997, "predictor": True}),
    "denoised view": (THREE, BEFORE | {"view": "denoised"}),
    "denoised view, steps": (THREE, BEFORE | {"view": "denoised", "predictor": True}),
    "frame's metric": (THREE, BEFORE | {"metric": "frame"}),
    "frame's metric, steps": (THREE, BEFORE | {"metric": "frame", "predictor": True}),
    "resampled below .9": (THREE, BEFORE | {"resample_threshold": 0.9}),
    "resampled below .2": (THREE, BEFORE | {"resample_threshold": 0.2}),
    "six steps a level": (THREE, BEFORE | {"num_steps": 6}),
    "default": (None, {}),
    "default, chains in any order": (None, {}),
    "default, resampled below .7": (None, {"resample_threshold": 0.7}),
    "accuracy .03": (None, {"accuracy": 0.03}),
}
COLUMNS = ["W2 / floor", "TV", "mean", "log Z error", "families", "levels", "resamplings", "evaluations", "seconds"]
HEADER = """# What decides the mode weights of a posterior

`python benchmarks/posteriors/ablations.py`: the problems of `posterior_gmm.py` with the exact prior and 1,000 chains. Mean ± standard error over seeds, each with another
linear problem. Mean: squared error of the mean times 1,000 over the trace of the covariance, 1 for exact draws. Families: effective number of founding chains, 1 / sum of their squared shares. `before`: levels .98 apart in conditional ESS, two steps of three leapfrogs, chains
carried from level to level in the frame; other rows change what they say. `steps`: weighted reverse diffusion steps from level to level. TDS, matched: twisted particles
at the evaluations of `before`. Rows before `default` were measured when chains were resampled in any order, as `default, chains in any order` is.
"""


class Ablations(Case):
    """The rows of one problem size."""

    def all_rows(self):
        """(row name, function of the seed)."""
        rows = {name: lambda seed, name=name: self.annealed(seed, name) for name in ANNEALED}
        rows |= {"TDS, matched": lambda seed: self.tds(seed, matched=True), "noise floor": self.floor}
        return [(f"{self.title}: {name}", fn) for name, fn in rows.items()]

    def annealed(self, seed: int, name: str) -> dict:
        """One run."""
        kernel, options = ANNEALED[name]
        A, sigma_y, y = self._arrays(seed)
        mcmc = nd.AnnealedMCMC(model, kernel, num_chains=DRAWS, progress_bar=False, **options)
        is_ordered = name != "default, chains in any order"
        with mock.patch.object(loop, "ordered", loop.ordered if is_ordered else lambda population, x, mesh: population):
            mcmc.run(jax.random.key(seed), exact_prior(self.d), A, sigma_y, y)
        run = mcmc.annealed
        _, sizes = np.unique(np.asarray(run.ancestors), return_counts=True)
        found = figures(mcmc.get_samples()["x"], self.d, self.d_y, seed, mcmc.log_evidence)
        return found | {
            "families": DRAWS**2 / np.sum(sizes**2.0), "levels": len(run.levels),
            "resamplings": int(np.sum(run.stats["resampled"])), "evaluations": mcmc.evaluations_per_chain,
        }  # fmt: skip

    def budget(self, seed: int, of: str = "before") -> int:
        """Evaluations of `before`: about 7 at each of its levels, the same for all methods that are compared with it."""
        return {8: 430, 80: 420}[self.d]


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=20)
    sizes = [(8, 1)] if options.quick else [(d, d_y) for d in (8, 80) for d_y in (1, 2, 4)]
    rows = [row for size in sizes for row in Ablations(*size, options.quick).all_rows()]
    measure(NAME, options, rows, HEADER, COLUMNS)
