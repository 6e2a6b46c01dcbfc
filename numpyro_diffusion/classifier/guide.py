"""Guides: noise-conditional classifiers as factors, to be multiplied with a density (Dhariwal and Nichol 2021)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.fields import check_instance, check_integers
from ..checks.text import shown
from ..density.density import Density
from ..density.function import as_density
from ..density.schedule import NoiseSchedule, VariancePreserving
from ..errors import ParameterError, ShapeError, check_integer, check_key
from ..networks.classifier import ClassifierConfig
from .batch import Batch
from .classifier import Classifier, checked, log_softmax, logits_of

#: Noise-to-signal ratios that guides are trained on; beyond them they are told the nearest.
NOISES = (0.01, 20.0)


def likelihood(
    classifier: Classifier,
    label: int,
    schedule: NoiseSchedule | None = None,
    event_shape: tuple[int, ...] | None = None,
) -> Density:
    r"""log p(label | x, t) as a factor to guide with: `nd.guided(density, likelihood(classifier, 3), scale)`.

    The classifier must have been trained on `noised` images. It sees y / sqrt(1 + r^2) with y = x / alpha_t at the
    noise-to-signal ratio r, and log r: images of order one at every noise level.

    Args:
        classifier: With an `embedding_size`, without a place.
        label: The class.
        schedule: Noise schedule; variance preserving cosine by default.
        event_shape: Shape of the density's points where it is not that of the images.

    Raises:
        ShapeError: if `event_shape` has another size than the images.
        ParameterError: if the classifier knows no noise levels or the label is none of its classes.
    """
    config = checked(classifier).config
    if not config.embedding_size or config.position_width:
        raise ParameterError(
            "guidance needs a classifier that knows the noise level and no place: embedding_size > 0 and "
            f"position_width 0; got {config.embedding_size} and {config.position_width}."
        )
    if isinstance(label, bool) or not isinstance(label, int | np.integer) or not 0 <= label < config.num_outputs:
        raise ParameterError(f"label must be one of 0 to {config.num_outputs - 1}; got {shown(label)}.")
    schedule = VariancePreserving.cosine() if schedule is None else schedule
    check_instance("schedule", schedule, NoiseSchedule, remedy="Give nd.VariancePreserving.cosine(), say.")
    shape = config.image_shape if event_shape is None else check_integers("event_shape", event_shape)
    if np.prod(shape) != np.prod(config.image_shape):
        raise ShapeError(f"the classifier takes images of shape {config.image_shape}; points have shape {shape}.")
    parameters = (classifier, jnp.asarray(label))
    return as_density(_factor(config, schedule), shape, schedule, parameters=parameters, name=f"p({label}|x)")


@lru_cache
def _factor(config: ClassifierConfig, schedule: NoiseSchedule):
    def log_likelihood(parameters, x, t):
        (classifier, label), r = parameters, schedule.noise_to_signal(t)
        seen = jnp.reshape(x / schedule.alpha(t) / jnp.sqrt(1 + r**2), config.image_shape)
        log_noise = jnp.log(jnp.clip(r, *NOISES))
        logits = logits_of(classifier.state, config, "__call__", seen[None], None, log_noise[None])[0]
        return log_softmax(config, logits)[label]

    return log_likelihood


def noised(draw: Callable[[jax.Array, int], tuple[jax.Array, jax.Array]]):
    """Sampler of `Batch`es with noise, log-uniform over `NOISES`, to train a guide on.

    It adds noise to what `draw(rng_key, n) -> (images [n, height, width, channels], integer labels [n])` gives.
    """
    if not callable(draw):
        raise ParameterError(f"draw must be a sampler (rng_key, n) -> (images, labels); got {shown(draw)}.")

    def sample(rng_key, num_samples):
        check_key(rng_key)
        num_samples = check_integer("num_samples", num_samples)
        draw_key, level_key, noise_key = jax.random.split(rng_key, 3)
        x, labels = draw(draw_key, num_samples)
        low, high = np.log(NOISES)
        log_r = jax.random.uniform(level_key, (num_samples,), minval=low, maxval=high)
        r = jnp.exp(log_r)[:, None, None, None]
        y = (x + r * jax.random.normal(noise_key, x.shape)) / jnp.sqrt(1 + r**2)
        return Batch(y, labels, None, log_r)

    return sample
