r"""MCMC kernels, built from BlackJAX parts. The only file that knows BlackJAX.

A kernel is a small pytree of settings. `init` evaluates the log density and its gradient at a position; `step` moves
one chain. Step sizes follow BlackJAX's conventions: ULA and MALA step
:math:`x + \epsilon g + \sqrt{2\epsilon}\,\xi` (the paper's Eq. 4 has :math:`\sigma^2/2 = \epsilon`), the HMC pair uses
leapfrog steps of length :math:`\epsilon` and unit mass.

Every step also reports its *log weight*, what it adds to an annealed importance weight,

.. math:: \log \frac{\gamma(x') F(x' \to x)}{\gamma(x) F(x \to x')} ,

zero for kernels that leave :math:`\gamma` invariant, the Metropolis-Hastings log ratio for those that always accept.

A point of infinite or NaN energy is never moved to, not even by the unadjusted kernels. Such a proposal counts as a
divergence; BlackJAX's MALA does not report energies, so there it is one of acceptance probability zero.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from blackjax.mcmc import diffusions, hmc, integrators, mala, metrics
from blackjax.mcmc.proposal import static_binomial_sampling
from blackjax.smc import ess as blackjax_ess
from blackjax.smc import resampling

from ..errors import ArgumentTypeError, check_integer, check_number
from ..program import array_digest, trace
from ..pytree import register
from .kernel_settings import check_persistence, check_step_size, settings_text


class KernelState(NamedTuple):
    """One chain: `position` [d], `momentum` [d], `logdensity` and `logdensity_grad` [d] *at the present level*."""

    position: Any  # arrays; BlackJAX's own states are typed as pytrees
    momentum: Any
    logdensity: Any
    logdensity_grad: Any


class StepInfo(NamedTuple):
    """What one step reports: acceptance probability, whether the proposal diverged, and the log weight."""

    acceptance_rate: jax.Array
    is_divergent: jax.Array
    log_weight: jax.Array


def init(position, momentum, logdensity_fn) -> KernelState:
    """Chain state at `position`: one value-and-gradient evaluation."""
    return KernelState(position, momentum, *jax.value_and_grad(logdensity_fn)(position))


class Kernel(abc.ABC):
    """Settings of an MCMC kernel; `step_size` is a number, an array over the levels, or None to have it tuned."""

    step_size: Any
    #: Metropolis adjusted: leaves the density invariant.
    is_adjusted: bool = True
    target_acceptance: float = 0.6
    #: Gradient evaluations of one step.
    evaluations_per_step: int = 1
    #: What sets apart two kernels of equal settings, see `as_now`.
    computed: Any = None

    @abc.abstractmethod
    def step(self, rng_key, state: KernelState, logdensity_fn: Callable, step_size) -> tuple[KernelState, StepInfo]:
        """One transition of one chain."""

    def without_step_size(self) -> Kernel:
        """The other settings. Given, tuned or per level: what compiled programs see is one structure."""
        new = copy.copy(self)
        new.step_size = None
        return new

    def as_now(self, size: int) -> Kernel:
        """The kernel with what it reads of Python as that is now, in `size` dimensions."""
        return self

    def first_step_size(self, size: int) -> float:
        """Where tuning starts, for a unit-scale target in `size` dimensions."""
        return 0.3 * size ** (-1 / 3)

    def __repr__(self):
        names = [name for name in ("step_size", "num_integration_steps", "persistence") if hasattr(self, name)]
        return settings_text(type(self).__name__, {name: getattr(self, name) for name in names})


def _refuse_plus_infinity(logdensity_fn):
    """Infinite density (a vanishing denominator) reads as NaN: a Metropolis ratio would accept it, and never leave."""

    def guarded(position):
        value = logdensity_fn(position)
        return jnp.where(jnp.isposinf(value), jnp.nan, value)

    return guarded


def _finite_or_stay(new: KernelState, old: KernelState, log_ratio):
    """Accept unless the density vanishes or fails there; staying put carries no weight (F(x -> x) both ways)."""
    fine = jnp.isfinite(new.logdensity) & jnp.all(jnp.isfinite(new.logdensity_grad)) & jnp.isfinite(log_ratio)
    kept = jax.tree.map(partial(jnp.where, fine), new, old)
    rate = jnp.where(fine, jnp.exp(jnp.minimum(log_ratio, 0.0)), 0.0)
    return kept, StepInfo(rate, ~fine, jnp.where(fine, log_ratio, 0.0))


def _adjusted(acceptance_rate, is_divergent) -> StepInfo:
    return StepInfo(acceptance_rate, is_divergent, jnp.zeros_like(acceptance_rate))


def _langevin(rng_key, state, logdensity_fn, step_size):
    one_step = diffusions.overdamped_langevin(jax.value_and_grad(logdensity_fn))
    return one_step(
        rng_key, diffusions.DiffusionState(state.position, state.logdensity, state.logdensity_grad), step_size
    )


@register(data=("step_size",), static=())
class ULA(Kernel):
    """Unadjusted Langevin algorithm: one gradient per step, biased of order `step_size`.

    Args:
        step_size: Epsilon; None tunes so that a Metropolis step would accept 95 %, which bounds the bias.
    """

    is_adjusted = False
    target_acceptance = 0.95

    def __init__(self, step_size=None):
        self.step_size = check_step_size(step_size)

    def step(self, rng_key, state, logdensity_fn, step_size):
        new = _langevin(rng_key, state, logdensity_fn, step_size)

        def log_proposal(start, end):
            drift = end.position - start.position - step_size * start.logdensity_grad
            return -jnp.sum(drift**2) / (4 * step_size)

        log_ratio = new.logdensity - state.logdensity + log_proposal(new, state) - log_proposal(state, new)
        return _finite_or_stay(KernelState(new.position, state.momentum, *new[1:]), state, log_ratio)


@register(data=("step_size",), static=())
class MALA(Kernel):
    """Metropolis-adjusted Langevin algorithm: one gradient per step.

    Args:
        step_size: Epsilon; None tunes to 60 % acceptance.
    """

    def __init__(self, step_size=None):
        self.step_size = check_step_size(step_size)

    def step(self, rng_key, state, logdensity_fn, step_size):
        old = mala.MALAState(state.position, state.logdensity, state.logdensity_grad)
        new, info = mala.build_kernel()(rng_key, old, _refuse_plus_infinity(logdensity_fn), step_size)
        return KernelState(new.position, state.momentum, *new[1:]), _adjusted(
            info.acceptance_rate, info.acceptance_rate <= 0
        )


def _always_accept(rng_key, log_ratio, state, new):
    return new, (jnp.array(True), jnp.exp(jnp.minimum(log_ratio, 0.0)), None)


class _Hamiltonian(Kernel):
    target_acceptance = 0.7

    def __init__(self, step_size=None, num_integration_steps: int = 3, persistence: float = 0.0):
        self.step_size = check_step_size(step_size)
        self.num_integration_steps = check_integer("num_integration_steps", num_integration_steps)
        self.persistence = check_persistence(persistence)

    @property
    def evaluations_per_step(self):
        return self.num_integration_steps

    def first_step_size(self, size):
        return 0.6 * size ** (-1 / 4)

    def _propose(self, rng_key, state, logdensity_fn, step_size, sample_proposal):
        refresh_key, accept_key = jax.random.split(rng_key)
        metric = metrics.default_metric(jnp.ones(state.position.shape))
        noise: Any = metric.sample_momentum(refresh_key, state.position)
        momentum = self.persistence * state.momentum + jnp.sqrt(1 - self.persistence**2) * noise
        start = integrators.IntegratorState(state.position, momentum, state.logdensity, state.logdensity_grad)
        generate = hmc.hmc_proposal(
            integrators.velocity_verlet(_refuse_plus_infinity(logdensity_fn), metric.kinetic_energy),
            metric.kinetic_energy,
            step_size,
            self.num_integration_steps,
            sample_proposal=sample_proposal,
        )
        new, info, _ = generate(accept_key, start)
        # The proposal ends with its momentum flipped. Flipping once more keeps the direction after an acceptance
        # and reverses it after a rejection, without which partial refreshment has the wrong stationary law.
        new = hmc.flip_momentum(new)
        return KernelState(*start), KernelState(new.position, new.momentum, new.logdensity, new.logdensity_grad), info


@register(data=("step_size", "persistence"), static=("num_integration_steps",))
class HMC(_Hamiltonian):
    """Hamiltonian Monte Carlo with partial momentum refreshment (Du et al. 2023, Algorithm 3).

    Args:
        step_size: Leapfrog step; None tunes to 70 % acceptance.
        num_integration_steps: Leapfrog steps L per transition, each one gradient.
        persistence: Share gamma in [0, 1) of the momentum that is kept, v <- gamma v + sqrt(1 - gamma^2) xi.
    """

    def step(self, rng_key, state, logdensity_fn, step_size):
        _, new, info = self._propose(rng_key, state, logdensity_fn, step_size, static_binomial_sampling)
        # Walls of a trained energy are steep and finite: a trajectory that hits one is rejected, not diverged.
        return new, _adjusted(info.acceptance_rate, ~jnp.isfinite(info.energy))


@register(data=("step_size", "persistence"), static=("num_integration_steps",))
class UHMC(_Hamiltonian):
    """Unadjusted HMC: accepts every trajectory (Du et al. 2023, Algorithm 2). Arguments as for `HMC`, tuned to 95 %."""

    is_adjusted = False
    target_acceptance = 0.95

    def step(self, rng_key, state, logdensity_fn, step_size):
        start, new, info = self._propose(rng_key, state, logdensity_fn, step_size, _always_accept)
        log_ratio = new.logdensity - start.logdensity - 0.5 * (jnp.sum(new.momentum**2) - jnp.sum(start.momentum**2))
        # Staying put reverses the momentum, as a rejection does.
        stay = KernelState(start.position, -start.momentum, start.logdensity, start.logdensity_grad)
        return _finite_or_stay(new, stay, log_ratio)


@register(data=("step_size", "parameters"), static=("algorithm", "is_adjusted", "target_acceptance", "computed"))
class BlackJAX(Kernel):
    """Any BlackJAX algorithm: `nd.BlackJAX(blackjax.barker)`, `nd.BlackJAX(blackjax.nuts, inverse_mass_matrix=...)`.

    The algorithm is started afresh at every step, so a momentum it keeps between steps is lost. Runs count three
    evaluations per step, start and end included; those of algorithms with trajectories are not known to us.

    Args:
        algorithm: A BlackJAX top-level algorithm, called as `algorithm(logdensity_fn, step_size=..., **parameters)`.
        step_size: As for the other kernels; None tunes the reported acceptance rate.
        is_adjusted: Whether the algorithm leaves its target invariant. If not, runs have no weights.
        target_acceptance: What tuning aims for.
        **parameters: Passed on, as traced arguments where they are arrays.
    """

    evaluations_per_step = 3

    def __init__(self, algorithm, step_size=None, *, is_adjusted=True, target_acceptance=0.7, **parameters):
        if not hasattr(algorithm, "build_kernel"):
            raise ArgumentTypeError(f"algorithm must be one of BlackJAX, such as blackjax.barker; got {algorithm!r}.")
        check_number("target_acceptance", target_acceptance, 0.0, 1.0)
        self.algorithm, self.step_size, self.parameters = algorithm, check_step_size(step_size), parameters
        self.is_adjusted, self.target_acceptance, self.computed = is_adjusted, target_acceptance, None

    def as_now(self, size):
        """The kernel, told apart by what its algorithm computes: on a standard Gaussian, with the arrays it reads."""
        new, point = copy.copy(self), jnp.zeros(size)
        step = 1.0 if self.step_size is None else jnp.ravel(jnp.asarray(self.step_size, dtype=float))[0]

        def once(rng_key, position, step_size):
            gaussian = lambda x: -0.5 * jnp.sum(x**2)
            return self.step(rng_key, init(position, jnp.zeros_like(position), gaussian), gaussian, step_size)

        made = trace(once, jax.random.key(0), point, jnp.asarray(step, dtype=float), differentiated=False)
        new.computed = (made.program, *map(array_digest, made.captured))
        return new

    def __repr__(self):
        algorithm = {"algorithm": self.algorithm, "step_size": self.step_size}
        return settings_text("BlackJAX", algorithm | self.parameters)

    def step(self, rng_key, state, logdensity_fn, step_size):
        algorithm = self.algorithm(_refuse_plus_infinity(logdensity_fn), step_size=step_size, **self.parameters)
        init_key, step_key = jax.random.split(rng_key)
        new, info = algorithm.step(step_key, algorithm.init(state.position, init_key))
        # Some algorithms report NaN for a proposal of NaN energy, which they reject, and rates beyond 0 by rounding.
        rate = jnp.clip(jnp.nan_to_num(getattr(info, "acceptance_rate", jnp.ones(()))), 0.0, 1.0)
        moved = init(new.position, state.momentum, logdensity_fn)
        fine = jnp.isfinite(moved.logdensity) & jnp.all(jnp.isfinite(moved.logdensity_grad))
        diverged = ~fine | (rate <= 0) | getattr(info, "is_divergent", False)
        return jax.tree.map(partial(jnp.where, fine), moved, state), StepInfo(rate, diverged, jnp.zeros_like(rate))


def effective_sample_size(log_weights) -> jax.Array:
    """(sum w)^2 / sum w^2 of weights given as logarithms."""
    return jnp.asarray(blackjax_ess.ess(log_weights))


def systematic_resampling(rng_key, log_weights, num_samples: int) -> jax.Array:
    """Indices [num_samples] drawn systematically in proportion to exp(log_weights)."""
    return resampling.systematic(rng_key, jax.nn.softmax(log_weights), num_samples)
