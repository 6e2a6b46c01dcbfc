"""The energy model of MNIST from elsewhere as a factor: times a Gaussian mixture of ours, sampled with weights."""

from __future__ import annotations

from functools import cache

import jax
import numpy as np
from flax import nnx
from jax.scipy.special import logsumexp

import numpyro_diffusion as nd
from benchmarks.any_model import mnist_networks as mnist

#: The energy model's power: its training fixed no temperature, and at one it hardly says anything.
EXPONENT = 20
#: Principal axes of the mixture that it is multiplied with.
NUM_AXES = 16
#: Noise-to-signal ratio at which it has lost half of its say: it was trained on clean images, and knows no others.
FADES_AT = 0.1


@cache
def components() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of the digits 0 to 3 along `NUM_AXES` principal axes: mean image, axes [k, 784], means [4, k], covariances."""
    x, labels = mnist.digits()
    flat = x.reshape(len(x), -1).astype(float)
    centre = flat.mean(0)
    axes = np.linalg.eigh(np.cov(flat.T))[1][:, ::-1][:, :NUM_AXES].T
    parts = [(flat[labels == k] - centre) @ axes.T for k in range(4)]
    return centre, axes, np.array([a.mean(0) for a in parts]), np.array([np.cov(a.T) for a in parts])


def drawn(z):
    """Images [n, 28, 28, 1] of coordinates [n, k]."""
    centre, axes, _, _ = components()
    return (z @ axes + centre).astype("float32").reshape(-1, *mnist.SHAPE)


@cache
def mixture():
    """A Gaussian for each of the digits 0 to 3, equally likely."""
    return nd.exact.GaussianMixture(*components()[2:], name="mixture")


@cache
def energy_factor():
    """The energy model to the power of 20, which fades with noise; at t = 0 it is what it is."""
    graphdef, weights = nnx.split(mnist.energy_net())
    schedule = mixture().schedule

    def log_factor(weights, z, t):
        exponent = EXPONENT / (1 + (schedule.noise_to_signal(t) / FADES_AT) ** 2)
        return exponent * nnx.merge(graphdef, weights)(drawn(z[None]))[0]

    # A factor, not a density: `nd.from_energy` would take it for one that becomes a Gaussian of its own in noise.
    return nd.as_density(log_factor, (NUM_AXES,), schedule, parameters=weights, name="ebm^20")


@cache
def truth(num: int = 20_000) -> dict:
    """log E exp(20 energy model) under the mixture, and its share of zeros, by importance weights of exact draws."""
    rng, (means, covariances) = np.random.default_rng(0), components()[2:]
    digits = np.repeat(np.arange(4), num // 4)
    noise = rng.normal(size=(4, num // 4, NUM_AXES))
    x = drawn((means[:, None] + noise @ np.linalg.cholesky(covariances).transpose(0, 2, 1)).reshape(num, -1))
    network = jax.jit(mnist.energy_net())
    log_weights = EXPONENT * np.concatenate([network(part) for part in np.split(x, 20)]).astype(float)
    weights = np.exp(log_weights - log_weights.max())
    return {
        "true log Z": float(logsumexp(log_weights) - np.log(num)),
        "true zeros": float(weights @ (digits == 0) / weights.sum()),
        "true ESS": float(weights.sum() ** 2 / (weights @ weights)),
    }


def product(seed: int, num_chains: int = 128, num_levels: int = 40) -> tuple[np.ndarray, dict]:
    """Images and figures of mixture x energy model ** 20 by HMC, with weights.

    At t = 0 the target does not depend on how the factor fades in.
    """
    run = nd.anneal(
        jax.random.key(seed), mixture() * energy_factor(), nd.HMC(), num_chains=num_chains, num_pilot_chains=32,
        levels=mixture().schedule.levels(num_levels, smallest=0.02), progress_bar=False,
    )  # fmt: skip
    samples = np.asarray(run.samples)
    parts = [nd.exact.GaussianMixture(m[None], c[None]) for m, c in zip(*components()[2:], strict=True)]
    # The digit that is likeliest to have made each point.
    digits = np.argmax([part.log_prob(samples) for part in parts], 0)
    return drawn(samples), truth() | {
        "log Z": run.log_evidence, "log Z error": run.log_evidence_error, "zeros": np.mean(digits == 0),
        "acceptance": float(np.mean(run.stats["acceptance_rate"])),
    }  # fmt: skip
