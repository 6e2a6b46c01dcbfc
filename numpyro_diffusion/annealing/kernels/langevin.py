"""Langevin kernels: one step of the overdamped Langevin diffusion, as it is or as a Metropolis proposal."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from blackjax.mcmc import diffusions, mala

from ...pytree import register
from .base import Kernel, KernelState, finite_or_stay, invariant_info, refuse_plus_infinity
from .settings import check_step_size


class _Langevin(Kernel):
    def __init__(self, step_size=None):
        self.step_size = check_step_size(step_size)


def _langevin(rng_key, state, logdensity_fn, step_size):
    start = diffusions.DiffusionState(state.position, state.logdensity, state.logdensity_grad)
    return diffusions.overdamped_langevin(jax.value_and_grad(logdensity_fn))(rng_key, start, step_size)


@register(data=("step_size",), static=())
class ULA(_Langevin):
    """Unadjusted Langevin algorithm: one gradient per step, biased of order `step_size`.

    Args:
        step_size: Epsilon; None tunes so that a Metropolis step would accept 95 %, which bounds the bias.
    """

    is_adjusted = False
    target_acceptance = 0.95

    def step(self, rng_key, state, logdensity_fn, step_size):
        new = _langevin(rng_key, state, logdensity_fn, step_size)

        def log_proposal(start, end):
            drift = end.position - start.position - step_size * start.logdensity_grad
            return -jnp.sum(drift**2) / (4 * step_size)

        log_ratio = new.logdensity - state.logdensity + log_proposal(new, state) - log_proposal(state, new)
        return finite_or_stay(KernelState(new.position, state.momentum, *new[1:]), state, log_ratio)


@register(data=("step_size",), static=())
class MALA(_Langevin):
    """Metropolis-adjusted Langevin algorithm: one gradient per step.

    Args:
        step_size: Epsilon; None tunes to 60 % acceptance.
    """

    def step(self, rng_key, state, logdensity_fn, step_size):
        old = mala.MALAState(state.position, state.logdensity, state.logdensity_grad)
        new, info = mala.build_kernel()(rng_key, old, refuse_plus_infinity(logdensity_fn), step_size)
        report = invariant_info(info.acceptance_rate, info.acceptance_rate <= 0)
        return KernelState(new.position, state.momentum, *new[1:]), report
