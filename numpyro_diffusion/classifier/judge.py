r"""The judge of composed images: is there a cube at every place that was asked for?

It follows Du et al. (2023): a picture is right if p(a cube at y | x) > 1/2 at every place y that was asked for. The
judge is trained with as many noes as yeses, and 1/2 is to be read with that prior.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..checks.text import shown
from ..errors import ParameterError, ShapeError, check_integer, check_key, check_number
from .batch import Batch, as_array
from .classifier import Classifier, predict

#: A cube is at y if its centre is nearer than NEAR, and there is none if all are farther than FAR; in image widths.
NEAR, FAR, HARD = 0.03, 0.1, 0.2
#: Candidates for a place without a cube.
CANDIDATES = 16


def all_present(classifier: Classifier, images, positions, mask=None, *, threshold: float = 0.5) -> jax.Array:
    """Whether p(a cube at y | x) exceeds the threshold at every place y asked for, [n]: the paper's "correct".

    Args:
        classifier: With a single output and a place.
        images: [n, height, width, channels].
        positions: Places [n, m, 2] for each image, or [m, 2] for all.
        mask: [n, m] or [m], false for places that were not asked for; all were if None.
        threshold: Of the confidence.

    Raises:
        ShapeError: if the inputs do not fit the classifier or each other.
        ParameterError: for a classifier of another kind, a threshold outside [0, 1], or places that are not finite.
    """
    config = classifier.config if isinstance(classifier, Classifier) else None
    if config is None or config.num_outputs != 1 or not config.position_width:
        raise ParameterError(
            "a judge of places is a Classifier with num_outputs 1 and a position_width > 0, such as "
            f"demo_cubes.pretrained_judge(16); got {shown(classifier)}."
        )
    check_number("threshold", threshold, 0.0, 1.0, "0.5 is the paper's.")
    positions = as_array("positions", positions, float)
    wanted = None if mask is None else as_array("mask", mask, bool)
    if positions.ndim not in (2, 3) or positions.shape[-1] != 2:
        raise ShapeError(f"positions must have shape [n, m, 2] or [m, 2]; got {positions.shape}.")
    n, m = len(images), positions.shape[-2]
    fits = wanted is None or wanted.shape in ((m,), (n, m))
    if m == 0 or positions.shape[:-2] not in ((), (n,)) or not fits:
        raise ShapeError(
            f"for {n} images positions must have shape [{n}, m, 2] or [m, 2] with m >= 1, and a mask [{n}, m] or [m]; "
            f"got {positions.shape} and {None if wanted is None else wanted.shape}."
        )
    if not isinstance(positions, Tracer) and not bool(jnp.all(jnp.isfinite(positions))):
        raise ParameterError("positions must be finite, (column, row) in [0, 1]; got NaN or infinity.")
    positions = jnp.broadcast_to(positions, (n, m, 2))
    confidence = jnp.stack([predict(classifier, images, place) for place in jnp.moveaxis(positions, 1, 0)], axis=1)
    return jnp.all((confidence > threshold) | (False if wanted is None else ~wanted), axis=1)


def position_queries(
    labelled: Callable[[jax.Array, int], tuple[jax.Array, Any]], max_noise: float = 0.1
) -> Callable[[jax.Array, int], Batch]:
    """Sampler of batches, each a `Batch`, that ask "is there a cube at y?", half of them with the answer yes.

    Yes: y is the centre of a cube, any of the picture, moved by up to 0.03 image widths. No, half of the time: y is
    uniform over the places at least 0.1 from every cube's centre. No, hard: y is 0.1 to 0.2 from a cube's centre and at
    least 0.1 from the others. White noise of standard deviation uniform in [0, max_noise] is added to every picture, so
    that the residual noise of a sampler does not matter.

    Args:
        labelled: Sampler of pictures and labels with `positions` [n, m, 2] and `mask` [n, m], `cubes.labelled(16)` say.
        max_noise: Largest standard deviation of the noise, in the scale of the pictures.

    Raises:
        ParameterError: if `max_noise` is negative or `labelled` no sampler.
    """
    if not callable(labelled):
        raise ParameterError(f"labelled must be a sampler such as cubes.labelled(16); got {shown(labelled)}.")
    max_noise = check_number("max_noise", max_noise, 0.0, 1e6, "0.1 is usual for pictures in [-1, 1].")
    return _position_queries(labelled, max_noise)


@lru_cache
def _position_queries(labelled, max_noise: float):
    def sample(rng_key, num_samples):
        check_key(rng_key)
        num_samples = check_integer("num_samples", num_samples)
        picture_key, place_key, noise_key, kind_key, sigma_key = jax.random.split(rng_key, 5)
        x, labels = labelled(picture_key, num_samples)
        sigma = max_noise * jax.random.uniform(sigma_key, (num_samples, 1, 1, 1))
        kind = jax.random.randint(kind_key, (num_samples,), 0, 4)
        keys = jax.random.split(place_key, num_samples)
        places = jax.vmap(_place)(keys, kind, labels.positions, labels.mask)
        return Batch(x + sigma * jax.random.normal(noise_key, x.shape), (kind < 2).astype(int), places)

    return sample


def _place(rng_key, kind, positions, mask):
    """A place with a cube (kinds 0 and 1), anywhere without one (2), and close to one but without (3)."""
    which_key, uniform_key, radius_key, angle_key = jax.random.split(rng_key, 4)
    shape = (CANDIDATES,)
    which = jax.random.choice(which_key, len(mask), shape, p=mask / jnp.sum(mask))
    # Uniform over the disc of radius NEAR, or over the ring from FAR to HARD.
    inner, outer = jnp.where(kind < 2, 0.0, FAR), jnp.where(kind < 2, NEAR, HARD)
    radius = jnp.sqrt(jax.random.uniform(radius_key, shape, minval=inner**2, maxval=outer**2))
    angle = jax.random.uniform(angle_key, shape, maxval=2 * np.pi)
    close = positions[which] + radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    places = jnp.where(kind == 2, jax.random.uniform(uniform_key, (*shape, 2)), close)
    distance = jnp.where(mask, jnp.linalg.norm(places[:, None] - positions, axis=-1), jnp.inf)
    outside = jnp.min(jnp.minimum(places, 1 - places), axis=-1)
    room = jnp.minimum(jnp.minimum(jnp.min(distance, axis=1) - FAR, outside), 0.0)
    # The first candidate that is far enough from every cube; any will do where there is a cube.
    return places[jnp.where(kind < 2, 0, jnp.argmax(room))]
