"""AIS, RAISE and BDMC against a product of Gaussians, whose evidence and law are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import network
from quick import slow
from scipy.stats import multivariate_normal

import numpyro_diffusion as nd
from numpyro_diffusion.errors import DiagnosticWarning, ParameterError, ScoreOnlyError, ShapeError

MEANS, SCALES = np.array([[0.3, -0.2], [-0.4, 0.5]]), np.array([[0.5, 1.2], [0.9, 0.4]])
PRECISION = (1 / SCALES**2).sum(0)
LAW = multivariate_normal((MEANS / SCALES**2).sum(0) / PRECISION, np.diag(1 / PRECISION))
LOG_Z = multivariate_normal(np.zeros(2), np.diag((SCALES**2).sum(0))).logpdf(MEANS[0] - MEANS[1])
# In x itself: in the whitened frame a product of Gaussians has constant weights, and every bound is exact.
KERNELS = [nd.HMC(0.3, 3), slow(nd.MALA(0.08)), slow(nd.ULA(0.02)), slow(nd.UHMC(0.15, 3))]
# As many chains in every test, forwards or backwards: what has been compiled once serves the next.
COUNT = 400
EFFORT = {"levels": 40, "num_steps": 2, "frame": "identity", "progress_bar": False}


def product():
    p, q = (
        nd.exact.GaussianMixture(m[None], np.diag(s**2)[None], name=n)
        for m, s, n in zip(MEANS, SCALES, "pq", strict=True)
    )
    return p * q


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
def test_bdmc_brackets_the_evidence_with_adjusted_and_unadjusted_kernels(kernel):
    draws = LAW.rvs(COUNT, random_state=1)
    bound = nd.bdmc(jax.random.key(0), product(), draws, kernel, num_chains=COUNT, **EFFORT)
    assert bound.lower - 5 * bound.lower_error <= LOG_Z <= bound.upper + 5 * bound.upper_error
    assert abs(bound.gap) < 0.3
    assert bound.log_weights["forward"].shape == bound.log_weights["reverse"].shape == (COUNT,)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
def test_raise_is_below_the_true_log_likelihood_and_not_far(kernel):
    x = LAW.rvs(COUNT // 2, random_state=2)
    bound = nd.raise_bound(jax.random.key(1), product(), x, kernel, num_repeats=2, **EFFORT)
    points = np.logaddexp.reduce(bound.log_weights["points"], axis=1) - np.log(2)
    excess = points - LAW.logpdf(x)
    assert excess.mean() <= 5 * excess.std() / np.sqrt(len(x))
    assert excess.mean() > -0.5
    assert bound.lower == pytest.approx(points.mean()) and np.isnan(bound.upper)


@pytest.mark.slow
def test_the_sandwich_notices_a_wrong_backward_path():
    """Backward from points that are not draws of the target the upper side is wrong: the check can fail."""
    wrong = LAW.rvs(COUNT, random_state=3) + 3.0
    # Small steps: a kernel that mixes at once forgets where it started, and is right in spite of it.
    with pytest.warns(DiagnosticWarning, match="weights of the upper bound have a heavy tail"):
        bound = nd.bdmc(jax.random.key(0), product(), wrong, nd.MALA(0.001), num_chains=COUNT, **EFFORT)
    assert bound.upper < LOG_Z - 5 and np.isinf(bound.upper_error), "no error bar makes sense of it"


@pytest.mark.slow
def test_ais_bound_is_the_log_mean_of_weights_and_normalisers_cancel_in_raise():
    bound = nd.ais_bound(jax.random.key(2), product(), KERNELS[0], num_chains=COUNT, **EFFORT)
    w = bound.log_weights["forward"].astype(float)
    assert bound.lower == pytest.approx(np.logaddexp.reduce(w) - np.log(COUNT), abs=1e-4)
    assert abs(bound.lower - LOG_Z) < 5 * bound.lower_error
    x = LAW.rvs(COUNT, random_state=4)
    one = nd.raise_bound(jax.random.key(3), product(), x, KERNELS[0], **EFFORT)
    scaled = nd.raise_bound(jax.random.key(3), 7.0 * product(), x, KERNELS[0], **EFFORT)
    assert scaled.lower == pytest.approx(one.lower, abs=1e-3)


@pytest.mark.slow
def test_the_whitened_frame_is_exact_for_gaussians():
    effort = EFFORT | {"frame": "whitened"}
    bound = nd.bdmc(jax.random.key(0), product(), LAW.rvs(50, random_state=1), KERNELS[0], num_chains=50, **effort)
    assert bound.lower == pytest.approx(LOG_Z, abs=1e-3) and bound.upper == pytest.approx(LOG_Z, abs=1e-3)


def test_bounds_print_and_become_datatrees():
    bound = nd.Bound("bdmc", -1.0, 0.1, -0.9, 0.1, {"forward": np.zeros(3), "reverse": np.zeros(3)}, np.array([1.0, 0]))
    assert bound.gap == pytest.approx(0.1)
    assert "lower -1.0000" in str(bound) and "upper -0.9000" in str(bound)
    assert "bounds" in bound.to_datatree().children


def test_bad_input_is_refused():
    key, x = jax.random.key(0), jnp.zeros((4, 2))
    with pytest.raises(ParameterError, match="reversible.*0.9"):
        nd.bdmc(key, product(), x, nd.HMC(persistence=0.9))
    with pytest.raises(ParameterError, match="finite"):
        nd.raise_bound(key, product(), x.at[0].set(jnp.nan), nd.HMC())
    with pytest.raises(ParameterError, match="finite"):
        nd.bdmc(key, product(), x.at[0].set(jnp.inf), nd.HMC())
    with pytest.raises(ShapeError, match="shape"):
        nd.raise_bound(key, product(), jnp.zeros((4, 3)), nd.HMC())
    with pytest.raises(ParameterError, match="num_repeats"):
        nd.raise_bound(key, product(), x, nd.HMC(), num_repeats=0)
    with pytest.raises(TypeError, match="kernel"):
        nd.ais_bound(key, product(), nd.Reverse())
    with pytest.raises(ScoreOnlyError, match="log density"):
        nd.ais_bound(key, network("score"), nd.UHMC(0.1))
