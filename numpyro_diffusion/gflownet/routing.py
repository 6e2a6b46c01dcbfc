r"""Paths for a composition of flows, without training: by what they go, and what they weigh.

Of flows with reaching probabilities u_i(s), a composition is a function G(p_1, ..., p_n) of their probabilities, and
G(u(s)) says what there is to find beyond s. Routing by Reaching (2026, arXiv:2602.21565) takes

.. math::
    q(s' | s) \propto G(u_1(s) P_{F,1}(s' | s), \dots, u_n(s) P_{F,n}(s' | s)) .

It samples G exactly where G is linear, as for mixtures, and distorts it elsewhere. The weights of its paths, which are
ours, take that back. On the way let H stand for G, or for a mixture of the flows, or for some of both:

.. math::
    H = a_0 G + \sum_i a_i u_i, \qquad
    \gamma_t(s_{0..t}) = H(u(s_t)) \, P_B(s_{0..t} | s_t), \qquad
    \frac{\gamma_{t + 1}}{\gamma_t \, q(s_{t + 1} | s_t)} =
    \frac{H(u(s_{t + 1})) P_B(s_t | s_{t + 1})}{H(u(s_t)) \, q(s_{t + 1} | s_t)},

with q of H as above of G. Where a path stops it is G of p(x) = u(x) P_F(stop | x), so that the weights of all paths to
x add up to G(p(x)), whatever H is. Which H has the least variance depends on G: a harmonic mean is well found by
routing, a contrast at small alpha by its first flow, whose paths weigh at most 1 / alpha.

Where states can be listed u is exact, and the backward policy is that of H,
:math:`P_B(s | s') \propto H(u(s) P_F(s' | s))`. Elsewhere u_i(s) is taken along each path as :math:`P_{F,i} / P_{B,i}`,
which is u_i(s) wherever flow i balances, and has the mean u_i(s) in any case; P_B is then the mean of the flows'
backward policies. In both cases a linear H has constant weights until paths stop: of any flows where states are listed,
else of flows with one backward policy.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from .evaluate import tabulated_forward
from .flow import AnyFlow, Flow, check_flow
from .graph import Graph, graph_of, is_enumerable, log_reaching
from .policy import Actions, TablePolicy, masked_log_softmax
from .states import require_listed


class Walker(NamedTuple):
    """One path: its `state`, log u_i [n] there, or log p_i where it has stopped, and log H or log G of these."""

    state: Any
    values: jax.Array
    is_on: jax.Array
    logdensity: jax.Array


class Step(NamedTuple):
    """One action of a path: where it leads, and log P_B - log q of it."""

    walker: Walker
    gain: jax.Array


class Mix(NamedTuple):
    """What paths go by, H: of a formula, and log a [1 + n]."""

    flow: AnyFlow
    log_shares: jax.Array

    def __call__(self, values) -> jax.Array:
        """log H of log values [n]."""
        return logsumexp(self.log_shares + jnp.concatenate([self.flow.combined(values)[None], values]))


class Listed(NamedTuple):
    """Paths where states can be listed: of n flows, S states.

    Attributes:
        mix: What they go by.
        graph: The environment's tables.
        reaching: log u [n, S].
        ending: log p [n, S].
        routes: log q [S, A].
        back: log P_B [S, B].
    """

    mix: Mix
    graph: Graph
    reaching: jax.Array
    ending: jax.Array
    routes: jax.Array
    back: jax.Array

    def start(self) -> Walker:
        state = self.graph.initial
        values = self.reaching[:, state]
        return Walker(state, values, jnp.ones((), bool), self.mix(values))

    def step(self, walker: Walker, key) -> Step:
        state, stop = walker.state, self.routes.shape[1] - 1
        action = jax.random.categorical(key, self.routes[state])
        moves = action != stop
        following = jnp.where(moves, self.graph.step(state, action), state)
        values = jnp.where(moves, self.reaching[:, following], self.ending[:, state])
        undone = self.back[following, self.graph.undoing(state, action)]
        gain = jnp.where(moves, undone, 0.0) - self.routes[state, action]
        return Step(Walker(following, values, moves, _density(self.mix, values, moves)), gain)


class Along(NamedTuple):
    """Paths elsewhere, by the flows' policies and what these have accumulated."""

    mix: Mix

    def start(self) -> Walker:
        values = jnp.zeros(len(self.mix.flow.models))
        return Walker(self.mix.flow.environment.initial_state(), values, jnp.ones((), bool), self.mix(values))

    def step(self, walker: Walker, key) -> Step:
        flow, state = self.mix.flow, walker.state
        environment = flow.environment
        forward = jnp.stack([model.actions(state).forward for model in flow.models])
        edges = jax.vmap(self.mix, in_axes=1)(walker.values[:, None] + forward)
        routes = masked_log_softmax(_finite(edges), environment.legal(state))
        action = jax.random.categorical(key, routes)
        moves = action != routes.size - 1
        following = jax.tree.map(partial(jnp.where, moves), environment.step(state, action), state)
        undone = jnp.where(moves, environment.undoing(state, action), 0)
        backward = jnp.stack([model.actions(following).backward[undone] for model in flow.models])
        backward = jnp.where(moves, backward, 0.0)
        values = walker.values + forward[:, action] - backward
        gain = logsumexp(backward) - jnp.log(len(backward)) - routes[action]
        return Step(Walker(following, values, moves, _density(self.mix, values, moves)), gain)


