r"""Measuring an image with unknown gain and unknown noise: the NumPyro models of the digits benchmarks.

.. math:: y = g A x + \sigma \varepsilon, \qquad g \sim \mathrm{LogNormal}(0, 0.2), \quad
          \sigma \sim \mathrm{HalfNormal}(0.3)

with x an 8x8 scan and A one of three linear operators: every second pixel kept at random ("inpainting"), a 3x3 blur
("deblurring"), means of 2x2 blocks ("super-resolution").
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

TASKS = ("inpainting", "deblurring", "super-resolution")
GAIN_SCALE, SIGMA_SCALE = 0.2, 0.3


def operator(task: str, seed: int = 0) -> np.ndarray:
    """A [measurements, 64] of a task; the seed chooses the kept pixels."""
    eye = np.eye(64).reshape(64, 8, 8)
    if task == "inpainting":
        return np.eye(64)[np.sort(np.random.default_rng(seed).permutation(64)[:32])]
    if task == "deblurring":
        taps = np.array([0.25, 0.5, 0.25])
        padded = np.pad(eye, ((0, 0), (1, 1), (1, 1)), mode="edge")
        blurred = sum(taps[i] * taps[j] * padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3))
        return blurred.reshape(64, 64).T
    return eye.reshape(64, 4, 2, 4, 2).mean((2, 4)).reshape(64, 16).T


def measured(prior, A, y):
    """x, a gain and a noise scale, and what was measured of them."""
    x = numpyro.sample("x", prior)
    gain = numpyro.sample("gain", dist.LogNormal(0.0, GAIN_SCALE))
    sigma = numpyro.sample("sigma", dist.HalfNormal(SIGMA_SCALE))
    with numpyro.plate("measurements", A.shape[0]):
        numpyro.sample("y", dist.Normal(gain * (A @ jnp.ravel(x)), sigma), obs=y)


def simulate(rng: np.random.Generator, A: np.ndarray, x: np.ndarray) -> dict:
    """gain, sigma and y [measurements] for an image x [64]."""
    gain, sigma = np.exp(GAIN_SCALE * rng.standard_normal()), SIGMA_SCALE * abs(rng.standard_normal())
    return {"gain": gain, "sigma": sigma, "y": gain * A @ x + sigma * rng.standard_normal(len(A))}
