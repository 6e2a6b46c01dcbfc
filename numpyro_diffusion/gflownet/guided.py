r"""The classifier-guided policy of Garipov et al. (2023), as published: a baseline that weighs nothing.

A classifier learns from paths of the flows which flow they came from, and what k observers would say of the object at
their end: with y_1 the source, and the others drawn from its own answer :math:`Q(y | x)` at the object,

.. math::
    L = -\log Q(y_1 | x)
        - \operatorname{mean}_t \sum_{y_2, ..., y_k} \prod_{j \ge 2} Q(y_j | x) \log Q(y_1, ..., y_k | s_t) .

The policy for labels y that it then guides is

.. math::
    p(s' | s, y) \propto \Big( \sum_i P_{F,i}(s' | s) Q(y_1 = i | s) \Big) Q(y_1, ..., y_k | s') ,

the stop included, where the answers at the object are independent. A classifier that is not perfect distorts it.

Source: arXiv:2309.16115, Sections 5 and A.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ..checks.fields import check_instance
from ..checks.text import shown
from ..compose.operators import log_weights_of
from ..compose.sculpting import checked_labels
from ..density.operands import check_densities
from ..disk.runs import Keeper
from ..errors import ArgumentTypeError, ParameterError, check_key, check_untraced
from ..pytree import register, replace
from ..train.optimise import TrainingConfig, optimise
from .environment import Environment
from .evaluate import tabulated_forward
from .flow import Flow
from .graph import Graph, graph_of, is_enumerable, of_states
from .policy import MLP, Actions, PolicyNetwork, masked_log_softmax, uniform
from .walk import walk

#: Most joint answers of a classifier.
MOST_ANSWERS = 2**16


@register(("weights",), ("network", "num_models", "num_labels"))
class Classifier:
    """log Q of k labels of n flows: joint on the way, each by itself at an object."""

    def __init__(self, weights: Any, network: PolicyNetwork, num_models: int, num_labels: int):
        self.weights, self.network, self.num_models, self.num_labels = weights, network, num_models, num_labels

    def logs(self, environment: Environment, state) -> tuple[jax.Array, jax.Array]:
        """Of one state: log Q(y_1, ..., y_k | s) [n, ..., n], and log Q(y | x) [n] if it is the object."""
        graphdef, _ = _built(self.network, environment, self.num_models, self.num_labels)
        logits = nnx.merge(graphdef, self.weights)(environment.features(state))
        joint, alone = logits[: -self.num_models], logits[-self.num_models :]
        return jax.nn.log_softmax(joint).reshape((self.num_models,) * self.num_labels), jax.nn.log_softmax(alone)


@lru_cache(maxsize=16)
def _built(network, environment, num_models, num_labels):
    return jax.eval_shape(lambda key: _build(network, environment, num_models, num_labels, key), jax.random.key(0))


def _build(network: PolicyNetwork, environment: Environment, num_models: int, num_labels: int, key):
    size = environment.features(environment.initial_state()).size
    return nnx.split(MLP(size, network, num_models**num_labels + num_models, 0, rngs=nnx.Rngs(params=key)))


class Claims(NamedTuple):
    """A classifier, learnt from paths of flows of log prior `log_weights` [n]; of listed states with their tables."""

    classifier: Classifier
    flows: tuple[Flow, ...]
    log_weights: jax.Array
    graph: Graph | None
    forward: jax.Array | None
    fast_in_scan = True
    ema_warmup = (0.0, 1.0)

    def draw(self, rng_key, config: TrainingConfig):
        source_key, path_key = jax.random.split(rng_key)
        source = jax.random.categorical(source_key, self.log_weights, shape=(config.batch_size,))
        return (source, jax.random.split(path_key, config.batch_size)), None

    def loss(self, weights, batch, rng_key, config: TrainingConfig):
        classifier = Classifier(
            weights, *(getattr(self.classifier, f) for f in ("network", "num_models", "num_labels"))
        )
        environment, graph, forward = self.flows[0].environment, self.graph, self.forward
        few = graph is not None and graph.num_states <= config.batch_size * environment.max_length
        table = of_states(lambda state: classifier.logs(environment, state), environment) if few else None

        def logs(state):
            if table is not None:
                return jax.tree.map(lambda a: a[state], table)
            return classifier.logs(environment, state if graph is None else environment.state_of(state))

        def one(source, key):
            def policy(state):
                if forward is not None:
                    return forward[source, state]
                return jnp.stack([flow.actions(state).forward for flow in self.flows])[source]

            path = walk(key, environment if graph is None else graph, policy, environment.max_length)
            alone = logs(path.last)[1]
            said = _outer([jax.lax.stop_gradient(jnp.exp(alone))] * (classifier.num_labels - 1))
            joint = jax.vmap(lambda state: logs(state)[0])(path.states)[:, source]
            on_the_way = jnp.sum(said * joint, axis=tuple(range(1, joint.ndim)))
            return -alone[source] - jnp.sum(on_the_way * path.is_on) / jnp.sum(path.is_on)

        return jnp.mean(jax.vmap(one)(*batch))

    def check(self, batch) -> None:
        pass


def _outer(factors) -> jax.Array:
    """Product [n, ..., n] of vectors [n]."""
    found = jnp.ones(())
    for factor in factors:
        found = found[..., None] * factor
    return found


@register(("flows", "classifier"), ("labels",))
class GuidedPolicy:
    """The guided policy; its backward policy, which it does not need, is uniform."""

    def __init__(self, flows: tuple[Flow, ...], classifier: Classifier, labels: tuple[int, ...]):
        self.flows, self.classifier, self.labels = flows, classifier, labels

    def actions(self, environment: Environment, state) -> Actions:
        """Of one state."""
        joint, alone = self.classifier.logs(environment, state)
        source = jax.nn.logsumexp(joint.reshape(len(self.flows), -1), axis=1)
        forward = jnp.stack([flow.actions(state).forward for flow in self.flows])
        steps = jnp.arange(environment.num_actions - 1)
        after = jax.vmap(lambda a: self.classifier.logs(environment, environment.step(state, a))[0][self.labels])(steps)
        answers = jnp.append(after, jnp.sum(alone[jnp.array(self.labels)]))
        logits = jax.nn.logsumexp(source[:, None] + forward, axis=0) + answers
        legal = environment.legal(state)
        return Actions(masked_log_softmax(logits, legal), uniform(environment.legal_backward(state)))


def guided(
    rng_key: jax.Array,
    flows: Sequence[Flow],
    labels: Sequence[int],
    *,
    weights: Any = None,
    network: PolicyNetwork | None = None,
    training: TrainingConfig | None = None,
    progress_bar: bool = True,
) -> Flow:
    """Train a classifier on paths of flows, and make of it the policy for `nd.sculpt(flows, labels, weights=weights)`.

    Args:
        rng_key: JAX random key.
        flows: The flows.
        labels, weights: As of `nd.sculpt`.
        network: Architecture of the classifier; `PolicyNetwork` by default.
        training: Optimisation settings; 4,000 steps of 64 paths by default.
        progress_bar: Show steps and loss.

    Returns:
        Flow, by a forward policy that is distorted as far as the classifier is wrong; `nd.gflownet.sample` is not.

    Raises:
        ArgumentTypeError, ParameterError: for what is no flow, and labels or weights out of range.
    """
    check_untraced("nd.gflownet.guided", rng_key)
    if not isinstance(flows, Sequence) or len(flows) < 2:
        raise ArgumentTypeError(f"a guided policy takes a list of at least two flows; got {shown(flows)}.")
    check_densities("a guided policy", flows)
    if not all(isinstance(flow, Flow) for flow in flows):
        raise ArgumentTypeError("a guided policy takes flows, no compositions: their paths are what it learns from.")
    numbers = tuple(label - 1 for label in checked_labels(labels, len(flows)))
    if len(flows) ** len(numbers) > MOST_ANSWERS:
        raise ParameterError(
            f"the classifier's joint answers, flows ** labels, must be at most {MOST_ANSWERS}; got {len(flows)} ** "
            f"{len(numbers)}. Give fewer labels, or sample nd.sculpt by nd.gflownet.sample, which needs no classifier."
        )
    log_weights = jnp.asarray(log_weights_of(weights, len(flows)), dtype=float)
    training = training or TrainingConfig(num_steps=4_000, batch_size=64, learning_rate=1e-3, ema_decay=0.99)
    network = network or PolicyNetwork()
    check_instance("training", training, TrainingConfig)
    check_instance("network", network, PolicyNetwork)
    init_key, step_key = jax.random.split(check_key(rng_key))
    environment = flows[0].environment
    _, state = _build(network, environment, len(flows), len(numbers), init_key)
    graph = graph_of(environment) if is_enumerable(environment) else None
    forward = None if graph is None else jnp.stack([tabulated_forward(flow, graph) for flow in flows])
    classifier = Classifier(state, network, len(flows), len(numbers))
    task = Claims(classifier, tuple(flows), log_weights, graph, forward)
    state = optimise(
        step_key, task, state, training, Keeper(None, {}, 60.0), name="classifier", progress_bar=progress_bar
    )
    policy = GuidedPolicy(tuple(flows), replace(classifier, weights=state), numbers)
    return Flow(environment, policy, jnp.zeros(()), f"guided {list(labels)}")
