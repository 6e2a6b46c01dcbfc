"""Flows on disk: weights, or tables, of a policy, and what they belong to.

An environment is code, and nothing in a file is executed: whoever loads a flow gives its environment, which is compared
with what the file says of it. So with networks other than `PolicyNetwork`.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..checks.fields import check_instance
from ..checks.text import printable
from ..disk import checkpoint, contents
from ..errors import ArgumentTypeError, CheckpointError, ParameterError
from .environment import Environment
from .flow import Flow
from .graph import graph_of, is_enumerable
from .policy import Actions, Network, NetworkPolicy, PolicyNetwork, TablePolicy

#: Names of a table's arrays; impossible actions are stored as IMPOSSIBLE, because files hold no infinity.
TABLES, IMPOSSIBLE = ("table.forward", "table.backward"), -1e30


def save_flow(flow: Flow, path: str | os.PathLike[str], *, card: dict | None = None) -> None:
    """Save a flow, entirely or not at all.

    Args:
        flow: A flow, not a composition.
        path: File to write, customarily `*.safetensors`.
        card: What made it: script, seed, figures; JSON, kept in the file.

    Raises:
        ArgumentTypeError: for anything but a flow; save a composition's flows.
        CheckpointError: if the file cannot be written.
    """
    if not isinstance(flow, Flow):
        raise ArgumentTypeError(f"save_flow takes a flow; got {type(flow).__name__}. Save each flow of a composition.")
    policy, card, network = flow.policy, {} if card is None else card, None
    arrays: dict[str, Any] = {"log_z": np.asarray(flow.log_z)}
    config = {"kind": "flow", "environment": repr(flow.environment), "name": flow.name, "card": card, "network": None}
    if isinstance(policy, NetworkPolicy):
        arrays |= contents.stored_weights(policy.weights, None)
        network, config["network"] = policy.network, repr(policy.network)
        config["fields"] = dataclasses.asdict(network) if isinstance(network, PolicyNetwork) else {"type": "another"}
    elif isinstance(policy, TablePolicy):
        arrays |= {k: np.maximum(np.asarray(a), IMPOSSIBLE) for k, a in zip(TABLES, policy.table, strict=True)}
    else:
        raise ArgumentTypeError(f"save_flow knows networks and tables; got a {type(policy).__name__}. Save its parts.")
    checkpoint.save(path, arrays, config, lambda a, c: _described(a, c, flow.environment, network))


def load_flow(path: str | os.PathLike[str], environment: Environment, *, network: Network | None = None) -> Flow:
    """The flow that `save_flow` wrote.

    Args:
        path: The file.
        environment: That of the flow.
        network: The architecture of its policies, where that is no `PolicyNetwork`.

    Raises:
        CheckpointError: if the file is missing, damaged or foreign, or belongs to another environment or network.
    """
    check_instance("environment", environment, Environment)
    return checkpoint.load(path, "flow", lambda a, c: _described(a, c, environment, network), "a flow")


def _described(arrays, config, environment: Environment, network: Network | None) -> Flow:
    """The flow of arrays and a config, which hold what they may hold."""
    contents.check_texts(config["name"], config["card"])
    if config["environment"] != repr(environment):
        raise CheckpointError(
            f"the flow in the file is one of another environment: {printable(config['environment'])}; got "
            f"{environment!r}. Give that one to load_flow."
        )
    contents.check_range("log_z", arrays["log_z"], (), (-1e7, 1e7))
    if config["network"] is None:
        policy = TablePolicy(_tables(arrays, environment))
    else:
        known = {"PolicyNetwork": PolicyNetwork}
        network = network or contents.network_of(config["fields"], known, len(arrays))
        assert network is not None
        if repr(network) != config["network"]:
            raise CheckpointError(
                f"the flow in the file has another network: {printable(config['network'])}; got {network!r}. Give that "
                "one to load_flow as network."
            )
        build = network.build
        _, weights = contents.network_in(arrays, lambda key: build(environment, key), {"log_z"})
        policy = NetworkPolicy(weights, network)
    return Flow(environment, policy, jnp.asarray(arrays["log_z"], dtype=float), config["name"])


def _tables(arrays, environment: Environment) -> Actions:
    if not is_enumerable(environment):
        raise ParameterError("it holds tables, and the states of its environment cannot be listed")
    graph = graph_of(environment)
    found = []
    for name, legal in zip(TABLES, (graph.forward, graph.backward), strict=True):
        contents.check_range(name, arrays[name], legal.shape, (2 * IMPOSSIBLE, 1e-3))
        found.append(jnp.where(arrays[name] <= 0.5 * IMPOSSIBLE, -jnp.inf, jnp.asarray(arrays[name], dtype=float)))
        sums = np.exp(arrays[name].astype(np.float64)).sum(1)
        if np.any(np.abs(sums[np.asarray(legal).any(1)] - 1) > 1e-3):
            raise ParameterError(f"the probabilities of {name} must sum to one in every state")
    return Actions(*found)
