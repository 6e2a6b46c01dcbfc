"""What classifiers are trained on: questions and answers, checked."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..checks.text import layouts, shown
from ..errors import ParameterError, ShapeError
from ..train.data import check_finite, check_scale

#: Images are of order one; what exceeds this is in other units.
LARGEST_VALUE = 1000.0


class Batch(NamedTuple):
    """Questions and answers: `images` [n, height, width, channels], `labels` [n], and what the network also takes.

    Attributes:
        images: In the scale that the classifier is to be used at.
        labels: Integer class, or 0 and 1 for a single output; [n, heads] for a network with heads.
        positions: (column, row) in [0, 1], [n, 2]; None for a network without a place.
        log_noise: Log noise level of each image, [n]; None for a network without noise level.
    """

    images: Any
    labels: Any
    positions: Any = None
    log_noise: Any = None

    __repr__ = layouts


def as_array(name: str, value, dtype=None) -> jax.Array:
    """The argument `name` as an array, or a ShapeError."""
    try:
        return jnp.asarray(value, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{name} must be given as arrays of numbers; got {shown(value)}. Convert them.") from error


def fixed_batch(data, config) -> Batch:
    """A fixed batch as arrays, checked."""
    if not isinstance(data, tuple) or not 2 <= len(data) <= 4:
        raise ParameterError(f"data must be a sampler (rng_key, num_samples) -> Batch, or a Batch; got {shown(data)}.")
    given = Batch(*data)._asdict().items()
    batch = Batch(**{field: None if values is None else as_array(field, values) for field, values in given})
    check_batch(batch, config, len(batch.labels) if jnp.ndim(batch.labels) else 0)
    check_values(batch, config)
    return batch


def check_batch(batch, config, n: int) -> None:
    """Shapes and types of n questions and answers."""
    wanted = {
        "images": (n, *config.image_shape), "labels": (n, len(config.heads)) if config.heads else (n,),
        "positions": (n, 2) if config.position_width else None, "log_noise": (n,) if config.embedding_size else None,
    }  # fmt: skip
    if n < 1:
        raise ShapeError(f"labels must be integers of shape [n] with n >= 1; got shape {jnp.shape(batch.labels)}.")
    for field, shape in wanted.items():
        values, kind, what, remedy = getattr(batch, field), jnp.floating, "floating-point numbers", "Convert them."
        if field == "labels":
            kind, what, remedy = jnp.integer, "integers, a class each", "Take the argmax of one-hot vectors."
        if (values is None) != (shape is None):
            has, do = ("no", "Leave out") if shape is None else ("a", "Give")
            raise ShapeError(f"the network has {has} {field}. {do} `{field}`.")
        if values is not None and (values.shape != shape or not jnp.issubdtype(values.dtype, kind)):
            raise ShapeError(f"{field} must be {what}, of shape {shape}; got {values.dtype} {values.shape}. {remedy}")


def check_values(batch, config) -> None:
    """That numbers are finite and labels are classes."""
    check_finite(batch._replace(labels=None))
    check_scale(batch.images, LARGEST_VALUE)
    counts = config.heads or (max(config.num_outputs, 2),)
    for labels, count in zip(jnp.atleast_2d(batch.labels.T), counts, strict=True):
        low, high, most = int(jnp.min(labels)), int(jnp.max(labels)), count - 1
        if low < 0 or high > most:
            raise ParameterError(f"labels must be classes from 0 to {most}; got {low} to {high}. Number them anew.")
