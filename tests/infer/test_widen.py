"""Normal likelihoods at noise level t are those of y given x_t, wherever that is known in closed form."""

import densities
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.handlers import seed, trace

import numpyro_diffusion as nd
from numpyro_diffusion.infer.handlers import widened
from numpyro_diffusion.infer.model_call import ModelCall

MEAN, COVARIANCE = np.array([1.0, -0.5]), np.array([[1.0, 0.6], [0.6, 0.8]])
A = np.array([[1.0, 2.0], [0.5, -1.0], [1.0, 1.9]])


def linear(prior, y):
    x = numpyro.sample("x", prior)
    with numpyro.plate("measurements", len(A)):
        numpyro.sample("y", dist.Normal(jnp.asarray(A) @ x, 0.3), obs=y)


def prior():
    return nd.DiffusionPrior(densities.gaussian(MEAN, COVARIANCE))


def left_over(r):
    """Covariance of x_0 given x_t."""
    return COVARIANCE - COVARIANCE @ np.linalg.inv(COVARIANCE + r**2 * np.eye(2)) @ COVARIANCE


@pytest.fixture(scope="module")
def joint():
    return densities.joint_density(jax.random.key(0), linear, (prior(), jnp.zeros(3)))


def sites_at(model, args, joint, t):
    source = ModelCall.of(model, args, {})
    at_t = source.at(t, joint.likelihood_power(t), joint.bound, joint.widths(t))
    return trace(seed(at_t, 0)).get_trace(*args)


@pytest.mark.parametrize("r", [0.01, 0.5, 3.0, 100.0])
def test_variance_is_what_x0_may_still_be(joint, r):
    np.testing.assert_allclose(joint.widenings["y"].variance(r), np.diag(A @ left_over(r) @ A.T), rtol=2e-3, atol=1e-5)


def test_power_counts_shared_measurements_once(joint):
    ratios, powers = np.exp(np.asarray(joint.widenings["y"].powers[0])), np.asarray(joint.widenings["y"].powers[1])
    assert powers[-1] == 0 and abs(powers[0] - 1) < 1e-4 and np.all((powers >= 0) & (powers <= 1))
    # At noise of the prior's own size. The three rows lie in a plane: together they count about as much as one or two.
    shared = A @ left_over(1.0) @ A.T
    total = 0.09 + np.diag(shared)
    largest = np.linalg.eigvalsh(shared / np.sqrt(np.outer(total, total)))[-1]
    expected = 1 / (np.max(0.09 / total) + largest)
    assert powers[np.argmin(np.abs(ratios - 1.0))] == pytest.approx(expected, rel=0.05)
    assert 1 / 3 < expected < 1 / 2


def test_sites_carry_variance_and_power(joint):
    t = float(joint.schedule.time(1.0))
    site = sites_at(linear, (prior(), jnp.zeros(3)), joint, t)["y"]
    normal = site["fn"]
    while hasattr(normal, "base_dist"):
        normal = normal.base_dist
    np.testing.assert_allclose(normal.scale**2, 0.09 + joint.widenings["y"].variance(1.0), rtol=1e-4)
    assert 0.3 < float(site["scale"]) < 0.5
    assert float(sites_at(linear, (prior(), jnp.zeros(3)), joint, 0.0)["y"]["scale"]) == 1
    assert float(sites_at(linear, (prior(), jnp.zeros(3)), joint, 1.0)["y"]["scale"]) == 0


@pytest.mark.slow
def test_a_single_measurement_is_exact_at_every_level():
    """With one linear measurement the joint density is that of (x_t, y), until the noise is much above the prior's."""

    def model(prior, y):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x @ jnp.asarray(A[0]), 0.3), obs=y)

    joint = densities.joint_density(jax.random.key(0), model, (prior(), jnp.asarray(0.7)))
    points = np.random.default_rng(0).normal(size=(6, 2))
    for r in (0.05, 0.3, 1.0):
        t = joint.schedule.time(r)
        alpha = float(joint.schedule.alpha(t))
        seen = MEAN + (points / alpha - MEAN) @ np.linalg.solve(COVARIANCE + r**2 * np.eye(2), COVARIANCE)
        log_likelihood = dist.Normal(seen @ A[0], np.sqrt(0.09 + A[0] @ left_over(r) @ A[0])).log_prob(0.7)
        expected = prior().density.log_prob(points, t) + log_likelihood
        found = joint.log_prob(points, t)
        np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=0.02, atol=0.02)


def test_wrappers_stay_around_the_widened_site():
    def model():
        with numpyro.plate("n", 2), numpyro.handlers.mask(mask=np.array([True, False])):
            numpyro.sample("y", dist.Normal(jnp.zeros((2, 3)), 1.0).to_event(1), obs=jnp.ones((2, 3)))

    by = {"y": (3.0 * jnp.ones(6), 0.5)}
    site = trace(widened(model, by)).get_trace()["y"]
    expected = 3 * float(dist.Normal(0.0, 2.0).log_prob(1.0))
    np.testing.assert_allclose(site["fn"].log_prob(site["value"]), [expected, 0.0], rtol=1e-6)
    assert site["infer"]["likelihood_power"] == 0.5


@pytest.mark.slow
def test_other_likelihoods_keep_a_power():
    def model(prior, y):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.StudentT(4.0, x[0], 1.0), obs=y)
        numpyro.sample("z", dist.Normal(x[1], 1.0), obs=y)

    args = prior(), jnp.asarray(0.3)
    joint = densities.joint_density(jax.random.key(0), model, args)
    assert list(joint.widenings) == ["z"]
    t = float(joint.schedule.time(0.5))
    power = float(joint.likelihood_power(t))
    assert 0.5 < power < 1 and float(sites_at(model, args, joint, t)["y"]["scale"]) == pytest.approx(power)
    assert float(sites_at(model, args, joint, t)["z"]["scale"]) != pytest.approx(power)
