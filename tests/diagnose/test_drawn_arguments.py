"""Metrics under arguments drawn at random: the right answer by NumPy, or a typed error."""

import hypothesis.strategies as st
import numpy as np
import pytest
from drawn import MEANS, few, typed
from hypothesis import given
from scipy.linalg import sqrtm
from scipy.stats import wasserstein_distance

from numpyro_diffusion.diagnose import metrics

# Mixture bases


# Metrics


@given(n=st.integers(1, 30), d=st.integers(1, 3), seed=st.integers(0, 1000), chunk_size=st.integers(1, 40))
@few(30)
def test_metrics_by_their_definitions(n, d, seed, chunk_size):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), 2 * rng.normal(size=(n, d)) + 1

    def mean_kernel(a, b):
        squared = np.sum((a[:, None] - b) ** 2, -1)
        return np.mean([np.exp(-squared / (2 * h**2)) for h in metrics.BANDWIDTHS])

    expected = np.log(mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))
    assert metrics.log_mmd2(x, y, chunk_size=chunk_size) == pytest.approx(expected, abs=1e-4)
    shares = metrics.mode_weights(x, MEANS[:, :1] @ np.ones((1, d)))
    assert shares.shape == (3,) and shares.sum() == pytest.approx(1) and np.all(shares >= 0)
    if d == 1:
        cost = wasserstein_distance(x[:, 0], y[:, 0])
        assert metrics.sliced_wasserstein2(x, y) >= cost - 1e-9  # W2 is at least W1
        order = np.sqrt(np.mean((np.sort(x[:, 0]) - np.sort(y[:, 0])) ** 2))
        # Directions in one dimension are 1 and -1.
        assert metrics.sliced_wasserstein2(x, y) == pytest.approx(order)
    if n >= 2:
        a, b = np.cov(x.T).reshape(d, d), np.cov(y.T).reshape(d, d)
        root = np.trace(np.real(sqrtm(a @ b)))
        expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a) + np.trace(b) - 2 * root
        assert metrics.frechet_distance(x, y) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    p = np.abs(x) / np.abs(x).sum(1, keepdims=True)
    expected = np.exp(np.mean(np.sum(p * np.log(p / p.mean(0)), 1)))
    assert metrics.inception_score(p) == pytest.approx(expected, rel=1e-6)


ARRAYS = {
    "empty": np.zeros((0, 2)), "one axis": np.zeros(4), "three axes": np.zeros((2, 2, 2)), "scalar": 1.0, "none": None,
    "NaN": np.full((4, 2), np.nan), "infinite": np.full((4, 2), np.inf), "text": np.array([["a", "b"]]),
    "complex": 1j * np.ones((4, 2)), "one point": np.zeros((1, 2)), "no columns": np.zeros((4, 0)),
    "ragged": [[1.0], [1.0, 2.0]], "other columns": np.zeros((4, 3)), "whole numbers": np.arange(8).reshape(4, 2),
}  # fmt: skip
METRICS = {
    "log_mmd2": lambda a: metrics.log_mmd2(a, np.ones((4, 2))),
    "sliced_wasserstein2": lambda a: metrics.sliced_wasserstein2(a, np.ones((4, 2))),
    "mode_weights": lambda a: metrics.mode_weights(a, MEANS),
    "mode_covariances": lambda a: metrics.mode_covariances(a, MEANS),
    "modes": lambda a: metrics.mode_weights(MEANS, a),
    "mode_variance_error": lambda a: metrics.mode_variance_error(a, MEANS, np.eye(2)),
    "frechet_distance": lambda a: metrics.frechet_distance(a, MEANS),
    "inception_score": metrics.inception_score,
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "error:Casting complex")
def test_metrics_of_odd_arrays(metric, array):
    value = typed(lambda: METRICS[metric](ARRAYS[array]))
    fine = {"whole numbers", "one point"} | ({"other columns", "no columns"} if metric == "inception_score" else set())
    assert value is None or (array in fine and not np.any(np.isnan(value))), f"{value} for {array}"
