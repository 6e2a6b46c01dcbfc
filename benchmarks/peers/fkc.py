r"""Feynman-Kac correctors of products (Skreta et al. 2025, arXiv:2503.02819), written from the formulas.

In variance exploding units, with B what the squared noise-to-signal ratio loses in a step, a product of densities p_i to
powers b_i is sampled by Euler steps along :math:`S = \sum_i b_i s_i`, and weighed,

.. math:: dy = S \, B + \sqrt{B} \, \xi, \qquad d \log w = \tfrac{1}{2} \Big( |S|^2 - \sum_i b_i |s_i|^2 \Big) B .

One evaluation of every score a step, and no divergence. Chains are resampled where less than half of them count.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from blackjax.smc.resampling import systematic

from numpyro_diffusion.annealing.plan import smallest_ratio


class Outcome(NamedTuple):
    """Samples [N, d], equally weighted, and the log evidence."""

    samples: jax.Array
    log_evidence: jax.Array


def ratios_of(density, num_steps: int) -> jax.Array:
    """Noise-to-signal ratios [num_steps + 1], geometric, from t = 1 to the finest worth a level."""
    return jnp.geomspace(float(density.schedule.noise_to_signal(1.0)), smallest_ratio(density), num_steps + 1)


def scores_at(leaves, y, r) -> jax.Array:
    """Scores [m, N, d] of m densities at points y [N, d] in variance exploding units."""
    t = leaves[0].schedule.time(r)
    alpha = leaves[0].schedule.alpha(t)
    return alpha * jnp.stack([jax.vmap(jax.grad(leaf.log_density), (0, None))(alpha * y, t) for leaf in leaves])


def fkc(rng_key, product, num_chains: int, num_steps: int) -> Outcome:
    """Chains of a product of powers of densities, `num_steps` Euler steps each."""
    leaves, exponents = zip(*product.terms, strict=True)
    return _run(rng_key, product, leaves, jnp.array(exponents), ratios_of(product, num_steps), num_chains=num_chains)


@partial(jax.jit, static_argnames="num_chains")
def _run(rng_key, product, leaves, exponents, ratios, *, num_chains: int) -> Outcome:
    schedule, size = product.schedule, product.event_shape[0]
    start_key, key = jax.random.split(rng_key)
    x, log_start = jax.vmap(product.start)(jax.random.split(start_key, num_chains))
    first = jnp.stack([jax.vmap(leaf.first_log_density)(x) for leaf in leaves])

    def step(carry, pair):
        y, log_w, log_z, key = carry
        key, noise_key, resample_key = jax.random.split(key, 3)
        r, variance = pair[0], pair[0] ** 2 - pair[1] ** 2
        scores = scores_at(leaves, y, r)
        total = jnp.einsum("i,ind->nd", exponents, scores)
        squares = exponents @ jnp.sum(scores**2, axis=-1)
        log_w += 0.5 * variance * (jnp.sum(total**2, axis=-1) - squares)
        y += variance * total + jnp.sqrt(variance) * jax.random.normal(noise_key, y.shape)
        weights = jax.nn.softmax(log_w)
        low = 1 / jnp.sum(weights**2) < num_chains / 2
        # The last step resamples, so that samples are equally weighted.
        index = systematic(resample_key, weights, num_chains)
        resampled = low | (pair[1] == ratios[-1])
        log_z += jnp.where(resampled, jax.nn.logsumexp(log_w) - jnp.log(num_chains), 0.0)
        return (
            jnp.where(resampled, y[index], y), jnp.where(resampled, 0.0, log_w), log_z, key,
        ), None  # fmt: skip

    # From x to y, densities gain alpha^d each.
    log_alpha = jnp.log(schedule.alpha(1.0))
    state = x / schedule.alpha(1.0), exponents @ first - log_start, size * (jnp.sum(exponents) - 1) * log_alpha, key
    (y, _, log_z, _), _ = jax.lax.scan(step, state, jnp.stack([ratios[:-1], ratios[1:]], axis=1))
    return Outcome(schedule.alpha(schedule.time(ratios[-1])) * y, log_z)
