"""Training by trajectory balance: what it learns, that it goes on after a kill, files, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flows import GRID, Unlisted, exact, shares

from numpyro_diffusion import gflownet
from numpyro_diffusion.errors import CheckpointError, ParameterError, ShapeError
from numpyro_diffusion.gflownet.graph import graph_of, log_reaching

NETWORK = gflownet.PolicyNetwork(width=32)
SHORT = gflownet.FlowTraining(num_steps=20, batch_size=8)
REWARD = GRID.reward(gflownet.circle(1))


@pytest.fixture(scope="module")
def trained():
    training = gflownet.FlowTraining(num_steps=1200, batch_size=64, learning_rate=5e-3)
    return gflownet.train(jax.random.key(0), GRID, REWARD, network=NETWORK, training=training, progress_bar=False)


def quick(environment=GRID, reward=REWARD, training=SHORT, **more):
    network = more.pop("network", NETWORK)
    return gflownet.train(
        jax.random.key(1), environment, reward, network=network, training=training, progress_bar=False, **more
    )


def test_learns_the_reward(trained):
    assert np.sum(np.abs(shares(trained)[0] - shares(exact(0))[0])) < 0.05
    assert float(trained.log_z) == pytest.approx(float(exact(0).log_z), abs=0.05)


def test_balances_in_detail(trained):
    graph, (forward, backward) = graph_of(GRID), trained.tabulated()
    reaching = log_reaching(graph, jnp.where(graph.forward, forward, -jnp.inf), max_length=GRID.max_length)
    ahead, back = reaching[:, None] + forward[:, :-1], reaching[graph.child] + backward[graph.child, graph.undo]
    legal = np.asarray(graph.forward[:, :-1])
    # Weighed by how often an edge is taken; in nats.
    share, gap = np.exp(ahead)[legal], np.abs(ahead - back)[legal]
    assert np.sum(share * gap) / np.sum(share) < 0.05


@pytest.mark.slow
def test_where_states_cannot_be_listed():
    flow = quick(Unlisted(2, 6), network=gflownet.PolicyNetwork(width=16, learn_backward=True))
    states = flow.sample(jax.random.key(0), 10)
    assert np.all(np.isfinite(flow.log_prob(states, num_paths=8)))


@pytest.mark.slow
def test_host_rewards_are_rewards_in_jax():
    seen = []

    def in_python(states):
        seen.append(states.shape)
        return 1.0 + states.sum(-1)

    on_host = quick(reward=gflownet.on_host(in_python, "sum"))
    in_jax = quick(reward=lambda state: 1.0 + jnp.sum(state))
    np.testing.assert_allclose(on_host.log_probs(), in_jax.log_probs(), atol=1e-4)
    assert all(len(shape) == 2 and shape[1] == 2 for shape in seen)


def test_goes_on(tmp_path):
    path = tmp_path / "run.safetensors"
    whole = quick()
    quick(checkpoint_path=path)
    again = quick(checkpoint_path=path)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(CheckpointError, match="reward"):
        quick(reward=lambda state: 1.0 + jnp.sum(state), checkpoint_path=path)
    with pytest.raises(CheckpointError, match="beta"):
        quick(beta=2.0, checkpoint_path=path)


def test_files(tmp_path):
    path = tmp_path / "flow.safetensors"
    flow = quick(name="mine")
    gflownet.save_flow(flow, path)
    again = gflownet.load_flow(path, GRID)
    assert repr(again) == "mine" and float(again.log_z) == float(flow.log_z)
    np.testing.assert_array_equal(again.log_probs(), flow.log_probs())
    with pytest.raises(CheckpointError, match=r"another environment: .*got Hypergrid\(dim=2, side=7.*Give that"):
        gflownet.load_flow(path, gflownet.Hypergrid(2, 7))
    with pytest.raises(CheckpointError, match=r"another network: .*got PolicyNetwork\(width=8.*as network"):
        gflownet.load_flow(path, GRID, network=gflownet.PolicyNetwork(width=8))
    gflownet.save_flow(exact(0), path)
    np.testing.assert_allclose(gflownet.load_flow(path, GRID).log_probs(), exact(0).log_probs(), atol=1e-6)
    with pytest.raises(CheckpointError, match="No such file"):
        gflownet.load_flow(tmp_path / "none.safetensors", GRID)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_rewards_that_are_not_positive(value):
    with pytest.raises(ParameterError, match="positive and finite"):
        quick(reward=lambda state: jnp.where(jnp.sum(state) == 2, value, 1.0))


def test_refused():
    with pytest.raises(ShapeError, match="one number"):
        quick(reward=lambda state: state + 1.0)
    with pytest.raises(ParameterError, match="beta"):
        quick(beta=0.0)
    with pytest.raises(ParameterError, match="environment"):
        quick(environment="grid")
    with pytest.raises(ParameterError, match="exploration"):
        gflownet.FlowTraining(exploration=1.5)
