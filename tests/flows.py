"""Small environments and flows for tests: exact ones, and ones that are wrong in known ways."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_diffusion import gflownet
from numpyro_diffusion.gflownet.graph import graph_of
from numpyro_diffusion.gflownet.policy import Actions, TablePolicy, masked_log_softmax

GRID = gflownet.Hypergrid(2, 6)


@cache
def exact(which: int, environment=GRID):
    """Flows of three rewards."""
    rewards = [gflownet.circle(1), gflownet.circle(2), gflownet.diagonal_sigmoid]
    return gflownet.Flow.exact(environment, environment.reward(rewards[which]), name="pqr"[which])


@cache
def wrong(which: int, environment=GRID):
    """Flows that no reward has: random policies, forwards and backwards."""
    graph, key = graph_of(environment), jax.random.key(which)
    forward = jax.random.normal(key, graph.forward.shape)
    backward = jax.random.normal(jax.random.fold_in(key, 1), graph.backward.shape)
    table = Actions(masked_log_softmax(forward, graph.forward), masked_log_softmax(backward, graph.backward))
    return gflownet.Flow(environment, TablePolicy(table), jnp.zeros(()), name=f"w{which}")


@cache
def flat():
    """A flow whose objects are all alike."""
    return gflownet.Flow.exact(GRID, lambda state: 1.0, name="flat")


@dataclasses.dataclass(frozen=True)
class Unlisted(gflownet.Hypergrid):
    """A grid whose states cannot be listed, as far as flows know."""

    @property
    def num_states(self):
        return None


def unlisted(flow):
    """The same flow where states cannot be listed."""
    environment = Unlisted(flow.environment.dim, flow.environment.side)
    return gflownet.Flow(environment, flow.policy, flow.log_z, flow.name)


def shares(flow):
    """Exact probabilities [S] and the log sum."""
    logs = np.asarray(flow.log_probs(), np.float64)
    log_sum = np.logaddexp.reduce(logs)
    return np.exp(logs - log_sum), log_sum
