"""Do standard errors of log evidence cover, and do findings tell where they cannot?

    python benchmarks/posteriors/coverage.py            # 200 seeds a row, about fifteen minutes on two cores
    python benchmarks/posteriors/coverage.py --quick    # 20 seeds a row

Every row is one setting of `nd.anneal`, or of a bound, on a density of known integral.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.table import RESULTS, arguments, measure
from numpyro_diffusion.diagnose.findings import findings
from numpyro_diffusion.errors import DiagnosticWarning

CHAINS, POINTS = 400, 100
HEADER = f"""# Coverage of errors

`python benchmarks/posteriors/coverage.py`: {CHAINS} chains, a new key per seed. `covered`: share of runs whose log evidence lies within two reported errors of the truth (asked: .90 to .99). `off`, `reported`: mean distance in nats, and mean
error where finite; `infinite`: share of infinite or undefined errors. `beyond 3`: share of runs that are off by more than three errors; `found, if beyond 3`: share of *those* that have a finding (asked: .95); `found`: share of all runs that
have one. Products are of two mixtures of three Gaussians each; `wide 2` starts from a Gaussian half as wide as the density, so that weights have no variance, by construction. Rows with "heavy" are settings no one should
choose: their errors should be large, or findings say so. `coverage.png` has coverage by nominal level (`nd.coverage`) of the others."""
KERNELS = {"HMC": nd.HMC, "MALA": nd.MALA, "ULA": nd.ULA, "U-HMC": nd.UHMC}
#: By number of levels, where there is no pilot.
STEP_SIZES = {
    6: {"HMC": 0.6, "MALA": 0.3, "ULA": 0.1, "U-HMC": 0.4},
    80: {"HMC": 0.6, "MALA": 0.3, "ULA": 0.05, "U-HMC": 0.3},
}
COLUMNS = ["covered", "off", "reported", "infinite", "beyond 3", "found, if beyond 3", "found"]


def mixture(seed: int, size: int) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Three components (weight, mean, covariance) with random places and shapes."""
    draw = np.random.default_rng(seed)
    roots = 0.25 * draw.normal(size=(3, size, size))
    weights = draw.uniform(0.5, 1.5, 3)
    return [
        (w, m, r @ r.T + 0.1 * np.eye(size))
        for w, m, r in zip(weights / weights.sum(), 1.3 * draw.normal(size=(3, size)), roots, strict=True)
    ]


def density(parts) -> nd.Density:
    """The mixture as a density."""
    weights, means, covariances = zip(*parts, strict=True)
    return nd.exact.GaussianMixture(np.array(means), np.array(covariances), np.array(weights))


def _normal_density(x, covariance) -> float:
    return float(np.exp(-0.5 * x @ np.linalg.solve(covariance, x)) / np.sqrt(np.linalg.det(2 * np.pi * covariance)))


@cache
def product(size: int) -> tuple[nd.Density, float]:
    """A product of two mixtures and its log integral: N(m, C) N(n, D) integrates to N(m; n, C + D)."""
    p, q = mixture(0, size), mixture(1, size)
    masses = [w * v * _normal_density(m - n, C + D) for w, m, C in p for v, n, D in q]
    return density(p) * density(q), float(np.log(np.sum(masses)))


def _normal(scale, x, t):
    return jnp.sum(-0.5 * (x / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi))


@cache
def wide(scale: float) -> tuple[nd.Density, float]:
    """N(0, scale^2 I) at every level, said to have variance 1: weights at t = 1 have Pareto k 1 - 1 / scale^2."""
    return nd.as_density(_normal, (2,), parameters=jnp.array(scale), mean=np.zeros(2), covariance=np.eye(2)), 0.0


def figures(value: float, error: float, truth: float, found: bool) -> dict:
    """One row's figures for one seed."""
    off, known = abs(value - truth), bool(np.isfinite(error))
    beyond = known and off > 3 * error
    return {
        "covered": not known or off <= 2 * error, "off": off, "reported": error, "infinite": not known,
        "beyond 3": beyond, "found, if beyond 3": float(found) if beyond else np.nan, "found": found,
    }  # fmt: skip


def annealed(problem, kernel, **settings) -> Callable[[int], dict]:
    """A row of `nd.anneal`."""

    def row(seed: int) -> dict:
        target, truth = problem
        run = nd.anneal(
            jax.random.key(seed), target, kernel, **{"num_chains": CHAINS, "progress_bar": False} | settings
        )
        return figures(run.log_evidence, run.log_evidence_error, truth, bool(findings(run)))

    return row


