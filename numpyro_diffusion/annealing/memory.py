"""How much memory a chain takes, so that a run splits itself instead of failing."""

from __future__ import annotations

import math
import os

import jax
import jax.numpy as jnp

from ..density.density import Density
from ..errors import ParameterError

#: Share of the memory that is free for the intermediate results of one evaluation of all chains in a piece.
SHARE = 0.5
#: Dimension from which on points are large: chains of them are counted before they are advanced together.
LARGE = 256
#: Most chains in a piece on a CPU: of small points what stays in its cache; large ones do not, and save memory.
MOST_SMALL, MOST_LARGE = 512, 64


def default_batch_size(density: Density, num_chains: int) -> int | None:
    """Chains to advance together where the caller has no wish: all (None), but on a CPU pieces, and what fits.

    Pieces on a CPU have one size (a divisor of the population) where memory allows: a remainder would be compiled a
    second time.
    """
    large, piece = math.prod(density.event_shape) >= LARGE, num_chains
    if jax.default_backend() == "cpu":
        most = MOST_LARGE if large else MOST_SMALL
        divisor = max(n for n in range(1, most + 1) if num_chains % n == 0)
        piece = divisor if divisor >= most // 8 else num_chains
    if large:
        piece = chains_that_fit(density, piece)
    return piece if piece < num_chains else None


def chains_that_fit(density: Density, num_chains: int) -> int:
    """The largest number of chains up to `num_chains` that can be evaluated at once; ParameterError if not even one."""
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


def free_bytes() -> int | None:
    """What the first device has left, or None where it does not say."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def bytes_per_chain(density: Density) -> int:
    """Bytes of what is held at once by value and gradient at one point, were no two operations made one."""
    point = jax.ShapeDtypeStruct(density.event_shape, jnp.result_type(float))
    traced = jax.make_jaxpr(lambda p, x: jax.value_and_grad(p.log_density)(x, jnp.asarray(0.5)))(density, point)
    return _peak(traced.jaxpr)


def _peak(jaxpr) -> int:
    """Most bytes held at a time, in the order of the program: each result from its equation to its last use.

    Inputs are not counted: weights are not a chain's, and what an inner program is given is counted outside.
    """
    last_use = {v: i for i, equation in enumerate(jaxpr.eqns) for v in _variables(equation.invars)}
    last_use |= dict.fromkeys(_variables(jaxpr.outvars), len(jaxpr.eqns))
    held, peak, made = 0, 0, set()
    for i, equation in enumerate(jaxpr.eqns):
        inner = [_peak(part) for value in equation.params.values() for part in _programs(value)]
        results = _bytes(equation.outvars)
        peak = max(peak, held + max([results, *inner]))
        made |= set(equation.outvars)
        held += results
        held -= _bytes(v for v in {*_variables(equation.invars), *equation.outvars} & made if last_use.get(v, -1) <= i)
    return peak


def _variables(operands) -> list:
    """What is no literal of a program's operands."""
    return [v for v in operands if not hasattr(v, "val")]


def _programs(value) -> list:
    values = value if isinstance(value, list | tuple) else [value]
    opened = [getattr(one, "jaxpr", one) for one in values]  # closed ones hold theirs
    return [one for one in opened if hasattr(one, "eqns")]


def _bytes(variables) -> int:
    return sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in variables)
