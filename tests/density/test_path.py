"""What a log density gains along a path, by its score alone: against closed forms, and the laws that it obeys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import ScoreOf, gaussian, mixture, network

import numpyro_diffusion as nd
from numpyro_diffusion.density.path import EXACT_SIZE, PROBES, Place, divergence, draw_probes, increment, lobatto

KEY = jax.random.key(0)
# A fresh composition traces for seconds: one program for all.
gain = jax.jit(increment, static_argnames="num_nodes")
X = np.array([[0.3, -0.4], [-0.9, 0.6], [1.4, 0.1]])


def places(x, y, t, s):
    return Place(jnp.asarray(x, float), jnp.asarray(t, float)), Place(jnp.asarray(y, float), jnp.asarray(s, float))


@pytest.mark.parametrize("num_nodes", range(2, 9))
def test_lobatto_is_exact_for_polynomials_of_degree_2n_minus_3(num_nodes):
    nodes, weights = lobatto(num_nodes)
    assert nodes[0] == 0 and nodes[-1] == 1 and len(nodes) == num_nodes
    for degree in range(2 * num_nodes - 2):
        np.testing.assert_allclose(weights @ nodes**degree, 1 / (degree + 1), rtol=1e-12)
    beyond = 2 * num_nodes - 2
    assert abs(weights @ nodes**beyond * (beyond + 1) - 1) > 1e-9


@pytest.mark.parametrize("schedule", [nd.VariancePreserving.cosine(), nd.VarianceExploding(), "flow"])
def test_increments_are_differences_of_log_densities(schedule):
    p = mixture(schedule=nd.NoiseSchedule.linear_flow() if schedule == "flow" else schedule)
    score = ScoreOf(p)
    for r, r_to, move in [(0.5, 0.4, 0.3), (2.0, 1.5, 0.5), (0.3, 0.3, 0.4), (1.0, 0.6, 0.0), (20.0, 12.0, 4.0)]:
        t, s = (p.schedule.time(v) for v in (r, r_to))
        alpha, alpha_to = p.schedule.alpha(t), p.schedule.alpha(s)
        y = X[:, None] * max(1.0, r)
        for start, end in (
            places(y[0, 0] * alpha, (y[0, 0] + move) * alpha_to, t, s),
            places(y[1, 0] * alpha, (y[1, 0] - move) * alpha_to, t, s),
        ):
            expected = p.log_density(*end) - p.log_density(*start)
            np.testing.assert_allclose(gain(score, KEY, start, end, num_nodes=8), expected, atol=2e-3)


def test_more_nodes_are_more_exact():
    p = mixture()
    start, end = places(X[0], X[1], 0.3, 0.22)
    exact = p.log_density(*end) - p.log_density(*start)
    errors = [abs(float(gain(ScoreOf(p), KEY, start, end, num_nodes=n) - exact)) for n in (3, 5, 8)]
    assert errors[0] > 3 * errors[1] > 0 and errors[2] < 2e-3


def test_increments_add_up_along_a_path_and_change_sign_with_its_direction():
    # One line in y, affine in r: a place between lies on it.
    score, schedule = ScoreOf(mixture()), mixture().schedule
    ratios, y, y_to = np.array([0.6, 0.5, 0.4]), np.array([0.3, 0.2]), np.array([0.5, -0.1])
    t = [schedule.time(r) for r in ratios]
    x = [schedule.alpha(t[i]) * v for i, v in enumerate((y, (y + y_to) / 2, y_to))]
    first, middle, last = (Place(jnp.asarray(a, float), b) for a, b in zip(x, t, strict=True))
    there = [float(gain(score, KEY, *ends, num_nodes=8)) for ends in ((first, middle), (middle, last), (first, last))]
    back = float(gain(score, KEY, last, first, num_nodes=8))
    assert abs(there[2]) > 0.1
    np.testing.assert_allclose(there[0] + there[1], there[2], atol=1e-4)
    np.testing.assert_allclose(back, -there[2], atol=1e-4)


def test_a_learnt_score_is_its_own_way_back():
    # Whatever the score: the quadrature is symmetric.
    start, end = places(X[0], X[1], 0.4, 0.3)
    there, back = (float(gain(network("score"), KEY, *ends)) for ends in ((start, end), (end, start)))
    assert abs(there) > 0.05
    np.testing.assert_allclose(back, -there, rtol=1e-3, atol=1e-4)


def test_below_its_resolution_a_density_stays_what_it_is():
    p = ScoreOf(mixture(), floor=0.1)
    s, t = p.schedule.time(0.01), p.schedule.time(0.05)
    start, end = Place(jnp.asarray(X[0] * p.schedule.alpha(t)), t), Place(jnp.asarray(X[0] * p.schedule.alpha(s)), s)
    gained = float(gain(p, KEY, start, end))
    np.testing.assert_allclose(gained, -2 * np.log(p.schedule.alpha(s) / p.schedule.alpha(t)), atol=1e-5)
    np.testing.assert_allclose(gain(p, KEY, *places(X[0], X[0], 0.0, 0.0)), 0.0, atol=1e-6)


def test_increments_of_formulas_are_those_of_their_values():
    p, q = mixture("p"), gaussian((0.5, 0.2), ((0.6, 0.1), (0.1, 0.8)), "q")
    exact, scores = p**1.5 * q / (p * q) ** 0.3, ScoreOf(p, "p") ** 1.5 * q / (ScoreOf(p, "p2") * ScoreOf(q)) ** 0.3
    assert scores.has_increments and not scores.has_log_density
    start, end = places(X[0], X[0] + 0.2, 0.35, 0.32)
    expected = exact.log_density(*end) - exact.log_density(*start)
    found = jax.jit(lambda d, k, a, b: d.increment(k, a, b))(scores, KEY, start, end)
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_mixtures_of_scores_have_no_increments():
    p, q = ScoreOf(mixture(), "p"), ScoreOf(gaussian(), "q")
    assert not (0.5 * p + 0.5 * q).has_increments and not (p * (0.5 * p + 0.5 * gaussian())).has_increments
    assert (p * (0.5 * mixture("m") + 0.5 * gaussian(name="g"))).has_increments and (p * q).has_increments


def wide(size, seed=0):
    """A Gaussian in many dimensions, of variances that differ hundredfold along axes of its own."""
    draw = np.random.default_rng(seed)
    axes = np.linalg.qr(draw.normal(size=(size, size)))[0]
    return gaussian(draw.normal(size=size), axes * np.geomspace(0.05, 5.0, size) @ axes.T)


def test_divergences_are_exact_in_few_dimensions():
    assert draw_probes(KEY, EXACT_SIZE) is None and draw_probes(KEY, EXACT_SIZE + 1).shape == (PROBES, EXACT_SIZE + 1)
    p = mixture()
    score = lambda y: jax.grad(p.log_density)(y, 0.3)
    value, found = divergence(score, jnp.asarray(X[0]), None)
    np.testing.assert_allclose(found, [jnp.trace(jax.jacfwd(score)(jnp.asarray(X[0])))], rtol=1e-5)
    np.testing.assert_allclose(value, score(jnp.asarray(X[0])), rtol=1e-6)


def test_probes_are_exact_for_gaussians_and_unbiased_without_their_control_variate():
    p, size = wide(EXACT_SIZE + 6), EXACT_SIZE + 6
    y, t = jax.random.normal(jax.random.key(1), (size,)), 0.3
    score = lambda y: jax.grad(p.log_density)(y, t)
    exact = -float(jnp.sum(1 / p.gaussian(t).variance))
    probes = draw_probes(KEY, size, 400)
    found = np.asarray(jax.jit(lambda y: divergence(score, y, probes, p.gaussian(t))[1])(y))
    np.testing.assert_allclose(found, exact, rtol=1e-3)
    plain = np.asarray(jax.jit(lambda y: divergence(score, y, probes)[1])(y))
    assert plain.std() > 0.01 * abs(exact)
    assert abs(plain.mean() - exact) < 5 * plain.std() / np.sqrt(len(probes))


def test_increments_of_gaussians_need_no_luck_in_many_dimensions():
    p = wide(EXACT_SIZE + 6)
    x, t, s = jax.random.normal(jax.random.key(1), (EXACT_SIZE + 6,)), p.schedule.time(0.6), p.schedule.time(0.5)
    start, end = Place(x, t), Place(1.05 * x, s)
    expected = float(p.log_density(*end) - p.log_density(*start))
    found = [float(gain(ScoreOf(p), jax.random.key(seed), start, end, num_nodes=5)) for seed in range(2)]
    np.testing.assert_allclose(found, expected, atol=0.02)
