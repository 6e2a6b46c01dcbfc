"""Annealed MALA and HMC as one would write them without this package: plain JAX, a BlackJAX loop, PyTorch.

All run the same chains through the same levels, steps and step sizes, in x itself and without weights, and return the
last positions. Step sizes follow BlackJAX's conventions, as in the package.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

try:
    import torch  # pyright: ignore[reportMissingImports]
except ImportError:
    torch: Any = None


class Plan(NamedTuple):
    """What the contenders share: `levels` and a step size for each, `num_steps` per level, `leapfrogs` (0: MALA)."""

    levels: np.ndarray
    step_sizes: np.ndarray
    num_steps: int
    leapfrogs: int

    @property
    def total(self) -> int:
        """Steps of a run."""
        return len(self.levels) * self.num_steps


@partial(jax.jit, static_argnames=("num_steps",))
def naive_mala(density, x, rng_key, t, step_size, *, num_steps: int):
    """MALA steps at one level: energy and gradient at both ends of every step, nothing kept from the step before."""
    log_prob = jax.vmap(lambda z: density.log_density(z, t))
    gradient = jax.vmap(jax.grad(lambda z: density.log_density(z, t)))

    def step(_, carry):
        x, key = carry
        key, noise_key, accept_key = jax.random.split(key, 3)
        mean = x + step_size * gradient(x)
        new = mean + jnp.sqrt(2 * step_size) * jax.random.normal(noise_key, x.shape)
        back = new + step_size * gradient(new)
        forth, reverse = jnp.sum((new - mean) ** 2, axis=1), jnp.sum((x - back) ** 2, axis=1)
        log_ratio = log_prob(new) - log_prob(x) + (forth - reverse) / (4 * step_size)
        accept = jnp.log(jax.random.uniform(accept_key, (len(x),))) < log_ratio
        return jnp.where(accept[:, None], new, x), key

    return jax.lax.fori_loop(0, num_steps, step, (x, rng_key))[0]


@partial(jax.jit, static_argnames=("num_steps", "leapfrogs"))
def naive_hmc(density, x, rng_key, t, step_size, *, num_steps: int, leapfrogs: int):
    """HMC steps at one level: a gradient at both ends of every leapfrog, an energy at both ends of the trajectory."""
    log_prob = jax.vmap(lambda z: density.log_density(z, t))
    gradient = jax.vmap(jax.grad(lambda z: density.log_density(z, t)))

    def step(_, carry):
        x, key = carry
        key, push_key, accept_key = jax.random.split(key, 3)
        push = jax.random.normal(push_key, x.shape)
        new, v = x, push
        for _ in range(leapfrogs):
            v = v + 0.5 * step_size * gradient(new)
            new = new + step_size * v
            v = v + 0.5 * step_size * gradient(new)
        kinetic = 0.5 * jnp.sum(v**2 - push**2, axis=1)
        accept = jnp.log(jax.random.uniform(accept_key, (len(x),))) < log_prob(new) - log_prob(x) - kinetic
        return jnp.where(accept[:, None], new, x), key

    return jax.lax.fori_loop(0, num_steps, step, (x, rng_key))[0]


def run_naive(density, x, rng_key, plan: Plan):
    """The naive sampler through all levels; one compiled program serves them all."""
    for i, (t, step_size) in enumerate(zip(plan.levels, plan.step_sizes, strict=True)):
        arguments = density, x, jax.random.fold_in(rng_key, i), float(t), float(step_size)
        if plan.leapfrogs:
            x = naive_hmc(*arguments, num_steps=plan.num_steps, leapfrogs=plan.leapfrogs)
        else:
            x = naive_mala(*arguments, num_steps=plan.num_steps)
    return x


class BlackJAXLoop:
    """BlackJAX as its documentation shows it, once per level: the log density is closed over, so each level compiles.

    Attributes:
        compile_seconds: What building all levels took.
    """

    def __init__(self, density, x, plan: Plan):
        start = time.perf_counter()
        keys = jax.random.key(0)
        self.levels = [
            jax.jit(self._level(density, float(t), float(step_size), plan)).lower(x, keys).compile()
            for t, step_size in zip(plan.levels, plan.step_sizes, strict=True)
        ]
        self.compile_seconds = time.perf_counter() - start

    @staticmethod
    def _level(density, t, step_size, plan: Plan) -> Callable:
        def logdensity_fn(x):
            return density.log_prob(x, t)

        algorithm: Any
        if plan.leapfrogs:
            algorithm = blackjax.hmc(
                logdensity_fn,
                step_size=step_size,
                inverse_mass_matrix=jnp.ones(density.event_shape),
                num_integration_steps=plan.leapfrogs,
            )
        else:
            algorithm = blackjax.mala(logdensity_fn, step_size=step_size)

        def inference_loop(x, rng_key):
            def one_step(states, key):
                states, _ = jax.vmap(algorithm.step)(jax.random.split(key, len(x)), states)
                return states, None

            states, _ = jax.lax.scan(one_step, jax.vmap(algorithm.init)(x), jax.random.split(rng_key, plan.num_steps))
            return states.position

        return inference_loop

    def run(self, x, rng_key):
        """All levels, compiled."""
        for i, level in enumerate(self.levels):
            x = level(x, jax.random.fold_in(rng_key, i))
        return x


class TorchProduct:
    """A product of planar energy densities (calibrated, `l2`, no mixture base) in PyTorch, on the same weights."""

    def __init__(self, product):
        self.leaves, self.schedule = product.leaves, product.schedule
        self.weights = [self._tensors(nnx.to_pure_dict(leaf.state)["network"]) for leaf in product.leaves]
        self.exponents = [float(c) for c in product.coefficients]

    @classmethod
    def _tensors(cls, node):
        if isinstance(node, dict):
            return {key: cls._tensors(value) for key, value in node.items()}
        return torch.tensor(np.asarray(node))

    @staticmethod
    def _network(w, u, c):
        """The residual MLP of `numpyro_diffusion.networks.mlp` for a batch u [n, d] at one noise level."""

        def linear(layer, h):
            return torch.addmm(layer["bias"], h, layer["kernel"])

        phase = (w["frequencies"] * c)[None]
        embedding = torch.cat([torch.sin(phase), torch.cos(phase)], dim=1)
        h = linear(w["stem"], u)
        for i in range(len(w["hidden"])):
            inner = linear(w["hidden"][i], torch.nn.functional.silu(h)) + linear(w["noise"][i], embedding)
            h = h + linear(w["back"][i], torch.nn.functional.silu(inner))
        return linear(w["head"], h)

    def log_prob(self, x, t: float):
        """Log density [n] of points [n, d] at one level, up to a constant of the level."""
        alpha, total = float(self.schedule.alpha(t)), torch.zeros(len(x))
        for leaf, weights, exponent in zip(self.leaves, self.weights, self.exponents, strict=True):
            low, high = (float(v) for v in leaf.sigmas)
            r = max(float(self.schedule.noise_to_signal(t)), low)
            mean, eigenvalues, axes = (
                torch.tensor(np.asarray(a)) for a in (leaf.mean, leaf.eigenvalues, leaf.eigenvectors)
            )
            s = math.sqrt(float(eigenvalues.mean()))
            u = ((x / alpha - mean) @ axes) / torch.sqrt(eigenvalues + r**2)
            f = self._network(weights, u, math.log(min(r, high)) / 4)
            energy = 0.5 * torch.sum(f**2, dim=1)
            total = total + exponent * (-0.5 * torch.sum(u**2, dim=1) - s**2 / (r**2 + s**2) * s / r * energy)
        return total

    def value_and_gradient(self, x, t: float):
        """(Log densities [n], gradients [n, d])."""
        x = x.detach().requires_grad_(True)
        value = self.log_prob(x, t)
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]

    def run(self, x, plan: Plan):
        """The annealed sampler, value and gradient kept from step to step."""
        x = torch.tensor(np.array(x))
        move = self._hmc if plan.leapfrogs else self._mala
        for t, step_size in zip(plan.levels, plan.step_sizes, strict=True):
            state = (x, *self.value_and_gradient(x, float(t)))
            for _ in range(plan.num_steps):
                state = move(state, float(t), float(step_size), plan.leapfrogs)
            x = state[0]
        return x.numpy()

    @staticmethod
    def _choose(new, old, log_ratio):
        accept = torch.log(torch.rand_like(log_ratio)) < log_ratio
        return tuple(torch.where(accept.reshape(-1, *(1,) * (a.ndim - 1)), a, b) for a, b in zip(new, old, strict=True))

    def _mala(self, state, t, step_size, _):
        x, value, gradient = state
        mean = x + step_size * gradient
        new = mean + math.sqrt(2 * step_size) * torch.randn_like(x)
        new_value, new_gradient = self.value_and_gradient(new, t)
        forth = torch.sum((new - mean) ** 2, dim=1)
        reverse = torch.sum((x - new - step_size * new_gradient) ** 2, dim=1)
        log_ratio = new_value - value + (forth - reverse) / (4 * step_size)
        return self._choose((new, new_value, new_gradient), state, log_ratio)

    def _hmc(self, state, t, step_size, leapfrogs):
        new, new_value, new_gradient = state
        push = v = torch.randn_like(new)
        for _ in range(leapfrogs):
            v = v + 0.5 * step_size * new_gradient
            new = new + step_size * v
            new_value, new_gradient = self.value_and_gradient(new, t)
            v = v + 0.5 * step_size * new_gradient
        log_ratio = new_value - state[1] - 0.5 * torch.sum(v**2 - push**2, dim=1)
        return self._choose((new, new_value, new_gradient), state, log_ratio)
