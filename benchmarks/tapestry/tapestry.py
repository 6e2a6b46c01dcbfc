"""Tapestries against truth: evidence, covariance across seams and where eight windows overlap, by sampler.

python benchmarks/tapestry/tapestry.py [--seeds 5] [--only "field, 8-fold"] [--quick]
"""

from __future__ import annotations

import functools

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure
from benchmarks.tapestry.averaging import averaged
from benchmarks.tapestry.problems import PROBLEMS, SIDE, field, truth

NAME = "tapestry"
CHAINS, LEVELS = 2000, 20
#: Seven evaluations a level, of reverse diffusion as many levels.
KERNELS = {
    "ULA": (nd.ULA(), 6), "MALA": (nd.MALA(), 6), "HMC": (nd.HMC(num_integration_steps=3), 2),
}  # fmt: skip
COLUMNS = [
    "log Z - truth",
    "seam, %",
    "overlap, %",
    "covariance, %",
    "modes",
    "of the field, %",
    "evaluations",
    "seconds",
]
HEADER = f"""# Tapestries against truth

`python benchmarks/tapestry/tapestry.py`: windows of 4x4 pixels on canvases of 8x8 (4x8 where patches overlap), read from a Gaussian field or from patches of two modes, bright and dark;
their product is known in closed form. {CHAINS:,} chains. Errors in % of the truth of the stated product: covariance of neighbours across all seams (tiled: of none, in % of the variance), variance where most
windows overlap, all covariances (relative Frobenius norm; `exact draws` show what {CHAINS:,} samples leave). Modes: total variation of the masses of the product's terms. Of the field:
the same seam covariances against those of the whole field that the windows are cut out of. Fields have a window of 2x2 means at weight 1/4 beside. `averaged`: noise vectors averaged
pixel by pixel (MultiDiffusion); `tapered`: with the paper's weights, and two Langevin steps after each step of reverse diffusion. Mean ± standard error over seeds.
"""


@functools.cache
def known(name: str):
    """A problem, the truth of it, and its covariance."""
    problem = PROBLEMS[name]()
    exact = truth(problem.canvas)
    return problem, exact, exact.covariance


def figures(name: str, x, log_evidence: float = np.nan) -> dict:
    """Errors of samples [N, D] and of a log evidence."""
    problem, exact, expected = known(name)
    found, (a, b) = np.cov(x.T), problem.seams.T
    most = np.ravel(problem.counts) == problem.counts.max()
    across = expected[a, b].mean()
    scale = across if abs(across) > 0.05 else np.diag(expected).mean()
    shares = np.bincount(exact.terms_of(x), minlength=len(exact.shares)) / len(x)
    height, width = problem.canvas.event_shape
    whole = field(height, width)[a, b].mean()
    return {
        "log Z - truth": log_evidence - exact.log_evidence,
        "seam, %": 100 * (found[a, b].mean() - across) / scale,
        "overlap, %": 100 * (np.diag(found)[most].mean() / np.diag(expected)[most].mean() - 1),
        "covariance, %": 100 * np.linalg.norm(found - expected) / np.linalg.norm(expected),
        "modes": 0.5 * np.abs(shares - exact.shares).sum() if len(shares) > 1 else np.nan,
        "of the field, %": 100 * (found[a, b].mean() / whole - 1) if name.startswith("field") else np.nan,
    }  # fmt: skip


def annealed(name: str, density, kernel, seed: int, **settings) -> dict:
    """Figures of a run."""
    run = nd.anneal(
        jax.random.key(seed), density, kernel, num_chains=CHAINS, levels=settings.pop("levels", LEVELS),
        progress_bar=False, **settings,
    )  # fmt: skip
    x = np.asarray(run.samples, np.float64).reshape(CHAINS, -1)
    return figures(name, x, run.log_evidence) | {"evaluations": run.evaluations_per_chain}


def rows_of(name: str):
    """(row name, function of the seed)."""
    canvas = lambda: known(name)[0].canvas

    def by_averages(seed, **how):
        """The tapered one takes as many evaluations: three a step."""
        steps = 7 * LEVELS // (1 + how.get("corrections", 0))
        x = averaged(jax.random.key(seed), canvas(), (SIDE, SIDE), CHAINS, steps, **how)
        return figures(name, np.asarray(x, np.float64).reshape(CHAINS, -1)) | {"evaluations": 7 * LEVELS}

    coarse = 0.25 if name.startswith("field") else 0.0
    rows = {
        "exact draws": lambda seed: figures(name, known(name)[1].sample(seed, CHAINS), known(name)[1].log_evidence),
        "averaged": by_averages,
        "tapered": functools.partial(by_averages, border=1, coarse=coarse, corrections=2),
        "reverse": lambda seed: annealed(name, canvas(), nd.Reverse(), seed, levels=7 * LEVELS),
    }
    for label, (kernel, steps) in KERNELS.items():
        rows[label] = functools.partial(_kernel, name, canvas, kernel, steps)
    return [(f"{name}: {label}", fn) for label, fn in rows.items()]


def _kernel(name, canvas, kernel, steps, seed):
    return annealed(name, canvas(), kernel, seed, num_steps=steps)


if __name__ == "__main__":
    options = arguments(__doc__ or "")
    measure(NAME, options, [row for name in PROBLEMS for row in rows_of(name)], HEADER, COLUMNS)
