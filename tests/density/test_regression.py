"""The Gaussian that follows a condition of numbers: what it finds, and what stands on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError, ShapeError

KEY = jax.random.key(0)
TURN = np.linalg.qr(np.random.default_rng(1).normal(size=(2, 2)))[0]
UNTRAINED = {
    "network": nd.NetworkConfig(width=8, num_blocks=1), "progress_bar": False,
    "training": nd.TrainingConfig(num_steps=1, batch_size=8, learning_rate=1e-9),
}  # fmt: skip


def drawn(count: int, seed: int):
    """Points [n, 2] whose mean is curved and whose spread follows the first of three numbers."""
    rng = np.random.default_rng(seed)
    c = rng.normal(size=(count, 3)) * [1.0, 10.0, 0.1] + [0.0, 500.0, 3.0]
    x = mean(c) + (np.exp(0.4 * c[:, :1]) * [0.3, 0.05] * rng.normal(size=(count, 2))) @ TURN.T
    return x, c


def mean(c):
    return np.stack([np.sin(2 * c[:, 0]), (c[:, 1] - 500) / 10 + c[:, 0] ** 2], axis=1)


def test_mean_and_spread_follow_the_condition():
    base = nd.RegressionBase.fit(*drawn(5000, 0))
    c = drawn(500, 1)[1]
    found = jax.vmap(base.moments)(jnp.asarray(c))
    assert np.sqrt(np.mean((found.mean - mean(c)) ** 2)) < 0.15
    vectors = np.asarray(base.vectors)
    np.testing.assert_allclose(np.abs(vectors.T @ TURN), np.eye(2)[::-1], atol=0.15)
    off = np.log(np.asarray(found.variance)[:, 1] / (0.3 * np.exp(0.4 * c[:, 0])) ** 2)
    assert np.sqrt(np.mean(off**2)) < 0.15
    assert "of 2 dimensions on 3 numbers" in repr(base)


def test_far_from_the_data_means_go_on_in_line_and_spreads_stay():
    rng = np.random.default_rng(0)
    c = rng.normal(size=(4000, 1))
    base = nd.RegressionBase.fit(2 * c + np.exp(0.5 * c) * rng.normal(size=(4000, 1)), c)
    border, beyond = (base.moments(jnp.array([value])) for value in (c.max(), 30.0))
    assert abs(beyond.mean[0] - 60) < 6
    np.testing.assert_allclose(beyond.variance, border.variance, rtol=1e-5)


@pytest.mark.parametrize("count", [3, 10, 40])
def test_few_rows_have_little_more_than_a_line(count):
    x, c = drawn(count, 2)
    found = jax.vmap(nd.RegressionBase.fit(x, c).moments)(jnp.asarray(drawn(50, 3)[1]))
    assert np.all(np.isfinite(found.mean)) and np.all(found.variance > 0)
    assert np.abs(found.mean).max() < 30


def test_many_numbers_beside_few_rows_leave_the_spread_that_other_rows_have():
    rng = np.random.default_rng(0)
    c, others = rng.normal(size=(2, 400, 100))
    x, new = (given[:, :1] + rng.normal(size=(400, 1)) for given in (c, others))
    found = jax.vmap(nd.RegressionBase.fit(x, c).moments)(jnp.asarray(others))
    squares = (new - np.asarray(found.mean)) ** 2 / np.asarray(found.variance)
    assert 0.75 < np.mean(squares) < 1.35


def test_numbers_without_any_effect_and_those_that_never_change():
    rng = np.random.default_rng(0)
    x, c = rng.normal(size=(2000, 1)), np.stack([rng.normal(size=2000), np.full(2000, 7.0)], axis=1)
    found = jax.vmap(nd.RegressionBase.fit(x, c).moments)(jnp.asarray(c[:100]))
    np.testing.assert_allclose(found.mean, 0, atol=0.15)
    np.testing.assert_allclose(found.variance, 1, atol=0.2)


def test_a_density_stands_on_it_at_every_noise_level():
    x, c = drawn(2000, 0)
    p = nd.fit(KEY, x, conditions=c, **UNTRAINED)
    given, t = p.given(c[0]), 0.6
    gaussian, alpha, sigma = p.base.moments(jnp.asarray(c[0])), p.schedule.alpha(t), p.schedule.sigma(t)
    # Untrained, it is the Gaussian nearly; the network's energy moves it little at large noise.
    z, noised = np.asarray(gaussian.mean) * alpha + 0.1, gaussian.noised(alpha, sigma)
    assert abs(given.log_prob(z, t) - noised.log_prob(jnp.asarray(z))) < 1.0
    np.testing.assert_allclose(given.gaussian(t).mean, noised.mean, rtol=1e-4)
    np.testing.assert_allclose(p.gaussian(t).mean, np.asarray(p.mean) * alpha, rtol=1e-4)
    # Numbers may be below zero, traced and differentiated.
    slope = jax.grad(lambda number: p.given(jnp.array([number, 500.0, 3.0])).log_prob(x[0]))(0.3)
    step = [float(p.given(np.array([0.3 + h, 500.0, 3.0])).log_prob(x[0])) for h in (0.01, -0.01)]
    assert abs(slope - (step[0] - step[1]) / 0.02) < 0.05 * abs(slope) + 0.1


def test_it_is_kept_in_files(tmp_path):
    x, c = drawn(100, 0)
    p = nd.fit(KEY, x, conditions=c, **UNTRAINED)
    nd.save(p, tmp_path / "p.safetensors")
    again = nd.load(tmp_path / "p.safetensors")
    assert isinstance(again.base, nd.RegressionBase)
    for condition in (c[0], None):
        np.testing.assert_array_equal(p.given(condition).log_prob(x), again.given(condition).log_prob(x))


def test_a_mixture_without_classes_goes_with_numbers():
    x, c = drawn(200, 0)
    p = nd.fit(KEY, x, conditions=c, base=nd.MixtureBase.fit(x), **UNTRAINED)
    assert np.isfinite(p.given([-1.0, 490.0, 3.0]).log_prob(x[0]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((KEY, np.ones((3, 1))), ArgumentTypeError, "takes points first"),
        ((np.ones((2, 1)), np.ones((2, 1))), ShapeError, "n >= 3"),
        ((np.ones((4, 1)), np.ones(4)), ShapeError, r"conditions\[:, None\]"),
        ((np.ones((4, 1)), np.ones((3, 1))), ShapeError, r"shape \[4, c\]"),
        ((np.full((4, 1), np.nan), np.ones((4, 1))), ParameterError, "points must be finite"),
        ((np.ones((4, 1)), np.full((4, 1), np.inf)), ParameterError, "conditions must be finite"),
    ],
)
def test_what_it_is_fitted_to_is_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        nd.RegressionBase.fit(*arguments)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"conditions": np.ones((100, 2))}, ShapeError, "must know the data's 2 numbers; got 3"),
        ({}, ShapeError, "must know the data's 0 numbers; got 3"),
        ({"conditions": drawn(100, 0)[1], "model": "score"}, ParameterError, "calibrated energy; got a score model"),
        ({"conditions": drawn(100, 0)[1], "parameterisation": "residual"}, ParameterError, "got a RegressionBase"),
    ],
)
def test_a_base_that_does_not_fit_is_refused(settings, error, message):
    x, c = drawn(100, 0)
    with pytest.raises(error, match=message):
        nd.fit(KEY, x, base=nd.RegressionBase.fit(x, c), **settings, **UNTRAINED)
