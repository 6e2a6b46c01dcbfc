"""Gaussian approximations, their products, and the frames on top of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import gaussian
from scipy.stats import multivariate_normal

from numpyro_diffusion.annealing.frame import frame_at
from numpyro_diffusion.density.axes import CosineAxes
from numpyro_diffusion.density.gaussian import Gaussian, gaussian_product

RNG = np.random.default_rng(0)


def covariance(d, spread=1.0):
    root = RNG.normal(size=(d, d)) * np.exp(spread * RNG.normal(size=d))
    return root @ root.T + 0.1 * np.eye(d)


FORMS = {
    "dense": Gaussian.of(jnp.asarray(RNG.normal(size=5)), jnp.asarray(covariance(5))),
    "cosine": Gaussian(jnp.arange(12.0), jnp.asarray(RNG.uniform(0.5, 2, 12)), CosineAxes((2, 2, 3))),
}


@pytest.mark.parametrize("form", FORMS)
def test_points_and_log_densities_of_its_two_moments(form):
    found = FORMS[form]
    noise = RNG.normal(size=(4000, found.mean.size))
    x = np.asarray(jax.vmap(found.at)(noise))
    expected = multivariate_normal(found.mean, found.covariance).logpdf(x[:50])
    np.testing.assert_allclose(jax.vmap(found.log_prob)(x[:50]), expected, rtol=1e-4, atol=1e-3)
    # The log density of a point is that of the noise it stands for, less one constant.
    rest = expected + 0.5 * np.sum(noise[:50] ** 2, axis=1)
    np.testing.assert_allclose(rest, rest[0], atol=2e-3)
    error = np.sqrt(np.diag(found.covariance) / len(x))
    assert np.all(np.abs(x.mean(0) - found.mean) < 5 * error)


def test_gaussian_of_compositions():
    # Gaussians are closed under products, powers and quotients: there the approximation is exact.
    p = gaussian((1.0, 0.0), ((1.0, 0.2), (0.2, 0.5)), "p")
    q = gaussian((0.0, -1.0), ((2.0, 0.0), (0.0, 3.0)), "q")
    for t in (0.0, 0.4):
        P, Q = np.linalg.inv(p.gaussian(t).covariance), np.linalg.inv(q.gaussian(t).covariance)
        for density, a, b in ((p * q, 1, 1), (p**2, 2, 0), (p * q**0.5, 1, 0.5), (p / q**0.5, 1, -0.5)):
            precision = a * P + b * Q
            mean = np.linalg.solve(precision, a * P @ p.gaussian(t).mean + b * Q @ q.gaussian(t).mean)
            np.testing.assert_allclose(density.gaussian(t).covariance, np.linalg.inv(precision), rtol=2e-3, atol=2e-3)
            np.testing.assert_allclose(density.gaussian(t).mean, mean, rtol=2e-3, atol=2e-3)
    mixed = 0.3 * p + 0.7 * q
    np.testing.assert_allclose(mixed.gaussian(0.0).mean, [0.3, -0.7], rtol=1e-5)
    between = 0.3 * 0.7 * np.outer([1.0, 1.0], [1.0, 1.0])
    expected = 0.3 * np.array([[1.0, 0.2], [0.2, 0.5]]) + 0.7 * np.diag([2.0, 3.0]) + between
    np.testing.assert_allclose(mixed.gaussian(0.0).covariance, expected, rtol=1e-4)


def test_gaussian_through_inverses():
    p, q = gaussian((1.0, 0.0), ((1.0, 0.2), (0.2, 0.5)), "p"), gaussian((0.0, -1.0), name="q")
    pairs = [(1 / (1 / p), p), (1 / (0.5 / p + 0.5 / p), p), (q / (1 / p), p * q), (1 / p**-0.5, p**0.5)]
    for density, same in pairs:
        np.testing.assert_allclose(density.gaussian(0.2).mean, same.gaussian(0.2).mean, atol=1e-3)
        np.testing.assert_allclose(density.gaussian(0.2).covariance, same.gaussian(0.2).covariance, atol=1e-3)


def test_a_denominator_takes_no_more_than_three_quarters_of_the_precision():
    wide, narrow = Gaussian.of(jnp.ones(2), jnp.eye(2)), Gaussian.of(5 * jnp.ones(2), jnp.diag(jnp.array([0.01, 4.0])))
    found = gaussian_product([(wide, jnp.asarray(1.0)), (narrow, jnp.asarray(-1.0))])
    np.testing.assert_allclose(np.diag(found.covariance), [4.0, 4 / 3], rtol=1e-4)
    np.testing.assert_allclose(found.mean, wide.mean, rtol=1e-4)


def test_frames_go_there_and_back():
    density = gaussian(np.arange(3.0), covariance(3))
    for t in (0.0, 0.4, 1.0):
        frame = frame_at(density, t, "whitened")
        u = RNG.normal(size=3)
        np.testing.assert_allclose(frame.coordinates(frame.point(u, (3,))), u, atol=1e-3)
        np.testing.assert_allclose(frame.root @ frame.root, frame.gaussian.covariance, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(frame.log_det, np.linalg.slogdet(frame.root)[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("axes", ["dense", "cosines"])
def test_the_mean_of_a_product_moves_with_its_denominators(axes):
    """Also where these remove half of the precision, as in a harmonic mean of densities that are alike: no jump."""
    if axes == "dense":
        gaussians = [Gaussian.of(jnp.array(mean), jnp.eye(2)) for mean in ([0.0, 0.0], [1.0, 0.0], [0.1, 0.0])]
    else:
        means = 0.3 * jax.random.normal(jax.random.key(0), (3, 12))
        gaussians = [Gaussian(mean, jnp.ones(12), CosineAxes((2, 2, 3))) for mean in means]
    numbers = np.linspace(0.5, 2.5, 201)
    found = jax.vmap(lambda c: gaussian_product(list(zip(gaussians, [1.0, 1.0, -c], strict=True))).mean)(numbers)
    steps = np.max(np.abs(np.diff(found, axis=0)), axis=1)
    assert steps.max() < 0.05 * np.max(np.ptp(found, axis=0)) and steps.max() > 0
    # All of them pull where they remove less than half, and the numerators alone where they remove all.
    both = 0.5 * (gaussians[0].mean + gaussians[1].mean)
    np.testing.assert_allclose(found[0], (2 * both - 0.5 * gaussians[2].mean) / 1.5, atol=1e-5)
    np.testing.assert_allclose(found[-1], both, atol=1e-5)
