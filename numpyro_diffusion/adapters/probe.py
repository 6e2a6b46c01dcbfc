"""A network called as it will be, before anything runs: on one point, at some noise levels."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..checks.text import printable
from ..density.adapted import AdaptedModel
from ..density.tabulated import NoiseSchedule
from ..errors import DiffusionError, ParameterError, ShapeError
from ..pytree import replace
from .networks import Network
from .timesteps import told

NUM_POINTS, NUM_LEVELS = 3, 8


@dataclasses.dataclass(frozen=True, eq=False)
class PointFunction:
    """`(weights, x, t, r, *condition) -> output [*shape]` of one point x in the network's units.

    A network of batches sees a batch of one. `jax.vmap` gives it all points in one call.
    """

    network: Network
    schedule: NoiseSchedule
    timesteps: Any
    batched: bool
    shape: tuple[int, ...]

    def __call__(self, weights, x, t, r, *condition):
        call, total = self.network.call, jnp.zeros(())
        expected = (1, *self.shape) if self.batched else self.shape
        for time, weight in told(self.timesteps, self.schedule)(t, r):
            args = [a for a in (x, time, *condition) if a is not None]
            output = call(weights, *(a[None] for a in args)) if self.batched else call(weights, *args)
            if jnp.shape(output) != expected:
                raise ShapeError(
                    f"the network must return shape {expected} for x {jnp.shape(args[0])}; got {jnp.shape(output)}."
                )
            total = total + weight * output
        return total[0] if self.batched else total


def check_network(density: AdaptedModel) -> None:
    """Raise unless the network can be called as it is said to, and returns finite numbers at all levels tried."""
    batched, kind = density.fn.batched, density.fn.network.kind
    other = replace(density, fn=dataclasses.replace(density.fn, batched=not batched))
    remedy = f"Give batched={not batched}"
    failure = _failure(density)
    if failure is not None:
        if _failure(other) is None:
            what = "one point at a time, not a batch" if batched else "batches only, not one point"
            raise ParameterError(f"the network seems to take {what}. {remedy}. ({failure})") from failure
        raise failure
    if isinstance(jnp.zeros(()), Tracer):
        return  # inside of a transformation no number is known
    y, r = noised_points(density)
    found = np.asarray(predicted(density, y, r))
    bad = ~np.all(np.isfinite(found.reshape(len(r), -1)), axis=1)
    if bad.any():
        tried, wrong = (", ".join(f"{value:.3g}" for value in np.asarray(r)[which]) for which in (bad >= 0, bad))
        raise ParameterError(
            f"{density!r} returns NaN or infinity at noise-to-signal ratios {wrong}, of {tried} tried. Check the "
            "weights, what the network is told there (timesteps=), and the ends of the schedule."
        )
    if kind not in ("nnx", "linen") or batched or _failure(other) is not None:
        return
    # What modules do to one point may be no error and still be wrong: a group norm takes rows for a batch.
    if not np.allclose(found, predicted(other, y, r), rtol=1e-2, atol=1e-2 * float(np.std(found))):
        raise ParameterError(
            f"{density!r} gives other values on one point than on a batch of one, as modules do that are made for "
            f"batches. {remedy}; or, if one point is meant, give a function, lambda x, time: module(x, time)."
        )


def noised_points(density: AdaptedModel) -> tuple[jax.Array, jax.Array]:
    """A few points [L, n, *event_shape] of the data's Gaussian with the noise of some levels, and the ratios [L]."""
    low, high = density.least, density.origin.noise_range[1]
    r = jnp.asarray(np.geomspace(low, high, NUM_LEVELS), dtype=float)
    keys = jax.random.split(jax.random.key(0), NUM_POINTS)
    at_data = jax.vmap(density.moments.sample)(keys).reshape(-1, *density.event_shape)
    noise = jax.random.normal(jax.random.key(1), at_data.shape)
    return at_data + r.reshape(-1, *[1] * at_data.ndim) * noise, r


def arguments(density: AdaptedModel) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Shapes and dtypes of what the network is called with, beside its weights."""
    x, number = (jax.ShapeDtypeStruct(shape, jnp.result_type(float)) for shape in (density.event_shape, ()))
    tell = told(density.fn.timesteps, density.fn.schedule)
    time = jax.eval_shape(lambda t, r: tell(t, r)[0][0], number, number)
    args = [a for a in (x, time, density.condition) if a is not None]
    lead = (1,) if density.fn.batched else ()
    return tuple(jax.ShapeDtypeStruct((*lead, *a.shape), a.dtype) for a in args)


def _condition(density):
    """The condition to try: the one that stands for none, or zeros."""
    if density.condition is None:
        return None
    return jnp.zeros(density.condition.shape, density.condition.dtype) if density.null is None else density.null


@jax.jit
def predicted(density: AdaptedModel, y, r) -> jax.Array:
    """The noise [L, n, *event_shape] that the network predicts of such points."""
    condition = _condition(density)
    return jax.vmap(lambda y, r: jax.vmap(lambda y: density.predicted_noise(y, r, condition))(y))(y, r)


def _failure(density) -> Exception | None:
    """What is wrong with a call on one point, or None."""
    y = jax.ShapeDtypeStruct(density.event_shape, jnp.result_type(float))
    r = jax.ShapeDtypeStruct((), y.dtype)
    try:
        jax.eval_shape(lambda y, r: density.output(y, r, _condition(density))[2], y, r)
    except DiffusionError as error:
        return error
    except Exception as error:
        # A module that a function calls is the user's own, not a copy that is put into evaluation mode.
        is_training = isinstance(error, flax.errors.TraceContextError)
        remedy = ". Call module.eval() on the module in it: it changes state as in training" if is_training else ""
        failure = ParameterError(
            f"{density!r} cannot be called on a point {density.event_shape}: {type(error).__name__}: "
            f"{printable(str(error))[:300]}{remedy}"
        )
        failure.__cause__ = error
        return failure
    return None
