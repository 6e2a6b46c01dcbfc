"""Held-out digits measured with unknown gain and noise: are the posteriors' intervals right, and their means good?

python benchmarks/posteriors/digits_posterior.py [--quick] [--only inpainting]
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.posteriors.digits_problem import TASKS, measured, operator, simulate
from benchmarks.posteriors.guided import dps
from benchmarks.table import arguments, measure
from numpyro_diffusion.datasets import digits

CHAINS, IMAGES = 256, 8
STEP_WEIGHTS = (0.1, 0.3, 1.0)
COLUMNS = [
    "RMSE", "cover 80 %", "cover 95 %", "width 80 %", "gain cover 80 %", "sigma cover 80 %", "log evidence", "evaluations",
    "seconds",
]  # fmt: skip
HEADER = """# Posteriors of held-out digits

`python benchmarks/posteriors/digits_posterior.py`. Mean ± standard error over seeds of 8 held-out scans each (dequantised, with the density's least noise 0.03), another
random mask, gain and noise scale for every scan. y = g A x + sigma eps with g ~ LogNormal(0, 0.2) and sigma ~ HalfNormal(0.3), both unknown. Coverage: share of
pixels (inpainting: those that were not measured) inside the central 80 % and 95 % intervals of 256 posterior draws; 80 and 95 are right. RMSE: of the posterior
mean, on the same pixels; pixels lie in [-1, 1]. log evidence: mean log p(y) over scans, in nats: the larger, the better the prior predicts the data.

Rows. digits: `nd.AnnealedMCMC` with the shipped density. Gaussian: the same with the Gaussian of the training scans' mean and covariance. mixture: the same with a full-covariance
Gaussian mixture of 10 components (scikit-learn, reg_covar 1e-3). DPS: guided reverse diffusion (Chung et al. 2023) with the shipped density, given the true gain, at the evaluations of the first row; its step weight is the best of 0.1,
0.3, 1 by the RMSE on 6 training scans.
"""


@functools.cache
def prior(kind: str) -> nd.Density:
    """The density of a row."""
    if kind == "digits":
        return nd.load_pretrained("digits")
    x = digits.dequantise(jax.random.key(0), digits.images("train")[0])
    x = np.asarray(x + 0.03 * jax.random.normal(jax.random.key(1), x.shape))
    if kind == "Gaussian":
        return nd.exact.GaussianMixture([x.mean(0)], [np.cov(x.T)])
    from sklearn.mixture import GaussianMixture

    fit = GaussianMixture(10, reg_covar=1e-3, random_state=0).fit(x)
    return nd.exact.GaussianMixture(fit.means_, fit.covariances_, fit.weights_)


def problems(task: str, seed: int, split: str, count: int):
    """(A, truth with x, gain, sigma and y) of `count` scans."""
    rng = np.random.default_rng([seed, len(split)])
    scans = digits.images(split)[0]
    chosen = scans[rng.choice(len(scans), count, replace=False)]
    for i, scan in enumerate(chosen):
        x = scan + digits.STEP * (rng.uniform(size=64) - 0.5) + 0.03 * rng.standard_normal(64)
        A = operator(task, 100 * seed + i)
        yield A, {"x": x} | simulate(rng, A, x)


def score(task: str, A, truth, x, others: dict) -> dict:
    """Figures of posterior draws x [n, 64], and of the other latents."""
    hidden = ~A.any(0) if task == "inpainting" else np.ones(64, bool)
    x, true = x[:, hidden], truth["x"][hidden]
    result = {"squared error": np.mean((x.mean(0) - true) ** 2)}
    for level in (80, 95):
        low, high = np.percentile(x, [50 - level / 2, 50 + level / 2], axis=0)
        result[f"cover {level} %"] = 100 * np.mean((true > low) & (true < high))
        if level == 80:
            result["width 80 %"] = np.mean(high - low)
    for name, draws in others.items():
        low, high = np.percentile(draws, [10, 90])
        result[f"{name} cover 80 %"] = 100 * float(low < truth[name] < high)
    return result


def summed_up(rows: list[dict]) -> dict:
    """Means over scans."""
    result = {k: float(np.mean([row[k] for row in rows])) for k in rows[0]}
    return result | {"RMSE": np.sqrt(result["squared error"])}


def ours(seed: int, task: str, kind: str, count: int) -> dict:
    """Annealed MCMC of x, gain and noise scale."""
    rows = []
    for i, (A, truth) in enumerate(problems(task, seed, "test", count)):
        mcmc = nd.AnnealedMCMC(measured, nd.HMC(), num_chains=CHAINS, level_ess=0.95, progress_bar=False)
        arrays = (jnp.asarray(a, dtype=float) for a in (A, truth["y"]))
        mcmc.run(jax.random.fold_in(jax.random.key(seed), i), nd.DiffusionPrior(prior(kind)), *arrays)
        draws = {k: np.asarray(v) for k, v in mcmc.get_samples().items()}
        row = score(task, A, truth, draws["x"].reshape(CHAINS, 64), {k: draws[k] for k in ("gain", "sigma")})
        rows.append(row | {"log evidence": mcmc.log_evidence, "evaluations": mcmc.evaluations_per_chain})
    return summed_up(rows)


@functools.cache
def step_weight(task: str, budget: int) -> float:
    """The weight with the least error on training scans."""
    trials = list(problems(task, 99, "train", 6))
    errors = [np.mean([guided(task, *p, zeta, budget, 0)["squared error"] for p in trials]) for zeta in STEP_WEIGHTS]
    return STEP_WEIGHTS[int(np.argmin(errors))]


def guided(task, A, truth, zeta, budget, seed) -> dict:
    """DPS with the true gain."""
    scaled = jnp.asarray(truth["gain"] * A, dtype=float)
    x = dps(prior("digits"), jax.random.key(seed), scaled, jnp.asarray(truth["y"], dtype=float), zeta, CHAINS, budget)
    return score(task, A, truth, np.nan_to_num(np.asarray(x)).reshape(CHAINS, 64), {})


def dps_row(seed: int, task: str, count: int, budget: int) -> dict:
    """Guided reverse diffusion."""
    zeta = step_weight(task, budget)
    rows = [guided(task, A, truth, zeta, budget, seed) for A, truth in problems(task, seed, "test", count)]
    return summed_up(rows) | {"evaluations": 2 * (budget // 2), "zeta": zeta}


if __name__ == "__main__":
    options = arguments(__doc__ or "")
    count = 2 if options.quick else IMAGES
    table = []
    for task in TASKS:
        for kind in ("digits", "Gaussian", "mixture"):
            table.append((f"{task}: {kind}", functools.partial(ours, task=task, kind=kind, count=count)))
        table.append((f"{task}: DPS", functools.partial(dps_row, task=task, count=count, budget=500)))
    measure("digits_posterior", options, table, HEADER, COLUMNS)
