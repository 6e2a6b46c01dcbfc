"""Two networks of MNIST that others trained in PyTorch, written in flax: a noise-prediction U-Net and an energy model.

Their weights are in `shared/data` beside the checkout, or in the folder that the environment variable MNIST_MODELS
names (README there: licences, origins). Images are [28, 28, 1], in [-1, 1].
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import numpyro_diffusion as nd

FOLDER = Path(os.environ.get("MNIST_MODELS", Path(__file__).resolve().parents[3] / "shared" / "data"))
SHAPE = (28, 28, 1)
#: The U-Net's schedule: 1,000 steps, and what it is told of them.
BETAS = np.linspace(1e-4, 0.02, 1000)


class Norm(nnx.Module):
    """Layer norm over a whole image, with a weight for every pixel and channel."""

    def __init__(self, shape):
        self.scale, self.bias = nnx.Param(jnp.ones(shape)), nnx.Param(jnp.zeros(shape))

    def __call__(self, x):
        axes = (-3, -2, -1)
        x = (x - x.mean(axes, keepdims=True)) * jax.lax.rsqrt(x.var(axes, keepdims=True) + 1e-5)
        return x * self.scale[...] + self.bias[...]


class Block(nnx.Module):
    """[Norm] -> 3x3 -> SiLU -> 3x3 -> SiLU."""

    def __init__(self, size, num_in, num_out, has_norm, rngs):
        conv = partial(nnx.Conv, kernel_size=(3, 3), rngs=rngs)
        self.ln = Norm((size, size, num_in)) if has_norm else None
        self.conv1, self.conv2 = conv(num_in, num_out), conv(num_out, num_out)

    def __call__(self, x):
        x = x if self.ln is None else self.ln(x)
        return nnx.silu(self.conv2(nnx.silu(self.conv1(x))))


class Chain(nnx.Module):
    """Layers one after another, named by their places as in PyTorch; a function is a layer without weights."""

    def __init__(self, *layers):
        self.num_layers = len(layers)
        for i, layer in enumerate(layers):
            setattr(self, str(i), layer)

    def __call__(self, x):
        for i in range(self.num_layers):
            x = getattr(self, str(i))(x)
        return x


class EpsilonUNet(nnx.Module):
    """eps(x [n, 28, 28, 1], step [n]): the U-Net of BrianPulfer/PapersReimplementations, ddpm."""

    def __init__(self, rngs, num_steps=1000, width=100):
        self.time_embed = nnx.Embed(num_steps, width, rngs=rngs)
        down = partial(nnx.Conv, kernel_size=(4, 4), strides=2, padding=1, rngs=rngs)

        def stage(size, *channels, norms=(True, True, True)):
            blocks = zip(channels[:-1], channels[1:], norms, strict=True)
            return Chain(*(Block(size, num_in, num_out, has_norm, rngs) for num_in, num_out, has_norm in blocks))

        def up(num, kernel, stride):
            # Padding 1 of a 4x4 transposed convolution in PyTorch, 0 of a 2x2 one, are 2 and 1 here.
            padding = [(kernel // 2, kernel // 2)] * 2
            return nnx.ConvTranspose(num, num, (kernel, kernel), strides=stride, padding=padding, rngs=rngs)

        def told(num):
            return Chain(nnx.Linear(width, num, rngs=rngs), nnx.silu, nnx.Linear(num, num, rngs=rngs))

        self.te1, self.b1, self.down1 = told(1), stage(28, 1, 10, 10, 10), down(10, 10)
        self.te2, self.b2, self.down2 = told(10), stage(14, 10, 20, 20, 20), down(20, 20)
        self.te3, self.b3 = told(20), stage(7, 20, 40, 40, 40)
        self.down3 = Chain(nnx.Conv(40, 40, (2, 2), padding=0, rngs=rngs), nnx.silu, down(40, 40))
        self.te_mid, self.b_mid = told(40), stage(3, 40, 20, 20, 40)
        self.up1 = Chain(up(40, 4, 2), nnx.silu, up(40, 2, 1))
        self.te4, self.b4, self.up2 = told(80), stage(7, 80, 40, 20, 20), up(20, 4, 2)
        self.te5, self.b5, self.up3 = told(40), stage(14, 40, 20, 10, 10), up(10, 4, 2)
        self.te_out, self.b_out = told(20), stage(28, 20, 10, 10, 10, norms=(True, True, False))
        self.conv_out = nnx.Conv(10, 1, (3, 3), rngs=rngs)

    def __call__(self, x, step):
        time = self.time_embed(step)
        t1, t2, t3, t_mid, t4, t5, t_out = (
            layer(time)[:, None, None, :]
            for layer in (self.te1, self.te2, self.te3, self.te_mid, self.te4, self.te5, self.te_out)
        )
        o1 = self.b1(x + t1)
        o2 = self.b2(self.down1(o1) + t2)
        o3 = self.b3(self.down2(o2) + t3)
        up1 = self.up1(self.b_mid(self.down3(o3) + t_mid))
        o4 = self.b4(jnp.concatenate([o3, up1], -1) + t4)
        o5 = self.b5(jnp.concatenate([o2, self.up2(o4)], -1) + t5)
        return self.conv_out(self.b_out(jnp.concatenate([o1, self.up3(o5)], -1) + t_out))


class EnergyNet(Chain):
    """-E(x [n, 28, 28, 1]) [n]: the energy model of phlippe's tutorial 8, a log density up to a constant."""

    def __init__(self, rngs):
        conv = partial(nnx.Conv, strides=2, rngs=rngs)
        first, convs = conv(1, 16, (5, 5), padding=4), zip((16, 32, 64), (32, 64, 64), strict=True)
        others = [layer for i, o in convs for layer in (conv(i, o, (3, 3), padding=1), nnx.silu)]
        flat, linear = lambda x: x.reshape(len(x), -1), partial(nnx.Linear, rngs=rngs)
        super().__init__(first, nnx.silu, *others, flat, linear(256, 64), nnx.silu, linear(64, 1))

    def __call__(self, x):
        return super().__call__(x)[:, 0]


