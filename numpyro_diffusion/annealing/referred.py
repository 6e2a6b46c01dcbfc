r"""A reverse diffusion step that is weighed by what a composition has beside a diffusion model, its *reference*.

Of a model b whose reverse diffusion is right (a trained one, a mixture of such, the prior of a posterior) the step from
ratio r to r' < r carries b_r to b_r'. So for a composition :math:`\gamma = b \, q` a step by its own score, which goes
where q leads, has the weight

.. math:: w = \frac{q_{r'}(y')}{q_r(y)} \, \frac{N(y'; y + \delta \nabla \log b_r(y), v)}
                                               {N(y'; y + \delta \nabla \log \gamma_r(y), v)},
          \qquad \delta = r^2 - r'^2, \quad v = r'^2 \delta / r^2,

in variance exploding units y = x / alpha: what b itself is off by, hundreds of nats between levels of images, is left
out, and is taken to be exact instead. Of one model with a likelihood for q this is the twisted sampler of Wu et al.
(2023, arXiv:2306.17775), with q known at every noise level. With the noise z of the step and

.. math:: e = \sqrt\delta \, (r / r') (\nabla \log \gamma_r - \nabla \log b_r)

the log ratio of both kernels is -z . e - |e|^2 / 2. To r' = 0, and below the resolution, chains stay where they are in
y, and have the weight of that, :math:`\gamma_{r'}(y) / \gamma_r(y)`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..density.density import Density
from ..errors import ArgumentTypeError, ParameterError, ScoreOnlyError
from .kernels import KernelState
from .level import Level
from .reverse import Reverse


def check_reference(density: Density, reference: Density, kernel, levels) -> None:
    """Raise an error unless steps to given levels can be weighed beside a reference."""
    density.check_beside("a predictor", reference)
    if isinstance(kernel, Reverse):
        raise ArgumentTypeError("a predictor leads to the levels of a kernel; got nd.Reverse(). Take nd.HMC(), say.")
    if levels is None:
        raise ParameterError("predictor= a density goes to levels that are given; got none. Give levels=100, say.")
    for which in (density, reference):
        if not which.has_log_density:
            raise ScoreOnlyError(
                f"steps are weighed by log densities; {which!r} has only a score. Give predictor=True."
            )
    if not reference.is_calibrated:
        raise ParameterError(
            f"a predictor must be normalised at every noise level; {reference!r} is not. Give what nd.fit trains, a "
            "mixture of such densities, or predictor=True."
        )


def referred_step(
    reference: Density, before: Level, after: Level, noise, state: KernelState
) -> tuple[jax.Array, jax.Array]:
    """A chain one step on, by standard normal noise [d]: u [d], and what its log weight gains beside the density."""
    schedule = reference.schedule
    alpha, alpha_to = schedule.alpha(before.t), schedule.alpha(after.t)
    r, r_to = (jnp.maximum(schedule.noise_to_signal(level.t), before.density.resolution) for level in (before, after))
    lost = jnp.where(r_to > 0, jnp.maximum(r**2 - r_to**2, 0.0), 0.0)
    x = before.point(before.frame.unscaled(state.position))
    score = before.frame.gradient(state.logdensity_grad)
    log_prob, own = jax.value_and_grad(reference.log_density)(x, before.t)
    y = jnp.ravel(x) / alpha + lost * alpha * score + r_to / r * jnp.sqrt(lost) * noise
    away = jnp.sqrt(lost) * r / jnp.where(lost > 0, r_to, 1.0) * alpha * (score - jnp.ravel(own))
    new = (alpha_to * y).reshape(x.shape)
    kernels = -jnp.dot(noise, away) - 0.5 * jnp.sum(away**2)
    moved = kernels - reference.log_density(new, after.t) + log_prob
    gain = jnp.where(lost > 0, moved, noise.size * jnp.log(alpha_to / alpha))
    return after.frame.position(new), gain + before.frame.log_det - after.frame.log_det
