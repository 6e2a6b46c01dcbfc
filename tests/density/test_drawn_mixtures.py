"""Mixture bases under arguments drawn at random: the right answer by NumPy, or a typed error."""

import hypothesis.strategies as st
import jax
import numpy as np
from drawn import COVARIANCES, MEANS, WEIGHTS, few, typed
from hypothesis import example, given
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import numpyro_diffusion as nd


@given(seed=st.integers(0, 1000), r=st.floats(0, 5))
@few(8)
def test_mixture_base_is_the_mixture(seed, r):
    rng = np.random.default_rng(seed)
    x, shares = rng.normal(size=2), rng.uniform(0.1, 1, size=(3, 3))
    base = nd.MixtureBase.of(MEANS, COVARIANCES, shares)
    for condition, row in ((None, 2), (np.array([0.0, 1.0, 1.0]), 1)):
        w = shares[row] / shares[row].sum()
        terms = [
            multivariate_normal.logpdf(x, m, c + r**2 * np.eye(2)) for m, c in zip(MEANS, COVARIANCES, strict=True)
        ]
        np.testing.assert_allclose(base_log_prob(base, x, r, condition), logsumexp(terms, b=w), rtol=1e-3, atol=1e-3)
        mean = w @ MEANS
        spread = np.einsum("k,kij->ij", w, COVARIANCES) + (MEANS - mean).T * w @ (MEANS - mean)
        found = base.moments(condition)
        np.testing.assert_allclose(found.mean, mean, atol=1e-5)
        np.testing.assert_allclose(found.covariance, spread, atol=1e-5)


base_log_prob = jax.jit(lambda base, x, r, condition: base.log_prob(x, r, condition))


@given(
    which=st.sampled_from(["means", "covariances", "weights"]),
    value=st.sampled_from(
        [None, "x", np.nan, [], [[1.0]], np.zeros((3, 2)), -np.ones((1, 3)), np.full((1, 3), np.inf)]
    ),
)
@example(which="covariances", value=np.zeros((3, 2, 2)))
@example(which="covariances", value=-np.stack([np.eye(2)] * 3))
@few(20)
def test_mixture_base_of_odd_arguments(which, value):
    arguments = {"means": MEANS, "covariances": COVARIANCES, "weights": WEIGHTS[None]} | {which: value}
    base = typed(lambda: nd.MixtureBase.of(**arguments))
    if base is not None:
        assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves(base)) and np.all(base.eigenvalues > 0)
        np.testing.assert_allclose(base.weights.sum(1), 1, rtol=1e-5)
