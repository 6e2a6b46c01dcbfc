r"""Routing by reaching probabilities: a policy for a composition, without training, and what it lacks.

Of flows with reaching probabilities u_i(s), a composition G(p_1, ..., p_n) asks for

.. math::
    q(s' | s) \propto G(u_1(s) P_{F,1}(s' | s), \dots, u_n(s) P_{F,n}(s' | s)) .

It samples G exactly where G is linear, as for mixtures. Otherwise the probability of a path times its weight is right:

.. math::
    \gamma_t(s_{0..t}) = G(u(s_t)) \, P_B(s_{0..t} | s_t), \qquad
    \frac{\gamma_{t + 1}}{\gamma_t \, q(s_{t + 1} | s_t)} =
    \frac{G(u(s_{t + 1})) P_B(s_t | s_{t + 1})}{G(u(s_t)) \, q(s_{t + 1} | s_t)},

whose last member, with u(x) P_F(stop | x) = p(x) for u, is G(p(x)) P_B(path | x): summed over paths, G(p(x)).

Where states can be listed u is exact, and the backward policy is the composition's own,
:math:`P_B(s | s') \propto G(u(s) P_F(s' | s))`. Elsewhere u_i(s) is taken along each path as
:math:`P_{F,i} / P_{B,i}`, which is u_i(s) wherever flow i balances, and has the mean u_i(s) in any case; P_B is then
the mean of the flows' backward policies. In both cases the weights of a mixture are constant: of any flows where states
are listed, else of flows with one backward policy.

Source of the policy: Routing by Reaching (2026), arXiv:2602.21565; its weights are ours.
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
    """One path as it goes: its `state`, log u_i [n] there, or log p_i where it has stopped, and log G of these."""

    state: Any
    values: jax.Array
    is_on: jax.Array
    logdensity: jax.Array


class Step(NamedTuple):
    """One action of a path: where it leads, and log P_B - log q of it."""

    walker: Walker
    gain: jax.Array


class Listed(NamedTuple):
    """What guides paths where states can be listed: of n flows, S states.

    Attributes:
        graph: The environment's tables.
        reaching: log u [n, S].
        ending: log p [n, S].
        routes: log q [S, A].
        back: log P_B [S, B].
    """

    graph: Graph
    reaching: jax.Array
    ending: jax.Array
    routes: jax.Array
    back: jax.Array

    def start(self, flow: AnyFlow) -> Walker:
        state = self.graph.initial
        values = self.reaching[:, state]
        return Walker(state, values, jnp.ones((), bool), flow.combined(values))

    def step(self, flow: AnyFlow, walker: Walker, key) -> Step:
        state, stop = walker.state, self.routes.shape[1] - 1
        action = jax.random.categorical(key, self.routes[state])
        moves = action != stop
        following = jnp.where(moves, self.graph.step(state, action), state)
        values = jnp.where(moves, self.reaching[:, following], self.ending[:, state])
        undone = self.back[following, self.graph.undoing(state, action)]
        gain = jnp.where(moves, undone, 0.0) - self.routes[state, action]
        return Step(Walker(following, values, moves, flow.combined(values)), gain)


class Along(NamedTuple):
    """What guides paths elsewhere: the flows' policies, and what they have accumulated."""

    def start(self, flow: AnyFlow) -> Walker:
        values = jnp.zeros(len(flow.models))
        return Walker(flow.environment.initial_state(), values, jnp.ones((), bool), flow.combined(values))

    def step(self, flow: AnyFlow, walker: Walker, key) -> Step:
        environment, state = flow.environment, walker.state
        forward = jnp.stack([model.actions(state).forward for model in flow.models])
        routes = routed(flow, walker.values[:, None] + forward, environment.legal(state))
        action = jax.random.categorical(key, routes)
        moves = action != routes.size - 1
        following = jax.tree.map(partial(jnp.where, moves), environment.step(state, action), state)
        undone = jnp.where(moves, environment.undoing(state, action), 0)
        backward = jnp.stack([model.actions(following).backward[undone] for model in flow.models])
        backward = jnp.where(moves, backward, 0.0)
        values = walker.values + forward[:, action] - backward
        gain = logsumexp(backward) - jnp.log(len(backward)) - routes[action]
        return Step(Walker(following, values, moves, flow.combined(values)), gain)


def guide_of(flow: AnyFlow) -> Listed | Along:
    """What guides the paths of a composition."""
    return _listed(flow, graph_of(flow.environment)) if is_enumerable(flow.environment) else Along()


def routing(flow: AnyFlow) -> Flow:
    """The routing policy by itself, as a flow: what it samples is a composition's own distribution for mixtures alone.

    Args:
        flow: A composition of flows whose states can be listed.

    Raises:
        NotKnownError: if they cannot.
    """
    check_flow("nd.gflownet.routing", flow)
    require_listed(flow.environment, "routing")
    guide = _listed(flow, graph_of(flow.environment))
    return Flow(flow.environment, TablePolicy(Actions(guide.routes, guide.back)), jnp.zeros(()), f"routing({flow!r})")


def routed(flow: AnyFlow, log_edges, legal) -> jax.Array:
    """log q [A], of log u_i P_F,i [n, A]; any legal action alike where all of them have none."""
    return masked_log_softmax(_finite(jax.vmap(flow.combined, in_axes=1)(log_edges)), legal)


def _finite(values):
    # Exact zeros, such as of a product with a flow that never goes there, stay possible and weigh nothing.
    return jnp.maximum(values, -1e30)


@jax.jit
def _listed(flow: AnyFlow, graph: Graph) -> Listed:
    length = flow.environment.max_length
    forward = [tabulated_forward(model, graph) for model in flow.models]
    reaching = jnp.stack([log_reaching(graph, table, max_length=length) for table in forward])
    edges = reaching[:, :, None] + jnp.stack(forward)
    of_edge = _finite(jax.vmap(jax.vmap(flow.combined, in_axes=1), in_axes=1)(edges))
    back = of_edge[graph.parent, graph.redo]
    return Listed(
        graph, reaching, edges[:, :, -1], masked_log_softmax(of_edge, graph.forward),
        masked_log_softmax(back, graph.backward),
    )  # fmt: skip
