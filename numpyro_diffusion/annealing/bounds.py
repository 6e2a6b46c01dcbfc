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
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from ..checks.calls import meant
from ..checks.points import as_points
from ..density.density import Density
from ..diagnose.result import Bound
from ..diagnose.weights import pareto_tail
from ..errors import ArgumentTypeError, ParameterError, ScoreOnlyError, check_integer, check_untraced
from .anneal import annealed, prepared
from .blas_threads import single_threaded_blas
from .devices import chain_keys
from .frame import start_log_prob
from .kernels import Kernel
from .level import Level, level_at
from .pilot import plan
from .plan import Plan, PlannedLevel
from .progress import Progress
from .settings import Settings


class LevelSettings(TypedDict, total=False):
    """What the runs of all bounds do at a level, see `anneal`."""

    num_steps: int
    level_ess: float
    frame: str


def _checked(
    purpose: str, rng_key, density: Density, kernel: Any, given: LevelSettings, **more
) -> tuple[jax.Array, Density, Kernel, Settings]:
    """What a bound is of, after all that can be refused at once; see `prepared`."""
    if unknown := given.keys() - LevelSettings.__annotations__:
        name, known = min(unknown), {"{}=...": list(LevelSettings.__annotations__)}
        raise ArgumentTypeError(f"{purpose}(): got an unexpected keyword argument {name!r}. {meant(name, known)}")
    rng_key, density, kernel, checked = prepared(purpose, rng_key, density, kernel, predictor=False, **given, **more)
    assert isinstance(kernel, Kernel)  # nothing stands in its place here
    if not density.has_log_density:
        raise ScoreOnlyError(f"{purpose} needs a log density, but {density!r} has only a score.")
    if not kernel.has_ratio:
        raise ParameterError(f"{purpose} needs a kernel with a known ratio; {kernel!r} was declared unadjusted.")
    return rng_key, density, kernel, checked


def _starts(name: str, x, density: Density, kernel: Kernel) -> jax.Array:
    """Points [n, *event_shape], finite and at least one, where a kernel's backward paths can start."""
    persistence = float(getattr(kernel, "persistence", 0.0))
    if persistence != 0:
        raise ParameterError(
            f"a backward path needs a reversible kernel; persistence is {persistence:.3g}. Use persistence=0."
        )
    check_untraced("a bound", x)
    x = as_points(x, density.event_shape).reshape((-1, *density.event_shape))
    if not len(x):
        raise ParameterError(f"{name} must hold at least one point; got none.")
    if not bool(jnp.all(jnp.isfinite(x))):
        raise ParameterError(f"{name} must be finite; got NaN or infinity.")
    return x


def _log_mean_exp(log_w) -> tuple[float, float, float]:
    """log mean exp(log_w) [N], its standard error, and the Pareto k of the weights; NaN for N = 1."""
    log_w = np.asarray(log_w, dtype=np.float64)
    value = float(logsumexp(log_w) - np.log(log_w.size))
    if log_w.size == 1 or not np.isfinite(value):
        return value, np.nan, np.nan
    relative = np.exp(log_w - value)
    # Relative variance v of the mean; v / (1 - v) is that of its logarithm, without an upper limit.
    variance = relative.var(ddof=1) / log_w.size
    # With caution: the weights of backward paths, 1 / w, have heavy tails by nature.
    tail = pareto_tail(jnp.asarray(log_w - value, dtype=float), caution=1.0)
    scatter = np.sqrt(variance / (1 - variance)) if variance < 1 - 1e-9 else np.inf
    return value, float(np.hypot(scatter, float(tail.nats))), float(tail.pareto_k)


