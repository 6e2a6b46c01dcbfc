"""A density at every noise level: all that one density can be asked for. Its algebra is in `density`.

A density is written for ONE point: `log_density(x, t)` is a scalar, in nats, and JAX's `vmap` does the rest.
Densities are pytrees: weights are leaves (traced arguments of whatever is compiled), architecture is
static and compares by value, so retraining or re-weighting does not compile anything anew.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp

from ..checks.points import as_points
from ..errors import ArgumentTypeError, ScheduleError, ScoreOnlyError, ShapeError, check_integer, check_key
from ..program import fingerprint, trace
from . import path
from .gaussian import Gaussian
from .operands import Operand
from .path import Place
from .probability_flow import FlowLogProb, flow_log_density
from .schedule import NoiseSchedule, check_overlap, check_time

#: What to do where a density lacks what one would ask it for.
ABSENT = {
    "sample": "cannot be sampled in one step. Anneal it: nd.anneal(rng_key, density, nd.HMC()).samples.",
    "given": "takes no condition. Give it to a density of its own before composing: p.given(condition) * q.",
}


class AbstractDensity(Operand):
    """What one density can be asked for; apart from `Density` because its algebra needs all that is below, and more.

    It `is_calibrated` if it integrates to one at every noise level.
    """

    schedule: NoiseSchedule
    event_shape: tuple[int, ...]

    @classmethod
    def kind(cls) -> str:
        return "points at noise levels"

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name in ABSENT:
                raise AttributeError(f"{self!r} {ABSENT[name]}")
            return object.__getattribute__(self, name)

    def check_beside(self, what, other):
        if other.event_shape != self.event_shape:
            raise ShapeError(
                f"{what} needs one event shape; got {self.event_shape} and {other.event_shape}. "
                "Compose densities of the same kind of points."
            )
        if other.schedule != self.schedule:
            check_overlap(what, self.schedule, other.schedule)
            raise ScheduleError(
                f"{what} needs one schedule; got {self.schedule} and {other.schedule}. "
                "Convert one with density.with_schedule(...), which is exact."
            )

    @property
    def resolution(self) -> float:
        """Noise-to-signal ratio below which the density stays what it is; 0 where there is none."""
        return 0.0

    @abc.abstractmethod
    def log_density(self, x: jax.Array, t: jax.Array) -> jax.Array:
        """Log density (nats) of one point x [*event_shape] at time t."""

    @property
    def has_increments(self) -> bool:
        """Whether `increment` is known; not for mixtures of score-only models, which depend on more than scores."""
        return True

    def increment(self, rng_key, start: Place, end: Place) -> jax.Array:
        """log p(end) - log p(start) in nats: by the score along the path between them where that is all there is."""
        if self.has_log_density:
            return self.log_density(*end) - self.log_density(*start)
        return path.increment(self, rng_key, start, end)

    def first_log_density(self, x) -> jax.Array:
        """Log density of one point at t = 1; of the Gaussian that the density is there, where there is only a score."""
        if self.has_log_density:
            return self.log_density(x, jnp.ones(()))
        return self.start_log_prob(jnp.ravel(x))

    @abc.abstractmethod
    def with_schedule(self, schedule: NoiseSchedule) -> Self:
        """The same density under another schedule: p'(x, t') = (alpha/alpha')^d p(x alpha/alpha', t), exact."""

    def _moments(self) -> Gaussian | None:
        """Mean and covariance of the data distribution (t = 0), or None where unknown."""
        return None

    def gaussian(self, t) -> Gaussian | None:
        """Gaussian with the density's first two moments at time t (an approximation for compositions), or None."""
        moments = self._moments()
        if moments is None:
            return None
        return moments.noised(self.schedule.alpha(t), self.schedule.sigma(t))

    def start(self, rng_key) -> tuple[jax.Array, jax.Array]:
        """What annealing starts from at t = 1: a draw [d], flattened, of a known density, and its log density there.

        The Gaussian approximation at t = 1, unless a subclass knows better.
        """
        first = self._first()
        x = first.sample(rng_key)
        return x, first.log_prob(x)

    def start_log_prob(self, x) -> jax.Array:
        """Log density of a flattened point x [d] under what annealing starts from."""
        return self._first().log_prob(x)

    def _first(self) -> Gaussian:
        """What `start` draws from."""
        return gaussian_at(self, 1.0)

    def log_prob(self, x, t=0.0) -> jax.Array:
        """Log density in nats.

        Args:
            x: Points [*batch, *event_shape].
            t: Noise level in [0, 1], a scalar or [*batch].

        Returns:
            Log densities [*batch].

        Raises:
            ShapeError: if the trailing axes of x are not `event_shape`.
            ParameterError: if t is outside [0, 1].

        Of score-only models, by the probability flow: see `flow_log_prob`, which gives an error too.
        """
        if self.has_log_density:
            return self._batched(self.log_density, x, t, ())
        return self.flow_log_prob(x, t).log_prob

    def flow_log_prob(self, x, t=0.0, *, rng_key=None, num_probes: int = path.PROBES) -> FlowLogProb:
        """Log density in nats as `log_prob` has it, of score-only models by their probability flow, and its error.

        Arguments, shapes and errors are those of `log_prob`. Divergences are exact up to 64 dimensions; beyond,
        `num_probes` probes, drawn by `rng_key` (key 0 by default), estimate them, and `error` is the standard error
        that they leave, alone. `probability_flow` says what a mean that the Gaussian at t = 1 does not know adds, as of
        `nd.from_score` without `data`: give it these, or centre them. A formula's value is that of its models' own.

        Cost: some 100 scores, each with its divergence, for every point and score-only model.
        """
        rng_key = jax.random.key(0) if rng_key is None else check_key(rng_key)
        check_integer("num_probes", num_probes, 2)
        check_density("flow_log_prob", self)
        check_time(t)
        value = _flow_log_probs(self, rng_key, as_points(x, self.event_shape), t, num_probes=num_probes)
        return FlowLogProb(value[..., 0], value[..., 1])

    def _flow_log_density(self, rng_key, x, t, num_probes) -> FlowLogProb:
        """Of one point."""
        if self.has_log_density:
            return FlowLogProb(self.log_density(x, t), jnp.zeros(()))
        return flow_log_density(self, rng_key, x, t, num_probes)

    def score(self, x, t=0.0) -> jax.Array:
        """Score grad_x log p(x, t) [*batch, *event_shape]; arguments and errors as in `log_prob`."""
        return self._batched(jax.grad(self.log_density), x, t, self.event_shape)

    def potential_fn(self, t=0.0) -> Callable[[jax.Array], jax.Array]:
        """The NumPyro potential function z -> U(z) = -log p(z, t) of one point."""
        self.require_log_density("potential_fn")
        check_time(t)
        t = jnp.asarray(t, dtype=float)
        return lambda z: -self.log_density(z, t)

    def identity(self) -> dict[str, str]:
        """What a run of this density depends on, as digests by name; CheckpointError if it calls back into Python."""
        x = jax.ShapeDtypeStruct(self.event_shape, jnp.result_type(float))
        computed = trace(lambda p, x, t: p._computed(x, t), self, x, jax.ShapeDtypeStruct((), x.dtype))
        return {
            "density": repr(self),
            "schedule": repr(self.schedule),
            "computation": fingerprint((computed.program, computed.captured)),
            "weights": fingerprint(self),
        }

    def _computed(self, x, t):
        """What of one point runs depend on."""
        return self.log_density(x, t)

    def require_log_density(self, purpose: str) -> None:
        """Raise ScoreOnlyError unless a log density is there."""
        if not self.has_log_density:
            raise ScoreOnlyError(
                f"{purpose} needs a log density, but {self!r} has only a score. Use an energy density "
                "(nd.fit(..., model='energy') or nd.distil), or sample it by nd.anneal."
            )

    def _batched(self, fn, x, t, out_shape):
        x = as_points(x, self.event_shape)
        check_time(t)
        t = jnp.asarray(t, dtype=x.dtype)
        outer = x.shape[: x.ndim - len(self.event_shape)]
        try:
            batch = jnp.broadcast_shapes(outer, t.shape)
        except ValueError as error:
            raise ShapeError(
                f"t must be a scalar or match the batch of x, {outer}; got shape {t.shape}. For every point at every "
                "level, add an axis: log_prob(x, t[:, None])."
            ) from error
        if not batch:
            return fn(x, t)
        x = jnp.broadcast_to(x, batch + self.event_shape).reshape((-1, *self.event_shape))
        t = jnp.broadcast_to(t, batch).reshape(-1)
        return jax.vmap(fn)(x, t).reshape(batch + out_shape)


