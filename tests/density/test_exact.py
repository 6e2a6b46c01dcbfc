"""Closed forms against quadrature, grids and their own samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import log_prob_of, moments_of, score_of
from scipy.special import log_ndtr, logsumexp

import numpyro_diffusion as nd

SCHEDULES = {
    "cosine": nd.VariancePreserving.cosine(),
    "linear": nd.VariancePreserving.linear(),
    "exploding": nd.VarianceExploding(0.0, 20.0),
}
MEANS, WEIGHTS = np.array([[-1.0, 0.5], [1.0, 0.0]]), np.array([0.3, 0.7])
COVARIANCES = np.array([[[0.4, 0.15], [0.15, 0.2]], [[0.3, -0.1], [-0.1, 0.5]]])
LOW, HIGH = np.array([-1.0, -0.5]), np.array([0.8, 1.5])
POINTS = np.array([[0.1, 0.2], [-1.2, 0.9], [2.0, -1.5], [0.0, 0.0]])

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def mixture(schedule=None):
    return nd.exact.GaussianMixture(MEANS, COVARIANCES, WEIGHTS, schedule)


def box(schedule=None):
    return nd.exact.UniformBox(LOW, HIGH, schedule)


def mixture_at_zero(x):
    """Log density in double precision, written independently of the package."""
    terms = []
    for mean, covariance, weight in zip(MEANS, COVARIANCES, WEIGHTS, strict=True):
        z = x - mean
        squares = np.einsum("...i,ij,...j->...", z, np.linalg.inv(covariance), z)
        terms.append(np.log(weight) - 0.5 * squares - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1])
    return logsumexp(terms, axis=0)


def convolved(log_density, low, high, x, alpha, sigma, n=600):
    """log of the integral of p(y) N(x; alpha y, sigma^2 I) dy, by the midpoint rule."""
    axes = [a + (np.arange(n) + 0.5) * (b - a) / n for a, b in zip(low, high, strict=True)]
    y = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    log_cell = np.sum(np.log((np.asarray(high) - low) / n))
    base = log_density(y) + log_cell
    return np.array([
        logsumexp(base - 0.5 * np.sum((p - alpha * y) ** 2, -1) / sigma**2) - np.log(2 * np.pi * sigma**2) for p in x
    ])  # fmt: skip


@every_schedule
@pytest.mark.parametrize("ratio", [0.1, 0.6, 4.0])
def test_noised_forms_are_convolutions(schedule, ratio):
    t = float(schedule.time(ratio))
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    x = POINTS * np.hypot(alpha, sigma)
    expected = convolved(mixture_at_zero, [-6, -6], [6, 6], x, alpha, sigma)
    np.testing.assert_allclose(log_prob_of(mixture(schedule), x, t), expected, atol=2e-4, rtol=1e-5)
    flat = -np.sum(np.log(HIGH - LOW))
    expected = convolved(lambda y: np.full(len(y), flat), LOW, HIGH, x, alpha, sigma)
    np.testing.assert_allclose(log_prob_of(box(schedule), x, t), expected, atol=1e-3, rtol=1e-3)


def test_at_zero_the_mixture_is_itself():
    np.testing.assert_allclose(log_prob_of(mixture(), POINTS), mixture_at_zero(POINTS), atol=1e-4, rtol=1e-5)


@every_schedule
@pytest.mark.parametrize("make", [mixture, box])
def test_integrates_to_one_at_every_level(make, schedule):
    density = make(schedule)
    for t in (0.0, 0.1, 0.4, 0.7, 1.0):
        mean, covariance = moments_of(density.gaussian(t))
        half, n = 7 * np.sqrt(np.max(np.diag(covariance))), 400
        axes = [float(m) + half * (2 * (np.arange(n) + 0.5) / n - 1) for m in mean]
        grid = jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2))
        total = np.sum(np.exp(np.asarray(log_prob_of(density, grid, t), dtype=np.float64))) * (2 * half / n) ** 2
        # A box at t = 0 has walls: the grid is off by a row of cells there.
        assert abs(total - 1) < (0.03 if make is box and t == 0 else 2e-3)


@every_schedule
@pytest.mark.parametrize("make", [mixture, box])
@pytest.mark.parametrize("t", [0.0, 0.3, 0.8])
def test_sample_moments(make, schedule, t):
    density, n = make(schedule), 20_000
    x = np.asarray(density.sample(jax.random.key(3), n, t), dtype=np.float64)
    mean, covariance = (np.asarray(a) for a in moments_of(density.gaussian(t)))
    centred = x - mean
    products = centred[:, :, None] * centred[:, None, :]
    assert np.all(np.abs(x.mean(0) - mean) < 5 * x.std(0) / np.sqrt(n))
    assert np.all(np.abs(products.mean(0) - covariance) < 5 * products.std(0) / np.sqrt(n))


def test_samples_by_other_numbers_and_of_other_densities_are_refused():
    for number in (-5, 5.0, None):
        with pytest.raises(nd.errors.ParameterError, match=r"num_samples must be an integer >= 0; got"):
            mixture().sample(jax.random.key(0), number)
    product = mixture() * mixture()
    assert not hasattr(product, "sample")
    with pytest.raises(AttributeError, match=r"cannot be sampled in one step. Anneal it: nd.anneal"):
        product.sample(jax.random.key(0), 5)


def test_samples_follow_the_density():
    # Moments cannot tell the weights of the components from their places; the shares of half-planes can.
    density, n = mixture(), 20_000
    x = np.asarray(density.sample(jax.random.key(4), n, 0.0))
    grid = np.stack(np.meshgrid(*[np.linspace(-5, 5, 501)] * 2, indexing="ij"), -1).reshape(-1, 2)
    p = np.exp(mixture_at_zero(grid)) * 0.02**2
    for direction in ([1.0, 0.0], [0.3, 1.0]):
        share = p[grid @ direction > 0.25].sum()
        assert abs(np.mean(x @ direction > 0.25) - share) < 5 * np.sqrt(share * (1 - share) / n) + 0.01


def test_box_at_zero_has_walls():
    density = box()
    inside, outside = jnp.array([[0.0, 0.0], [0.79, -0.49]]), jnp.array([[0.81, 0.0], [0.0, 9.0], [-1e6, 1e6]])
    np.testing.assert_allclose(log_prob_of(density, inside), -np.log(1.8 * 2.0), rtol=1e-5)
    np.testing.assert_array_equal(log_prob_of(density, outside), -np.inf)
    np.testing.assert_array_equal(score_of(density, inside), 0.0)
    np.testing.assert_array_equal(score_of(density, outside), 0.0)


def test_box_in_the_tails_and_with_thin_noise():
    # In double precision, log of the difference of two normal CDFs, axis by axis.
    x = np.array([[5.0, -4.0], [0.1, 0.2], [0.8, 1.5], [-1.3, 1.6]])
    for t in (0.001, 0.01, 0.1):
        schedule = nd.VariancePreserving.cosine()
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        a, b = (alpha * LOW - x) / sigma, (alpha * HIGH - x) / sigma
        a, b = np.where(a + b > 0, -b, a), np.where(a + b > 0, -a, b)
        expected = log_ndtr(b) + np.log1p(-np.exp(log_ndtr(a) - log_ndtr(b))) - np.log(alpha * (HIGH - LOW))
        np.testing.assert_allclose(log_prob_of(box(), x, t), expected.sum(-1), rtol=2e-4, atol=1e-3)
        assert np.all(np.isfinite(score_of(box(), x, t)))


@pytest.mark.parametrize("make", [mixture, box])
def test_nothing_is_nan_anywhere(make):
    t = jnp.array([0.0, 1e-6, 1e-3, 0.5, 1.0])[:, None]
    x = jnp.concatenate([POINTS, jnp.array([[1e4, -1e4], [-1.0, -0.5]])])
    assert not np.any(np.isnan(log_prob_of(make(), x, t)))
    assert np.all(np.isfinite(score_of(make(), x, t)))


def test_any_dimension():
    d = 30
    rng = np.random.default_rng(0)
    root = rng.normal(size=(d, d)) / np.sqrt(d)
    covariance = root @ root.T + 0.1 * np.eye(d)
    density = nd.exact.GaussianMixture(np.zeros((1, d)), covariance[None])
    x = rng.normal(size=(3, d))
    expected = -0.5 * np.einsum("ni,ij,nj->n", x, np.linalg.inv(covariance), x)
    expected -= 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    np.testing.assert_allclose(log_prob_of(density, x), expected, rtol=1e-4)
    np.testing.assert_allclose(density.gaussian(0.0).covariance, covariance, atol=1e-4)


def test_weights_are_normalised():
    many = nd.exact.GaussianMixture(MEANS, COVARIANCES, 10 * WEIGHTS)
    np.testing.assert_allclose(log_prob_of(many, POINTS), log_prob_of(mixture(), POINTS), rtol=1e-5)
