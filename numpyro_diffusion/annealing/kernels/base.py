r"""What a kernel is: a small pytree of settings, whose `step` moves one chain.

Step sizes follow BlackJAX's conventions: ULA and MALA step :math:`x + \epsilon g + \sqrt{2\epsilon}\,\xi` (the paper's
Eq. 4 has :math:`\sigma^2/2 = \epsilon`), the HMC pair uses leapfrog steps of length :math:`\epsilon` and unit mass.

Every step also reports its *log weight*, what it adds to an annealed importance weight,

.. math:: \log \frac{\gamma(x') F(x' \to x)}{\gamma(x) F(x \to x')} ,

zero for kernels that leave :math:`\gamma` invariant, the Metropolis-Hastings log ratio for those that always accept.
"""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...checks.calls import CheckedCall
from ...density.density import Density
from ...errors import ScoreOnlyError
from ...pytree import replace
from .settings import settings_text


class KernelState(NamedTuple):
    """One chain: `position` [d], `momentum` [d], `logdensity` and `logdensity_grad` [d] *at the present level*.

    Reverse diffusion that tracks log densities keeps those of the density's `leaves` [m], see `tracked`.

    While a chain moves, `position` is v, the coordinates of moves; between levels it is u, those of the frame alone
    (`Level.enter`, `Level.leave`). The gradient stays that in v, and a level that is entered computes it anew.
    """

    position: Any  # arrays; BlackJAX's own states are typed as pytrees
    momentum: Any
    logdensity: Any
    logdensity_grad: Any
    leaves: Any = ()


class StepInfo(NamedTuple):
    """What one step reports: acceptance probability, whether the proposal diverged, and the log weight."""

    acceptance_rate: jax.Array
    is_divergent: jax.Array
    log_weight: jax.Array


def init(position, momentum, logdensity_fn) -> KernelState:
    """Chain state at `position`: one value-and-gradient evaluation."""
    return KernelState(position, momentum, *jax.value_and_grad(logdensity_fn)(position))


class Kernel(CheckedCall, abc.ABC):
    """Settings of an MCMC kernel, kept by the names of its arguments.

    `step_size` is a number, an array over the levels, or None to have it tuned.
    """

    step_size: Any
    #: Metropolis adjusted: leaves the density invariant.
    is_adjusted: bool = True
    #: Whether the Metropolis ratio of a step is known, without which runs have no weights.
    has_ratio: bool = True
    target_acceptance: float = 0.6
    #: Which power of a length a step size is: how much faster its logarithm must follow a scale that shrinks.
    step_power: int = 1
    #: The longest step that tuning takes, in the frame's coordinates of about unit covariance; None without one.
    longest_step: float | None = None
    #: Gradient evaluations of one step.
    evaluations_per_step: int = 1
    #: Nodes of the line integral that stands for a score-only density, None where there are log densities; and how many
    #: are usual, None for kernels that need log densities.
    num_nodes: int | None = None
    score_nodes: int | None = None
    #: What sets apart two kernels of equal settings, see `frozen`.
    program_digest: Any = None

    @abc.abstractmethod
    def step(self, rng_key, state: KernelState, logdensity_fn: Callable, step_size) -> tuple[KernelState, StepInfo]:
        """One transition of one chain.

        `state` holds value and gradient of `logdensity_fn`, and `step_size` is the level's, whatever the kernel's own.
        Two things are promised, for which there are helpers:

        - A point of NaN or infinite energy is never moved to: `refuse_plus_infinity` around `logdensity_fn` makes a
          Metropolis step reject +inf, `finite_or_stay` keeps an unadjusted step where it was. Such a proposal counts
          as a divergence; BlackJAX's MALA reports no energies, so there it is one of acceptance probability zero.
        - `log_weight` is 0 where `is_adjusted` (`invariant_info`), the log ratio otherwise (`finite_or_stay`).
        """

    def jittered_step(self, rng_key, jitter_key, state: KernelState, logdensity_fn: Callable, step_size):
        """A step of random length, U(0.5, 1) of the step size, for targets of about unit covariance.

        There a tuned trajectory is close to half a turn (three leapfrogs of size 1): chains would flip between x and
        -x, and keep their distance from the mean, at a healthy acceptance rate.
        """
        step_size = step_size * jax.random.uniform(jitter_key, minval=0.5, maxval=1.0)
        return self.step(rng_key, state, logdensity_fn, step_size)

    def without_step_size(self) -> Kernel:
        """The other settings. Given, tuned or per level: what compiled programs see is one structure."""
        return replace(self, step_size=None)

    def frozen(self, size: int) -> Kernel:
        """The kernel with what it reads of Python as that is now, in `size` dimensions."""
        return self

    def suited(self, density: Density) -> Kernel:
        """The kernel for a density: with nodes where that has only a score, ScoreOnlyError if the kernel knows none."""
        if density.has_log_density:
            return self if self.num_nodes is None else replace(self, num_nodes=None)
        if not density.has_increments:
            # Which has no score at a point either, and says so here, where its formula is known.
            jax.eval_shape(density.log_density, jnp.zeros(density.event_shape), jnp.zeros(()))
        if self.score_nodes is not None:
            return replace(self, num_nodes=self.num_nodes or self.score_nodes)
        if self.is_adjusted:
            raise ScoreOnlyError(
                f"{self!r} accepts by log densities, but {density!r} has only a score. Use nd.HMC or nd.MALA, which "
                "integrate the score along their steps."
            )
        return self

    def first_step_size(self, size: int) -> float:
        """Where tuning starts, for a unit-scale target in `size` dimensions."""
        return 0.3 * size ** (-1 / 3)

    def __repr__(self):
        names = inspect.signature(type(self)).parameters
        return settings_text(type(self).__name__, {name: getattr(self, name) for name in names})


def refuse_plus_infinity(logdensity_fn):
    """Infinite density (a vanishing denominator) reads as NaN: a Metropolis ratio would accept it, and never leave."""

    def guarded(position):
        value = logdensity_fn(position)
        return jnp.where(jnp.isposinf(value), jnp.nan, value)

    return guarded


def finite_or_stay(new: KernelState, old: KernelState, log_ratio):
    """Accept unless the density vanishes or fails there; staying put carries no weight (F(x -> x) both ways)."""
    fine = jnp.isfinite(new.logdensity) & jnp.all(jnp.isfinite(new.logdensity_grad)) & jnp.isfinite(log_ratio)
    kept = jax.tree.map(partial(jnp.where, fine), new, old)
    rate = jnp.where(fine, jnp.exp(jnp.minimum(log_ratio, 0.0)), 0.0)
    return kept, StepInfo(rate, ~fine, jnp.where(fine, log_ratio, 0.0))


def invariant_info(acceptance_rate, is_divergent) -> StepInfo:
    """The report of a step that leaves the density invariant."""
    return StepInfo(acceptance_rate, is_divergent, jnp.zeros_like(acceptance_rate))