class ConditionalModel(AbstractDensity):
    """A density that can be conditioned: what depends on x takes a condition, and means none by None."""

    #: The condition that stands for none beside others, or None where the model takes none.
    no_condition: Any
    #: Number of axes of one condition.
    condition_ndim: int = 1

    @abc.abstractmethod
    def log_density(self, x, t, condition=None) -> jax.Array: ...
    @abc.abstractmethod
    def gaussian(self, t, condition=None) -> Gaussian | None: ...
    @abc.abstractmethod
    def _moments(self, condition=None) -> Gaussian | None: ...
    @abc.abstractmethod
    def _replace(self, **changes) -> Self: ...


def gaussian_at(density: AbstractDensity, t) -> Gaussian:
    """The density's Gaussian approximation at time t; of unit-variance data where nothing is known."""
    known = density.gaussian(t)
    if known is not None:
        return known
    unit = Gaussian.standard(math.prod(density.event_shape))
    return unit.noised(density.schedule.alpha(t), density.schedule.sigma(t))


def narrowest(density: AbstractDensity) -> float:
    """The least standard deviation in any direction at t = 0, of the Gaussian approximation."""
    check_density("jax.jit", density)
    with jax.ensure_compile_time_eval():
        return float(_narrowest(density))


@jax.jit
def _narrowest(density):
    return jnp.sqrt(jnp.min(gaussian_at(density, 0.0).variance))


