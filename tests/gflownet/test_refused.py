"""What newcomers get wrong: rewards, environments, states and settings that are refused, each with a remedy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flows import GRID, exact

import numpyro_diffusion as nd
from numpyro_diffusion import gflownet
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError, ShapeError
from numpyro_diffusion.gflownet.contract import check_environment, check_paths

KEY = jax.random.key(0)
FEW = gflownet.FlowTraining(num_steps=1, batch_size=2)
BOTH = pytest.mark.parametrize("make", [gflownet.Flow.exact, lambda *a, **k: gflownet.train(KEY, *a, **k)])


@BOTH
@pytest.mark.parametrize(
    "reward, error, text",
    [
        (3.0, ArgumentTypeError, "function of one state"),
        (lambda state: None, ArgumentTypeError, "one number"),
        (lambda state: "a", ArgumentTypeError, "one number"),
        (lambda state: 1j + state.sum(), ArgumentTypeError, "real"),
        (lambda state: jnp.ones(1), ShapeError, "one number"),
        (lambda state: np.asarray(state).sum() + 1.0, ArgumentTypeError, "on_host"),
        (lambda state: 1.0 if state[0] > 2 else 2.0, ArgumentTypeError, "jnp.where"),
    ],
)
def test_rewards_that_are_none(make, reward, error, text):
    with pytest.raises(error, match=text):
        make(GRID, reward)


@BOTH
def test_what_a_function_on_the_host_raises_is_raised(make):
    def strict(states):
        raise KeyError("no such state in my table")

    with pytest.raises(KeyError, match="my table"):
        make(GRID, gflownet.on_host(strict, "strict"))


def test_circles_are_in_the_plane():
    cube = gflownet.Hypergrid(3, 4)
    with pytest.raises(ShapeError, match=r"z \[2\]"):
        gflownet.Flow.exact(cube, cube.reward(gflownet.circle(1)))


def test_flows_are_not_annealed():
    with pytest.raises(ArgumentTypeError, match=r"nd\.gflownet\.sample"):
        nd.anneal(KEY, exact(0))


def test_rewards_of_integers_and_truth_values():
    for reward in (lambda state: state.sum() + 1, lambda state: state.sum() >= 0, lambda state: 3):
        assert gflownet.Flow.exact(GRID, reward).log_sum() == pytest.approx(0, abs=1e-5)


@BOTH
def test_a_reward_for_another_power_or_environment(make):
    reward = gflownet.on_host(lambda states: np.ones(len(states)), "one")
    reward.beta = 4.0
    with pytest.raises(ParameterError, match=r"beta=reward\.beta"):
        make(GRID, reward, beta=8.0)
    reward.beta, reward.environment = None, gflownet.Hypergrid(2, 3)
    with pytest.raises(ParameterError, match="environment it was made for"):
        make(GRID, reward)


@pytest.mark.parametrize("function, name", [(3, "a"), (np.sum, None), (np.sum, ""), (np.sum, 3)])
def test_on_host_needs_a_function_and_a_name(function, name):
    with pytest.raises(ParameterError):
        gflownet.on_host(function, name)


def test_states_that_32_bits_do_not_hold():
    with pytest.raises(ShapeError, match="can hold"):
        exact(0).log_prob(np.array([2**40, 1]))
    with pytest.raises(ShapeError, match="states must be"):
        exact(0).log_prob([2**40, 1])


def test_exact_samples_of_another_distribution():
    with pytest.raises(ParameterError, match="draws of the composition"):
        gflownet.bdmc(KEY, exact(0), np.array([[99, 99], [1, 2]]), num_samples=2)


@pytest.mark.parametrize("flows, labels, text", [
    ([exact(0)], [1], "at least two"),
    (exact(0), [1], "at least two"),
    ([exact(0), exact(1)], [1] * 30, "fewer labels"),
])  # fmt: skip
def test_guided_by_what_it_cannot_tell_apart(flows, labels, text):
    with pytest.raises(ParameterError, match=text):
        gflownet.guided(KEY, flows, labels)


@pytest.mark.parametrize("motif", ["X", "", (), 5, None, (1.5,), (-1,)])
def test_motifs_that_are_none(motif):
    with pytest.raises(ParameterError, match="motif"):
        gflownet.motif_reward(motif)


def test_motif_longer_than_the_words():
    with pytest.raises(ParameterError, match="no longer than the words"):
        gflownet.motif_reward("ACGT")(jnp.zeros(3, int))


@pytest.mark.parametrize("network", [3, gflownet.PolicyNetwork])
def test_networks_that_are_none(network):
    with pytest.raises(ArgumentTypeError, match="build"):
        gflownet.train(KEY, GRID, lambda state: 1.0, network=network, training=FEW)


@dataclasses.dataclass(frozen=True)
class Subsets(gflownet.Environment):
    """Of four things at most three."""

    num_actions = 5
    num_backward_actions = 4
    max_length = 4
    initial_state = lambda self: jnp.zeros(4, bool)
    step = lambda self, state, action: state | (jnp.arange(4) == action)
    step_back = lambda self, state, action: state & (jnp.arange(4) != action)
    legal = lambda self, state: jnp.append(~state & (state.sum() < 3), True)
    legal_backward = lambda self, state: state
    undoing = lambda self, state, action: action
    redoing = lambda self, state, action: action
    features = lambda self, state: 1.0 * state


def subsets(**changed):
    return dataclasses.dataclass(frozen=True)(type("Subsets", (Subsets,), changed))()


def test_sound_environments_pass():
    for environment in (Subsets(), GRID, gflownet.Sequences(3, 2)):
        check_environment(environment)
        check_paths(environment)


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("changed, text", [
    ({"legal": lambda self, state: jnp.append(~state & (state.sum() < 3), False)}, "at least one action must be legal"),
    ({"max_length": 2}, "paths must end within max_length"),
    ({"undoing": lambda self, state, action: 0 * action}, "is not undone"),
    ({"step_back": lambda self, state, action: state}, "is not undone"),
    ({"redoing": lambda self, state, action: action + 100}, "is not undone"),
    ({"legal_backward": lambda self, state: state & (jnp.arange(4) < 3)}, "is not undone"),
    ({"legal_backward": lambda self, state: state | (state.any() & (jnp.arange(4) < 1))}, "undoes no step"),
    ({"legal_backward": lambda self, state: jnp.ones(4, bool)}, "initial state"),
])  # fmt: skip
def test_environments_whose_edges_do_not_fit(changed, text):
    # Their states cannot be listed: without a check a flow would be trained, and its estimates be wrong.
    with pytest.raises(ParameterError, match=text):
        gflownet.train(KEY, subsets(**changed), lambda state: 1.0, training=FEW)


@pytest.mark.parametrize("changed, error, text", [
    ({"num_actions": 0}, ParameterError, "num_actions"),
    ({"max_length": 3.0}, ParameterError, "max_length"),
    ({"num_states": 2**40}, ParameterError, "num_states None"),  # JAX ended the process
    ({"num_states": 16}, ArgumentTypeError, "must have index"),
    ({"legal": lambda self, state: ~state}, ShapeError, "legal of"),
    ({"legal": lambda self, state: jnp.ones(5, int)}, ShapeError, "legal of"),
    ({"step": lambda self, state, action: 1.0 * state}, ShapeError, "step of"),
    ({"undoing": lambda self, state, action: 1.0 * action}, ShapeError, "undoing of"),
    ({"legal": lambda self, state: jnp.ones(5 if state[0] else 6, bool)}, ArgumentTypeError, "JAX can trace"),
    ({"__hash__": None}, ArgumentTypeError, "frozen=True"),
])  # fmt: skip
def test_environments_of_other_shapes(changed, error, text):
    environment = type("Subsets", (Subsets,), changed)()
    with pytest.raises(error, match=text):
        check_environment(environment)
