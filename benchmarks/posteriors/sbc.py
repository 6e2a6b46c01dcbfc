"""Simulation-based calibration: are posteriors right on average over the prior?

    python benchmarks/posteriors/sbc.py [--quick] [--only digits]

Talts et al. (2018), arXiv:1804.06788: draw the truth from the prior and data from the truth, sample the posterior, and
rank the truth among 31 posterior draws. Ranks are uniform on 0..31 if, and nearly only if, the posteriors are right.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer.util import log_density
from scipy.stats import chi2

import numpyro_diffusion as nd
from benchmarks.posteriors.digits_problem import SIGMA_SCALE, measured, operator, simulate
from benchmarks.table import RESULTS, arguments, measure

DRAWS, BINS = 31, 8
PER_SEED = {"closed form": 100, "digits": 20}
HEADER = """# Simulation-based calibration

`python benchmarks/posteriors/sbc.py`. 100 simulations per seed of the closed form, 20 of digits (`--seeds 25 --only digits` makes 500); truths from the prior, the rank of each among 31 of the posterior draws. Evaluations are
per chain and run. Second table: p-values of a chi-square test of uniform ranks in 8 bins, all seeds together; `sbc.png` has the differences of the ranks'
distribution functions from uniform, with simultaneous 95 % bands. "Closed form": a 3-component mixture in 4 dimensions, two linear measurements, unknown noise scale. Digits: the
shipped density, 16 block means measured with unknown gain and noise; truths are drawn by annealing 400 chains for every seed.
"""


def mixture_prior() -> nd.Density:
    """A mixture in four dimensions."""
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(3, 4, 4)) * 0.4
    covariances = roots @ roots.transpose(0, 2, 1) + 0.05 * np.eye(4)
    return nd.exact.GaussianMixture(1.5 * rng.normal(size=(3, 4)), covariances, [0.2, 0.3, 0.5])


A_CLOSED = np.random.default_rng(1).normal(size=(2, 4))


def closed_form(prior, A, y):
    """Two linear measurements with unknown noise."""
    x = numpyro.sample("x", prior)
    sigma = numpyro.sample("sigma", dist.HalfNormal(SIGMA_SCALE))
    numpyro.sample("y", dist.Normal(A @ x, sigma).to_event(1), obs=y)


@functools.partial(jax.jit, static_argnames=("model",))
def log_joint(prior, A, y, values, *, model):
    """Log joint density of every draw in `values` [n, ...]."""

    def one(value):
        return log_density(model, (prior, A, y), {}, value)[0]

    return jax.vmap(one)(values)


def ranks(seed: int, model, prior, A, truths, names, num_chains: int, level_ess: float) -> dict:
    """Ranks of every quantity in every simulation, lowest 0.

    Args:
        truths: One dict per simulation: latents by site, and y.
        names: Coordinates of x to follow.
    """
    found, evaluations, errors = [], [], []
    A = jnp.asarray(A, dtype=float)
    for i, truth in enumerate(truths):
        mcmc = nd.AnnealedMCMC(model, nd.HMC(), num_chains=num_chains, level_ess=level_ess, progress_bar=False)
        key, pick = jax.random.split(jax.random.fold_in(jax.random.key(seed), i))
        y = jnp.asarray(truth["y"], dtype=float)
        mcmc.run(key, prior, A, y)
        # Chains share ancestors: a few, at random, are close to independent.
        index = jax.random.choice(pick, num_chains, (DRAWS,), replace=False)
        latents = [site.name for site in mcmc.annealed.density.sites]
        draws = {k: mcmc.get_samples()[k][index] for k in latents}
        true = {k: jnp.asarray(truth[k], dtype=float)[None] for k in latents}
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), true, draws)
        quantities = {f"x{j}": both["x"].reshape(DRAWS + 1, -1)[:, j] for j in names}
        quantities |= {k: both[k] for k in latents if k != "x"}
        quantities["mean of x"] = both["x"].reshape(DRAWS + 1, -1).mean(1)
        quantities["log joint"] = log_joint(prior, A, y, both, model=model)
        found.append({k: int(np.sum(np.asarray(v[1:]) < np.asarray(v[0]))) for k, v in quantities.items()})
        evaluations.append(mcmc.evaluations_per_chain)
        errors.append(mcmc.log_evidence_error)
    return {
        "simulations": len(truths), "evaluations": np.mean(evaluations), "log Z error": np.mean(errors),
        "names": list(found[0]), "ranks": [list(f.values()) for f in found],
    }  # fmt: skip


def closed_form_row(seed: int, count: int) -> dict:
    """Ranks under the closed-form prior."""
    density, rng = mixture_prior(), np.random.default_rng(seed)
    x = np.asarray(density.sample(jax.random.key(1000 + seed), count))
    sigma = SIGMA_SCALE * np.abs(rng.standard_normal(count))
    y = x @ A_CLOSED.T + sigma[:, None] * rng.standard_normal((count, 2))
    truths = [{"x": a, "sigma": b, "y": c} for a, b, c in zip(x, sigma, y, strict=True)]
    return ranks(seed, closed_form, nd.DiffusionPrior(density), A_CLOSED, truths, range(4), 1000, 0.98)


def digits_row(seed: int, count: int) -> dict:
    """Ranks under the shipped density of digits."""
    density, rng = nd.load_pretrained("digits"), np.random.default_rng(seed)
    prior_run = nd.anneal(
        jax.random.key(1000 + seed), density, nd.HMC(num_integration_steps=4), num_chains=400, num_steps=4,
        metric="pilot", progress_bar=False,
    )  # fmt: skip
    chosen = rng.choice(400, count, replace=False)
    A = operator("super-resolution")
    truths = [{"x": x} | simulate(rng, A, x) for x in np.asarray(prior_run.samples)[chosen].reshape(count, 64)]
    for truth in truths:
        truth["x"] = truth["x"].reshape(density.event_shape)
    return ranks(seed, measured, nd.DiffusionPrior(density), A, truths, (10, 20, 27, 36, 44, 53), 192, 0.95)


def p_value(values: np.ndarray) -> float:
    """Chi-square test of uniform ranks in `BINS` bins."""
    counts = np.bincount(values * BINS // (DRAWS + 1), minlength=BINS)
    expected = len(values) / BINS
    return float(chi2.sf(np.sum((counts - expected) ** 2 / expected), BINS - 1))


def bands(count: int, probability: float = 0.95) -> np.ndarray:
    """Half-widths [DRAWS + 1] of simultaneous bands of the ranks' distribution function, by simulation."""
    rng = np.random.default_rng(0)
    grid = np.arange(1, DRAWS + 2) / (DRAWS + 1)
    simulated = rng.integers(0, DRAWS + 1, (4000, count))
    cdf = np.stack([(simulated <= k).mean(1) for k in range(DRAWS + 1)], 1)
    sd = np.sqrt(np.maximum(grid * (1 - grid) / count, 1e-12))
    return np.quantile(np.max(np.abs(cdf - grid)[:, :-1] / sd[:-1], 1), probability) * sd