Guide = Listed | Along


def guide_of(flow: AnyFlow, log_shares) -> Guide:
    """What guides the paths of a composition, by log a [1 + n]."""
    mix = Mix(flow, jnp.asarray(log_shares, dtype=float))
    return _listed(mix, graph_of(flow.environment)) if is_enumerable(flow.environment) else Along(mix)


def routing(flow: AnyFlow) -> Flow:
    """The policy of Routing by Reaching by itself, as a flow: what it samples is distorted, but for mixtures.

    Args:
        flow: A composition of flows whose states can be listed.

    Raises:
        NotKnownError: if they cannot.
    """
    check_flow("nd.gflownet.routing", flow)
    require_listed(flow.environment, "routing")
    guide = guide_of(flow, only(flow, 0))
    assert isinstance(guide, Listed)
    return Flow(flow.environment, TablePolicy(Actions(guide.routes, guide.back)), jnp.zeros(()), f"routing({flow!r})")


def only(flow: AnyFlow, *which: int) -> jax.Array:
    """log a [1 + n] of equal shares of some: 0 is the formula, i the i-th flow."""
    chosen = jnp.isin(jnp.arange(len(flow.models) + 1), jnp.array(which))
    return jnp.where(chosen, -jnp.log(len(which)), -jnp.inf)


def _density(mix: Mix, values, is_on):
    return jnp.where(is_on, mix(values), mix.flow.combined(values))


def _finite(values):
    # Exact zeros, such as of a product with a flow that never goes there, stay possible and weigh nothing.
    return jnp.maximum(values, -1e30)


@jax.jit
def _listed(mix: Mix, graph: Graph) -> Listed:
    length = mix.flow.environment.max_length
    forward = [tabulated_forward(model, graph) for model in mix.flow.models]
    reaching = jnp.stack([log_reaching(graph, table, max_length=length) for table in forward])
    edges = reaching[:, :, None] + jnp.stack(forward)
    of_edge = _finite(jax.vmap(jax.vmap(mix, in_axes=1), in_axes=1)(edges))
    back = of_edge[graph.parent, graph.redo]
    return Listed(
        mix, graph, reaching, edges[:, :, -1], masked_log_softmax(of_edge, graph.forward),
        masked_log_softmax(back, graph.backward),
    )  # fmt: skip
