"""What `fit` trains on: an array or a sampler, checked, and its moments."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from .basis import CosineBasis
from .errors import ParameterError, ShapeError


def check_data(rng_key, data, conditions, num_moments):
    """(draw function, arrays it draws from, a sample to take moments of)."""
    if callable(data):
        if conditions is not None:
            raise ParameterError("a sampler returns its conditions itself: (x, conditions). Drop `conditions`.")
        sample = _draw_from_sampler(data)(jax.random.fold_in(rng_key, 0x5EED), num_moments, None)
        draw, arrays = _draw_from_sampler(data), None
    else:
        sample = (np.asarray(data), None if conditions is None else np.asarray(conditions))
        draw, arrays = _draw_from_array, None
    x, condition = sample
    if not np.issubdtype(x.dtype, np.floating):
        raise ShapeError(f"data must be floating point; got dtype {x.dtype}. Convert and scale it to order one.")
    if x.ndim < 2 or len(x) < 2:
        raise ShapeError(f"data must have shape [n, *event_shape] with n >= 2; got {x.shape}.")
    if condition is not None and not (
        np.issubdtype(condition.dtype, np.floating) or np.issubdtype(condition.dtype, np.integer)
    ):
        raise ShapeError(f"conditions must be numbers; got dtype {condition.dtype}. One-hot encode classes.")
    for what, values in (("data", x), ("conditions", condition)):
        if values is not None and not bool(np.all(np.isfinite(np.asarray(values)))):
            bad = int(np.sum(~np.isfinite(np.asarray(values))))
            raise ParameterError(f"{what} must be finite; got {bad} NaN or infinite values. Remove those rows.")
    if condition is not None and (condition.ndim != 2 or len(condition) != len(x)):
        raise ShapeError(f"conditions must have shape [{len(x)}, c]; got {condition.shape}.")
    if not callable(data):
        arrays = (jnp.asarray(x, dtype=float), None if condition is None else jnp.asarray(condition, dtype=float))
    return draw, arrays, sample


def _draw_from_array(rng_key, num_samples, data):
    x, condition = data
    index = jax.random.randint(rng_key, (num_samples,), 0, len(x))
    return x[index], None if condition is None else condition[index]


@functools.lru_cache(maxsize=32)
def _draw_from_sampler(sampler):
    def draw(rng_key, num_samples, data):
        x = sampler(rng_key, num_samples)
        return x if isinstance(x, tuple) else (x, None)

    return draw


def moments(x, network):
    """Mean [d] and covariance [d, d] of data, or along cosines the variances [d]."""
    flat = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    if not network.takes_images:
        return flat.mean(0), np.atleast_2d(np.cov(flat.T))
    if np.abs(flat).max() > 10:
        raise ParameterError(
            f"images must be of order one, in [-1, 1] say; got values from {flat.min():.3g} to {flat.max():.3g}. "
            "Scale them: x / 127.5 - 1 takes 0..255 there."
        )
    if x.shape[1:] != network.shape:
        raise ShapeError(f"the network takes images of shape {network.shape}; the data have {x.shape[1:]}. See shape=.")
    coordinates = jax.lax.map(CosineBasis(network.shape).coordinates, jnp.asarray(flat - flat.mean(0)), batch_size=256)
    return flat.mean(0), np.var(np.asarray(coordinates, dtype=np.float64), axis=0)
