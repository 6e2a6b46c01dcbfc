"""The residual MLP of Du et al. (2023): blocks of two layers with the noise level added in the middle."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from . import embedding


class ResidualMLP(nnx.Module):
    """f(u, c, condition) for u [d]: smooth, zero residual branches and a small output at the start.

    `size` is d, `config` a `NetworkConfig`, and the output [d], or [num_outputs] where that is given.
    """

    def __init__(self, size, config, *, num_outputs: int | None = None, rngs):
        width, num_blocks, embedding_size = config.width, config.num_blocks, config.embedding_size
        hidden, linear = config.expansion * width, partial(embedding.linear, rngs=rngs)
        self.frequencies = nnx.Param(jax.random.normal(rngs.params(), (embedding_size // 2,)))
        self.stem = linear(size, width)
        self.hidden = nnx.List([linear(width, hidden) for _ in range(num_blocks)])
        self.noise = nnx.List([linear(embedding_size, hidden) for _ in range(num_blocks)])
        self.back = nnx.List([linear(hidden, width, 0.0) for _ in range(num_blocks)])
        # One more input says whether there is a condition at all.
        num_inputs = config.condition_size + 1
        self.condition = linear(num_inputs, embedding_size) if num_inputs > 1 else None
        self.head = linear(width, num_outputs or size, 0.1)

    def __call__(self, u, c, condition: Any = None):
        seen = embedding.fourier(self.frequencies, c)
        if self.condition is not None:
            seen = seen + self.condition(condition)
        h = self.stem(u)
        for hidden, noise, back in zip(self.hidden, self.noise, self.back, strict=True):
            h = h + back(nnx.silu(hidden(nnx.silu(h)) + noise(seen)))
        return self.head(h)


class Offset(nnx.Module):
    """A smooth scalar function g(c) of the log noise level, for the offset b = g(c) - g(c_max).

    Of `num_inputs` numbers of a condition, too, where there are any: how concentrated data are is up to it.
    """

    def __init__(self, width=32, num_inputs=0, *, rngs):
        self.first = nnx.Linear(1, width, rngs=rngs)
        self.second = nnx.Linear(width, width, rngs=rngs)
        self.head = nnx.Linear(width, 1, kernel_init=nnx.initializers.zeros, use_bias=False, rngs=rngs)
        self.condition = nnx.Linear(num_inputs, width, use_bias=False, rngs=rngs) if num_inputs else None

    def __call__(self, c, condition: Any = None):
        h = self.first(jnp.reshape(c, 1))
        if self.condition is not None:
            h = h + self.condition(condition)
        return self.head(jnp.tanh(self.second(jnp.tanh(h))))[0]
