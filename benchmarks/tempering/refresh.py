"""New data added to a finished run: is the refreshed posterior right on average over the prior, and what does it cost?

    python benchmarks/tempering/refresh.py [--quick] [--only tempering]

Simulation-based calibration (Talts et al. 2018, arXiv:1804.06788): truths from the prior and 24 measurements of each. A
run sees 20 of them, its refresh all; ranks of the truth among 31 of the refreshed draws are uniform on 0..31 if, and
nearly only if, refreshed posteriors are right.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.stats import chi2

import numpyro_diffusion as nd
from benchmarks.table import RESULTS, arguments, measure

OLD, ALL, RANKED, BINS, SIMULATIONS, CHAINS = 20, 24, 31, 8, 20, 1000
ENGINES = {
    "annealing": {"num_chains": CHAINS},
    "tempering": {"engine": "tempering", "num_chains": 4, "num_samples": CHAINS // 4},
}
COLUMNS = [
    "simulations",
    "of a run",
    "of the refresh",
    "share",
    "with the pilot's",
    "stages",
    "run afresh",
    "log Z: z",
    "seconds",
]
HEADER = f"""# New data added to a finished run

`python benchmarks/tempering/refresh.py`. {SIMULATIONS} simulations per seed of a mixture of three Gaussians in four dimensions, measured {OLD} and then {ALL} times with unknown noise; {CHAINS:,} draws. "fresh": a run that sees all {ALL} at once.
Evaluations are per draw, of a run without its pilot's; share: mean and, in the second table, largest ratio of the two in a simulation; with the pilot's: share of a run's evaluations and its pilot's (of annealing, which reports them). Stages: levels between the posteriors, the new one included. Run afresh: share of
simulations in which the posteriors were too far apart, and a fresh run was made. log Z: z: difference to the log evidence of a fresh run, over the errors of the two, as a root mean square over every fifth simulation; 1 if errors are honest.
Second table: p-values of a chi-square test of uniform ranks in {BINS} bins, all seeds together.
"""


@functools.cache
def prior() -> nd.DiffusionPrior:
    """A mixture of three in four dimensions."""
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(3, 4, 4)) * 0.4
    covariances = roots @ roots.transpose(0, 2, 1) + 0.05 * np.eye(4)
    return nd.DiffusionPrior(nd.exact.GaussianMixture(1.5 * rng.normal(size=(3, 4)), covariances, [0.2, 0.3, 0.5]))


DESIGN = np.random.default_rng(1).normal(size=(ALL, 4))


def model(rows, y):
    """Linear measurements of x with unknown noise."""
    x = numpyro.sample("x", prior())
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(rows @ x, sigma), obs=y)


def cost(mcmc, engine: str) -> float:
    """Evaluations per draw of a run, without its pilot's."""
    return mcmc.evaluations_per_chain / (CHAINS // 4 if engine == "tempering" else 1)


def ranks(mcmc, x, sigma, rng) -> dict[str, int]:
    """Ranks of the truth among some of the draws."""
    draws = mcmc.get_samples()
    # At random: draws side by side are related.
    chosen = rng.choice(CHAINS, RANKED, replace=False)
    own = np.column_stack([np.asarray(draws["x"]), np.asarray(draws["sigma"])])[chosen]
    truth = np.append(x, sigma)
    found = {f"x{i}": int(np.sum(own[:, i] < truth[i])) for i in range(4)}
    found["sigma"] = int(np.sum(own[:, 4] < truth[4]))
    distance = [np.sum((DESIGN @ point[:4]) ** 2) for point in (*own, truth)]
    return found | {"|design x|": int(np.sum(np.array(distance[:-1]) < distance[-1]))}


def simulations(seed: int, engine: str, count: int, *, is_fresh: bool = False) -> dict:
    """Ranks in every simulation of a seed, and what the posteriors cost."""
    rng, found, costs, z = np.random.default_rng(seed), [], [], []
    truths = np.asarray(prior().density.sample(jax.random.key(1000 + seed), count))
    for i, x in enumerate(truths):
        sigma = abs(rng.standard_normal())
        y = DESIGN @ x + sigma * rng.standard_normal(ALL)
        rows, y = jnp.asarray(DESIGN, dtype=float), jnp.asarray(y, dtype=float)
        key = jax.random.fold_in(jax.random.key(seed), i)
        mcmc = nd.AnnealedMCMC(model, nd.HMC(), progress_bar=False, **ENGINES[engine])
        if is_fresh:
            mcmc.run(key, rows, y)
            costs.append((cost(mcmc, engine), np.nan, np.nan, np.nan))
        else:
            mcmc.run(key, rows[:OLD], y[:OLD])
            before, pilot = cost(mcmc, engine), mcmc.annealed.pilot_evaluations
            mcmc.refresh(jax.random.fold_in(key, 1), rows, y)
            costs.append((before, *_refresh_cost(mcmc, engine), before + pilot))
            if i % 5 == 0:
                fresh = nd.AnnealedMCMC(model, nd.HMC(), progress_bar=False, **ENGINES[engine])
                fresh.run(jax.random.fold_in(key, 2), rows, y)
                error = np.hypot(mcmc.log_evidence_error, fresh.log_evidence_error)
                z.append((mcmc.log_evidence - fresh.log_evidence) / error)
        found.append(ranks(mcmc, x, sigma, rng))
    run, refresh, stages, whole = np.array(costs).T
    return {
        "simulations": count, "of a run": run.mean(), "of the refresh": np.mean(refresh),
        "share": np.mean(refresh / run), "with the pilot's": np.mean(refresh / whole), "largest share": np.max(refresh / run), "stages": np.nanmean(stages) if z else np.nan,
        "run afresh": np.mean(np.isnan(stages)) if z else np.nan, "log Z: z": np.sqrt(np.mean(np.square(z))) if z else np.nan,
        "names": list(found[0]), "ranks": [list(f.values()) for f in found],
    }  # fmt: skip


def _refresh_cost(mcmc, engine: str) -> tuple[float, float]:
    """Evaluations per draw, and stages; those of a fresh run, and none, where there was one."""
    if mcmc.annealed.remarks:
        return cost(mcmc, engine), np.nan
    return mcmc.annealed.evaluations_per_chain, len(mcmc.annealed.levels)


def report(found: dict, name: str) -> None:
    """Append the p-values to the Markdown table."""
    lines = ["", "| row | largest share | " + " | ".join(next(iter(found.values()))[0]["names"]) + " |"]
    lines += ["|---" * (lines[1].count("|") - 1) + "|"]
    for row, by_seed in found.items():
        together = np.concatenate([np.asarray(f["ranks"]) for f in by_seed])
        expected = len(together) / BINS
        counts = [np.bincount(column * BINS // (RANKED + 1), minlength=BINS) for column in together.T]
        p_values = [chi2.sf(np.sum((c - expected) ** 2 / expected), BINS - 1) for c in counts]
        largest = max(f["largest share"] or 0.0 for f in by_seed)
        lines.append(f"| {row} ({len(together)}) | {largest:.2f} | " + " | ".join(f"{p:.3f}" for p in p_values) + " |")
    path = RESULTS / f"{name}.md"
    path.write_text(path.read_text(encoding="utf-8") + "\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=4)
    count = 5 if options.quick else SIMULATIONS
    rows = [
        (f"{engine}: {kind}", functools.partial(simulations, engine=engine, count=count, is_fresh=kind == "fresh"))
        for engine in ENGINES
        for kind in ("refreshed", "fresh")
    ]
    results = measure("refresh", options, rows, HEADER, COLUMNS)
    report(results, f"refresh{'_quick' if options.quick else ''}")
