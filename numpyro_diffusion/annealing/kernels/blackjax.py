"""BlackJAX as it is: any of its algorithms as a kernel, and its resampling."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from blackjax.smc import resampling

from ...errors import ArgumentTypeError, check_number
from ...program import array_digest, trace
from ...pytree import register, replace
from .base import Kernel, finite_or_stay, init, invariant_info, refuse_plus_infinity
from .settings import check_step_size, settings_text


@register(data=("step_size", "parameters"), static=("algorithm", "is_adjusted", "target_acceptance", "program_digest"))
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

    @property
    def has_ratio(self):
        return self.is_adjusted

    def __init__(self, algorithm, step_size=None, *, is_adjusted=True, target_acceptance=0.7, **parameters):
        if not hasattr(algorithm, "build_kernel"):
            raise ArgumentTypeError(f"algorithm must be one of BlackJAX, such as blackjax.barker; got {algorithm!r}.")
        check_number("target_acceptance", target_acceptance, 0.0, 1.0)
        self.algorithm, self.step_size, self.parameters = algorithm, check_step_size(step_size), parameters
        self.is_adjusted, self.target_acceptance, self.program_digest = is_adjusted, target_acceptance, None

    def frozen(self, size):
        """The kernel, told apart by what its algorithm computes: on a standard Gaussian, with the arrays it reads."""
        step = 1.0 if self.step_size is None else jnp.ravel(jnp.asarray(self.step_size, dtype=float))[0]

        def once(rng_key, position, step_size):
            gaussian = lambda x: -0.5 * jnp.sum(x**2)
            return self.step(rng_key, init(position, jnp.zeros_like(position), gaussian), gaussian, step_size)

        made = trace(once, jax.random.key(0), jnp.zeros(size), jnp.asarray(step, dtype=float), differentiated=False)
        return replace(self, program_digest=(made.program, *map(array_digest, made.captured)))

    def __repr__(self):
        algorithm = {"algorithm": self.algorithm, "step_size": self.step_size}
        return settings_text("BlackJAX", algorithm | self.parameters)

    def step(self, rng_key, state, logdensity_fn, step_size):
        algorithm = self.algorithm(refuse_plus_infinity(logdensity_fn), step_size=step_size, **self.parameters)
        init_key, step_key = jax.random.split(rng_key)
        new, info = algorithm.step(step_key, algorithm.init(state.position, init_key))
        # Some algorithms report NaN for a proposal of NaN energy, which they reject, and rates beyond 0 by rounding.
        rate = jnp.clip(jnp.nan_to_num(getattr(info, "acceptance_rate", jnp.ones(()))), 0.0, 1.0)
        moved, report = finite_or_stay(init(new.position, state.momentum, logdensity_fn), state, jnp.zeros(()))
        diverged = report.is_divergent | (rate <= 0) | getattr(info, "is_divergent", False)
        return moved, invariant_info(rate, diverged)


def systematic_resampling(rng_key, log_weights, num_samples: int) -> jax.Array:
    """Indices [num_samples] drawn systematically in proportion to exp(log_weights)."""
    return resampling.systematic(rng_key, jax.nn.softmax(log_weights), num_samples)
