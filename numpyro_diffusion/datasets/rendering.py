"""Pictures as means of rays, and samplers that render them piece by piece."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..errors import check_integer, check_key

#: Pictures rendered at a time.
CHUNK = 64


def picture(trace: Callable[[jax.Array], jax.Array], size: int) -> jax.Array:
    """RGB [size, size, 3] in [-1, 1] of the colour [3] in [0, 1] of a ray through any place (column, row) in [0, 1].

    A pixel is the mean of 2x2 rays, and of more where the picture is smaller than 24 pixels. Memory and time grow with
    `size` squared; ParameterError unless it is an integer >= 8.
    """
    size = checked_size(size)
    rays = max(2, math.ceil(48 / size))
    grid = (jnp.arange(size * rays) + 0.5) / (size * rays)
    places = jnp.stack(jnp.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    colours = jax.vmap(trace, out_axes=-1)(places)
    image = jnp.mean(colours.reshape(3, size, rays, size, rays), axis=(2, 4))
    return 2 * jnp.clip(jnp.moveaxis(image, 0, -1), 0, 1) - 1


def in_pieces(draw: Callable) -> Callable:
    """Sampler `(rng_key, num_samples) -> ...` of `draw(rng_key)`, `CHUNK` at a time, which bounds its memory."""

    def sample(rng_key, num_samples):
        check_key(rng_key)
        num_samples = check_integer("num_samples", num_samples)
        # Whole chunks: a rest of another length would be compiled a second time.
        chunk = min(CHUNK, num_samples)
        keys = jax.random.split(rng_key, -(-num_samples // chunk) * chunk)
        drawn = jax.lax.map(draw, keys, batch_size=chunk)
        return jax.tree.map(lambda values: values[:num_samples], drawn)

    return sample


def checked_size(size) -> int:
    """The size of a picture, an integer >= 8, or a ParameterError."""
    return check_integer("size", size, 8, remedy="Take 16 pixels of a side.")
