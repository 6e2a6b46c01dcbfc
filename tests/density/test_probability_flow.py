"""Log densities of score-only models by their probability flow, against closed forms."""

import jax
import numpy as np
import pytest
from counting import compilations
from densities import ScoreOf, gaussian, mixture, network
from density.test_path import wide

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ParameterError, ShapeError

X = np.array([[0.3, -0.4], [-0.9, 0.6], [1.4, 0.1]])


def test_flow_log_prob_is_the_log_density_of_a_mixture():
    p, score = mixture(), ScoreOf(mixture())
    for t in (0.0, 0.3):
        found = score.flow_log_prob(X, t)
        np.testing.assert_allclose(found.log_prob, p.log_prob(X, t), atol=1e-2)
        assert found.log_prob.shape == (3,) and np.all(found.error == 0)
    np.testing.assert_allclose(score.log_prob(X), score.flow_log_prob(X).log_prob)


@pytest.mark.slow
def test_a_mean_that_the_start_does_not_know_is_off_by_as_much_as_is_said():
    m, z, schedule = 0.75, np.array([[3.0, 2.0], [-2.0, -3.0], [0.0, 0.0]]), nd.VarianceExploding()
    score = nd.from_score(lambda x, t: -(x - m) / (1 + schedule.sigma(t) ** 2), (2,), schedule)
    off = score.flow_log_prob(m + z).log_prob + 0.5 * (z**2).sum(1) + np.log(2 * np.pi)
    np.testing.assert_allclose(off, (-m * z / 80 - m**2 / (2 * 80**2)).sum(1), atol=2e-3)


@pytest.mark.slow
def test_shapes_are_those_of_log_prob():
    score, t = ScoreOf(mixture()), np.array([0.2, 0.5, 0.9])
    one, levels = score.log_prob(X[0], 0.5), score.log_prob(X, t)
    assert one.shape == () and levels.shape == (3,)
    np.testing.assert_allclose(levels, mixture().log_prob(X, t), atol=1e-2)
    np.testing.assert_allclose(score.log_prob(X[None, :1], 0.5), one[None, None], atol=1e-4)


def test_under_other_schedules_log_densities_change_by_the_units_alone():
    schedule = nd.VarianceExploding(0.01, 60.0)
    there = ScoreOf(mixture()).with_schedule(schedule).log_prob(X, 0.4)
    np.testing.assert_allclose(there, mixture().with_schedule(schedule).log_prob(X, 0.4), atol=1e-2)


@pytest.mark.slow
def test_formulas_have_the_value_of_their_models_log_densities():
    p, q = mixture("p"), gaussian((0.5, 0.2), ((0.6, 0.1), (0.1, 0.8)), "q")
    s, u = ScoreOf(p, "s"), ScoreOf(q, "u")
    # Of q there is a log density in the second: nothing is integrated for it.
    for found, expected in (
        (s * u**0.5, p * q**0.5), (0.3 * s + 0.7 * q, 0.3 * p + 0.7 * q),
    ):  # fmt: skip
        np.testing.assert_allclose(found.log_prob(X, 0.2), expected.log_prob(X, 0.2), atol=2e-2)


def test_where_there_is_a_log_density_it_is_that():
    found = mixture().flow_log_prob(X, 0.4)
    np.testing.assert_allclose(found.log_prob, mixture().log_prob(X, 0.4), rtol=1e-6)
    assert np.all(found.error == 0)


@pytest.mark.slow
def test_gaussians_are_exact_in_many_dimensions():
    p = wide(70)
    x = p.sample(jax.random.key(2), 2)
    found = ScoreOf(p).flow_log_prob(x, 0.2)
    np.testing.assert_allclose(found.log_prob, p.log_prob(x, 0.2), atol=0.05)
    assert np.all(found.error < 1e-2)


@pytest.mark.slow
def test_the_error_is_that_of_the_probes():
    p = nd.exact.GaussianMixture(np.stack([np.full(70, -0.4), np.full(70, 0.4)]), np.stack([0.3 * np.eye(70)] * 2))
    x, score = p.sample(jax.random.key(2), 1)[0], ScoreOf(p)
    found = [score.flow_log_prob(x, 0.2, rng_key=jax.random.key(seed)) for seed in range(4)]
    again = score.flow_log_prob(x, 0.2, rng_key=jax.random.key(0))
    np.testing.assert_array_equal(again.log_prob, found[0].log_prob)
    errors = np.array([one.error for one in found])
    assert np.all(errors > 0) and len({float(one.log_prob) for one in found}) == 4
    values = np.array([one.log_prob for one in found])
    assert np.all(np.abs(values - float(p.log_prob(x, 0.2))) < 5 * errors + 0.05)


@pytest.mark.slow
def test_conditions_are_read_together():
    model = network("score", condition_size=2)
    a, b = (model.given(np.array(c)) for c in ([1.0, 0.0], [0.0, 1.0]))
    guided = a**2 / b**0.5
    expected = 2 * a.log_prob(X, 0.3) - 0.5 * b.log_prob(X, 0.3)
    np.testing.assert_allclose(guided.log_prob(X, 0.3), expected, atol=2e-2)
    assert np.abs(a.log_prob(X, 0.3) - b.log_prob(X, 0.3)).max() > 1e-3


@pytest.mark.slow
def test_retrained_weights_compile_nothing_anew():
    first, second = network("score", seed=0), network("score", seed=1)
    before = first.log_prob(X, 0.3)
    with compilations() as found:
        after = second.log_prob(X, 0.3)
    assert not found and np.abs(after - before).min() > 1e-3


def test_bad_input():
    score = ScoreOf(mixture())
    with pytest.raises(ShapeError):
        score.log_prob(np.zeros(3))
    with pytest.raises(ParameterError, match=r"\[0, 1\]"):
        score.log_prob(X, 1.5)
    with pytest.raises(ParameterError, match="num_probes"):
        score.flow_log_prob(X, num_probes=1)
    with pytest.raises(ParameterError, match="one JAX key"):
        score.flow_log_prob(X, rng_key=0)
