"""Policies: log probabilities of the actions that are legal in a state, by a network or from a table."""

from __future__ import annotations

import dataclasses
from functools import lru_cache, partial
from typing import Annotated, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from ..checks.fields import Checked, Flag
from ..checks.text import shown
from ..errors import ArgumentTypeError, ShapeError, check_integer
from ..networks.config import Count
from ..pytree import register
from .environment import Environment


class Actions(NamedTuple):
    """log P_F [..., A] of forward actions, stop last, and log P_B [..., B] of backward ones; -inf if not legal."""

    forward: jax.Array
    backward: jax.Array


def masked_log_softmax(logits, legal) -> jax.Array:
    """Log probabilities [..., A] over legal actions; -inf elsewhere, and for all where none is legal."""
    # Masked with a finite number inside, so that a row without legal actions has no NaN, in the gradient either.
    found = jax.nn.log_softmax(jnp.where(legal, logits, jnp.finfo(logits.dtype).min), axis=-1)
    return jnp.where(legal, found, -jnp.inf)


def uniform(legal) -> jax.Array:
    """Log probabilities [..., B] of legal actions that are all alike."""
    return masked_log_softmax(jnp.zeros(legal.shape), legal)


class Network(Protocol):
    """A network's architecture: hashable, compared by value, so that it can be static."""

    def build(self, environment: Environment, rng_key: jax.Array) -> tuple[Any, Any]:
        """(graph definition, state), `nnx.split` of a fresh module.

        Called with the features of one state, the module returns logits [num_actions], or a pair of those and the
        logits [num_backward_actions] of a backward policy; without these the backward policy is uniform.
        """
        ...


class MLP(nnx.Module):
    """Features to logits by hidden layers of one width; zero output at the start, so that all actions are alike."""

    def __init__(self, num_features: int, config: PolicyNetwork, num_actions: int, num_backward: int, *, rngs):
        sizes = [num_features, *[config.width] * config.num_layers]
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        self.hidden = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairs])
        outputs = num_actions + (num_backward if config.learn_backward else 0)
        self.head = nnx.Linear(sizes[-1], outputs, kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.num_actions = num_actions if config.learn_backward else None

    def __call__(self, features):
        for layer in self.hidden:
            features = nnx.leaky_relu(layer(features))
        logits = self.head(features)
        return logits if self.num_actions is None else (logits[: self.num_actions], logits[self.num_actions :])


@dataclasses.dataclass(frozen=True)
class PolicyNetwork(Checked):
    """A multilayer perceptron of a state's features, for environments whose features are one array.

    Attributes:
        width: Width of the hidden layers.
        num_layers: Number of hidden layers.
        learn_backward: Learn the backward policy too; it is uniform otherwise.
    """

    width: Count = 256
    num_layers: Annotated[int, partial(check_integer, high=64)] = 2
    learn_backward: Flag = False

    def build(self, environment: Environment, rng_key: jax.Array) -> tuple[Any, Any]:
        """See `Network`; ShapeError where features are no single vector."""
        features = jax.eval_shape(lambda: environment.features(environment.initial_state()))
        if getattr(features, "ndim", None) != 1:
            raise ShapeError(
                f"PolicyNetwork takes features that are one vector; those of {environment!r} are "
                f"{jax.tree.map(lambda a: a.shape, features)}. Give network= of your own, see gflownet.policy.Network."
            )
        sizes = environment.num_actions, environment.num_backward_actions
        return nnx.split(MLP(features.shape[0], self, *sizes, rngs=nnx.Rngs(params=rng_key)))


def check_network(network: Any) -> None:
    """Raise ArgumentTypeError unless it has a `Network`'s method build."""
    if not callable(getattr(network, "build", None)) or isinstance(network, type):
        raise ArgumentTypeError(f"network must have build(environment, rng_key); got {shown(network)}. See Network.")


@lru_cache(maxsize=64)
def graph_definition(network: Network, environment: Environment):
    """The network's structure; nothing is drawn."""
    return jax.eval_shape(lambda key: network.build(environment, key), jax.random.key(0))[0]


@register(("weights",), ("network",))
class NetworkPolicy:
    """The policies that a network gives: its `weights` and, static, its architecture."""

    def __init__(self, weights: Any, network: Network):
        self.weights, self.network = weights, network

    def actions(self, environment: Environment, state) -> Actions:
        """Of one state."""
        module = nnx.merge(graph_definition(self.network, environment), self.weights)
        found = module(environment.features(state))
        forward, backward = found if isinstance(found, tuple) else (found, None)
        legal, legal_backward = environment.legal(state), environment.legal_backward(state)
        back = uniform(legal_backward) if backward is None else masked_log_softmax(backward, legal_backward)
        return Actions(masked_log_softmax(forward, legal), back)


@register(("table",), ())
class TablePolicy:
    """The policies of every state [S, A] and [S, B], where states can be listed."""

    def __init__(self, table: Actions):
        self.table = table

    def actions(self, environment: Environment, state) -> Actions:
        """Of one state."""
        return jax.tree.map(lambda a: a[environment.index(state)], self.table)


class Policy(Protocol):
    """A pytree that gives the policies of one state."""

    def actions(self, environment: Environment, state) -> Actions: ...
