"""Simulation-based calibration: are posteriors right on average over the prior?

    python benchmarks/posteriors/sbc.py [--quick] [--only digits]

Draw the truth from the prior and data from the truth, sample the posterior, and rank the truth among its draws with
`nd.sbc`. Ranks are uniform if, and nearly only if, the posteriors are right.
"""

from __future__ import annotations

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_diffusion as nd
from benchmarks.posteriors.digits_problem import SIGMA_SCALE, measured, operator
from benchmarks.table import RESULTS, arguments, measure
from numpyro_diffusion.diagnose.sbc_result import SBCResult
from numpyro_diffusion.errors import DiagnosticWarning

NAME = "sbc"
PER_SEED = {"closed form": 100, "closed form, known sigma": 100, "digits": 20}
HEADER = """# Simulation-based calibration

Rows of digits are from before the defaults changed.

`python benchmarks/posteriors/sbc.py`. 100 simulations per seed of the closed forms, 20 of digits (`--seeds 25 --only digits` makes 500), ranked by `nd.sbc`: at the resolution of the effective number of draws, so that tails count. Evaluations are
per chain and run. Second table, all seeds together: p-values of a chi-square test (20 bins) and of ArviZ's test of the ranks' distribution function, and how many central 90 % intervals hold the truth; `sbc_*.png` has the distribution functions with
simultaneous 95 % bands. "Closed form": a 3-component mixture in 4 dimensions, two linear measurements, unknown noise scale. Digits: the shipped density, 16 block means measured with unknown gain and noise; truths are drawn from 400 annealed chains of every seed.
"""


def mixture_prior() -> nd.Density:
    """A mixture in four dimensions."""
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(3, 4, 4)) * 0.4
    covariances = roots @ roots.transpose(0, 2, 1) + 0.05 * np.eye(4)
    return nd.exact.GaussianMixture(1.5 * rng.normal(size=(3, 4)), covariances, [0.2, 0.3, 0.5])


A_CLOSED = np.random.default_rng(1).normal(size=(2, 4))


def closed_form(prior, A, sigma=None, y=None):
    """Two linear measurements, with unknown noise unless it is given."""
    x = numpyro.sample("x", prior)
    if sigma is None:
        sigma = numpyro.sample("sigma", dist.HalfNormal(SIGMA_SCALE))
    numpyro.sample("y", dist.Normal(A @ x, sigma).to_event(1), obs=y)


def closed_form_row(seed: int, count: int, sigma=None) -> dict:
    """Ranks under the closed-form prior."""
    mcmc = nd.AnnealedMCMC(closed_form, nd.HMC(), num_chains=1000, progress_bar=False)
    prior, A = nd.DiffusionPrior(mixture_prior()), jnp.asarray(A_CLOSED, dtype=float)
    return ranked(seed, mcmc, prior, A, sigma, num_simulations=count, quantities=lambda draw: draw | mean_of_x(draw))


def digits_row(seed: int, count: int) -> dict:
    """Ranks under the shipped density of digits."""
    density = nd.load_pretrained("digits")
    truths = nd.anneal(
        jax.random.key(1000 + seed), density, nd.HMC(num_integration_steps=4), num_chains=400, num_steps=4,
        metric="pilot", progress_bar=False,
    )  # fmt: skip
    mcmc = nd.AnnealedMCMC(measured, nd.HMC(), num_chains=192, level_ess=0.95, progress_bar=False)
    prior, A = nd.DiffusionPrior(density, sampler=truths), jnp.asarray(operator("super-resolution"), dtype=float)

    def quantities(draw):
        pixels = jnp.ravel(draw["x"])[jnp.array([10, 20, 27, 36, 44, 53])]
        return {"x": pixels, "gain": draw["gain"], "sigma": draw["sigma"]} | mean_of_x(draw)

    return ranked(seed, mcmc, prior, A, None, num_simulations=count, quantities=quantities)


def mean_of_x(draw) -> dict:
    return {"mean of x": draw["x"].mean()}


def ranked(seed: int, mcmc, *args, **options) -> dict:
    """What `nd.sbc` finds, as figures of a table."""
    found = nd.sbc(jax.random.key(seed), mcmc, *args, observed=("y",), progress_bar=False, **options)
    return {
        "simulations": found.num_simulations, "evaluations": found.evaluations_per_chain.mean(),
        "log Z error": found.log_evidence_error.mean(), "findings": found.has_findings.mean(),
        "names": list(found.ranks), "ranks": [found.ranks[k].tolist() for k in found.ranks],
        "worth": [found.num_effective[k].tolist() for k in found.ranks],
    }  # fmt: skip


def together(rows: list[dict]) -> SBCResult:
    """All seeds of a row as one result."""
    names, none = rows[0]["names"], np.zeros(sum(int(row["simulations"]) for row in rows))

    def joined(kind):
        return {name: np.concatenate([np.array(row[kind][i]) for row in rows]) for i, name in enumerate(names)}

    return SBCResult(joined("ranks"), joined("worth"), none, none, none > 0, none)


def report(found: dict, name: str) -> None:
    """Append p-values and coverage to the Markdown table, and draw the distribution functions."""
    import matplotlib

    matplotlib.use("Agg")
    lines = [
        "",
        "| model | quantity | simulations | chi-square p | ECDF p | 90 % intervals | effective draws |",
        "|---" * 7 + "|",
    ]
    for row, by_seed in found.items():
        result = together(by_seed)
        chi_square, ecdf, covered = result.p_values(), result.ecdf_p_values(), nd.coverage(result, levels=[0.9]).covered
        for quantity, ranks in result.ranks.items():
            for index in np.ndindex(ranks.shape[1:]):
                label = f"{quantity}[{index[0]}]" if index else quantity
                p = f"{chi_square[quantity][index]:.3f} | {ecdf[quantity][index]:.3f}"
                worth = np.median(result.num_effective[quantity])
                lines.append(f"| {row} | {label} | {len(ranks)} | {p} | {covered[quantity][0]:.3f} | {worth:.0f} |")
        figure = nd.plots.plot_sbc(result)
        figure.savefig(
            RESULTS / f"{name}_{row.split(',')[0].replace(' ', '_')}{'_known' if ',' in row else ''}.png", dpi=110
        )
    path = RESULTS / f"{name}.md"
    path.write_text(path.read_text(encoding="utf-8") + "\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    options = arguments(__doc__ or "")
    warnings.simplefilter("ignore", DiagnosticWarning)
    functions = {
        "closed form": closed_form_row, "closed form, known sigma": functools.partial(closed_form_row, sigma=0.3),
        "digits": digits_row,
    }  # fmt: skip
    rows = [
        (row, functools.partial(fn, count=PER_SEED[row] // (5 if options.quick else 1)))
        for row, fn in functions.items()
    ]
    columns = ["simulations", "evaluations", "log Z error", "findings", "seconds"]
    results = measure(NAME, options, rows, HEADER, columns)
    report(results, f"{NAME}{'_quick' if options.quick else ''}")
