"""How much memory a chain takes, so that a run splits itself instead of failing."""

from __future__ import annotations

import math
import os

import jax
import jax.numpy as jnp

from .density import Density
from .errors import ParameterError

#: Share of the memory that is free for the intermediate results of one evaluation of all chains in a piece.
SHARE = 0.5


def bytes_per_chain(density: Density) -> int:
    """Bytes of all intermediate results of value and gradient at one point, an upper bound of what is held at once."""
    point = jax.ShapeDtypeStruct(density.event_shape, jnp.result_type(float))
    traced = jax.make_jaxpr(lambda p, x: jax.value_and_grad(p._log_prob)(x, jnp.asarray(0.5)))(density, point)
    return _size(traced.jaxpr)


def _size(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        inner = [part for value in equation.params.values() for part in _programs(value)]
        total += sum(_size(part) for part in inner)
        if not inner:
            # Constants and weights are not a chain's: only what depends on inputs of the program appears here.
            total += sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in equation.outvars)
    return total


def _programs(value):
    values = value if isinstance(value, list | tuple) else [value]
    for one in values:
        one = getattr(one, "jaxpr", one)  # closed ones hold theirs
        if hasattr(one, "eqns"):
            yield one


def free_bytes() -> int | None:
    """What the first device has left, or None where it does not say."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def chains_that_fit(density: Density, num_chains: int) -> int:
    """The largest number of chains up to `num_chains` that can be evaluated at once.

    Raises:
        ParameterError: if not even one chain fits.
    """
    free = free_bytes()
    if free is None:
        return num_chains
    each = bytes_per_chain(density)
    if each > free:
        raise ParameterError(
            f"one chain of {density!r} needs up to {each / 2**30:.2g} GiB, and {free / 2**30:.2g} GiB are free. Use "
            "fewer conditions, a smaller network, rematerialise=True, or a device with more memory."
        )
    return max(1, min(num_chains, int(SHARE * free) // max(each, 1)))
