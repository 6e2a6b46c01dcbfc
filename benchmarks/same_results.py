"""Results of fixed keys, to be compared between two versions of the package: what a rebuilding must not change.

    PYTHONPATH=<other checkout> python benchmarks/same_results.py --save before.npz
    python benchmarks/same_results.py --against before.npz
    ... --double                      # in double precision: what differs then is not rounding
    ... --only annealed --only bounds # some of the sections, see --help

Only names of `nd` are used. A row compares one result: the largest difference of any of its numbers, relative to the
largest of them, and whether both are the same but for rounding (1e-4). Chains amplify rounding: one proposal that is
accepted in one version only, or one index of a resampling, and draws part. In double precision they do not.
"""

from __future__ import annotations

import argparse
import sys
import warnings

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC

import numpyro_diffusion as nd

KEY = jax.random.key(7)
QUIET = {"progress_bar": False}
SMALL = {"num_chains": 128, "levels": 8, **QUIET}
NETWORK = nd.NetworkConfig(width=16, num_blocks=1, embedding_size=8)
TRAINING = nd.TrainingConfig(num_steps=60, batch_size=64)
#: Rows that hold to the last bits only on paper: long chains part after a rounding.
TOLERANCE = 1e-4


def of_run(run):
    found = {"samples": run.samples, "log_weights": run.log_weights, "levels": run.levels}
    found |= {"log_evidence": run.log_evidence, "log_evidence_error": run.log_evidence_error}
    return found | {f"stats.{k}": v for k, v in run.stats.items()}


def densities():
    ring, bar = nd.load_pretrained("ring"), nd.load_pretrained("bar")
    return ring * bar, nd.load_pretrained("ring_score") * nd.load_pretrained("bar_score"), ring


def annealed():
    product, score, ring = densities()
    kernels = {"HMC": nd.HMC(), "MALA": nd.MALA(), "ULA": nd.ULA(), "UHMC": nd.UHMC(persistence=0.3)}
    for name, kernel in kernels.items():
        yield f"anneal, {name}", lambda kernel=kernel: of_run(nd.anneal(KEY, product, kernel, **SMALL))
    barker = nd.BlackJAX(blackjax.barker)
    yield "anneal, BlackJAX", lambda: of_run(nd.anneal(KEY, ring, barker, **SMALL))
    yield "anneal, placed levels", lambda: of_run(nd.anneal(KEY, product, num_chains=64, level_ess=0.7, **QUIET))
    yield "anneal, metric pilot", lambda: of_run(nd.anneal(KEY, product, metric="pilot", **SMALL))
    yield "anneal, no resampling", lambda: of_run(nd.anneal(KEY, product, resample_threshold=0.0, **SMALL))
    yield "anneal, predictor", lambda: of_run(nd.anneal(KEY, product, nd.ULA(0.05), predictor=True, **SMALL))
    yield "anneal, identity frame", lambda: of_run(nd.anneal(KEY, ring, nd.HMC(0.05), frame="identity", **SMALL))
    yield "anneal, scores", lambda: of_run(nd.anneal(KEY, score, nd.ULA(0.05), **SMALL))
    yield "anneal, Reverse", lambda: of_run(nd.anneal(KEY, product, nd.Reverse(), **SMALL))


def composed():
    ring, bar, box = (nd.load_pretrained(name) for name in ("ring", "bar", "large_box"))
    x = jax.random.normal(KEY, (32, 2))
    formulas = {
        "p q / (p + q)": ring * bar / (ring + bar), "harmonic mean": nd.harmonic_mean(ring, bar, box),
        "contrast": nd.contrast(ring, bar), "negation": nd.negation(ring, box, floor=0.01),
    }  # fmt: skip
    for name, density in formulas.items():
        yield name, lambda p=density: {"log_prob": p.log_prob(x, 0.2), "score": p.score(x, 0.2)}
    cubes = nd.load_pretrained("cubes_16")
    places = np.array([[0.3, 0.3], [0.7, 0.6]])
    image = jax.random.normal(KEY, (2, *cubes.event_shape))

    def eq13():
        density = nd.compose_conditions(cubes, places)
        return {"log_prob": density.log_prob(image, 0.5), "score": density.score(image, 0.5)}

    yield "Eq. 13", eq13
    free = lambda: nd.classifier_free_guided(cubes, places[0], 2.0)
    yield "classifier-free", lambda: {"log_prob": free().log_prob(image, 0.5)}


def closed():
    means, widths = np.array([[-1.0, 0.0], [1.0, 0.5]]), np.stack([0.1 * np.eye(2)] * 2)
    product = nd.exact.GaussianMixture(means, widths) * nd.exact.GaussianMixture(0.8 * means, 2 * widths)
    yield "closed, placed levels", lambda: of_run(nd.anneal(KEY, product, num_chains=64, level_ess=0.7, **QUIET))
    yield "closed, MALA", lambda: of_run(nd.anneal(KEY, product, nd.MALA(), **SMALL))
    yield "closed, no resampling", lambda: of_run(nd.anneal(KEY, product, resample_threshold=0.0, **SMALL))


