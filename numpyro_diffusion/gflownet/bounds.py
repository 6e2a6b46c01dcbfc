r"""Stochastic bounds of the log of a composition's sum, by paths forwards and backwards.

The weight w of a path that nothing resamples has the mean Z, and log of the mean of such is a lower bound of log Z in
expectation. A path back from an *exact* draw of the composition, by the backward policy of what paths go by, has
E[1 / w] = 1 / Z, and gives an upper bound (Grosse, Ghahramani and Adams 2015), as `nd.bdmc` does for annealed chains.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.fields import check_choice
from ..diagnose.result import Bound
from ..errors import ParameterError, ShapeError, check_integer, check_key, check_untraced
from .environment import State
from .evaluate import log_mean
from .flow import AnyFlow, check_flow
from .policy import Actions
from .routing import Listed, guide_of, only
from .run import tail_of
from .sample import paths, proposals
from .states import as_states, require_listed
from .walk import walk_back


def bdmc(
    rng_key: jax.Array,
    flow: AnyFlow,
    exact_samples: State = None,
    *,
    num_samples: int = 1000,
    proposal: str = "routing",
) -> Bound:
    """The log of the sum of a composition over all objects, from below and from above.

    Args:
        rng_key: JAX random key.
        flow: A composition of flows whose states can be listed.
        exact_samples: Exact draws [n, ...] of the composition; drawn from its exact distribution by default.
        num_samples: Number of paths forwards, and of draws by default.
        proposal: As of `nd.gflownet.sample`.

    Returns:
        Bound with `lower` and `upper`; in expectation lower <= log sum <= upper. Errors are no smaller than what
        rounding leaves unknown, where weights do not scatter.

    Raises:
        NotKnownError: if states cannot be listed.
        ArgumentTypeError, ParameterError, ShapeError: for what is no flow, values out of range, states of other shapes.
    """
    check_untraced("nd.gflownet.bdmc", rng_key, exact_samples)
    check_flow("nd.gflownet.bdmc", flow)
    require_listed(flow.environment, "bdmc")
    known, num_samples = proposals(flow), check_integer("num_samples", num_samples, 2)
    ahead_key, draw_key, back_key = jax.random.split(check_key(rng_key), 3)
    guide = guide_of(flow, only(flow, *known[check_choice("proposal", proposal, known)]))
    assert isinstance(guide, Listed)
    population, _, _ = paths(guide, ahead_key, 0.0, num_samples=num_samples, num_islands=1)
    forward = population.log_weight + population.log_evidence
    if exact_samples is None:
        index = jax.random.categorical(draw_key, flow.log_probs(), shape=(num_samples,))
    else:
        states, batch = as_states(exact_samples, flow.environment)
        if len(batch) != 1 or batch[0] < 2:
            raise ShapeError(f"exact_samples must be at least two states [n, ...]; got a batch of {batch}.")
        index = jax.vmap(flow.environment.index)(states)
        if not jnp.all(jnp.isfinite(flow.log_prob(states))):
            raise ParameterError("exact_samples must be draws of the composition; some have no probability under it.")
    reverse = _reverse(guide, back_key, index)
    lower, upper = log_mean(forward), log_mean(-reverse)
    shapes = {"forward": float(tail_of(forward).pareto_k), "reverse": float(tail_of(-reverse).pareto_k)}
    length = flow.environment.max_length
    errors = (max(float(found.error), _rounding(w, length)) for found, w in ((lower, forward), (upper, reverse)))
    return Bound(
        "bdmc", float(lower.log_prob), next(errors), -float(upper.log_prob), next(errors),
        {"forward": np.asarray(forward), "reverse": np.asarray(reverse)},
        np.linspace(1.0, 0.0, length), shapes,
    )  # fmt: skip


def _rounding(log_weight, length: int) -> float:
    """What rounding leaves unknown of the log mean of weights [n], sums over so many actions."""
    finite = jnp.where(jnp.isfinite(log_weight), log_weight, 0.0)
    size = float(jnp.max(jnp.abs(finite))) + np.log(log_weight.size) + length
    return float(jnp.finfo(log_weight.dtype).eps) * size


@jax.jit
def _reverse(guide: Listed, rng_key, index):
    """log w [n] of paths back from objects [n]."""
    tables = Actions(guide.routes, guide.back)

    def one(key, state):
        policies = lambda s: jax.tree.map(lambda a: a[s], tables)
        against = walk_back(key, guide.graph, policies, state, guide.mix.flow.environment.max_length)
        return guide.mix.flow.combined(guide.ending[:, state]) - against

    return jax.vmap(one)(jax.random.split(rng_key, len(index)), index)
