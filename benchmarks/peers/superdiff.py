r"""SuperDiff (Skreta et al. 2024, arXiv:2412.17762): OR and AND of diffusion models, written from the formulas.

In variance exploding units, with B what the squared noise-to-signal ratio loses in a step, chains move along a mean of
the scores, and the Ito density estimator follows the log densities of all models along the way,

.. math:: dy = B \sum_i \kappa_i s_i + \sqrt{B} \, \xi, \qquad d \log p_i = s_i \cdot dy - \tfrac{1}{2} B |s_i|^2 .

OR: :math:`\kappa = \mathrm{softmax}(\log p + \log \text{mass})`. AND: kappa of sum one that makes the next log densities equal.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.peers.fkc import ratios_of, scores_at
from numpyro_diffusion.networks.convolution import native_gradients


def superdiff(rng_key, density, num_chains: int, num_steps: int, *, is_or: bool):
    """Samples [N, d]: OR of a mixture's densities, AND of a product's factors."""
    leaves, coefficients = zip(*density.terms, strict=True)
    coefficients, ratios = jnp.array(coefficients), ratios_of(density, num_steps)
    return _run(rng_key, density, leaves, coefficients, ratios, num_chains=num_chains, is_or=is_or)


def of_images(rng_key, densities, num_chains: int, num_steps: int):
    """Samples [N, *event_shape] of the AND of densities of images: as above, step by step, as convolutions need it."""
    leaves = [Flat(density) for density in densities]
    start_key, key = jax.random.split(rng_key)
    ratios = ratios_of(densities[0], num_steps)
    x = jax.vmap(lambda key: densities[0].start(key)[0].ravel())(jax.random.split(start_key, num_chains))
    carry = x / densities[0].schedule.alpha(1.0), jnp.zeros((len(leaves), num_chains)), key
    with native_gradients():
        for pair in zip(ratios[:-1], ratios[1:], strict=True):
            carry = _step(leaves, None, carry, pair)
    schedule = densities[0].schedule
    return (schedule.alpha(schedule.time(ratios[-1])) * carry[0]).reshape(num_chains, *densities[0].event_shape)


class Flat(NamedTuple):
    """A density of images, read of flat ones."""

    density: Any
    schedule = property(lambda self: self.density.schedule)

    def log_density(self, x, t):
        return self.density.log_density(x.reshape(self.density.event_shape), t)


@partial(jax.jit, static_argnames=("num_chains", "is_or"))
def _run(rng_key, density, leaves, log_masses, ratios, *, num_chains: int, is_or: bool):
    schedule = density.schedule
    start_key, key = jax.random.split(rng_key)
    x, _ = jax.vmap(density.start)(jax.random.split(start_key, num_chains))
    step = lambda carry, pair: (_step(leaves, log_masses if is_or else None, carry, pair), None)
    state = x / schedule.alpha(1.0), jnp.zeros((len(leaves), num_chains)), key
    (y, _, _), _ = jax.lax.scan(step, state, jnp.stack([ratios[:-1], ratios[1:]], axis=1))
    return schedule.alpha(schedule.time(ratios[-1])) * y


@jax.jit
def _step(leaves, log_masses, carry, pair):
    """From one ratio to the next: OR with `log_masses`, AND where they are None."""
    y, log_p, key = carry
    key, noise_key = jax.random.split(key)
    variance = pair[0] ** 2 - pair[1] ** 2
    scores = scores_at(leaves, y, pair[0])
    noise = jnp.sqrt(variance) * jax.random.normal(noise_key, y.shape)
    if log_masses is None:
        kappa = jax.vmap(_equalising, (1, 1, 0, None), 1)(log_p, scores, noise, variance)
    else:
        kappa = jax.nn.softmax(log_p + log_masses[:, None], axis=0)
    move = variance * jnp.einsum("in,ind->nd", kappa, scores) + noise
    log_p += jnp.einsum("ind,nd->in", scores, move) - 0.5 * variance * jnp.sum(scores**2, axis=-1)
    return y + move, log_p, key


def _equalising(log_p, scores, noise, variance):
    """kappa [m], of sum one, after whose step all log densities [m] are one; scores [m, d]."""
    count = len(scores)
    gram = variance * scores @ scores.T
    now = log_p + scores @ noise - 0.5 * jnp.diagonal(gram)
    # log p + gram kappa is the same number, an unknown, for all.
    matrix = jnp.block([[gram, -jnp.ones((count, 1))], [jnp.ones((1, count)), jnp.zeros((1, 1))]])
    return jnp.linalg.lstsq(matrix, jnp.append(-now, 1.0), rcond=1e-5)[0][:count]
