"""The paper's Table 1: product, mixture and negation in two dimensions, all samplers, four kinds of densities.

    python benchmarks/paper/table1.py            # five seeds; resumes; about two hours on two cores
    python benchmarks/paper/table1.py --quick    # every row once, with fewer chains

Kinds: `score` and `energy` are the paper's models, `calibrated` is ours, `oracle` the closed form. The paper's settings
(100 cosine levels, the last at sigma 0.025; ULA and MALA 10 steps of 0.001 and 0.002, U-HMC and HMC 3 steps of 3 leapfrogs of 0.03, unit
mass, momentum refreshed, no weights) are run in x itself; `default` is `nd.anneal(key, density, nd.HMC())`.
"""

from __future__ import annotations

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure
from numpyro_diffusion.datasets import planar, targets
from numpyro_diffusion.diagnose import metrics

PAPER = {  # RAISE, LL, Var, ln MMD of Du et al. (2023), Table 1
    "product score reverse": "1.55, -6.47, .063, -",
    "product score ULA": "2.37, 1.79, .026, -",
    "product score U-HMC": "2.52, 2.40, .021, -",
    "product score reverse, equal evaluations": "2.27, -2.92, .046, -",
    "product energy reverse": "1.37, -6.03, .064, -",
    "product energy ULA": "2.36, 1.84, .027, -",
    "product energy MALA": "2.64, 2.73, .013, -",
    "product energy U-HMC": "2.63, 2.45, .022, -",
    "product energy HMC": "2.71, 2.72, .009, -",
    "mixture energy reverse": "-, -2.17, .020, -3.84",
    "mixture energy ULA": "-, 0.57, .013, -4.21",
    "mixture energy MALA": "-, 1.29, .008, -4.38",
    "mixture energy U-HMC": "-, 1.03, .010, -4.69",
    "mixture energy HMC": "-, 1.30, .007, -4.48",
}
SAMPLERS = {
    "reverse": (nd.Reverse(), 1),
    "ULA": (nd.ULA(0.001), 10),
    "MALA": (nd.MALA(0.002), 10),
    "U-HMC": (nd.UHMC(0.03, 3), 3),
    "HMC": (nd.HMC(0.03, 3), 3),
}
COLUMNS = [
    "LL", "LL - truth", "outside", "TV", "ln MMD^2", "W2", "Var", "log Z error", "RAISE", "evaluations", "seconds", "paper"
]  # fmt: skip
HEADER = """# Table 1: compositions in two dimensions

`python benchmarks/paper/table1.py`. Mean ± standard error over seeds. LL: mean log density of the truth (product truth {product:.3f},
mixture {mixture:.3f}, negation {negation:.3f}; what exceeds it is too sharp); outside: share of samples where the truth has no mass; TV: mode
weights; ln MMD^2: RBF, bandwidths {bandwidths}; W2: sliced; Var: squared Frobenius distance of per-mode covariances; log Z
error: of the default's evidence; RAISE: lower bound on the mean log likelihood of truth draws under the sampler; evaluations of value and
gradient per chain; paper: its RAISE, LL, Var, ln MMD. "noise floor" rows are draws of the truth, as many as the rows above have samples.
"""


def paper_levels(schedule: nd.NoiseSchedule, count: int = 100) -> np.ndarray:
    """The cosine levels of Nichol and Dhariwal (2021) that the paper uses, least noisy sigma 0.025."""
    f = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
    alpha_bar = np.cumprod(np.maximum(f[1:] / f[:-1], 0.001))
    ratios = np.sqrt((1 - alpha_bar) / alpha_bar)[::-1]
    return np.append(1.0, np.asarray(schedule.time(ratios[ratios < schedule.noise_range[1]])))


def density_of(problem: str, kind: str) -> nd.Density:
    """The problem composed of densities of one kind."""
    suffix = {"energy": "_paper", "score": "_score", "calibrated": ""}
    load = planar.exact if kind == "oracle" else lambda name: nd.load_pretrained(name + suffix[kind])
    return targets.target(problem).density(load)


