r"""Training of flows by trajectory balance, through the package's one loop.

For paths drawn by the forward policy, which explores with some probability, the loss is

.. math:: L = \left( \log Z + \log P_F(\tau) - \beta \log R(x) - \log P_B(\tau | x) \right)^2 ,

zero for every path only if the policy samples R^beta / Z. Where there are no more states than the paths of a batch have
places, policies are computed once for all states, and walking costs next to nothing.

Source: Malkin et al. (2022), Trajectory balance: improved credit assignment in GFlowNets. arXiv:2201.13259.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path as FilePath
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..checks.fields import Positive, Share, check_instance
from ..checks.room import make_room
from ..checks.text import check_name
from ..disk.runs import Keeper
from ..errors import check_integer, check_key, check_number, check_untraced
from ..program import Traced, fingerprint, trace, versions
from ..pytree import replace
from ..train.optimise import TrainingConfig, optimise
from .contract import check_environment, check_paths
from .environment import Environment
from .evaluate import log_mean
from .flow import Flow
from .graph import Graph, graph_of, is_enumerable, of_states
from .policy import Network, NetworkPolicy, PolicyNetwork, check_network
from .reward import Reward, check_reward, check_rewards, number_of, on_host, own_errors
from .walk import explored, log_weight, walk

#: Paths that log Z begins from.
NUM_FIRST = 512


@dataclasses.dataclass(frozen=True)
class FlowTraining(TrainingConfig):
    """Optimisation settings of `nd.gflownet.train`: those of `nd.TrainingConfig` with other defaults, and two more.

    Attributes:
        exploration: Probability that an action of training is any legal one.
        log_z_learning_rate: Learning rate of log Z.
    """

    num_steps: Annotated[int, check_integer] = 5_000
    batch_size: Annotated[int, check_integer] = 64
    learning_rate: Positive = 1e-3
    ema_decay: Share = 0.99
    max_gradient_norm: Positive = 10.0
    exploration: Share = 0.05
    log_z_learning_rate: Positive = 0.1

    def optimiser(self) -> optax.GradientTransformation:
        """Two of `TrainingConfig.optimiser`, for the policy and for log Z."""
        of_policy = super().optimiser()
        of_log_z = dataclasses.replace(self, learning_rate=self.log_z_learning_rate, weight_decay=0.0)
        rates: Any = {"policy": of_policy, "log_z": super(FlowTraining, of_log_z).optimiser()}
        labels: Any = {"policy": "policy", "log_z": "log_z"}
        return optax.multi_transform(rates, labels)


class Balance(NamedTuple):
    """A flow, learnt by trajectory balance; of listed states with their `graph`."""

    flow: Flow
    reward: Traced
    beta: float
    graph: Graph | None
    fast_in_scan = True
    ema_warmup = (0.0, 1.0)

    def draw(self, rng_key, config: TrainingConfig):
        return jax.random.split(rng_key, config.batch_size), None

    def loss(self, weights, batch, rng_key, config: TrainingConfig):
        assert isinstance(config, FlowTraining)  # as `train` has checked
        policy: Any = self.flow.policy
        flow = replace(self.flow, policy=replace(policy, weights=weights["policy"]))
        gain, reward = self.walked(flow, batch, config.exploration)
        return jnp.mean((weights["log_z"] + gain - self.beta * jnp.log(reward)) ** 2)

    def check(self, batch) -> None:
        # The paths that were walked are gone; where rewards are not positive, others find such ones too.
        keys = jnp.concatenate([jax.random.split(key, 64) for key in batch[:16]])
        self.checked(self.flow, keys, 1.0)

    def checked(self, flow: Flow, keys, exploration: float) -> tuple[jax.Array, jax.Array]:
        """As `walked`; raises ParameterError unless all rewards are positive."""
        gain, reward = _walked(self, flow, keys, exploration)
        check_rewards(reward)
        return gain, reward

    def walked(self, flow: Flow, keys, exploration) -> tuple[jax.Array, jax.Array]:
        """log P_F - log P_B, and R, of paths [n], one a key."""
        place = flow.environment if self.graph is None else self.graph
        table = None if self.graph is None else of_states(flow.actions, flow.environment)

        def actions(flow, table, state):
            return flow.actions(state) if table is None else jax.tree.map(lambda a: a[state], table)

        fixed = jax.lax.stop_gradient((flow, table))

        def one(key):
            policy = lambda state: explored(actions(*fixed, state).forward, place.legal(state), exploration)
            path = walk(key, place, policy, flow.environment.max_length)
            last = path.last if table is None else flow.environment.state_of(path.last)
            return log_weight(path, jax.vmap(lambda state: actions(flow, table, state))(path.states)), self.reward(last)

        return jax.vmap(one)(keys)


@jax.jit
def _walked(task: Balance, flow: Flow, keys, exploration):
    return task.walked(flow, keys, exploration)


@own_errors()
def train(
    rng_key: jax.Array,
    environment: Environment,
    reward: Reward,
    *,
    beta: float = 1.0,
    network: Network | None = None,
    training: FlowTraining | None = None,
    name: str | None = None,
    checkpoint_path: str | FilePath | None = None,
    checkpoint_every_seconds: float = 60.0,
    progress_bar: bool = True,
) -> Flow:
    """Train a flow whose objects x have the probability R(x)^beta / Z, by trajectory balance.

    Args:
        rng_key: JAX random key.
        environment: What is built, step by step.
        reward: R, a positive function of one terminal state in JAX; see `on_host` for functions in Python.
        beta: Power of the reward.
        network: Architecture of the policies; `PolicyNetwork` by default, which leaves the backward policy uniform.
        training: Optimisation settings.
        name: Name for formulas.
        checkpoint_path, checkpoint_every_seconds, progress_bar: As for `nd.fit`, interrupts and resumption included.

    Returns:
        Flow, with the moving average of its weights.

    Raises:
        ParameterError: if a reward that is met is zero, negative, NaN or infinite; for an environment whose actions
            do not fit together, in any state or, where they cannot be listed, along random paths; for a reward that
            was made for another beta or environment.
        ArgumentTypeError, ShapeError: for a reward that is no number of one state in JAX, and an environment whose
            methods return other shapes or types than they must.
        CheckpointError: if `checkpoint_path` belongs to another run.
    """
    check_untraced("nd.gflownet.train", rng_key)
    make_room()
    rng_key, beta = check_key(rng_key), check_number("beta", beta, 0.0, ends="()")
    check_name(name)
    check_environment(environment)
    check_reward(environment, reward, beta)
    training, network = training or FlowTraining(), network or PolicyNetwork()
    check_instance("training", training, FlowTraining)
    check_network(network)
    if not is_enumerable(environment):
        check_paths(environment)
    init_key, first_key, step_key = jax.random.split(rng_key, 3)
    _, weights = network.build(environment, init_key)
    flow = Flow(environment, NetworkPolicy(weights, network), jnp.zeros(()), name)
    task = Balance(flow, traced_reward(environment, reward), beta, _graph(environment, training.batch_size))
    # Of the first policy's paths, without bias.
    gain, rewards = task.checked(flow, jax.random.split(first_key, NUM_FIRST), 0.0)
    first = log_mean(beta * jnp.log(rewards) - gain).log_prob
    # Read only where there is a file to keep: what runs in Python has no digest.
    identity = {} if checkpoint_path is None else {
        "kind": "flow training", "environment": repr(environment), "reward": identity_of(reward, task.reward),
        "network": repr(network), "training": dataclasses.asdict(training), "beta": beta,
        "rng_key": fingerprint(rng_key), **versions(),
    }  # fmt: skip
    found = optimise(
        step_key, task, {"policy": weights, "log_z": first}, training,
        Keeper(checkpoint_path, identity, checkpoint_every_seconds), name=name or "flow", progress_bar=progress_bar,
    )  # fmt: skip
    return Flow(environment, NetworkPolicy(found["policy"], network), found["log_z"], name)


def _graph(environment: Environment, batch_size: int) -> Graph | None:
    """The tables to walk in, where all states are no more than the places of a batch's paths."""
    if not is_enumerable(environment):
        return None
    graph = graph_of(environment)
    return graph if graph.num_states <= batch_size * environment.max_length else None


def traced_reward(environment: Environment, reward: Reward) -> Traced:
    """The reward as it computes now; one number of one state, or ShapeError."""
    return trace(lambda state: number_of(reward, state), _like(environment), differentiated=False)


def _like(environment: Environment) -> Any:
    return jax.eval_shape(environment.initial_state)


def identity_of(reward: Reward, program: Traced) -> str:
    """What a checkpoint knows a reward by: its program, or the name of what runs on the host."""
    return (
        f"on the host: {reward.name}"
        if isinstance(reward, on_host)
        else fingerprint((program.program, program.captured))
    )