def batch_log_prob(density: AbstractDensity, x, t) -> jax.Array:
    """Log densities [N] of x [N, *event_shape] at one t. Weights are traced: retraining compiles nothing anew."""
    check_density("jax.jit", density)
    return _batch_log_prob(density, x, t)


@jax.jit
def _batch_log_prob(density, x, t):
    return jax.vmap(lambda point: density.log_density(point, t))(x)


# Compiled: operation by operation an integration would take minutes.
@partial(jax.jit, static_argnames="num_probes")
def _flow_log_probs(density: AbstractDensity, rng_key, x, t, *, num_probes: int):
    one = lambda x, t: jnp.stack(density._flow_log_density(rng_key, x, t, num_probes))
    return density._batched(one, x, t, (2,))


def check_density(what: str, value) -> None:
    """Raise ArgumentTypeError unless the value is a density whose arrays JAX can see."""
    if not isinstance(value, AbstractDensity):
        is_flow = isinstance(value, Operand)
        remedy = "Sample flows by nd.gflownet.sample." if is_flow else "Wrap functions in nd.as_density."
        raise ArgumentTypeError(f"{what} takes a density; got {type(value).__name__}. {remedy}")
    for density in (value, *getattr(value, "leaves", ())):
        # Of a class alone: nothing is flattened, for that would trace users' functions.
        if jax.tree_util.all_leaves([density]):
            raise ArgumentTypeError(
                f"{what} takes densities that are pytrees; got {type(density).__name__}, a class that is none. "
                "Decorate it with numpyro_diffusion.pytree.register(data=..., static=...), or wrap a function in "
                "nd.as_density."
            )
