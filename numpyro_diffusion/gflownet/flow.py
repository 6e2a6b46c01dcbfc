r"""Flows: densities over the objects of an environment, by a forward policy that builds them step by step.

The probability that the forward policy ends in x is the sum over all paths that lead there,

.. math:: p(x) = \sum_{\tau \to x} P_F(\tau) = u(x) P_F(\mathrm{stop} | x),

by dynamic programming where all states can be listed, else by paths back from x, which are unbiased:

.. math:: p(x) = E_{\tau \sim P_B(\cdot | x)} \left[ P_F(\tau) / P_B(\tau | x) \right].

A flow that has been trained for a reward R has R(x) / Z = p(x) up to the error of its training.
"""

from __future__ import annotations

import abc
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from ..checks.text import check_name, shown
from ..density.algebra import Algebra, Formulated
from ..density.formula import Node
from ..errors import (
    ArgumentTypeError,
    NotKnownError,
    ParameterError,
    ShapeError,
    check_integer,
    check_key,
    check_number,
)
from ..pytree import register
from .environment import Environment, State
from .graph import Graph, graph_of, is_enumerable, log_flow, log_reaching, of_states
from .policy import Actions, Policy, TablePolicy, masked_log_softmax, uniform
from .reward import Reward, log_rewards
from .walk import batched, walk, walk_back

#: Paths that are walked together.
CHUNK = 4096


class LogProb(NamedTuple):
    """Log probabilities [...] in nats, and their standard errors; 0 where they are exact."""

    log_prob: jax.Array
    error: jax.Array


class AnyFlow(Algebra):
    """A flow or a composition of flows: a positive function of the objects of an environment."""

    environment: Environment
    #: The distinct flows of a formula.
    models: tuple

    @classmethod
    def kind(cls) -> str:
        return "objects of an environment"

    def check_beside(self, what, other):
        if other.environment != self.environment:
            raise ParameterError(
                f"{what} needs one environment; got {self.environment!r} and {other.environment!r}. Flows compose where "
                "they build the same objects: train both in one environment."
            )

    @staticmethod
    def formulated(models, conditions, coefficients, formula) -> Composition:
        return Composition(models, conditions, coefficients, formula)

    @abc.abstractmethod
    def combined(self, values: jax.Array) -> jax.Array:
        """The formula's logarithm, log G, of logarithms [num_models] of what the models are."""

    def log_prob(self, states: State, *, rng_key=None, num_paths: int = 64) -> jax.Array:
        """Log probabilities of objects in nats, of compositions up to the constant `log_sum`.

        Exact where states can be listed; else see `estimated_log_prob`, whose arguments these are.

        Args:
            states: A pytree of arrays [*batch, ...] of terminal states.

        Returns:
            [*batch]; -inf for what is not terminal.
        """
        return self.estimated_log_prob(states, rng_key=rng_key, num_paths=num_paths).log_prob

    def estimated_log_prob(self, states: State, *, rng_key=None, num_paths: int = 64) -> LogProb:
        """As `log_prob`, with standard errors: of `num_paths` paths back from each object, drawn by `rng_key`.

        Of flows the estimate of p, not of its logarithm, is unbiased. Of formulas the errors are those of the flows by
        the formula's slopes.
        """
        check_integer("num_paths", num_paths, 2)
        rng_key = jax.random.key(0) if rng_key is None else check_key(rng_key)
        flat, shape = _flat(states, self.environment)
        if is_enumerable(self.environment):
            table, index = self.log_probs(), jax.vmap(self.environment.index)(flat)
            found = LogProb(table[index], jnp.zeros(len(index)))
        else:
            found = _estimated(self, rng_key, flat, num_paths=num_paths)
        return jax.tree.map(lambda a: a.reshape(shape), found)

    def log_probs(self) -> jax.Array:
        """Log probabilities [S] of every state, as `log_prob`; -inf where it is not terminal.

        Raises:
            NotKnownError: where states cannot be listed.
        """
        require_listed(self.environment, "log_probs")
        return _exact(self, graph_of(self.environment))

    def log_sum(self) -> float:
        """log of the sum over all objects, exact: 0 for a flow."""
        return float(logsumexp(self.log_probs()))


