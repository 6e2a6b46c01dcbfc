r"""What others do with windows: averages of their noise vectors, which are no gradient and belong to no density.

At every step the predicted noise of all windows is averaged pixel by pixel, with weights that fall off towards the
borders, and that of a coarse canvas is added,

.. math:: \hat\varepsilon \propto \frac{\sum_w A_w^T (T_w \odot \hat\varepsilon_w)}{\sum_w A_w^T T_w}
          + c \, U \hat\varepsilon_{coarse},

U repeating every coarse pixel, scaled to variance one at pure noise: Bar-Tal et al. (2023, MultiDiffusion) with T = 1
and without the coarse canvas; Du et al. (2023), Appendix, with c = 1/4 and a taper.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np


def averaged(rng_key, canvas, shape, num_chains: int, num_steps: int, *, border=0, coarse=0.0, corrections=0):
    """Points [N, *event_shape] by reverse diffusion along the averaged noise of the windows of a tapestry.

    Args:
        rng_key: JAX random key.
        canvas: A tapestry of windows of one shape.
        shape: What a window sees.
        num_chains: N.
        num_steps: Steps, geometric in the noise-to-signal ratio.
        border: Pixels from its sides over which a window's weight rises.
        coarse: c.
        corrections: Langevin steps of a tenth of the noise's variance after each step, none in the last 1/16 of them.
    """
    schedule = canvas.schedule
    times = schedule.levels(num_steps, smallest=max(canvas.resolution, 0.002))
    after = corrections * (np.arange(1, num_steps) < num_steps * 15 / 16)
    pairs = jnp.stack([times[:-1], times[1:], after], axis=1)
    return _run(rng_key, canvas, pairs, tapered(shape, border), jnp.asarray(coarse), num_chains=num_chains)


@functools.partial(jax.jit, static_argnames="num_chains")
def _run(rng_key, canvas, pairs, taper, share, *, num_chains: int):
    schedule = canvas.schedule
    start_key, run_key = jax.random.split(rng_key)
    y = schedule.noise_to_signal(1.0) * jax.random.normal(start_key, (num_chains, *canvas.event_shape))
    noise = jax.vmap(lambda x, t: _noise(canvas, taper, share, x, t), in_axes=(0, None))

    def step(y, args):
        (t, to, corrections), key = args
        r, r_to = schedule.noise_to_signal(t), schedule.noise_to_signal(to)
        denoised = y - r * noise(schedule.alpha(t) * y, t)
        y = denoised + (r_to / r) ** 2 * (y - denoised)
        y += r_to * jnp.sqrt(1 - (r_to / r) ** 2) * jax.random.normal(key, y.shape)

        def correct(i, y):
            size = 0.1 * r_to**2
            drift = -noise(schedule.alpha(to) * y, to) / jnp.where(r_to > 0, r_to, 1.0)
            drawn = jax.random.normal(jax.random.fold_in(key, i), y.shape)
            return y + size * drift + jnp.sqrt(2 * size) * drawn

        return jax.lax.fori_loop(0, corrections.astype(int), correct, y), None

    return jax.lax.scan(step, y, (pairs, jax.random.split(run_key, len(pairs))))[0]


def _noise(canvas, taper, share, x, t):
    """The averaged noise at one point."""
    seen, total, coarse, scale = 0.0, 0.0, 0.0, 1.0
    for leaf, found in canvas.of_leaves(lambda leaf: _seen(leaf, taper, x, t)).items():
        size = canvas.leaf(leaf).view.scale
        is_fine = size == 1
        seen, total = (a + jnp.where(is_fine, b, 0.0) for a, b in zip((seen, total), found[:2], strict=True))
        coarse, scale = coarse + jnp.where(is_fine, 0.0, found[2]), jnp.where(is_fine, scale, size)
    both = seen / total + share * coarse
    return both.reshape(x.shape) / jnp.sqrt(1 + share**2 + 2 * share * scale)


def _seen(leaf, taper, x, t):
    """A' (T eps), A' T and A' eps / s^2 [D] of a window."""
    z, there, _ = leaf.read(x, t)
    schedule, view = leaf.schedule, leaf.view
    score = jax.grad(leaf.density.log_density)(z, there)
    eps = -schedule.sigma(there) * score
    return view.adjoint(taper * eps), view.adjoint(taper), view.adjoint(eps) / view.scale**2


def tapered(shape, border: int):
    """Weights of a window's pixels: rising linearly over `border` pixels from its sides."""
    sides = (jnp.minimum(jnp.arange(n) + 1, n - jnp.arange(n)) for n in shape[:2])
    rows, columns = (jnp.minimum(side / (border + 1), 1.0) for side in sides)
    return jnp.broadcast_to(jnp.reshape(rows[:, None] * columns, (*shape[:2], *[1] * (len(shape) - 2))), shape)
