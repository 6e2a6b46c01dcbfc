r"""Flows: densities over the objects of an environment, by a forward policy that builds them step by step.

The probability that the forward policy ends in x is the sum over all paths that lead there,

.. math:: p(x) = \sum_{\tau \to x} P_F(\tau) = u(x) P_F(\mathrm{stop} | x),

by dynamic programming where all states can be listed, else by paths back from x, which are unbiased:

.. math:: p(x) = E_{\tau \sim P_B(\cdot | x)} \left[ P_F(\tau) / P_B(\tau | x) \right].

A flow that has been trained for a reward R has R(x) / Z = p(x) up to the error of its training.
"""

from __future__ import annotations

import abc
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from ..checks.text import check_name, shown
from ..density.algebra import Algebra, Formulated
from ..density.formula import Node
from ..errors import ArgumentTypeError, ParameterError, check_integer, check_key, check_number
from ..pytree import register
from .environment import Environment, State
from .evaluate import LogProb, estimated, exact_log_probs, tabulated, walked, walked_there
from .graph import graph_of, is_enumerable, log_flow
from .policy import Actions, Policy, TablePolicy, masked_log_softmax, uniform
from .reward import Reward, check_reward, log_rewards, own_errors
from .states import as_states, require_listed


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
                f"{what} needs one environment; got {self.environment!r} and {other.environment!r}. Flows "
                "compose where they build the same objects: train both in one environment."
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
        flat, shape = as_states(states, self.environment)
        if is_enumerable(self.environment):
            index = jax.vmap(self.environment.index)(flat)
            values = jnp.where(_are(flat, index, self.environment), self.log_probs()[index], -jnp.inf)
            found = LogProb(values, jnp.zeros(len(index)))
        else:
            found = estimated(self, rng_key, flat, num_paths=num_paths)
        return jax.tree.map(lambda a: a.reshape(shape), found)

    def log_probs(self) -> jax.Array:
        """Log probabilities [S] of every state, as `log_prob`; -inf where it is not terminal.

        Raises:
            NotKnownError: where states cannot be listed.
        """
        require_listed(self.environment, "log_probs")
        return exact_log_probs(self, graph_of(self.environment))

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
    @own_errors()
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
        check_reward(environment, reward, beta)
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
        return tabulated(self)

    def sample(self, rng_key, num_samples: int) -> State:
        """Objects [num_samples, ...] by the forward policy: independent draws of p."""
        rng_key, num_samples = check_key(rng_key), check_integer("num_samples", num_samples)
        if not is_enumerable(self.environment):
            return walked(self, rng_key, num_samples=num_samples)
        index = walked_there(
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


def _are(states, index, environment: Environment) -> jax.Array:
    """Whether states [n, ...] are those of their numbers [n]: what is no state has a number of another."""

    def one(state, i):
        equal = jax.tree.map(jnp.array_equal, state, environment.state_of(i))
        return jnp.all(jnp.stack(jax.tree.leaves(equal)))

    return jax.vmap(one)(states, index)


def check_flow(what: str, value: Any) -> None:
    """Raise ArgumentTypeError unless the value is a flow or a composition of flows."""
    if not isinstance(value, AnyFlow):
        raise ArgumentTypeError(f"{what} takes a flow or a composition of flows; got {shown(value)}.")