def report(found: dict, name: str) -> None:
    """Append the p-values to the Markdown table, and plot the distribution functions."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(5.5 * len(found), 3.6), squeeze=False, layout="constrained")
    lines = ["", "| model | quantity | simulations | p-value |", "|---|---|---|---|"]
    grid = np.arange(1, DRAWS + 2) / (DRAWS + 1)
    for axis, (row, by_seed) in zip(axes[0], found.items(), strict=True):
        together = np.concatenate([np.asarray(f["ranks"]) for f in by_seed])
        width = bands(len(together))
        axis.fill_between(grid, -width, width, color="0.88", step="mid")
        for j, quantity in enumerate(by_seed[0]["names"]):
            values = together[:, j]
            lines.append(f"| {row} | {quantity} | {len(values)} | {p_value(values):.3f} |")
            cdf = np.array([(values <= k).mean() for k in range(DRAWS + 1)])
            axis.step(grid, cdf - grid, where="mid", label=quantity, lw=1)
        axis.set(title=row, xlabel="rank / 32", ylabel="ECDF - uniform")
        axis.legend(fontsize=6, ncols=2)
    figure.savefig(RESULTS / f"{name}.png", dpi=110)
    path = RESULTS / f"{name}.md"
    path.write_text(path.read_text(encoding="utf-8") + "\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    options = arguments(__doc__ or "")
    rows = [
        (row, functools.partial(fn, count=PER_SEED[row] // (5 if options.quick else 1)))
        for row, fn in (("closed form", closed_form_row), ("digits", digits_row))
    ]
    results = measure("sbc", options, rows, HEADER, ["simulations", "evaluations", "log Z error", "seconds"])
    report(results, f"sbc{'_quick' if options.quick else ''}")