@single_threaded_blas
def ais_bound(
    rng_key, density: Density, kernel: Kernel | None = None, *, num_chains: int = Settings.num_chains,
    levels: Any = None, progress_bar: bool = True, **settings: Unpack[LevelSettings],
) -> Bound:  # fmt: skip
    """Lower bound on the log evidence, log of the density's integral at t = 0, by annealed importance sampling.

    Args:
        rng_key: JAX random key.
        density: A density with log densities at every t.
        kernel: HMC by default, adjusted or unadjusted; see `anneal` for it and the remaining arguments.
        **settings: `num_steps`, `level_ess`, `frame`.

    Returns:
        Bound with `lower` = log mean of the weights.

    Raises:
        ScoreOnlyError, ParameterError: as `anneal`; also for BlackJAX algorithms declared unadjusted.
    """
    found = _checked("nd.ais_bound", rng_key, density, kernel, settings, num_chains=num_chains)
    return _forward(*found, levels, progress_bar)


def _forward(rng_key, density: Density, kernel: Kernel, settings: Settings, levels, progress_bar: bool) -> Bound:
    """Log-mean-exp of a run's weights; `levels` may be a plan."""
    settings = dataclasses.replace(settings.in_pieces(density, settings.num_chains), resample_threshold=0.0)
    run = annealed(rng_key, density, kernel, levels, settings, progress_bar=progress_bar)
    run.warn()
    log_w = np.asarray(run.log_weights)
    value, _, pareto_k = _log_mean_exp(log_w)
    # The run's own error knows of the corrections of unadjusted kernels, too.
    error = run.log_evidence_error
    return Bound("ais", value, error, np.nan, np.nan, {"forward": log_w}, run.levels, {"forward": pareto_k})


