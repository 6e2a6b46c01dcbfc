"""Langevin kernels: one step of the overdamped Langevin diffusion, as it is or as a Metropolis proposal."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from blackjax.mcmc import diffusions, mala

from ...pytree import register
from .base import Kernel, KernelState, finite_or_stay, invariant_info, refuse_plus_infinity
from .line_integral import check_nodes, gained
from .settings import check_step_size


class _Langevin(Kernel):
    score_nodes = 5
    step_power = 2  # 2 epsilon is a variance

    def __init__(self, step_size=None, *, num_nodes: int | None = None):
        self.step_size, self.num_nodes = check_step_size(step_size), check_nodes(num_nodes)

    @property
    def evaluations_per_step(self):
        return 1 if self.num_nodes is None else self.num_nodes - 1

    def _propose(self, rng_key, state, logdensity_fn, step_size):
        """Where a step leads, and the logarithm of the Metropolis ratio."""
        start = diffusions.DiffusionState(state.position, state.logdensity, state.logdensity_grad)
        end = diffusions.overdamped_langevin(jax.value_and_grad(logdensity_fn))(rng_key, start, step_size)
        new = KernelState(end.position, state.momentum, *end[1:])
        if self.num_nodes is not None:
            new = new._replace(logdensity=state.logdensity + gained(logdensity_fn, state, new, self.num_nodes))

        def log_proposal(start, end):
            drift = end.position - start.position - step_size * start.logdensity_grad
            return -jnp.sum(drift**2) / (4 * step_size)

        return new, new.logdensity - state.logdensity + log_proposal(new, state) - log_proposal(state, new)


@register(data=("step_size",), static=("num_nodes",))
class ULA(_Langevin):
    """Unadjusted Langevin algorithm: one gradient per step, biased of order `step_size`.

    Args:
        step_size: Epsilon; None tunes so that a Metropolis step would accept 95 %, which bounds the bias.
        num_nodes: For score-only densities, nodes of the line integral that stands for log densities, see
            `line_integral`; 5 by default, of which three are gradients more per step.
    """

    is_adjusted = False
    target_acceptance = 0.95

    def step(self, rng_key, state, logdensity_fn, step_size):
        new, log_ratio = self._propose(rng_key, state, logdensity_fn, step_size)
        return finite_or_stay(new, state, log_ratio)


@register(data=("step_size",), static=("num_nodes",))
class MALA(_Langevin):
    """Metropolis-adjusted Langevin algorithm: one gradient per step.

    Args:
        step_size: Epsilon; None tunes to 60 % acceptance.
        num_nodes: As for `ULA`, 9 by default: steps are longer, and what five miss of them moves mass between modes.
    """

    score_nodes = 9

    def step(self, rng_key, state, logdensity_fn, step_size):
        if self.num_nodes is not None:
            propose_key, accept_key = jax.random.split(rng_key)
            new, log_ratio = self._propose(propose_key, state, logdensity_fn, step_size)
            new, info = finite_or_stay(new, state, log_ratio)
            is_accepted = jax.random.uniform(accept_key) < info.acceptance_rate
            return jax.tree.map(partial(jnp.where, is_accepted), new, state), invariant_info(*info[:2])
        old = mala.MALAState(state.position, state.logdensity, state.logdensity_grad)
        new, info = mala.build_kernel()(rng_key, old, refuse_plus_infinity(logdensity_fn), step_size)
        report = invariant_info(info.acceptance_rate, info.acceptance_rate <= 0)
        return KernelState(new.position, state.momentum, *new[1:]), report