def epsilon_unet() -> EpsilonUNet:
    """The U-Net with its weights."""
    return nd.load_state_dict(
        nnx.eval_shape(lambda: EpsilonUNet(nnx.Rngs(0))),
        nd.read_state_dict(FOLDER / "mnist_epsilon_unet.safetensors"),
        # The original has a norm there, which it does not use.
        names={"b_out.2.ln.*": None},
        layouts={"*.ln.*": "channels_last"},
    )


def with_brightness(network, mean: float, deviation: float):
    r"""The U-Net with the noise in an image's mean brightness as a Gaussian predicts it.

    A norm over the whole input makes the original blind to it, and nothing holds brightness while noise is taken away:
    the noise of the first step, 1 / 28, is amplified 157 times. With m ~ N(mean, deviation^2) and
    xbar = alpha m + sigma e, e ~ N(0, 1 / d),

    .. math:: E[e | \bar x] = \frac{\sigma (\bar x - \alpha \mu) / d}{\alpha^2 s^2 + \sigma^2 / d}.
    """
    abar = np.cumprod(1 - BETAS)
    alphas, sigmas = jnp.asarray(np.sqrt(abar)), jnp.asarray(np.sqrt(1 - abar))
    size = int(np.prod(SHAPE))

    def epsilon(x, step):
        alpha, sigma = (scale[step][:, None, None, None] for scale in (alphas, sigmas))
        noise, centre = network(x, step), x.mean((1, 2, 3), keepdims=True) - alpha * mean
        expected = sigma * centre / size / (alpha**2 * deviation**2 + sigma**2 / size)
        return noise - noise.mean((1, 2, 3), keepdims=True) + expected

    return epsilon


def _channels_last(weight: np.ndarray) -> np.ndarray:
    """A linear layer [64, 256] on flattened [64, 2, 2] images, as one on [2, 2, 64]."""
    return weight.reshape(64, 64, 2, 2).transpose(2, 3, 1, 0).reshape(256, 64)


def energy_net() -> EnergyNet:
    """The energy model with its weights."""
    state_dict = nd.read_state_dict(FOLDER / "mnist_ebm.safetensors")
    network = nnx.eval_shape(lambda: EnergyNet(nnx.Rngs(0)))
    return nd.load_state_dict(network, state_dict, layouts={"9.weight": _channels_last})


def reference(name: str) -> np.ndarray:
    """Stored inputs and outputs; images with channels last."""
    array = np.load(FOLDER / "reference_outputs.npz")[name]
    return np.moveaxis(array, 1, -1) if array.ndim == 4 else array


def digits(split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 28, 28, 1] in [-1, 1] and their digits [n], 0 to 3."""
    with np.load(FOLDER / "mnist_0123.npz") as arrays:
        return arrays[f"{split}_images"][..., None] / 127.5 - 1, arrays[f"{split}_labels"].astype(int)
