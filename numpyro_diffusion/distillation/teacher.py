r"""What a teacher is asked for: its score, and how its log density changes with the noise.

In units y = x / alpha_t at the noise-to-signal ratio r, with s = grad_y log p, the heat equation gives

.. math:: \frac{\partial \log p(y, r)}{\partial \log r} = r^2 (\nabla \cdot s + |s|^2).

The divergence is exact up to `EXACT` dimensions, d derivatives, and beyond estimated with one probe of random signs, as
in `density.path`: on 8x8 digits that adds 0.2 to 2.3 nats of noise to time scores that vary by 4 to 10, at a 64th of
the cost, where the target of `train.losses`, |eps|^2 - d, adds 3 to 12.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..annealing.anneal import anneal
from ..annealing.reverse import Reverse
from ..density.abstract import ConditionalModel, check_density
from ..density.density import Conditional, Density, Expression
from ..density.energy import ScoreModel
from ..density.path import score_at
from ..errors import ArgumentTypeError, ParameterError, ShapeError

#: Most dimensions in which divergences are exact.
EXACT = 8
#: Levels and points at which a teacher is tried, and points that are drawn of it; of images fewer, as they cost more.
NUM_LEVELS, NUM_TRIED = 16, 32
NUM_DRAWN, NUM_DRAWN_OF_IMAGES = 20_000, 2_000


def takes_images(teacher: Density) -> bool:
    """Whether points are images [height, width, channels], for which convolutions are likely."""
    return len(teacher.event_shape) == 3


def check_teacher(what: str, teacher) -> None:
    """Raise ArgumentTypeError unless this is one score-only model."""
    check_density(what, teacher)
    if isinstance(teacher, Expression):
        raise ArgumentTypeError(
            f"{what} takes one model; got the composition {teacher!r}, whose score at a noise level is not that of "
            "noised data. Distil its factors, and compose what comes of them."
        )
    if teacher.has_log_density:
        raise ArgumentTypeError(
            f"{what} takes a model with a score alone; {teacher!r} has a log density, so there is nothing to distil. "
            "nd.recalibrate(rng_key, density) measures the normaliser of a trained energy and takes it out."
        )


def check_conditions(teacher: Density, conditions) -> None:
    """Raise ShapeError unless the teacher takes conditions [n, c], or there are none."""
    if conditions is None:
        return
    if not isinstance(teacher, ConditionalModel) or teacher.no_condition is None:
        raise ShapeError(f"{teacher!r} takes no conditions; got conditions {conditions.shape}. Drop them.")
    size = math.prod(jnp.shape(teacher.no_condition)) - isinstance(teacher, ScoreModel)
    if conditions.shape[1] != size:
        raise ShapeError(
            f"conditions must have the teacher's shape [n, {size}]; got {conditions.shape}. Give those that it was "
            "trained with."
        )


def _given(teacher, condition) -> Density:
    """The teacher under a condition [c + 1], whose last entry says whether there is one; None for none."""
    if condition is None:
        return teacher
    if not isinstance(teacher, ScoreModel):
        nothing = jnp.asarray(teacher.no_condition)
        given = condition[:-1].reshape(nothing.shape).astype(nothing.dtype)
        condition = jnp.where(condition[-1] > 0, given, nothing)
    return Conditional(teacher, condition, None)


def score(density: Density, y, r) -> jax.Array:
    """Score [d] of p(y, r) at y = x / alpha [d]."""
    t = density.schedule.time(r)
    alpha = density.schedule.alpha(t)
    return alpha * jnp.ravel(jax.grad(density.log_density)((alpha * y).reshape(density.event_shape), t))


def scores(teacher: Density, y, r, condition, rng_key) -> tuple[jax.Array, jax.Array]:
    """Score [d] at y [d] under a condition [c + 1] or none, and the time score; the key is for a probe."""
    probes = None if y.size <= EXACT else jax.random.rademacher(rng_key, (1, y.size), y.dtype)
    value, divergence = score_at(_given(teacher, condition), y, r, probes)
    return value, r**2 * (divergence[0] + jnp.sum(value**2))


def check_finite_scores(teacher: Density, x, conditions, sigmas, rng_key) -> None:
    """Raise ParameterError where the teacher's scores of noised data x [n, *event_shape] are not finite.

    The message names the noise levels; `conditions` are [n, c] or None.
    """
    x, bad = jnp.asarray(x[:NUM_TRIED], dtype=float).reshape(min(len(x), NUM_TRIED), -1), {}
    if conditions is not None:
        conditions = jnp.asarray(np.append(conditions[: len(x)], np.ones((len(x), 1)), axis=1), dtype=float)
    for level, r in enumerate(np.geomspace(float(sigmas[0]), float(sigmas[1]), NUM_LEVELS)):
        finite = _are_finite(teacher, x, conditions, r, jax.random.fold_in(rng_key, level))
        if not np.all(finite):
            bad[float(r)] = int(np.sum(~np.asarray(finite)))
    if bad:
        where = ", ".join(f"{r:.3g} ({count} of {len(x)} points)" for r, count in bad.items())
        raise ParameterError(
            f"the teacher's score must be finite, and so must be its divergence; {teacher!r} has NaN or infinity at "
            f"noise-to-signal ratios {where}. Give sigma_min= and sigma_max= between which it is well, or mend it."
        )


@jax.jit
def _are_finite(teacher, y, conditions, r, rng_key):
    noise_key, probe_key = jax.random.split(rng_key)
    y = y + r * jax.random.normal(noise_key, y.shape)
    keys = jax.random.split(probe_key, len(y))
    score, time_score = jax.vmap(lambda y, c, key: scores(teacher, y, r, c, key))(y, conditions, keys)
    return jnp.isfinite(time_score) & jnp.all(jnp.isfinite(score), axis=1)


def drawn(rng_key, teacher: Density, *, progress_bar: bool) -> Any:
    """Samples of the teacher by reverse diffusion [n, *event_shape]; ParameterError if Ctrl-C ends that early."""
    count = NUM_DRAWN_OF_IMAGES if takes_images(teacher) else NUM_DRAWN
    run = anneal(rng_key, teacher, Reverse(), num_chains=count, progress_bar=progress_bar)
    if not run.is_complete:
        raise ParameterError(
            f"the teacher's samples are still noise: their run was interrupted at t = {run.levels[-1]:.3g}. Run "
            "nd.distil anew, or give data."
        )
    return np.asarray(run.samples)
