"""Environments: edges forwards and backwards, numbers of states, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_among

from numpyro_diffusion import gflownet
from numpyro_diffusion.errors import ParameterError
from numpyro_diffusion.gflownet.graph import graph_of

ENVIRONMENTS = [
    gflownet.Hypergrid(1, 2), gflownet.Hypergrid(3, 4), gflownet.Sequences(4, 3), gflownet.Sequences(1, 3),
]  # fmt: skip


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=repr)
def test_numbers_are_those_of_states(environment):
    count = environment.num_states
    states = gflownet.every_state(environment)
    np.testing.assert_array_equal(jax.vmap(environment.index)(states), np.arange(count))
    assert len(np.unique(np.asarray(states), axis=0)) == count
    features = jax.vmap(environment.features)(states)
    assert len(np.unique(np.asarray(features), axis=0)) == count


@pytest.mark.parametrize("environment", quick_among(ENVIRONMENTS, {ENVIRONMENTS[1]}), ids=repr)
def test_edges_agree(environment):
    # `graph_of` checks that steps and steps back are the same edges; here are their numbers.
    graph = graph_of(environment)
    assert graph.forward[:, :-1].sum() == graph.backward.sum()
    assert not graph.backward[graph.initial].any()
    assert graph.forward.any(axis=1).all()


def test_words():
    environment = gflownet.Sequences(3, 4)
    state = environment.initial_state()
    for action in (2, 4 + 1, 3):
        assert environment.legal(state)[action]
        state = environment.step(state, action)
    np.testing.assert_array_equal(state, [1, 2, 3])
    np.testing.assert_array_equal(environment.legal(state), [False] * 8 + [True])
    np.testing.assert_array_equal(environment.step_back(state, 1), [2, 3, -1])


def test_motif_reward():
    reward = gflownet.motif_reward("GT", sharpness=1.0)
    words = jnp.array([[0, 2, 3, 0], [0, 2, 0, 0], [0, 0, 1, 1]])
    np.testing.assert_allclose(jax.vmap(reward)(words), np.exp([2, 1, 0]), rtol=1e-6)


def test_circles_are_high_inside():
    for number, centre in zip((1, 2, 3), ([-0.3, 0.0], [0.15, 0.26], [0.15, -0.26]), strict=True):
        reward = gflownet.circle(number)
        assert reward(jnp.array(centre)) > 5
        assert reward(-3 * jnp.array(centre)) == pytest.approx(0.1)


@dataclasses.dataclass(frozen=True)
class Broken(gflownet.Hypergrid):
    """A grid with one thing wrong."""

    fault: str = ""

    def index(self, state):
        number = super().index(state)
        wrong = {"reversed": self.num_states - 1 - number, "shifted": number + 1, "merged": number // 2 * 2}
        return wrong.get(self.fault, number)

    @property
    def max_length(self):
        return super().max_length - (self.fault == "longer")

    def step(self, state, action):
        return (state + (jnp.arange(self.dim) == action)) % (self.side if self.fault == "circles" else 1 << 20)

    def legal(self, state):
        if self.fault == "circles":
            return jnp.ones(self.dim + 1, bool)
        return super().legal(state).at[-1].set(self.fault not in ("endless", "stuck"))

    def legal_backward(self, state):
        return state > (1 if self.fault == "edges" else 0)

    def redoing(self, state, backward_action):
        return (backward_action + (self.fault == "redoing")) % self.dim


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("circles", "circles"), ("longer", "max_length"), ("endless", "terminal state"), ("edges", "not undone"),
        ("redoing", "not undone"), ("reversed", "index and state_of .* the initial state, of number 8"),
        ("shifted", "index and state_of must be inverse"), ("merged", r"inverse.*; \[1, 0\], of number 2, is not"),
    ],
)  # fmt: skip
def test_broken_environments(fault, what):
    with pytest.raises(ParameterError, match=what):
        gflownet.Flow.exact(Broken(2, 3, fault), lambda state: 1.0)


def test_settings():
    with pytest.raises(ParameterError, match="side"):
        gflownet.Hypergrid(2, 1)
    assert gflownet.Hypergrid(10, 30).num_states is None
