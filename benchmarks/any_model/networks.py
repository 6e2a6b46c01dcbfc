"""Networks in closed form that follow given conventions: the exact noise, velocity, denoiser, flow or score."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from numpyro_diffusion.datasets import digits

STEPS = 1000
DDPM = nd.NoiseSchedule.from_betas(np.linspace(1e-4, 0.02, STEPS))
COSINE_STEPS = nd.NoiseSchedule.from_diffusers_config(
    {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": STEPS}
)
EDM = nd.VarianceExploding(sigma_min=0.002, sigma_max=80.0)
FLOW = nd.NoiseSchedule.linear_flow()
COSINE = nd.VariancePreserving.cosine()
#: All noise that any of them knows.
EXPLODING = nd.VarianceExploding(sigma_max=2000.0)

MEANS = np.array([[0.5, 0.2], [-0.5, 0.4], [0.0, -0.6]])
COVARIANCES = np.array([[[0.02, 0.01], [0.01, 0.03]], [[0.01, 0.0], [0.0, 0.01]], [[0.05, 0.0], [0.0, 0.004]]])
WEIGHTS = np.array([0.5, 0.3, 0.2])

#: What a network is told: time t from what it is told, under its schedule.
DECODE: dict[str, Callable[[Any, Any], Any]] = {
    "time": lambda schedule, told: told,
    "index": lambda schedule, told: told / (STEPS - 1),
    "from one": lambda schedule, told: (told - 1) / (STEPS - 1),
    "fifty late": lambda schedule, told: (told - 50) / (STEPS - 1),
    "thousand": lambda schedule, told: told / 1000,
    "reversed": lambda schedule, told: 1 - told,
    "reversed index": lambda schedule, told: 1 - told / (STEPS - 1),
    "ratio": lambda schedule, told: schedule.time(jnp.maximum(told, 1e-6)),
    "sigma": lambda schedule, told: schedule.time(told / jnp.sqrt(jnp.maximum(1 - told**2, 1e-8))),
    "log ratio": lambda schedule, told: schedule.time(jnp.exp(jnp.clip(told, -10.0, 10.0))),
    "log ratio / 4": lambda schedule, told: schedule.time(jnp.exp(jnp.clip(4 * told, -10.0, 10.0))),
    "log SNR": lambda schedule, told: schedule.time(jnp.exp(jnp.clip(-told / 2, -10.0, 10.0))),
}
KINDS = ("noise", "denoiser", "velocity", "flow", "score", "residual")


def mixture() -> nd.exact.GaussianMixture:
    """The planar density, most of it in [-1, 1]."""
    return nd.exact.GaussianMixture(MEANS, COVARIANCES, WEIGHTS, schedule=EXPLODING)


def scans() -> nd.Density:
    """The shipped density of 8x8 digits."""
    return nd.load_pretrained("digits").with_schedule(EXPLODING)


def data_of(density: nd.Density, seed: int) -> np.ndarray:
    """Points that a density is meant for."""
    key = jax.random.key(100 + seed)
    if isinstance(density, nd.exact.GaussianMixture):
        return np.asarray(density.sample(key, 600))
    return np.asarray(digits.dequantise(key, jnp.asarray(digits.images("test")[0])))


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """`(conventions, x, told) -> output` of one point, as a network trained on `density` gives it.

    Conventions are arrays, so that networks which differ in nothing else share their compiled programs.
    """

    density: Any
    schedule: Any

    def __call__(self, conventions, x, told):
        told = jnp.asarray(told, dtype=float)
        # What is out of range is the nearest end.
        times = jnp.stack([jnp.clip(decode(self.schedule, told), 0.0, 1.0) for decode in DECODE.values()])
        t = times[conventions["told"]]
        t = jnp.maximum(t, 1e-4) if self.schedule.noise_range[0] == 0 else t
        alpha, r = self.schedule.alpha(t), self.schedule.noise_to_signal(t)
        sigma, factor, shift = alpha * r, conventions["units"][0], conventions["units"][1]
        y, r_there = (x / alpha - shift) / factor, r / factor
        noise = -r_there * jax.grad(self.density.log_density)(y, EXPLODING.time(r_there))
        denoised = x / alpha - r * noise
        outputs = [
            noise, denoised, alpha * noise - sigma * denoised, noise - denoised, -noise / sigma, sigma * noise,
        ]  # fmt: skip
        return conventions["factor"] * jnp.stack(outputs)[conventions["kind"]]


def conventions(kind="noise", told="index", factor=1.0, units=(1.0, 0.0)) -> dict[str, Any]:
    """What a `Network` was trained to predict and to be told, the factor of its output, and its data's units.

    The units are a factor that its training data were multiplied with, and what was added to them then.
    """
    return {
        "kind": jnp.asarray(KINDS.index(kind)), "told": jnp.asarray(list(DECODE).index(told)),
        "factor": jnp.asarray(float(factor)), "units": jnp.asarray(units, dtype=float),
    }  # fmt: skip
