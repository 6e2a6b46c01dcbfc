"""What networks see: noise levels as waves, places as bumps, pixels with their neighbours; and layers by scale."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx


def fourier(frequencies, c):
    """sin and cos of a number c at each frequency: [2 * frequencies]."""
    phase = frequencies[...] * c
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)])


def position_map(position, shape, width):
    """exp(-|p - y|^2 / (2 w^2)) [height, width, 1] around a place y = (column, row) in [0, 1], at pixel centres p."""
    rows, columns = (jnp.arange(n) + 0.5 for n in shape[:2])
    square = (columns / shape[1] - position[0]) ** 2 + (rows[:, None] / shape[0] - position[1]) ** 2
    return jnp.exp(-square / (2 * width**2))[..., None]


def neighbours(x, size, stride=1):
    """Images [rows, columns, n], one for each of the size^2 places around a pixel, of every stride-th pixel.

    Zero beyond the edges. Slices, not indices: the gradient of indexing is a scatter, which is slow.
    """
    (rows, columns), reach = x.shape[:2], size // 2
    padded = jnp.pad(x, ((reach, reach), (reach, reach), (0, 0)))
    return [padded[i : i + rows : stride, j : j + columns : stride] for i in range(size) for j in range(size)]


def linear(n_in, n_out, scale=1.0, *, rngs):
    """A layer whose outputs start `scale` times as large as its inputs."""
    init = nnx.initializers.variance_scaling(scale**2, "fan_in", "normal") if scale else nnx.initializers.zeros
    return nnx.Linear(n_in, n_out, kernel_init=init, rngs=rngs)
