r"""Log likelihoods of score-only models, by the probability-flow ordinary differential equation.

In variance exploding units points that move by

.. math:: \frac{dy}{d \log r} = -r^2 s(y, r), \qquad \frac{d \log p(y, r)}{d \log r} = r^2 \, \mathrm{div} \, s(y, r)

have at every noise level r the law of the noised data (Song et al. 2021, arXiv:2011.13456, Section 4.3), and at the
largest the Gaussian that the density is there. The divergence is exact up to 64 dimensions; beyond, a few probes are
held fixed along the way (Grathwohl et al. 2019), whose scatter is the error. That leaves out that the Gaussian may not
have the data's mean, but one that is off by m: a point at z standard deviations of a dimension is then off by
:math:`-m z / r_1 - m^2 / (2 r_1^2)` in it, r_1 the largest ratio. The log density is that of the model's own samples
under deterministic sampling: a score that is no gradient has none that agrees with it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.ode import odeint

from .path import PROBES, draw_probes, score_at

#: Relative and absolute tolerance of the integration.
TOLERANCE = 1e-5
#: Longest step, as a share of the way from one level to the last in log r.
LONGEST_STEP = 0.1


class FlowLogProb(NamedTuple):
    """Log densities in nats, and the standard errors that estimated divergences leave; zero where these are exact."""

    log_prob: jax.Array
    error: jax.Array


def flow_log_density(density, rng_key, x, t, num_probes: int = PROBES) -> FlowLogProb:
    """Of one point x [*event_shape] at time t under one model."""
    schedule, size = density.schedule, x.size
    alpha, last = schedule.alpha(t), schedule.alpha(1.0)
    log_r = jnp.log(jnp.maximum(schedule.noise_to_signal(t), density.resolution))
    log_last = jnp.log(schedule.noise_to_signal(1.0))
    probes = draw_probes(rng_key, size, num_probes)

    def velocity(state, u):
        # From u = 0 at the point's level to u = 1 at the last; where little happens the solver looks beyond.
        y, _ = state
        u = jnp.minimum(u, 1.0)
        r = jnp.exp(log_r + u * (log_last - log_r))
        s, div = score_at(density, y, r, probes)
        return -(r**2) * s * (log_last - log_r), r**2 * div * (log_last - log_r)

    count = 1 if probes is None else num_probes
    start = jnp.ravel(x) / alpha, jnp.zeros(count)
    path, gains = odeint(velocity, start, jnp.array([0.0, 1.0]), rtol=TOLERANCE, atol=TOLERANCE, hmax=LONGEST_STEP)
    end = density.start_log_prob(path[-1] * last) + size * jnp.log(last)
    found = end - gains[-1] - size * jnp.log(alpha)
    error = jnp.std(found, ddof=1) / jnp.sqrt(count) if count > 1 else jnp.zeros(())
    return FlowLogProb(jnp.mean(found), error)
