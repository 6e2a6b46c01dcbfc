"""Metrics obey the laws that define them."""

import numpy as np
import pytest

from numpyro_diffusion.diagnose import metrics


def normal(n, d=2, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def test_log_likelihood_is_the_mean_log_density():
    x = normal(20_000)
    value = metrics.log_likelihood(x, lambda z: -0.5 * np.sum(z**2, -1) - np.log(2 * np.pi))
    # Entropy of N(0, I) in two dimensions; the log density has variance d / 2 = 1.
    assert abs(value - (-1 - np.log(2 * np.pi))) < 5 / np.sqrt(20_000)


def test_mmd_of_equal_sets_vanishes_in_any_order():
    x = normal(700)
    assert metrics.log_mmd2(x, x[::-1], chunk_size=128) < np.log(1e-8)


def test_mmd_is_the_double_sum_symmetric_and_the_same_in_any_chunks():
    x, y = normal(60), normal(60, seed=1) + 0.5
    kernel = lambda a, b: np.mean([np.exp(-np.sum((a[:, None] - b) ** 2, -1) / (2 * h**2)) for h in (0.3, 1.0)], axis=0)
    expected = np.log(kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean())
    for chunk_size in (7, 1000):
        assert metrics.log_mmd2(x, y, (0.3, 1.0), chunk_size=chunk_size) == pytest.approx(expected, abs=1e-5)
    assert metrics.log_mmd2(y, x, (0.3, 1.0)) == pytest.approx(expected, abs=1e-5)


def test_mmd_has_a_floor_for_independent_draws_and_grows_with_a_shift():
    x = normal(2000)
    floor, near, far = (metrics.log_mmd2(x, normal(2000, seed=1) + shift) for shift in (0.0, 0.5, 2.0))
    # The V-statistic's bias, 2 (1 - E k) / n with E k in (0, 1); five times that is far outside its spread.
    assert np.log(0.1 * 2 / 2000) < floor < np.log(5 * 2 / 2000)
    assert floor + 1 < near < far - 1


@pytest.mark.parametrize("d", [1, 2, 10])
def test_sliced_wasserstein_of_a_shift(d):
    x, shift = normal(500, d), np.linspace(1, 2, d)
    expected = np.linalg.norm(shift) / np.sqrt(d)
    assert metrics.sliced_wasserstein2(x, x + shift, num_projections=20_000) == pytest.approx(expected, rel=0.03)
    assert metrics.sliced_wasserstein2(x, x[::-1]) == pytest.approx(0, abs=1e-12)


def test_sliced_wasserstein_is_a_scale_and_a_symmetric_distance():
    x, y = normal(300), normal(300, seed=1) * 2
    assert metrics.sliced_wasserstein2(3 * x, 3 * y) == pytest.approx(3 * metrics.sliced_wasserstein2(x, y))
    assert metrics.sliced_wasserstein2(y, x) == pytest.approx(metrics.sliced_wasserstein2(x, y))


def test_mode_weights_of_known_counts():
    modes = np.array([[-1.0, 0.0], [1.0, 0.0]])
    samples = np.repeat(modes, [25, 75], axis=0) + 0.1 * normal(100)
    assert metrics.mode_weights(samples, modes) == pytest.approx([0.25, 0.75])
    assert metrics.mode_weight_tv(samples, modes, [0.5, 0.5]) == pytest.approx(0.25)
    assert metrics.mode_weight_tv(samples, modes, [0.25, 0.75]) == pytest.approx(0)


def test_mode_variances_against_the_truth_and_twice_the_truth():
    modes, covariance = np.array([[-20.0, 0.0], [20.0, 0.0]]), np.array([[1.0, 0.5], [0.5, 2.0]])
    x = np.concatenate([m + normal(40_000, seed=i) @ np.linalg.cholesky(covariance).T for i, m in enumerate(modes)])
    assert metrics.mode_variance_error(x, modes, covariance) < 1e-2
    # A spread doubled in length: covariance off by three times itself, standard deviations by themselves.
    wide = np.repeat(modes, 40_000, axis=0) + 2 * (x - np.repeat(modes, 40_000, axis=0))
    assert metrics.mode_variance_error(wide, modes, covariance) == pytest.approx(9 * np.sum(covariance**2), rel=0.05)
    expected = 0.5 * np.sqrt(np.trace(covariance))
    assert metrics.mode_std_error(wide, modes, np.stack([covariance] * 2)) == pytest.approx(expected, rel=0.03)


def test_an_empty_mode_counts_as_zero_variance():
    modes = np.array([[0.0, 0.0], [50.0, 0.0]])
    assert metrics.mode_covariances(normal(100), modes)[1] == pytest.approx(np.zeros((2, 2)))


def test_frechet_distance_of_gaussians_is_known():
    a, b = 3 * normal(200_000, 3), normal(200_000, 3, seed=1) + np.array([1.0, 0.0, 2.0])
    # |mu|^2 + 3 (3 - 1)^2 for covariances 9 I and I.
    assert abs(metrics.frechet_distance(a, b) - (5 + 12)) < 0.15
    assert metrics.frechet_distance(a, a) < 1e-8
    assert metrics.frechet_distance(a[:50, :1], b[:50, :1]) >= 0


def test_inception_score_counts_classes_that_are_told_apart():
    assert metrics.inception_score(np.eye(5)) == pytest.approx(5)
    assert metrics.inception_score(np.full((7, 5), 0.2)) == pytest.approx(1)
    assert metrics.inception_score(np.eye(5)[[0, 0, 1, 1]]) == pytest.approx(2)
