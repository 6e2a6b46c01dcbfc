r"""Stochastic bounds on log evidence and log likelihood: AIS, RAISE and BDMC.

Annealing from t = 1 to 0 gives weights w with E[w] = Z. Log-mean-exp of them is a lower bound on log Z in expectation
(AIS, Neal 2001). The same path run backwards from an *exact* draw of the target has E[1/w] = 1/Z, and an upper bound
(BDMC, Grosse, Ghahramani and Adams 2015). Run backwards from a test point x, gamma_0(x)/w estimates without bias the
likelihood of x under the annealed sampler itself, so its log is a lower bound (RAISE, Burda, Grosse and Salakhutdinov
2015).

A backward path starts at the last level, takes the kernel's steps at each level and then changes to the next noisier
one. For a reversible kernel the steps themselves carry no weight; for ULA and U-HMC each carries its Metropolis log
ratio. Partial refreshment is not reversible and is refused.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from tqdm.auto import tqdm

from . import frame as frames
from .anneal import anneal
from .density import Density, as_points
from .errors import ParameterError, ScoreOnlyError
from .kernels import BlackJAX, Kernel, KernelState, init
from .lapack import single_threaded_lapack
from .level import log_density_in_frame
from .memory import default_batch_size
from .population import chain_keys, map_chains
from .tuning import Plan, plan


@dataclasses.dataclass
class Bound:
    """A stochastic bound in nats.

    Attributes:
        kind: "ais", "raise" or "bdmc".
        lower, lower_error: Lower bound in expectation, and its standard error.
        upper, upper_error: Upper bound in expectation ("bdmc"), else NaN.
        log_weights: "ais" {"forward": [N]}, "bdmc" {"forward": [N], "reverse": [N]}, "raise" {"points": [n, repeats]}.
        levels: [K] decreasing times.
    """

    kind: str
    lower: float
    lower_error: float
    upper: float
    upper_error: float
    log_weights: dict[str, np.ndarray]
    levels: np.ndarray

    @property
    def gap(self) -> float:
        """upper - lower."""
        return self.upper - self.lower

    def to_datatree(self):
        """ArviZ DataTree with a group `bounds`."""
        from .datatree import to_datatree  # xarray is slow to import

        return to_datatree(self)

    def __str__(self):
        upper = "" if np.isnan(self.upper) else f", upper {self.upper:.4f} +- {self.upper_error:.4f}"
        return f"{self.kind}: lower {self.lower:.4f} +- {self.lower_error:.4f}{upper}"


def _check(density, kernel, purpose) -> None:
    if not isinstance(kernel, Kernel):
        raise TypeError(f"{purpose} takes a kernel such as nd.HMC(); got {kernel!r}.")
    if not density.has_log_density:
        raise ScoreOnlyError(f"{purpose} needs a log density, but {density!r} has only a score.")
    if isinstance(kernel, BlackJAX) and not kernel.is_adjusted:
        raise ParameterError(
            f"{purpose} needs a kernel with a known ratio; {kernel.algorithm} was declared unadjusted."
        )


def _check_reversible(kernel) -> None:
    persistence = getattr(kernel, "persistence", 0.0)
    if float(persistence) != 0:
        raise ParameterError(
            f"a backward path needs a reversible kernel; persistence is {float(persistence):.3g}. Use persistence=0."
        )


def _log_mean_exp(log_w) -> tuple[float, float]:
    """log mean exp(log_w) and its standard error by the delta method."""
    log_w = np.asarray(log_w, dtype=np.float64)
    value = float(logsumexp(log_w) - np.log(log_w.size))
    relative = np.exp(log_w - value)
    return value, float(relative.std() / np.sqrt(log_w.size))


def ais_bound(
    rng_key, density: Density, kernel: Kernel, *, num_chains: int = 1000, num_steps: int = 2, levels: Any = None,
    level_ess: float = 0.98, frame: str = "whitened", progress_bar: bool = True,
) -> Bound:  # fmt: skip
    """Lower bound on the log evidence, log of the density's integral at t = 0, by annealed importance sampling.

    Args:
        rng_key: JAX random key.
        density: A density with log densities at every t.
        kernel: Adjusted or unadjusted; see `anneal` for it and the remaining arguments.

    Returns:
        Bound with `lower` = log mean of the weights.

    Raises:
        ScoreOnlyError, ParameterError: as `anneal`; also for BlackJAX algorithms declared unadjusted.
    """
    _check(density, kernel, "nd.ais_bound")
    run = anneal(
        rng_key, density, kernel, num_chains=num_chains, num_steps=num_steps, levels=levels, level_ess=level_ess,
        resample_threshold=0.0, frame=frame, progress_bar=progress_bar,
    )  # fmt: skip
    log_w = np.asarray(run.log_weights)
    return Bound("ais", *_log_mean_exp(log_w), np.nan, np.nan, {"forward": log_w}, run.levels)


@single_threaded_lapack
def raise_bound(
    rng_key, density: Density, x_test, kernel: Kernel, *, num_repeats: int = 8, num_steps: int = 2, levels: Any = None,
    level_ess: float = 0.98, frame: str = "whitened", chain_batch_size: int | None = None, progress_bar: bool = True,
) -> Bound:  # fmt: skip
    """Lower bound on the mean log likelihood of test points under the annealed sampler's own distribution (RAISE).

    log p(x) >= E[log gamma_0(x) - log w] with w the weight of a backward path from x. Any unknown normaliser of the
    density cancels: what is bounded is the likelihood of the samples that `anneal` would return.

    Args:
        rng_key: JAX random key.
        density: A density with log densities at every t.
        x_test: Points [n, *event_shape].
        kernel: A reversible kernel (persistence 0).
        num_repeats: Backward paths per point; log-mean-exp over them tightens the bound.

    Returns:
        Bound with `lower` the mean over points, `lower_error` its standard error over points.

    Raises:
        ShapeError: if points do not have the event shape.
        ParameterError: for NaN points, or a kernel that is not reversible.
    """
    _check(density, kernel, "nd.raise_bound")
    _check_reversible(kernel)
    x = as_points(x_test, density.event_shape).reshape((-1, *density.event_shape))
    if not bool(jnp.all(jnp.isfinite(x))):
        raise ParameterError("x_test must be finite; got NaN or infinity.")
    if num_repeats < 1:
        raise ParameterError(f"num_repeats must be >= 1; got {num_repeats}.")
    pilot_key, path_key = jax.random.split(rng_key)
    schedule = plan(pilot_key, density, kernel, levels, frame=frame, level_ess=level_ess)
    start = jnp.repeat(x, num_repeats, axis=0)
    log_w = _backward(path_key, density, kernel, start, schedule, num_steps, frame, chain_batch_size, progress_bar)
    log_gamma = density.log_prob(start, float(schedule.levels[-1]))
    estimates = np.asarray(log_gamma - log_w, dtype=np.float64).reshape(len(x), num_repeats)
    per_point = np.asarray(logsumexp(estimates, axis=1)) - np.log(num_repeats)
    error = float(per_point.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else np.nan
    return Bound("raise", float(per_point.mean()), error, np.nan, np.nan, {"points": estimates}, schedule.levels)


def bdmc(
    rng_key, density: Density, exact_samples, kernel: Kernel, *, num_chains: int = 1000, num_steps: int = 2,
    levels: Any = None, level_ess: float = 0.98, frame: str = "whitened", progress_bar: bool = True,
) -> Bound:  # fmt: skip
    """Bidirectional Monte Carlo: the log evidence from below (forward AIS) and above (backward AIS).

    Args:
        rng_key: JAX random key.
        density: A density with log densities at every t.
        exact_samples: Exact draws [n, *event_shape] of the target at t = 0; one backward path starts at each.
        kernel: A reversible kernel (persistence 0).

    Returns:
        Bound with `lower` and `upper`; in expectation lower <= log Z <= upper.

    Raises:
        ShapeError, ParameterError: as `raise_bound`.
    """
    _check(density, kernel, "nd.bdmc")
    _check_reversible(kernel)
    x = as_points(exact_samples, density.event_shape).reshape((-1, *density.event_shape))
    if not bool(jnp.all(jnp.isfinite(x))):
        raise ParameterError("exact_samples must be finite; got NaN or infinity.")
    pilot_key, ahead_key, back_key = jax.random.split(rng_key, 3)
    schedule = plan(pilot_key, density, kernel, levels, frame=frame, level_ess=level_ess)
    ahead = ais_bound(
        ahead_key, density, _with_step_sizes(kernel, schedule), num_chains=num_chains, num_steps=num_steps,
        levels=schedule.levels, frame=frame, progress_bar=progress_bar,
    )  # fmt: skip
    log_w = np.asarray(_backward(back_key, density, kernel, x, schedule, num_steps, frame, None, progress_bar))
    value, error = _log_mean_exp(-log_w)
    return Bound(
        "bdmc", ahead.lower, ahead.lower_error, -value, error,
        {"forward": ahead.log_weights["forward"], "reverse": log_w}, schedule.levels,
    )  # fmt: skip


def _with_step_sizes(kernel: Kernel, schedule: Plan) -> Kernel:
    new = jax.tree.map(lambda a: a, kernel)
    new.step_size = schedule.step_sizes
    return new


def _backward(rng_key, density, kernel, x, schedule: Plan, num_steps, frame, chain_batch_size, progress_bar):
    """Log weights [n] of backward paths from points x [n, *event_shape]."""
    kernel, chain_batch_size = kernel.without_step_size(), chain_batch_size or default_batch_size(density, len(x))
    position, logdensity = _enter(density, x, float(schedule.levels[-1]), frame=frame)
    log_w = jnp.zeros(len(x))
    steps = list(zip(schedule.levels, schedule.step_sizes, strict=True))[::-1]
    for i, (t, step_size) in enumerate(tqdm(steps, disable=not progress_bar, desc="backward")):
        key = jax.random.fold_in(rng_key, i)
        position, logdensity, log_w = _retreat(
            density, kernel, position, logdensity, log_w, key, float(t), float(step_size),
            num_steps=num_steps, frame=frame, chain_batch_size=chain_batch_size,
        )  # fmt: skip
    return log_w + logdensity - _leave(density, position, frame=frame)


@partial(jax.jit, static_argnames=("frame",))
def _enter(density, x, t, *, frame):
    at = frames.frame_at(density, t, frame)
    position = jax.vmap(at.coordinates)(x)
    return position, jax.vmap(log_density_in_frame(density, t, frame))(position)


@partial(jax.jit, static_argnames=("frame",))
def _leave(density, position, *, frame):
    return jax.vmap(lambda u: frames.start_log_prob(density, u, frame))(position)


@partial(jax.jit, static_argnames=("num_steps", "frame", "chain_batch_size"))
def _retreat(
    density, kernel, position, logdensity, log_w, rng_key, t, step_size, *, num_steps, frame, chain_batch_size
):
    """Change to level t, weigh the change, and take the kernel's steps there."""
    logdensity_fn = log_density_in_frame(density, t, frame)

    def one(shared, key, u):
        kernel, logdensity_fn, step_size = shared
        state = init(u, jnp.zeros_like(u), logdensity_fn)

        def step(carry: KernelState, key):
            return kernel.step(key, carry, logdensity_fn, step_size)

        end, info = jax.lax.scan(step, state, jax.random.split(key, num_steps))
        return state.logdensity, end.position, end.logdensity, info.log_weight.sum()

    keys = chain_keys(rng_key, len(position))
    entered, position, left, ratio = map_chains(
        one, (kernel, logdensity_fn, step_size), keys, position, chain_batch_size=chain_batch_size
    )
    # Forward this change gains log gamma_t(less noise) - log gamma_t(more noise) at the same point.
    return position, left, log_w + logdensity - entered - ratio
