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

#: What a network is told: time t from what it is told, under its schedule; what is out of range is the nearest end.
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
        return np.asarray(density.sample(key, 1000))
    return np.asarray(digits.dequantise(key, jnp.asarray(digits.images("test")[0])))


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """`(x, told) -> output` of one point, as a network trained on `density` under these conventions gives it.

    `units` are factor and shift that its training data were multiplied with and moved by.
    """

    density: Any
    schedule: Any
    kind: str = "noise"
    told: str = "index"
    factor: float = 1.0
    units: tuple[float, float] = (1.0, 0.0)

    def __call__(self, x, told):
        t = jnp.clip(DECODE[self.told](self.schedule, jnp.asarray(told, dtype=float)), 0.0, 1.0)
        t = jnp.maximum(t, 1e-4) if self.schedule.noise_range[0] == 0 else t
        alpha, r = self.schedule.alpha(t), self.schedule.noise_to_signal(t)
        factor, shift = self.units
        noise, sigma = self._noise((x / alpha - shift) / factor, r / factor), alpha * r
        denoised = x / alpha - r * noise
        outputs = {
            "noise": noise, "denoiser": denoised, "velocity": alpha * noise - sigma * denoised,
            "flow": noise - denoised, "score": -noise / sigma, "residual": sigma * noise,
        }  # fmt: skip
        return self.factor * outputs[self.kind]

    def _noise(self, y, r):
        return -r * jax.grad(self.density.log_density)(y, EXPLODING.time(r))
