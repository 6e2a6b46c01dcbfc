r"""A uniform density on an interval, plus Gaussian noise: log of a difference of two normal CDFs, at any width.

With c the distance from the centre and h half the width, both in units of the noise s,

.. math:: p(x) = \frac{\Phi(c + h) - \Phi(c - h)}{2 h s} .

Where h is small the difference cancels, and with k = c h and moments over e^{-k v} on [-1, 1]

.. math:: p(x) = \frac{\phi(c)}{s} \frac{\sinh k}{k} \left(1 - \frac{h^2}{2} \langle v^2 \rangle + O(h^4)\right) .
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr


def log_uniform(distance, half_width, sigma) -> jax.Array:
    """Log density of uniform noise of `half_width` plus normal noise of scale `sigma`, at a distance from the centre.

    Right to about 1e-5 nats (float32) at any ratio of the two; without noise -inf outside, with gradient zero.

    Args:
        distance, half_width: [d], one value an axis.
        sigma: A scalar, 0 for none.

    Returns:
        [d].
    """
    # Noise that no float tells from the walls is none.
    hard = sigma <= 1e-12 * half_width
    s = jnp.where(hard, half_width, sigma)
    c, h = distance / s, half_width / s
    narrow = h < (100 * jnp.finfo(h.dtype).eps) ** 0.2
    wide = _wide(c, jnp.where(narrow, 1.0, h)) - jnp.log(2 * half_width)
    noised = jnp.where(narrow, _narrow(c, jnp.where(narrow, h, 0.0)) - jnp.log(s), wide)
    walls = jnp.where(jnp.abs(distance) <= half_width, -jnp.log(2 * half_width), -jnp.inf)
    return jnp.where(hard, walls, noised)


def _wide(c, h):
    """log(Phi(c + h) - Phi(c - h)), accurate in both tails where h is not small."""
    c = -jnp.abs(c)
    top, bottom = log_ndtr(c + h), log_ndtr(c - h)
    gap = jnp.minimum(bottom - top, -jnp.finfo(top.dtype).eps)
    return top + jnp.log(-jnp.expm1(gap))


def _narrow(c, h):
    """log(Phi(c + h) - Phi(c - h)) - log(2 h) for small h, up to O(h^4)."""
    k = jnp.abs(c * h)
    small = k < 0.5
    near, far = jnp.where(small, k, 0.0) ** 2, jnp.where(small, 1.0, k)
    log_sinhc = jnp.where(
        small,
        near * (1 / 6 - near * (1 / 180 - near * (1 / 2835 - near * (1 / 37800 - near / 467775)))),
        far + jnp.log1p(-jnp.exp(-2 * far)) - jnp.log(2 * far),
    )
    square = jnp.where(
        small,
        1 / 3 + near * (2 / 45 - near * (4 / 945 - near * (2 / 4725 - near * 4 / 93555))),
        1 + 2 / far**2 - 2 / (far * jnp.tanh(far)),
    )
    return jax.scipy.stats.norm.logpdf(c) + log_sinhc - 0.5 * h**2 * square