@register(("policy", "log_z"), ("environment", "name"))
class Flow(AnyFlow):
    """A density over the objects of an environment. Made by `nd.gflownet.train` or `Flow.exact`.

    Attributes:
        environment: What is built.
        policy: Forward and backward policy.
        log_z: Log of the reward's sum over all objects, as learnt; exact where `exact` made it.
        name: Name for formulas.
    """

    def __init__(self, environment: Environment, policy: Policy, log_z: Any, name: str | None = None):
        self.environment, self.policy, self.log_z, self.name = environment, policy, log_z, name

    @classmethod
    def exact(cls, environment: Environment, reward: Reward, *, beta: float = 1.0, name: str | None = None) -> Flow:
        """The flow of a reward, with uniform backward policy, by dynamic programming: nothing is trained.

        Args:
            environment: One whose states can be listed.
            reward: Function of one terminal state, positive.
            beta: Power of the reward.
            name: Name for formulas.

        Raises:
            ParameterError: if a reward is zero, negative, NaN or infinite; for an environment that is none.
            NotKnownError: if the states cannot be listed.
        """
        check_name(name)
        require_listed(environment, "Flow.exact")
        beta, graph = check_number("beta", beta, 0.0, ends="()"), graph_of(environment)
        log_reward = beta * log_rewards(environment, reward, graph)
        back = uniform(graph.backward)
        flow = log_flow(graph, log_reward, back, max_length=environment.max_length)
        leaving = flow[graph.child] + back[graph.child, graph.undo]
        forward = masked_log_softmax(jnp.concatenate([leaving, log_reward[:, None]], axis=1), graph.forward)
        return cls(environment, TablePolicy(Actions(forward, back)), flow[graph.initial], name)

    @property
    def models(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return (self,)

    def combined(self, values):
        return values[0]

    def actions(self, state: State) -> Actions:
        """Log probabilities of forward and backward actions in one state."""
        return self.policy.actions(self.environment, state)

    def tabulated(self) -> Actions:
        """Log probabilities of actions in every state, [S, A] and [S, B]."""
        if isinstance(self.policy, TablePolicy):
            return self.policy.table
        return _tabulated(self)

    def sample(self, rng_key, num_samples: int) -> State:
        """Objects [num_samples, ...] by the forward policy: independent draws of p."""
        rng_key, num_samples = check_key(rng_key), check_integer("num_samples", num_samples)
        if not is_enumerable(self.environment):
            return _walked(self, rng_key, num_samples=num_samples)
        index = _walked_there(
            graph_of(self.environment), self.tabulated().forward, rng_key, max_length=self.environment.max_length,
            num_samples=num_samples,
        )  # fmt: skip
        return jax.vmap(self.environment.state_of)(index)


@register(("models", "conditions", "coefficients"), ("formula", "environment"))
class Composition(Formulated, AnyFlow):
    """A formula over distinct flows, whose operands `Formulated` lists: a positive function G(p_1(x), ..., p_n(x))."""

    def __init__(self, models: tuple, conditions: tuple[tuple, ...], coefficients: jax.Array, formula: Node):
        self.models, self.conditions, self.coefficients, self.formula = models, conditions, coefficients, formula
        self.environment = models[0].environment

    def combined(self, values):
        return self.value({leaf: values[leaf.model] for leaf in self.formula.leaves})


def check_flow(what: str, value: Any) -> None:
    """Raise ArgumentTypeError unless the value is a flow or a composition of flows."""
    if not isinstance(value, AnyFlow):
        raise ArgumentTypeError(f"{what} takes a flow or a composition of flows; got {shown(value)}.")


def require_listed(environment: Any, purpose: str) -> None:
    """Raise unless it is an environment whose states can be listed."""
    if not isinstance(environment, Environment):
        raise ArgumentTypeError(f"environment must be an Environment; got {shown(environment)}.")
    if not is_enumerable(environment):
        raise NotKnownError(
            f"{purpose} needs states that can be listed; {environment!r} has no num_states. Give it num_states, index "
            "and state_of if it is small, or estimate with flow.estimated_log_prob."
        )


def _flat(states, environment: Environment):
    """States [n, ...] and the shape of their batch; ShapeError for other shapes."""
    one = jax.eval_shape(environment.initial_state)
    likes, treedef = jax.tree.flatten(one)
    try:
        arrays = [jnp.asarray(a) for a in treedef.flatten_up_to(states)]
    except (TypeError, ValueError) as error:
        raise ShapeError(f"states must be a batch of states like {one}; got {shown(states)}.") from error
    batches = {a.shape[: a.ndim - like.ndim] for a, like in zip(arrays, likes, strict=True)}
    fits = all(a.shape[a.ndim - like.ndim :] == like.shape for a, like in zip(arrays, likes, strict=True))
    if len(batches) != 1 or not fits:
        raise ShapeError(
            f"states must have shapes [*batch, ...] with {[like.shape for like in likes]} after one batch; got "
            f"{[a.shape for a in arrays]}."
        )
    if wrong := [
        a.dtype for a, like in zip(arrays, likes, strict=True) if not jnp.can_cast(a.dtype, like.dtype, "same_kind")
    ]:
        raise ShapeError(f"states must be of types {[like.dtype for like in likes]}; got {wrong[0]}. Convert them.")
    (batch,) = batches
    flat = [a.astype(like.dtype).reshape(-1, *like.shape) for a, like in zip(arrays, likes, strict=True)]
    return treedef.unflatten(flat), batch


@jax.jit
def _tabulated(flow: Flow) -> Actions:
    return of_states(flow.actions, flow.environment)


@jax.jit
def _exact(flow: AnyFlow, graph: Graph):
    def one(model):
        forward = jnp.where(graph.forward, model.tabulated().forward, -jnp.inf)
        return log_reaching(graph, forward, max_length=flow.environment.max_length) + forward[:, -1]

    return jax.vmap(flow.combined, in_axes=1)(jnp.stack([one(model) for model in flow.models]))


@partial(jax.jit, static_argnames="num_samples")
def _walked(flow: Flow, rng_key, *, num_samples: int):
    def one(key):
        return walk(key, flow.environment, lambda state: flow.actions(state).forward, flow.environment.max_length).last

    return batched(one, num_samples, CHUNK, jax.random.split(rng_key, num_samples))


@partial(jax.jit, static_argnames=("max_length", "num_samples"))
def _walked_there(graph: Graph, forward, rng_key, *, max_length: int, num_samples: int):
    def one(key):
        return walk(key, graph, lambda state: forward[state], max_length).last

    return batched(one, num_samples, 2**20, jax.random.split(rng_key, num_samples))


@partial(jax.jit, static_argnames="num_paths")
def _estimated(flow: AnyFlow, rng_key, states, *, num_paths: int) -> LogProb:
    environment = flow.environment

    def of_model(model, key, state):
        keys = jax.random.split(key, num_paths)
        return log_mean(
            jax.vmap(lambda k: walk_back(k, environment, model.actions, state, environment.max_length))(keys)
        )

    def one(key, state):
        keys = jax.random.split(key, len(flow.models))
        found = [of_model(model, k, state) for model, k in zip(flow.models, keys, strict=True)]
        values, errors = (jnp.stack(column) for column in zip(*found, strict=True))
        value, slopes = jax.value_and_grad(flow.combined)(values)
        stops = environment.legal(state)[-1]
        return LogProb(jnp.where(stops, value, -jnp.inf), jnp.sqrt(jnp.sum((slopes * errors) ** 2)))

    count = len(jax.tree.leaves(states)[0])
    return batched(one, count, max(1, CHUNK // num_paths), jax.random.split(rng_key, count), states)


def log_mean(log_weight) -> LogProb:
    """log mean exp(log_weight) of draws [n], and its standard error by their scatter, infinite if one rules."""
    value = logsumexp(log_weight) - jnp.log(log_weight.size)
    relative = jnp.exp(log_weight - jnp.where(jnp.isfinite(value), value, 0.0))
    variance = jnp.var(relative, ddof=1) / log_weight.size
    return LogProb(value, jnp.where(variance < 1, jnp.sqrt(variance / jnp.maximum(1 - variance, 1e-9)), jnp.inf))
