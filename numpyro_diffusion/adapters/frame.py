"""The Gaussian that stands for the data of a network from elsewhere: of a scale, or of example points."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..checks.numbers import array_of, check_held, is_traced
from ..density.axes import CosineAxes, DenseAxes
from ..density.base import data_gaussian
from ..density.gaussian import Gaussian
from ..errors import ParameterError, ShapeError
from ..train.data import check_data, moments


class _Form(NamedTuple):
    """Images have three axes, and variances along cosines."""

    takes_images: bool
    shape: tuple[int, ...]


def frame_of(event_shape: tuple[int, ...], data_scale: Any, data: Any) -> Gaussian:
    """The Gaussian with the moments of `data` [n, *event_shape], or with mean zero and the standard deviations given.

    Raises:
        ShapeError: if the data or scales have another shape.
        ParameterError: if scales are not positive, or the data not finite.
    """
    form = _Form(len(event_shape) == 3, event_shape)
    if data is not None:
        return data_gaussian(*moments(data, form), form)
    size = math.prod(event_shape)
    remedy = f"a positive number or an array {list(event_shape)}. The standard deviation of the data."
    scale = array_of("data_scale", data_scale, remedy, ParameterError)
    if is_traced(scale):
        raise ParameterError("data_scale must be known; got a traced one. Make the density outside of jax.jit.")
    if scale.shape not in ((), event_shape):
        raise ShapeError(f"data_scale must be a number or have the shape of a point, {event_shape}; got {scale.shape}.")
    if not np.all((scale > 0) & np.isfinite(scale)):
        raise ParameterError("data_scale must be positive and finite: it is the standard deviation of the data.")
    variance = np.broadcast_to(scale**2, event_shape).ravel()
    check_held("variances of the data", variance, are_scales=True)
    # One variance for all is the same along any axes, and cosines take no memory.
    axes = CosineAxes(event_shape) if form.takes_images and scale.ndim == 0 else DenseAxes(jnp.eye(size))  # pyright: ignore
    return Gaussian(jnp.zeros(size), jnp.asarray(variance, dtype=float), axes)


def checked_points(data: Any, event_shape: tuple[int, ...]) -> np.ndarray | None:
    """Example points [n, *event_shape] as `nd.fit` takes them, or None."""
    if data is None:
        return None
    points = np.asarray(check_data(None, data, None, 0, 0)[1].data)
    if points.shape[1:] != event_shape:
        raise ShapeError(f"data must have shape [n, *{event_shape}]; got {points.shape}.")
    return points
