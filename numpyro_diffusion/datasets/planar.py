"""The two-dimensional densities of Du et al. (2023), Figures 2 and A5-A7: samplers and closed forms.

The ring has standard deviation 0.03 (the paper prints 0.3, with which its own figures are out of reach).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.text import shown
from ..density.density import Density
from ..density.exact import GaussianMixture, UniformBox
from ..density.schedule import NoiseSchedule
from ..errors import UnknownNameError, check_integer, check_key

STD = 0.03
_ANGLES = 2 * np.pi * np.arange(8) / 8
MODES: dict[str, np.ndarray] = {
    "ring": 0.5 * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], -1),
    "left_column": np.array([[-0.25, 0.5], [-0.25, 0.0], [-0.25, -0.5]]),
    "right_column": np.array([[0.25, 0.5], [0.25, 0.0], [0.25, -0.5]]),
}
#: Half-widths of uniform boxes around the origin.
BOXES: dict[str, tuple[float, float]] = {"bar": (0.1, 1.0), "large_box": (0.7, 0.7), "small_box": (0.3, 0.3)}
NAMES = (*MODES, *BOXES)


def exact(name: str, schedule: NoiseSchedule | None = None) -> Density:
    """Closed form of a density of `NAMES`, else UnknownNameError: the oracle for its trained counterpart."""
    _check(name)
    if name in MODES:
        modes = MODES[name]
        return GaussianMixture(modes, np.tile(STD**2 * np.eye(2), (len(modes), 1, 1)), schedule=schedule, name=name)
    half = np.array(BOXES[name])
    return UniformBox(-half, half, schedule=schedule, name=name)


def sampler(name: str) -> Callable[[jax.Array, int], jax.Array]:
    """Sampler `(rng_key, num_samples) -> [num_samples, 2]` of a density of `NAMES`, else UnknownNameError."""
    _check(name)

    def sample(rng_key, num_samples):
        check_key(rng_key)
        num_samples = check_integer("num_samples", num_samples)
        which, noise = jax.random.split(rng_key)
        if name in MODES:
            modes = jnp.asarray(MODES[name], dtype=float)
            index = jax.random.randint(which, (num_samples,), 0, len(modes))
            return modes[index] + STD * jax.random.normal(noise, (num_samples, 2))
        half = jnp.array(BOXES[name])
        return half * jax.random.uniform(noise, (num_samples, 2), minval=-1, maxval=1)

    return sample


def _check(name):
    if name not in NAMES:
        raise UnknownNameError(f"no planar density is called {shown(name)}. There are {', '.join(NAMES)}.")