def of_density(density):
    leaves = jax.tree.leaves(density.state)
    found = {f"weights.{i}": a for i, a in enumerate(leaves)}
    x = jax.random.normal(KEY, (16, *density.event_shape))
    return found | {"score": density.score(x, 0.3)}


def fitted():
    data = np.asarray(jax.random.normal(KEY, (400, 2)) * jnp.array([1.0, 0.3]))
    classes = np.eye(2)[np.arange(400) % 2]
    settings = {"network": NETWORK, "training": TRAINING, **QUIET}
    yield "fit, energy", lambda: of_density(nd.fit(KEY, data, **settings))
    yield "fit, paper", lambda: of_density(nd.fit(KEY, data, calibrated=False, parameterisation="dae", **settings))
    yield "fit, score", lambda: of_density(nd.fit(KEY, data, model="score", **settings))
    yield "fit, conditions", lambda: of_density(nd.fit(KEY, data, conditions=classes, **settings))
    base = nd.MixtureBase.fit(data, classes, num_components=2)
    yield "fit, mixture base", lambda: of_density(nd.fit(KEY, data, conditions=classes, base=base, **settings))
    sampler = lambda key, n: jax.random.normal(key, (n, 2))
    yield "fit, sampler", lambda: of_density(nd.fit(KEY, sampler, **settings))


def model(y):
    ring = nd.load_pretrained("ring")
    x = numpyro.sample("x", nd.DiffusionPrior(ring))
    scale = numpyro.sample("scale", dist.HalfNormal(0.5))
    numpyro.sample("y", dist.Normal(x[0] + x[1], scale).expand([3]).to_event(1), obs=y)


def posteriors():
    y = np.array([0.3, 0.1, 0.4])

    def mcmc(**settings):
        found = nd.AnnealedMCMC(model, **SMALL, **settings)
        found.run(KEY, y)
        return dict(found.get_samples()) | dict(found.get_extra_fields()) | {"log_evidence": found.log_evidence}

    yield "AnnealedMCMC", mcmc
    yield "AnnealedMCMC, more draws", lambda: mcmc(num_samples=3, metric="frame")

    def kernel():
        found = MCMC(
            nd.AnnealedKernel(model), num_warmup=12, num_samples=4, num_chains=4, chain_method="vectorized", **QUIET
        )
        found.run(KEY, y, extra_fields=("log_weight",))
        return dict(found.get_samples()) | dict(found.get_extra_fields())

    yield "AnnealedKernel", kernel


def bounds():
    mixture = nd.exact.GaussianMixture([[-1.0, 0.0], [1.0, 0.5]], np.stack([0.1 * np.eye(2)] * 2))
    x = mixture.sample(KEY, 32)
    few = {"levels": 8, **QUIET}
    of = lambda b: {"lower": b.lower, "lower_error": b.lower_error, "upper": b.upper, "upper_error": b.upper_error}
    yield "ais_bound", lambda: of(nd.ais_bound(KEY, mixture, num_chains=128, **few))
    yield "raise_bound", lambda: of(nd.raise_bound(KEY, mixture, x, num_repeats=4, **few))
    yield "bdmc", lambda: of(nd.bdmc(KEY, mixture, x, num_chains=128, **few))
    yield "bdmc, ULA", lambda: of(nd.bdmc(KEY, mixture, x, nd.ULA(), num_chains=128, **few))


SECTIONS = {f.__name__: f for f in (composed, annealed, closed, bounds, posteriors, fitted)}


def results(only):
    """Arrays by "row|name"."""
    found = {}
    for section in (SECTIONS[name] for name in only or SECTIONS):
        for row, make in section():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", nd.errors.DiagnosticWarning)
                found |= {f"{row}|{name}": np.asarray(value, dtype=np.float64) for name, value in make().items()}
            print(f"  {row}", file=sys.stderr)
            jax.clear_caches()
    return found


def difference(old, new) -> float:
    if old.shape != new.shape or not np.array_equal(np.isfinite(old), np.isfinite(new)):
        return np.inf
    fine = np.isfinite(old)
    if not fine.any():
        return 0.0
    return float(np.max(np.abs(old[fine] - new[fine])) / max(np.max(np.abs(old[fine])), 1e-6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--save", metavar="FILE", help="write the results of the version that is imported")
    group.add_argument("--against", metavar="FILE", help="compare with results that were saved")
    parser.add_argument("--double", action="store_true", help="in double precision")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="one of the sections; may be repeated")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", arguments.double)
    print(f"results of {nd.__file__}", file=sys.stderr)
    found = results(arguments.only)
    if arguments.save:
        np.savez_compressed(arguments.save, **found)
        return
    known, rows = np.load(arguments.against), {}
    for name in sorted({*known, *found}):
        worst = difference(known[name], found[name]) if name in known and name in found else np.inf
        row, _, what = name.partition("|")
        rows[row] = max(rows.get(row, (0.0, "")), (worst, what))
    for row, (worst, what) in rows.items():
        verdict = "same" if worst <= TOLERANCE else "OTHER"
        print(f"{row:<28} {verdict:<6} largest difference {worst:.1e} in {what or 'none'}")


if __name__ == "__main__":
    main()
