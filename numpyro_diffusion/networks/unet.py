"""The U-Net of Ho et al. (2020), small: residual blocks, skips between resolutions, attention where asked for."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from .convolution import convolve
from .embedding import fourier, position_map
from .text import TextEncoder


class Convolution(nnx.Module):
    """A convolution [height, width, n_in] -> [height, width, n_out] with a k x k kernel and a bias."""

    def __init__(self, n_in, n_out, size=3, scale=1.0, *, rngs):
        deviation = scale * (size * size * n_in) ** -0.5
        self.kernel = nnx.Param(deviation * jax.random.normal(rngs.params(), (size, size, n_in, n_out)))
        self.bias = nnx.Param(jnp.zeros(n_out))

    def __call__(self, x):
        kernel, bias = (parameter[...].astype(x.dtype) for parameter in (self.kernel, self.bias))
        return (x @ kernel[0, 0] if kernel.shape[0] == 1 else convolve(kernel, x)) + bias


class GroupNorm(nnx.GroupNorm):
    """Group normalisation of one image, in float32; one group per 8 channels."""

    def __init__(self, channels):
        # Ones and zeros are drawn by no key of the network's.
        groups = max(1, channels // 8)
        super().__init__(channels, groups, epsilon=1e-5, use_fast_variance=False, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return super().__call__(x[None].astype(jnp.float32))[0].astype(x.dtype)


class ResidualBlock(nnx.Module):
    """x + two convolutions, scaled and shifted by the embedding in the middle; zero at the start."""

    def __init__(self, n_in, n_out, embedding_size, normalise, *, rngs):
        self.before = GroupNorm(n_in) if normalise else None
        self.after = GroupNorm(n_out) if normalise else None
        self.first, self.second = Convolution(n_in, n_out, rngs=rngs), Convolution(n_out, n_out, scale=0.0, rngs=rngs)
        self.modulation = nnx.Linear(embedding_size, 2 * n_out, kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.shortcut = None if n_in == n_out else Convolution(n_in, n_out, 1, rngs=rngs)

    def __call__(self, x, embedding):
        h = self.first(nnx.silu(x if self.before is None else self.before(x)))
        scale, shift = jnp.split(self.modulation(embedding).astype(x.dtype), 2)
        h = h if self.after is None else self.after(h)
        h = self.second(nnx.silu(h * (1 + scale) + shift))
        return (x if self.shortcut is None else self.shortcut(x)) + h


class Attention(nnx.Module):
    """Self-attention over the places of an image, heads of 32 channels; zero at the start."""

    def __init__(self, channels, *, rngs):
        self.heads = max(1, channels // 32)
        self.norm = GroupNorm(channels)
        self.project = Convolution(channels, 3 * channels, 1, rngs=rngs)
        self.back = Convolution(channels, channels, 1, scale=0.0, rngs=rngs)

    def __call__(self, x):
        projected = self.project(self.norm(x)).reshape(-1, 3, self.heads, x.shape[-1] // self.heads)
        query, key, value = projected[:, 0], projected[:, 1], projected[:, 2]
        return x + self.back(jax.nn.dot_product_attention(query, key, value).reshape(x.shape))


def patches(image, size: int):
    """Patches of p x p pixels [height / p, width / p, p p channels] of an image [height, width, channels]."""
    height, width, channels = image.shape
    cut = image.reshape(height // size, size, width // size, size, channels)
    return cut.swapaxes(1, 2).reshape(height // size, width // size, size * size * channels)


def unpatched(cut, size: int):
    """The image of its patches of p x p pixels."""
    rows, columns, channels = cut.shape
    image = cut.reshape(rows, columns, size, size, channels // size**2)
    return image.swapaxes(1, 2).reshape(rows * size, columns * size, channels // size**2)


class UNet(nnx.Module):
    """f(z, log r / 4, condition) for an image z [height * width * channels], of the same shape.

    The condition's first `2 * num_positions` entries are image-plane positions (column, row) in [0, 1]. Each enters as
    an input map as well, a Gaussian bump around it: a position fed as an embedding only is hardly obeyed. Captions are
    read by a transformer, see `networks.text`.
    `config` is a `UNetConfig`.
    """

    def __init__(self, config, *, rngs):
        self.config = config
        widths = [config.width * m for m in config.multipliers]
        size, area, channels = config.embedding_size, config.patch_size**2, config.shape[-1]
        self.frequencies = nnx.Param(jax.random.normal(rngs.params(), (size // 2,)))
        self.embed = nnx.Linear(size, size, rngs=rngs)
        self.condition = self._reader(rngs) if config.condition_size else None
        self.stem = Convolution(area * (channels + config.num_positions), widths[0], rngs=rngs)
        down, up, width = [], [], widths[0]
        for level, n in enumerate(widths):
            down.append(self._stage(width, n, level, rngs))
            width = n
        for level, n in reversed(list(enumerate(widths[:-1]))):
            up.append(self._stage(width + n, n, level, rngs))
            width = n
        self.down, self.up = nnx.List(down), nnx.List(up)
        self.norm = GroupNorm(width) if config.normalise else None
        self.head = Convolution(width, area * channels, scale=0.1 if config.small_start else 0.0, rngs=rngs)

    def _reader(self, rngs):
        config = self.config
        if config.text is not None:
            return TextEncoder(config.text, config.embedding_size, rngs=rngs)
        return nnx.Linear(config.condition_size + 1, config.embedding_size, rngs=rngs)

    def _stage(self, n_in, n_out, level, rngs):
        config, stage = self.config, []
        for i in range(config.num_blocks):
            width = n_in if i == 0 else n_out
            stage.append(ResidualBlock(width, n_out, config.embedding_size, config.normalise, rngs=rngs))
            if config.shape[0] // config.patch_size >> level in config.attention:
                stage.append(Attention(n_out, rngs=rngs))
        return nnx.List(stage)

    def __call__(self, z, c, condition: Any = None):
        config, embedding = self.config, self.embed(fourier(self.frequencies, c))
        x = z.reshape(config.shape)
        if self.condition is not None:
            embedding = embedding + self.condition(condition)
            for i in range(config.num_positions):
                bump = position_map(condition[2 * i : 2 * i + 2], config.shape, config.position_width)
                x = jnp.concatenate([x, condition[-1] * bump], -1)
        embedding = nnx.silu(embedding)
        h, skips = self.stem(patches(x, config.patch_size).astype(config.dtype)), []
        for level, stage in enumerate(self.down):
            if level:
                height, width, channels = h.shape
                h = h.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3))
            h = self._through(stage, h, embedding)
            skips.append(h)
        for stage, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            h = jnp.repeat(jnp.repeat(h, 2, axis=0), 2, axis=1)
            h = self._through(stage, jnp.concatenate([h, skip], -1), embedding)
        h = self.head(nnx.silu(h if self.norm is None else self.norm(h))).astype(z.dtype)
        return unpatched(h, config.patch_size).reshape(z.shape)

    def _through(self, stage, h, embedding):
        for block in stage:
            call = block if isinstance(block, Attention) else lambda h, block=block: block(h, embedding)
            h = jax.checkpoint(call)(h) if self.config.rematerialise else call(h)
        return h