def row(problem: str, kind: str, sampler: str, quick: bool):
    """Function of the seed that computes one row's figures."""
    target = targets.target(problem)

    def compute(seed: int) -> dict:
        density = density_of(problem, kind)
        key, raise_key = jax.random.split(jax.random.key(1000 + seed))
        figures = {"paper": PAPER.get(f"{problem} {kind} {sampler}", "")}
        if sampler.startswith("default"):
            run = nd.anneal(key, density, nd.HMC(), num_chains=2000 if quick else 10_000, progress_bar=False)
            if kind != "energy":
                figures["log Z error"] = run.log_evidence - target.log_evidence
        else:
            kernel, steps = SAMPLERS[sampler.split(",")[0]]
            levels = paper_levels(density.schedule, 1000 if "equal" in sampler else 100)
            chains = 500 if quick else 1000
            run = nd.anneal(
                key, density, kernel, num_chains=chains, num_steps=steps, levels=levels, resample_threshold=0.0,
                frame="identity", progress_bar=False,
            )  # fmt: skip
            if isinstance(kernel, nd.MALA | nd.HMC | nd.ULA | nd.UHMC) and kind != "score":
                test = target.sample(50 if quick else 100, seed)
                # Truth draws as the sampler's last level sees them: with the noise it stops at.
                t = float(levels[-1])
                alpha, sigma = float(density.schedule.alpha(t)), float(density.schedule.sigma(t))
                test = alpha * test + sigma * np.random.default_rng(seed).standard_normal(test.shape)
                bound = nd.raise_bound(
                    raise_key, density, test, kernel, num_repeats=2, num_steps=steps, levels=levels, frame="identity",
                    progress_bar=False,
                )  # fmt: skip
                figures["RAISE"] = bound.lower
        return figures | {"evaluations": run.evaluations_per_chain} | against_truth(run.samples, target, seed)

    return compute


def against_truth(samples, target, seed) -> dict:
    """The metrics of the table."""
    m = metrics.report(np.asarray(samples), target, seed=10_000 + seed)
    return {
        "LL": m["log_likelihood"], "LL - truth": m["log_likelihood"] - target.mean_log_prob,
        "outside": m["fraction_outside"], "TV": m["mode_weight_tv"], "ln MMD^2": m["log_mmd2"], "W2": m["sliced_w2"],
        "Var": m["mode_variance_error"], "lost": m["non_finite"],
    }  # fmt: skip


def rows(quick: bool):
    """Every row of the table."""
    for problem in targets.NAMES:
        target = targets.target(problem)
        kinds = ["oracle", "calibrated", "energy"] + ([] if problem == "mixture" else ["score"])
        for kind in kinds:
            if kind in ("oracle", "calibrated"):
                yield f"{problem} {kind} default", row(problem, kind, "default", quick)
            for sampler in SAMPLERS:
                if kind != "score" or sampler not in ("MALA", "HMC"):
                    yield f"{problem} {kind} {sampler}", row(problem, kind, sampler, quick)
            if kind in ("oracle", "score") and problem == "product":
                name = "reverse, equal evaluations"
                yield f"{problem} {kind} {name}", row(problem, kind, name, quick)
        for count in (500, 2000) if quick else (1000, 10_000):
            yield (
                f"{problem} noise floor, {count}",
                lambda seed, target=target, count=count: against_truth(target.sample(count, seed), target, seed),
            )


if __name__ == "__main__":
    options = arguments(__doc__ or "")
    limits = {name: targets.target(name).mean_log_prob for name in targets.NAMES}
    header = HEADER.format(bandwidths=", ".join(map(str, metrics.BANDWIDTHS)), **limits)
    measure("table1", options, rows(options.quick), header, COLUMNS)