def bounded(kernel, side: str, **settings) -> Callable[[int], dict]:
    """A row of a bound, in x itself, of a product of two Gaussians: one side of `nd.bdmc`, or `nd.raise_bound`."""
    means, scales = np.array([[0.3, -0.2], [-0.4, 0.5]]), np.array([[0.5, 1.2], [0.9, 0.4]])
    p, q = (nd.exact.GaussianMixture(m[None], np.diag(s**2)[None]) for m, s in zip(means, scales, strict=True))
    precision = (1 / scales**2).sum(0)
    centre, spread = (means / scales**2).sum(0) / precision, np.diag(1 / precision)
    log_z = float(np.log(_normal_density(means[0] - means[1], np.diag((scales**2).sum(0)))))
    likelihood = -0.5 * float(np.log(2 * np.pi * np.e / precision).sum())
    settings = {"frame": "identity", "progress_bar": False} | settings

    def row(seed: int) -> dict:
        key, draws = jax.random.key(seed), np.random.default_rng(seed).multivariate_normal(centre, spread, CHAINS)
        if side == "raise":
            bound = nd.raise_bound(key, p * q, draws[:POINTS], kernel, **settings)
            return figures(bound.lower, bound.lower_error, likelihood, bool(findings(bound)))
        bound = nd.bdmc(key, p * q, draws, kernel, num_chains=CHAINS, **settings)
        value, error = getattr(bound, side), getattr(bound, f"{side}_error")
        return figures(value, error, log_z, bool(findings(bound)))

    return row


def rows() -> list[tuple[str, Callable[[int], dict]]]:
    """Names and functions of all rows."""
    two, ten = product(2), product(10)
    return [
        *[(name, annealed(two, kernel())) for name, kernel in KERNELS.items()],
        ("HMC, metric pilot", annealed(two, nd.HMC(), metric="pilot")),
        ("U-HMC, metric pilot", annealed(two, nd.UHMC(), metric="pilot")),
        *[
            (f"{name}, {levels} levels", annealed(two, KERNELS[name](step_size), levels=levels))
            for levels, step_sizes in STEP_SIZES.items()
            for name, step_size in step_sizes.items()
        ],
        ("HMC, plain AIS", annealed(two, nd.HMC(), resample_threshold=0.0)),
        ("ULA, plain AIS", annealed(two, nd.ULA(), resample_threshold=0.0)),
        ("HMC, 10-d, 12 levels", annealed(ten, nd.HMC(0.5), levels=12)),
        ("U-HMC, 10-d, 25 levels", annealed(ten, nd.UHMC(0.25), levels=25)),
        ("heavy: U-HMC 1.2, 6 levels", annealed(two, nd.UHMC(1.2), levels=6)),
        ("heavy: U-HMC 0.9, 6 levels", annealed(two, nd.UHMC(0.9), levels=6)),
        ("heavy: U-HMC 1.2, 30 levels", annealed(two, nd.UHMC(1.2), levels=30)),
        ("heavy: ULA 0.6, 6 levels", annealed(two, nd.ULA(0.6), levels=6)),
        ("heavy: ULA 0.4, 30 levels", annealed(two, nd.ULA(0.4), levels=30)),
        ("heavy: ULA 1, 20 levels", annealed(two, nd.ULA(1.0), levels=20)),
        ("heavy: U-HMC 0.8, plain AIS", annealed(two, nd.UHMC(0.8), levels=20, resample_threshold=0.0)),
        ("heavy: wide 2, HMC", annealed(wide(2.0), nd.HMC(0.6), levels=6)),
        ("heavy: wide 3, HMC", annealed(wide(3.0), nd.HMC(0.6), levels=6)),
        ("bdmc lower, HMC", bounded(nd.HMC(0.3), "lower", levels=40)),
        ("bdmc upper, HMC", bounded(nd.HMC(0.3), "upper", levels=40)),
        ("bdmc upper, MALA", bounded(nd.MALA(0.08), "upper", levels=40)),
        ("bdmc lower, ULA", bounded(nd.ULA(0.02), "lower", levels=40)),
        ("bdmc upper, ULA", bounded(nd.ULA(0.02), "upper", levels=40)),
        ("bdmc lower, HMC, 6 levels", bounded(nd.HMC(0.3), "lower", levels=6)),
        ("bdmc upper, HMC, 6 levels", bounded(nd.HMC(0.3), "upper", levels=6)),
        ("raise, HMC", bounded(nd.HMC(0.3), "raise", levels=80)),
        ("raise, ULA", bounded(nd.ULA(0.02), "raise", levels=80)),
    ]


def report(results: dict[str, list[dict]], name: str) -> None:
    """Draw coverage by nominal level of all rows that are no one's choice to avoid."""
    import matplotlib

    matplotlib.use("Agg")

    def column(found, key):
        # What is not known is stored as none.
        return np.array([np.inf if row[key] is None else row[key] for row in found], dtype=float)

    # An estimate that is known to no error covers, and none covers nothing.
    kept = {row: found for row, found in results.items() if "heavy" not in row and len(found) > 1}
    by_row = {row: nd.coverage(column(f, "off"), column(f, "reported"), 0.0) for row, f in kept.items()}
    ax = nd.plots.plot_coverage(by_row)
    ax.get_legend().remove()
    ax.set_title(f"{len(by_row)} settings, bands of one", fontsize=10)
    ax.figure.savefig(RESULTS / f"{name}.png", dpi=110)


if __name__ == "__main__":
    options = arguments("Coverage of errors of log evidence.", seeds=200)
    if options.quick and options.seeds == 1:
        options.seeds = 20
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiagnosticWarning)
        results = measure("coverage", options, rows(), HEADER, COLUMNS)
    report(results, f"coverage{'_quick' if options.quick else ''}")
