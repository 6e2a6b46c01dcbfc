"""The digits density: is it normalised, and how well does it predict held-out scans beside other density models?

    python benchmarks/peers/digits.py [--quick]

All log likelihoods are of the same 297 held-out scans, dequantised and with the density's least noise (sigma 0.03)
added, in nats per image. Needs flowjax for the flows (`pip install numpyro-diffusion[dev]`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure
from benchmarks.train.pretrained import digits_base
from numpyro_diffusion.datasets import digits

COLUMNS = [
    "held-out log likelihood",
    "train log likelihood",
    "held-out accuracy",
    "log Z",
    "log Z error",
    "largest class log Z",
    "ESS share",
    "evaluations",
    "seconds",
]
HEADER = """# Handwritten digits (8x8, 64 dimensions)

`python benchmarks/peers/digits.py`. Held-out log likelihood: nats per image, mean over 297 scans; rows "given the class" are told the label. Accuracy: of
Bayes' rule with equal priors. log Z: annealed in the preconditioned frame, 0 for a normalised density, with its standard error (given the class: mean
over the ten, and the largest in size); ESS share of the population at its least. Seeds: of sampling and noise for ours (one shipped density), of
everything for the others. Base alone: the density's own mixture, two shrunk Gaussians a class. Gaussian mixtures: scikit-learn, full covariances, regularised by
1e-3, fitted to three noised copies of the 1,500 training scans. Kernel density: Gaussian, ten noised copies, bandwidth chosen on the last 250 training scans.
Flows: flowjax, data standardised, fresh noise in every step; number of steps chosen on the last 250 training scans, then trained anew on all.
"""
SIGMA = 0.03
KERNEL = nd.HMC(num_integration_steps=4)


def noisy(split: str, seed: int):
    """Dequantised, noised scans [n, 64]."""
    dequantise_key, noise_key = jax.random.split(jax.random.key(700 + seed))
    x = digits.dequantise(dequantise_key, digits.images(split)[0])
    return np.asarray(x + SIGMA * jax.random.normal(noise_key, x.shape))


def copies(split: str, seed: int, count: int):
    """Several noised copies of a split, noise unlike that of `noisy` with this seed."""
    return np.concatenate([noisy(split, 1000 + count * seed + i) for i in range(count)])


def ours(seed: int) -> dict:
    """Held-out log likelihood and annealed normaliser of the shipped density."""
    density = nd.load_pretrained("digits")
    run = nd.anneal(
        jax.random.key(seed), density, KERNEL, num_chains=512, num_steps=4, metric="pilot", progress_bar=False
    )
    return {
        "held-out log likelihood": float(density.log_prob(noisy("test", seed)).mean()),
        "train log likelihood": float(density.log_prob(noisy("train", seed)).mean()),
        "log Z": run.log_evidence, "log Z error": run.log_evidence_error,
        "ESS share": float(run.stats["ess"].min()), "evaluations": run.evaluations_per_chain,
    }  # fmt: skip


def ours_given_class(seed: int) -> dict:
    """The same, told the label; accuracy; and the normalisers of all classes."""
    density = nd.load_pretrained("digits")
    assert isinstance(density, nd.EnergyDensity)
    runs = [
        nd.anneal(
            jax.random.fold_in(jax.random.key(seed), j), density.given(one), KERNEL, num_chains=256, num_steps=2,
            metric="pilot", progress_bar=False,
        )
        for j, one in enumerate(np.eye(10))
    ]  # fmt: skip
    log_z = np.array([run.log_evidence for run in runs])
    return scores(lambda x: digits.by_class(density, x), seed) | {
        "log Z": log_z.mean(), "log Z error": float(np.mean([run.log_evidence_error for run in runs])),
        "largest class log Z": log_z[np.argmax(np.abs(log_z))],
        "ESS share": min(float(run.stats["ess"].min()) for run in runs),
        "evaluations": np.mean([run.evaluations_per_chain for run in runs]),
    } | {f"log Z of {j}": value for j, value in enumerate(log_z)}  # fmt: skip


def scores(by_class, seed: int) -> dict:
    """Log likelihood given the label, and accuracy, from a function x [n, 64] -> log p(x | class) [n, 10]."""
    result = {}
    for split, where in (("test", "held-out"), ("train", "train")):
        labels, found = digits.images(split)[1], np.asarray(by_class(noisy(split, seed)))
        result[f"{where} log likelihood"] = found[np.arange(len(labels)), labels].mean()
        result[f"{where} accuracy"] = np.mean(found.argmax(1) == labels)
    return result


def base_log_prob(x, condition):
    """Log density [n] of the mixture under the shipped density, fitted anew."""
    return jax.jit(jax.vmap(lambda v: digits_base().log_prob(v, SIGMA, condition)))(jnp.asarray(x))


def base_alone(seed: int) -> dict:
    """The mixture base without the network."""
    zero = jnp.zeros(11)
    return {
        "held-out log likelihood": base_log_prob(noisy("test", seed), zero).mean(),
        "train log likelihood": base_log_prob(noisy("train", seed), zero).mean(),
    }


def base_given_class(seed: int) -> dict:
    """The mixture base without the network, told the label."""
    given = [jnp.append(one, 1.0) for one in jnp.eye(10)]
    return scores(lambda x: np.stack([base_log_prob(x, c) for c in given], axis=1), seed)


def gaussian_mixture(components: int):
    """Function of the seed that fits and scores a Gaussian mixture."""

    def compute(seed: int) -> dict:
        fit = GaussianMixture(components, reg_covar=1e-3, random_state=seed, max_iter=50).fit(copies("train", seed, 3))
        return {
            "held-out log likelihood": fit.score(noisy("test", seed)),
            "train log likelihood": fit.score(noisy("train", seed)),
        }

    return compute


def kernel_density(seed: int) -> dict:
    """Gaussian kernels on noised scans."""
    validation = noisy("validation", seed)
    widths = np.geomspace(0.05, 0.5, 12)
    found = [KernelDensity(bandwidth=w).fit(copies("fit", seed, 10)).score(validation) for w in widths]
    width = float(widths[int(np.argmax(found))])
    fit = KernelDensity(bandwidth=width).fit(copies("train", seed, 10))
    test, train = noisy("test", seed), noisy("train", seed)
    return {
        "held-out log likelihood": fit.score(test) / len(test), "train log likelihood": fit.score(train) / len(train),
        "bandwidth": width,
    }  # fmt: skip


def flow(kind: str):
    """Function of the seed that trains and scores a flow of flowjax."""

    def compute(seed: int) -> dict:
        steps = train_flow(kind, seed, "fit", 6_000, validation=noisy("validation", seed))[1]
        log_prob, _ = train_flow(kind, seed, "train", steps)
        return {
            "held-out log likelihood": log_prob(noisy("test", seed)).mean(),
            "train log likelihood": log_prob(noisy("train", seed)).mean(),
            "steps": steps,
        }

    return compute


def train_flow(kind: str, seed: int, split: str, num_steps: int, validation=None, chunk: int = 100, patience: int = 8):
    """(log_prob of points [n, 64], number of steps taken or, with validation points, that did best on them)."""
    import equinox as eqx
    from flowjax import bijections, distributions, flows
    from paramax import NonTrainable, unwrap

    scans = jnp.asarray(digits.images(split)[0])
    mean, std = scans.mean(0), jnp.sqrt(scans.var(0) + digits.STEP**2 / 12 + SIGMA**2)
    standard, key = distributions.StandardNormal((64,)), jax.random.key(seed)
    if kind == "coupling":
        spline = bijections.RationalQuadraticSpline(knots=8, interval=5)
        model = flows.coupling_flow(key, base_dist=standard, transformer=spline, flow_layers=6, nn_width=128)
    else:
        model = flows.masked_autoregressive_flow(key, base_dist=standard, flow_layers=6, nn_width=128)
    params, static = eqx.partition(model, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, NonTrainable))
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, weight_decay=1e-2))

    def log_prob(params, x):
        return unwrap(eqx.combine(params, static)).log_prob((x - mean) / std) - jnp.sum(jnp.log(std))

    def step(carry, key):
        params, state = carry
        which, uniform, normal = jax.random.split(key, 3)
        x = digits.dequantise(uniform, scans[jax.random.randint(which, (256,), 0, len(scans))])
        x = x + SIGMA * jax.random.normal(normal, x.shape)
        gradient = jax.grad(lambda p: -log_prob(p, x).mean())(params)
        updates, state = optimiser.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    run, score = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys)[0]), jax.jit(log_prob)
    carry, best, best_steps = (params, optimiser.init(params)), -np.inf, num_steps
    for done in range(chunk, num_steps + 1, chunk):
        carry = run(carry, jax.random.split(jax.random.fold_in(key, done), chunk))
        if validation is not None:
            value = float(score(carry[0], validation).mean())
            if value > best:
                best, best_steps = value, done
            elif done >= best_steps + patience * chunk:
                break
    return lambda x: np.asarray(score(carry[0], x)), best_steps


if __name__ == "__main__":
    options = arguments(__doc__ or "")
    rows = [
        ("ours, all classes", ours),
        ("ours, given the class", ours_given_class),
        ("base alone", base_alone),
        ("base alone, given the class", base_given_class),
        *[(f"Gaussian mixture, {k} components", gaussian_mixture(k)) for k in (1, 3, 10, 30)],
        ("kernel density", kernel_density),
        ("flow, masked autoregressive", flow("autoregressive")),
        ("flow, coupling with splines", flow("coupling")),
    ]
    measure("digits", options, rows, HEADER, COLUMNS)
