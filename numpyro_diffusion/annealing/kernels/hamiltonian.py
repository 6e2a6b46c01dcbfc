r"""Hamiltonian kernels: a leapfrog trajectory with partial momentum refreshment, adjusted or not.

One step size does not fit a funnel, such as a posterior with an unknown scale: where it is narrow, chains would reject
every step and lose their share of the weights from level to level. `HMC.jittered_step` draws the step size by where a
chain is, from a law of its gradient g [d], and pays for it in the Metropolis ratio,

.. math:: \log \epsilon \sim N(\log \epsilon_0 + b(x), s^2), \quad b(x) = -\tfrac12 \log\Big(1 + \frac{|g|^2}{d}\Big),
          \qquad \frac{\pi(x') \, p(\epsilon \mid x')}{\pi(x) \, p(\epsilon \mid x)} ,

which is a Gibbs step for epsilon and one of HMC for x, on the law of both: exact whatever b is (Bou-Rabee, Carpenter
and Marsden 2024, arXiv:2404.15253). Both gradients are there already.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from blackjax.mcmc import hmc, integrators, metrics
from blackjax.mcmc.proposal import static_binomial_sampling

from ...errors import check_integer
from ...pytree import register
from .base import Kernel, KernelState, finite_or_stay, invariant_info, refuse_plus_infinity
from .line_integral import by_score, check_nodes
from .settings import check_persistence, check_step_size

#: The standard deviation s of log step sizes; and the squared gradient, in d, from where on they shrink: about what it
#: is in coordinates of unit covariance.
SPREAD, USUAL = 0.7, 1.0


def _always_accept(rng_key, log_ratio, state, new):
    # As BlackJAX's own: whether it is accepted, at what probability, and a third entry that HMC does not read.
    return new, (jnp.array(True), jnp.exp(jnp.minimum(log_ratio, 0.0)), None)


class _Hamiltonian(Kernel):
    target_acceptance = 0.7
    # On Gaussians in few dimensions acceptance rises again to one, at a step of sqrt(2), before it falls off a cliff.
    longest_step = 1.2
    score_nodes = 9

    def __init__(self, step_size=None, num_integration_steps: int = 3, persistence: float = 0.0, *, num_nodes=None):
        self.step_size, self.num_nodes = check_step_size(step_size), check_nodes(num_nodes)
        self.num_integration_steps = check_integer("num_integration_steps", num_integration_steps)
        self.persistence = check_persistence(persistence)

    @property
    def evaluations_per_step(self):
        return self.num_integration_steps + (0 if self.num_nodes is None else self.num_nodes - 2)

    def first_step_size(self, size):
        return 0.6 * size ** (-1 / 4)

    def _propose(self, rng_key, state, logdensity_fn, step_size, sample_proposal):
        refresh_key, accept_key = jax.random.split(rng_key)
        metric = metrics.default_metric(jnp.ones(state.position.shape))
        noise: Any = metric.sample_momentum(refresh_key, state.position)
        momentum = self.persistence * state.momentum + jnp.sqrt(1 - self.persistence**2) * noise
        start = integrators.IntegratorState(state.position, momentum, state.logdensity, state.logdensity_grad)
        integrator = integrators.velocity_verlet(refuse_plus_infinity(logdensity_fn), metric.kinetic_energy)
        effort = step_size, self.num_integration_steps
        if self.num_nodes is not None:
            integrator = by_score(integrator, self.num_integration_steps, logdensity_fn, self.num_nodes)
            effort = step_size, 1
        generate = hmc.hmc_proposal(integrator, metric.kinetic_energy, *effort, sample_proposal=sample_proposal)
        new, info, _ = generate(accept_key, start)
        # The proposal ends with its momentum flipped. Flipping once more keeps the direction after an acceptance
        # and reverses it after a rejection, without which partial refreshment has the wrong stationary law.
        return KernelState(*start), KernelState(*hmc.flip_momentum(new)), info


@register(data=("step_size", "persistence"), static=("num_integration_steps", "num_nodes"))
class HMC(_Hamiltonian):
    """Hamiltonian Monte Carlo with partial momentum refreshment (Du et al. 2023, Algorithm 3).

    Args:
        step_size: Leapfrog step; None tunes to 70 % acceptance.
        num_integration_steps: Leapfrog steps L per transition, each one gradient.
        persistence: Share gamma in [0, 1) of the momentum that is kept, v <- gamma v + sqrt(1 - gamma^2) xi.
        num_nodes: For score-only densities, nodes of the line integral that stands for log densities, see
            `line_integral`; 9 by default, of which seven are gradients more per transition, in one batch.
    """

    def step(self, rng_key, state, logdensity_fn, step_size):
        _, new, info = self._propose(rng_key, state, logdensity_fn, step_size, static_binomial_sampling)
        # Walls of a trained energy are steep and finite: a trajectory that hits one is rejected, not diverged.
        return new, invariant_info(info.acceptance_rate, ~jnp.isfinite(info.energy))

    def jittered_step(self, rng_key, jitter_key, state, logdensity_fn, step_size):
        """A step whose length is drawn by the gradient where it starts, see the module."""
        drawn = _shrunk(state.logdensity_grad) + SPREAD * jax.random.normal(jitter_key)

        def sample(key, log_ratio, start, end):
            away, back = ((drawn - _shrunk(at.logdensity_grad)) / SPREAD for at in (start, end))
            return static_binomial_sampling(
                key, log_ratio + 0.5 * jnp.nan_to_num(away**2 - back**2, nan=-jnp.inf), start, end
            )

        _, new, info = self._propose(rng_key, state, logdensity_fn, step_size * jnp.exp(drawn), sample)
        # Drawn far longer than tuned, steps may diverge at any density: that is no fault of it.
        is_long = drawn > _shrunk(state.logdensity_grad)
        return new, invariant_info(info.acceptance_rate, ~jnp.isfinite(info.energy) & ~is_long)


def _shrunk(gradient):
    """b, of a gradient [d]."""
    return -0.5 * jnp.log1p(jnp.sum(gradient**2) / (USUAL * gradient.size))


@register(data=("step_size", "persistence"), static=("num_integration_steps", "num_nodes"))
class UHMC(_Hamiltonian):
    """Unadjusted HMC: accepts every trajectory (Du et al. 2023, Algorithm 2). Arguments as for `HMC`, tuned to 95 %."""

    is_adjusted = False
    target_acceptance = 0.95

    def step(self, rng_key, state, logdensity_fn, step_size):
        start, new, info = self._propose(rng_key, state, logdensity_fn, step_size, _always_accept)
        log_ratio = new.logdensity - start.logdensity - 0.5 * (jnp.sum(new.momentum**2) - jnp.sum(start.momentum**2))
        # Staying put reverses the momentum, as a rejection does.
        return finite_or_stay(new, start._replace(momentum=-start.momentum), log_ratio)
