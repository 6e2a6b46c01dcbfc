r"""A small convolutional network for images: which class, how many, or whether something is at a place.

Stages of 3x3 convolutions, each but the first at half the resolution of the one before, a mean over the pixels, a
hidden layer and the logits. Two further inputs are optional. A place y in the image enters as one more channel, a bump

.. math:: m(p) = \exp \left( -|p - y|^2 / 2 w^2 \right)

over the pixels' centres p, all in (column, row) of [0, 1]. A log noise level enters every stage through a random
Fourier embedding. Everything is smooth, so that log probabilities have gradients to guide with.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from flax import nnx

from ..checks.fields import Checked, NotNegative
from ..errors import ParameterError, ShapeError
from .config import Count, CountOrZero, ImageShape, Sizes, even
from .embedding import fourier, neighbours, position_map
from .embedding import linear as scaled


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(Checked):
    """Architecture of a classifier: static, compared by value, stored with its weights.

    Attributes:
        image_shape: Height, width and channels of an image.
        num_outputs: Number of classes; 1 for a single yes or no.
        widths: Channels of each stage; each but the first halves height and width.
        hidden_size: Width of the layer before the logits, whose activations are the features.
        position_width: w of the map of the place, in widths of the image; 0 for a network without a place.
        embedding_size: Size of the embedding of the log noise level, even; 0 for a network without noise level.
        num_groups: Groups of the normalisation in each stage; 0 for none.
        heads: Classes of several questions that are answered beside each other, in all `num_outputs`; () for one.
    """

    image_shape: ImageShape = (16, 16, 3)
    num_outputs: Count = 1
    widths: Sizes = (24, 48, 96)
    hidden_size: Count = 64
    position_width: NotNegative = 0.0
    embedding_size: Annotated[int, partial(even, low=0)] = 0
    num_groups: CountOrZero = 0
    heads: Sizes = ()

    def __post_init__(self):
        super().__post_init__()
        if not self.widths:
            raise ParameterError("widths must name a stage at least; got (). The default is (24, 48, 96).")
        if self.num_groups and any(width % self.num_groups for width in self.widths):
            raise ParameterError(
                f"num_groups must divide every width of {self.widths}, or be 0; got {self.num_groups}."
            )

        if self.heads and (sum(self.heads) != self.num_outputs or min(self.heads) < 2):
            raise ParameterError(
                f"heads must be numbers of classes, each at least 2, which add up to num_outputs = {self.num_outputs}; "
                f"got {self.heads}."
            )

    def build(self, rng_key: jax.Array) -> tuple[Any, Any]:
        """A fresh network as nnx (graph definition, state)."""
        return nnx.split(ConvolutionalClassifier(self, rngs=nnx.Rngs(params=rng_key)))


class ConvolutionalClassifier(nnx.Module):
    """Logits [num_outputs] of one image; see the module."""

    def __init__(self, config: ClassifierConfig, *, rngs):
        self.config = config
        linear = partial(scaled, rngs=rngs)
        inputs = (config.image_shape[2] + (config.position_width > 0), *config.widths[:-1])
        # Twice the variance, as silu halves it.
        self.first = nnx.List([linear(9 * n, width, 1.4) for n, width in zip(inputs, config.widths, strict=True)])
        self.second = nnx.List([linear(9 * width, width, 0.7) for width in config.widths[1:]])
        size, groups = config.embedding_size, config.num_groups
        self.frequencies = nnx.Param(jax.random.normal(rngs.params(), (size // 2,))) if size else None
        self.noise = nnx.List([linear(size, width, 0.5) for width in config.widths]) if size else None
        self.norms = nnx.List([nnx.GroupNorm(w, groups, rngs=rngs) for w in config.widths]) if groups else None
        self.hidden = linear(config.widths[-1], config.hidden_size, 1.4)
        self.head = linear(config.hidden_size, config.num_outputs, 0.5)

    def features(self, image, position=None, log_noise=None):
        """Activations [hidden_size] of the layer before the logits.

        Args:
            image: Of the config's `image_shape`, with values of order one.
            position: (column, row) in [0, 1], [2]; where the config has a `position_width`, and only there.
            log_noise: Logarithm of the noise level, a number; where the config has an `embedding_size`, and only there.

        Raises:
            ShapeError: if the image has another shape, or an input is missing or unknown to the network.
        """
        self._check(image, position, log_noise)
        h = 2.0 * image
        if position is not None:
            bump = position_map(position, self.config.image_shape, self.config.position_width)
            h = jnp.concatenate([h, 2.0 * bump], axis=-1)
        embedding = jnp.zeros(0)
        if self.frequencies is not None and log_noise is not None:
            embedding = fourier(self.frequencies, log_noise)
        for i, first in enumerate(self.first):
            h = first(jnp.concatenate(neighbours(h, 3, 1 if i == 0 else 2), -1))
            if self.noise is not None:
                h = h + self.noise[i](embedding)
            if self.norms is not None:
                h = self.norms[i](h[None])[0]
            h = nnx.silu(h)
            if i:
                h = h + nnx.silu(self.second[i - 1](jnp.concatenate(neighbours(h, 3), -1)))
        return nnx.silu(self.hidden(jnp.mean(h, axis=(0, 1))))

    def __call__(self, image, position=None, log_noise=None):
        return self.head(self.features(image, position, log_noise))

    def _check(self, image, position, log_noise):
        if jnp.shape(image) != self.config.image_shape:
            raise ShapeError(f"an image must have shape {self.config.image_shape}; got {jnp.shape(image)}. Resize it.")
        for name, value, shape, is_wanted in (
            ("position", position, (2,), self.config.position_width > 0),
            ("log_noise", log_noise, (), self.config.embedding_size > 0),
        ):
            if (value is not None) != is_wanted:
                has, remedy = ("a", "Give") if is_wanted else ("no", "Leave out")
                raise ShapeError(f"the network has {has} {name}. {remedy} `{name}`.")
            if is_wanted and jnp.shape(value) != shape:
                raise ShapeError(f"{name} must have shape {shape} for one image; got {jnp.shape(value)}.")
