"""Flows as densities: exactness, estimates, samples, the algebra, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flows import GRID, exact, flat, shares, unlisted, wrong

import numpyro_diffusion as nd
from numpyro_diffusion import gflownet
from numpyro_diffusion.errors import ArgumentTypeError, NotKnownError, ParameterError, ShapeError

STATES = gflownet.every_state(GRID)


def test_exact_flow_has_its_reward():
    reward = np.asarray(jax.vmap(GRID.reward(gflownet.circle(1)))(STATES))
    np.testing.assert_allclose(np.exp(exact(0).log_prob(STATES)), reward / reward.sum(), rtol=2e-5)
    assert float(exact(0).log_z) == pytest.approx(np.log(reward.sum()), abs=1e-5)
    assert exact(0).log_sum() == pytest.approx(0, abs=1e-5)


def test_beta_is_a_power():
    hot = gflownet.Flow.exact(GRID, GRID.reward(gflownet.circle(1)), beta=2.0)
    np.testing.assert_allclose(shares(hot)[0], shares(exact(0) ** 2)[0], rtol=1e-4)


def test_exact_flow_balances_in_detail():
    # u(s) P_F(s' | s) = u(s') P_B(s | s') on every edge.
    from numpyro_diffusion.gflownet.graph import graph_of, log_reaching

    graph, (forward, backward) = graph_of(GRID), exact(0).tabulated()
    reaching = log_reaching(graph, forward, max_length=GRID.max_length)
    ahead, back = reaching[:, None] + forward[:, :-1], reaching[graph.child] + backward[graph.child, graph.undo]
    legal = graph.forward[:, :-1]
    np.testing.assert_allclose(ahead[legal], back[legal], atol=1e-5)


def test_log_prob_sums_over_paths():
    # By enumeration of all paths to a small x.
    flow, target = wrong(0), (1, 2)
    forward, total = np.asarray(flow.tabulated().forward, np.float64), 0.0
    for order in set(itertools.permutations([0] * target[0] + [1] * target[1])):
        state, log_path = np.zeros(2, int), 0.0
        for action in order:
            log_path += forward[state[0] * GRID.side + state[1], action]
            state[action] += 1
        total += np.exp(log_path + forward[state[0] * GRID.side + state[1], -1])
    assert float(flow.log_prob(jnp.array(target))) == pytest.approx(np.log(total), abs=1e-5)


FORMULA = unlisted(wrong(0)) * unlisted(wrong(1)) ** 0.5


@pytest.mark.parametrize("flow", [unlisted(wrong(0)), pytest.param(FORMULA, marks=pytest.mark.slow)], ids=repr)
def test_estimates_agree_with_errors(flow):
    value, error = flow.estimated_log_prob(STATES[:20], num_paths=500)
    assert np.all(np.abs(value - shares_of(flow)[:20]) < 5 * error + 1e-5)
    assert np.any(error > 1e-4)


def shares_of(flow):
    """Exact log probabilities of a flow over an unlisted grid, by the same one where states are listed."""
    listed = [gflownet.Flow(GRID, m.policy, m.log_z, m.name) for m in flow.models]
    values = jnp.stack([m.log_probs() for m in listed])
    return np.asarray(jax.vmap(flow.combined, in_axes=1)(values))


def test_balanced_flows_are_estimated_without_error():
    value, error = unlisted(exact(0)).estimated_log_prob(STATES, num_paths=4)
    np.testing.assert_allclose(value, exact(0).log_prob(STATES), atol=2e-5)
    np.testing.assert_allclose(error, 0, atol=1e-4)


@pytest.mark.parametrize("flow", [wrong(0), unlisted(wrong(0))], ids=["listed", "unlisted"])
def test_samples_are_draws(flow):
    count = 20_000
    index = np.asarray(jax.vmap(GRID.index)(flow.sample(jax.random.key(3), count)))
    expected = shares(wrong(0))[0]
    found = np.bincount(index, minlength=GRID.num_states) / count
    assert np.all(np.abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / count) + 1e-6)


def test_algebra_is_that_of_densities():
    p, q, r = (np.exp(np.asarray(exact(i).log_probs(), np.float64)) for i in range(3))
    f, g, h = exact(0), exact(1), exact(2)
    for flow, wanted, text in [
        (f * g, p * q, "p * q"),
        (0.25 * f + 0.75 * g, 0.25 * p + 0.75 * q, "(0.25 * p + 0.75 * q)"),
        (f**2 / h**0.5, p**2 / r**0.5, "p ** 2 / r ** 0.5"),
        (nd.product(f, g, h), p * q * r, "p * q * r"),
        (nd.mixture(f, g, h), (p + q + r) / 3, "(0.3333 * p + 0.3333 * q + 0.3333 * r)"),
        (nd.harmonic_mean(f, g, alpha=0.3), p * q / (0.3 * p + 0.7 * q), "p * q / (0.3 * p + 0.7 * q)"),
        (nd.contrast(f, g, alpha=0.3), p**2 / (0.3 * p + 0.7 * q), "p ** 2 / (0.3 * p + 0.7 * q)"),
        (nd.negation(f, g), p / q**0.5, "p / q ** 0.5"),
        (nd.sculpt([f, g, h], [1, 2, 3]), 9 * p * q * r / (p + q + r) ** 2, None),
    ]:  # fmt: skip
        np.testing.assert_allclose(np.exp(flow.log_prob(STATES)), wanted, rtol=1e-4)
        assert text is None or repr(flow) == text


def test_with_a_flat_flow():
    np.testing.assert_allclose(shares(exact(0) * flat())[0], shares(exact(0))[0], rtol=1e-5)
    assert (exact(0) * flat()).log_sum() == pytest.approx(-np.log(36), abs=1e-5)


def test_under_jit_as_pytree_and_batched():
    composed = nd.harmonic_mean(exact(0), exact(1))
    direct = composed.log_prob(STATES)
    np.testing.assert_allclose(jax.jit(lambda flow, x: flow.log_prob(x))(composed, STATES), direct, atol=1e-5)
    again = jax.tree.unflatten(jax.tree.structure(composed), jax.tree.leaves(composed))
    assert repr(again) == repr(composed)
    np.testing.assert_allclose(composed.log_prob(STATES.reshape(6, 6, 2)).reshape(-1), direct, atol=1e-6)
    assert composed.log_prob(np.array([2, 3], np.int64)).shape == ()


@pytest.mark.slow
def test_objects_that_are_none():
    words = gflownet.Sequences(2, 2)
    flow = gflownet.Flow.exact(words, gflownet.motif_reward((0, 1)))
    assert np.isneginf(flow.log_prob(words.initial_state()))
    assert np.all(np.isneginf(exact(0).log_prob(jnp.array([[0, 7], [-1, 3]]))))
    assert flow.log_sum() == pytest.approx(0, abs=1e-5)


def test_refused():
    p = exact(0)
    with pytest.raises(ParameterError, match="one environment"):
        p * gflownet.Flow.exact(gflownet.Hypergrid(2, 3), lambda s: 1.0)
    normal = nd.exact.GaussianMixture(np.zeros((1, 2)), np.eye(2)[None], name="n")
    with pytest.raises(ArgumentTypeError, match="one kind"):
        p * normal
    with pytest.raises(ArgumentTypeError, match="one kind"):
        nd.harmonic_mean(normal, p)
    with pytest.raises(ShapeError, match="shapes"):
        p.log_prob(jnp.zeros((3, 3), int))
    with pytest.raises(ShapeError, match="types"):
        p.log_prob(jnp.zeros((3, 2)))
    with pytest.raises(NotKnownError, match="listed"):
        unlisted(p).log_probs()
    with pytest.raises(NotKnownError, match="listed"):
        gflownet.Flow.exact(gflownet.Hypergrid(10, 30), lambda s: 1.0)
    with pytest.raises(ArgumentTypeError, match="Environment"):
        gflownet.Flow.exact("grid", lambda s: 1.0)


@pytest.mark.parametrize(
    ("value", "what"), [(0.0, "1 zero"), (-1.0, "1 negative"), (np.nan, "1 NaN"), (np.inf, "1 infinite")]
)
def test_rewards_that_are_not_positive(value, what):
    with pytest.raises(ParameterError, match=rf"{what}.*\[2, 1\]"):
        gflownet.Flow.exact(GRID, lambda s: jnp.where(jnp.all(s == jnp.array([2, 1])), value, 1.0))


def test_rewards_of_another_shape():
    with pytest.raises(ShapeError, match="one number"):
        gflownet.Flow.exact(GRID, lambda s: s * 1.0 + 1)