@single_threaded_blas
def raise_bound(
    rng_key, density: Density, x_test, kernel: Kernel | None = None, *, num_repeats: int = 8, levels: Any = None,
    chain_batch_size: int | None = None, progress_bar: bool = True, **settings: Unpack[LevelSettings],
) -> Bound:  # fmt: skip
    """Lower bound on the mean log likelihood of test points under the annealed sampler's own distribution (RAISE).

    log p(x) >= E[log gamma_0(x) - log w] with w the weight of a backward path from x. Any unknown normaliser of the
    density cancels: what is bounded is the likelihood of the samples that `anneal` would return.

    Args:
        x_test: Points [n, *event_shape].
        kernel: A reversible kernel (persistence 0); HMC by default.
        num_repeats: Backward paths per point; log-mean-exp over them tightens the bound.
        rng_key, density, levels, chain_batch_size, progress_bar, **settings: As `ais_bound`.

    Returns:
        Bound with `lower` the mean over points, `lower_error` its standard error over points, NaN for a single one.

    Raises:
        ShapeError: if points do not have the event shape.
        ParameterError: for NaN points, or a kernel that is not reversible.
    """
    rng_key, density, kernel, checked = _checked(
        "nd.raise_bound", rng_key, density, kernel, settings, chain_batch_size=chain_batch_size
    )
    check_integer("num_repeats", num_repeats)
    x = _starts("x_test", x_test, density, kernel)
    pilot_key, path_key = jax.random.split(rng_key)
    start = jnp.repeat(x, num_repeats, axis=0)
    with Progress("raise", progress_bar) as progress:
        schedule = plan(pilot_key, density, kernel, levels, checked, progress.say)
        log_w = _backward(path_key, density, kernel, checked, schedule, start, progress)
    log_gamma = density.log_prob(start, float(schedule.levels[-1]))
    estimates = np.asarray(log_gamma - log_w, dtype=np.float64).reshape(len(x), num_repeats)
    per_point = np.asarray(logsumexp(estimates, axis=1)) - np.log(num_repeats)
    error = float(per_point.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else np.nan
    return Bound("raise", float(per_point.mean()), error, np.nan, np.nan, {"points": estimates}, schedule.levels)


@single_threaded_blas
def bdmc(
    rng_key, density: Density, exact_samples, kernel: Kernel | None = None, *, num_chains: int = Settings.num_chains,
    levels: Any = None, progress_bar: bool = True, **settings: Unpack[LevelSettings],
) -> Bound:  # fmt: skip
    """Bidirectional Monte Carlo: the log evidence from below (forward AIS) and above (backward AIS).

    Args:
        exact_samples: Exact draws [n, *event_shape] of the target at t = 0; one backward path starts at each.
        kernel: A reversible kernel (persistence 0); HMC by default.
        rng_key, density, num_chains, levels, progress_bar, **settings: As `ais_bound`.

    Returns:
        Bound with `lower` and `upper`; in expectation lower <= log Z <= upper.

    Raises:
        ShapeError, ParameterError: as `raise_bound`.
    """
    rng_key, density, kernel, checked = _checked("nd.bdmc", rng_key, density, kernel, settings, num_chains=num_chains)
    x = _starts("exact_samples", exact_samples, density, kernel)
    pilot_key, ahead_key, back_key = jax.random.split(rng_key, 3)
    with Progress("pilot", progress_bar) as progress:
        schedule = plan(pilot_key, density, kernel, levels, checked, progress.say)
    ahead = _forward(ahead_key, density, kernel, checked, schedule, progress_bar)
    with Progress("backward", progress_bar) as progress:
        log_w = np.asarray(_backward(back_key, density, kernel, checked, schedule, x, progress))
    value, error, pareto_k = _log_mean_exp(-log_w)
    shapes = ahead.pareto_k | {"reverse": pareto_k}
    errors = _reconciled(-value - ahead.lower, ahead.lower_error, error, heavier_above=not pareto_k < shapes["forward"])
    bound = Bound(
        "bdmc", ahead.lower, errors[0], -value, errors[1],
        ahead.log_weights | {"reverse": log_w}, schedule.levels, shapes,
    )  # fmt: skip
    bound.warn()
    return bound


def _reconciled(gap: float, lower_error: float, upper_error: float, *, heavier_above: bool) -> tuple[float, float]:
    """Errors of both sides. Both estimate log Z: where they differ by more, that of the heavier tail was wrong."""
    least = abs(gap) / 2 if abs(gap) > 2 * np.hypot(lower_error, upper_error) else 0.0
    return (lower_error, max(upper_error, least)) if heavier_above else (max(lower_error, least), upper_error)


def _backward(
    rng_key, density: Density, kernel: Kernel, settings: Settings, schedule: Plan, x, progress: Progress
) -> jax.Array:
    """Log weights [n] of backward paths from points x [n, *event_shape] at the last level to noise."""
    kernel, settings = kernel.without_step_size(), settings.in_pieces(density, len(x))
    position, logdensity = _begin(density, x, float(schedule.levels[-1]), settings.frame)
    log_w = jnp.zeros(len(x))
    progress.begin(len(schedule.levels))
    for i in range(len(schedule.levels)):
        key, planned = jax.random.fold_in(rng_key, i), schedule.at(-1 - i)
        position, logdensity, log_w = _retreat(density, kernel, position, logdensity, log_w, key, planned, settings)
        progress.step()
    return log_w + logdensity - _start_log_prob(density, position, settings.frame)


@partial(jax.jit, static_argnames="frame_kind")
def _begin(density, x, t, frame_kind):
    level = level_at(density, t, frame_kind)
    position = jax.vmap(level.frame.coordinates)(x)
    return position, jax.vmap(level.log_prob)(position)


@partial(jax.jit, static_argnames="frame_kind")
def _start_log_prob(density, position, frame_kind):
    return jax.vmap(lambda u: start_log_prob(density, u, frame_kind))(position)


@partial(jax.jit, static_argnames="settings")
def _retreat(density, kernel, position, logdensity, log_w, rng_key, planned: PlannedLevel, settings: Settings):
    """Change to a level, weigh the change, and take the kernel's steps there."""

    def one(shared, key, u):
        level, kernel = shared
        state = level.enter(u, jnp.zeros_like(u))
        # Without a scale there is nothing to jitter.
        keys = jax.random.split(key, settings.num_steps)
        end, info = jax.lax.scan(lambda state, key: level.step(kernel, key, None, state), state, keys)
        return state.logdensity, end.position, end.logdensity, info.log_weight.sum()

    level: Level = level_at(density, planned.t, settings.frame, planned.step_size)
    keys = chain_keys(rng_key, len(position))
    entered, position, left, ratio = settings.map_chains(one, (level, kernel), keys, position)
    # Forward this change gains log gamma_t(less noise) - log gamma_t(more noise) at the same point.
    return position, left, log_w + logdensity - entered - ratio
