"""The coordinates of moves that the pilot learns from points and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_problems import NUM_CHAINS, P2

import numpyro_diffusion as nd
from numpyro_diffusion.annealing import pilot as tuning
from numpyro_diffusion.annealing import population as populations
from numpyro_diffusion.density.exact import GaussianMixture
from numpyro_diffusion.diagnose.findings.statistics import acceptance

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")


def pilot_shape(points, gradients):
    """Covariance C and information F of equally weighted points and gradients."""
    points, gradients = np.asarray(points, dtype=float), np.asarray(gradients, dtype=float)
    return tuning._Shape(jnp.asarray(np.cov(points.T)), jnp.asarray(gradients.T @ gradients / len(points)))


def test_scale_of_a_gaussian_is_the_root_of_its_covariance():
    covariance = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.4]])
    shape = tuning._Shape(jnp.asarray(covariance), jnp.linalg.inv(jnp.asarray(covariance)))
    np.testing.assert_allclose(shape.scale(10**9), np.linalg.cholesky(covariance), rtol=1e-4, atol=1e-5)


def test_scale_of_parted_modes_is_that_of_one():
    modes = GaussianMixture([[-20.0, 0.0], [20.0, 0.0]], [np.diag([1.0, 4.0])] * 2)
    x = modes.sample(jax.random.key(0), 20_000)
    gradients = jax.vmap(jax.grad(lambda z: modes.log_prob(z, 0.0)))(x)
    shape = pilot_shape(x, gradients)
    assert shape.covariance[0, 0] > 350
    # Twice the information at most: (C^-1 + F) / 2 with C^-1 = 0 along the line of modes.
    np.testing.assert_allclose(shape.scale(len(x)), np.diag([np.sqrt(2), 2.0]), rtol=0.05, atol=0.05)


def test_scale_without_gradients_is_that_of_the_covariance():
    x = np.random.default_rng(0).uniform(-1, 1, (20_000, 2)) * [3.0, 0.5]
    scale = pilot_shape(x, np.zeros_like(x)).scale(len(x))
    np.testing.assert_allclose(scale, np.sqrt(2 / 3) * np.diag([3.0, 0.5]), rtol=0.03, atol=0.03)


def test_a_chain_whose_gradient_fails_has_no_say_in_the_scale():
    population = populations.start(P2, jax.random.key(0), num_chains=NUM_CHAINS, frame_kind="whitened")
    u, eye = population.state.position, jnp.eye(2)

    def learn(gradients):
        state = population.state._replace(logdensity_grad=gradients)
        return tuning._learn(population._replace(state=state), tuning._Shape(eye, eye), 3 * eye)

    np.testing.assert_allclose(learn(-u.at[0].set(jnp.nan))[1], learn(-u)[1], rtol=0.01, atol=0.01)
    # None left: all stays as it was.
    shape, scale = learn(jnp.full_like(u, jnp.nan))
    np.testing.assert_array_equal(scale, 3 * eye)
    np.testing.assert_array_equal(shape.information, eye)


@pytest.mark.slow
def test_steps_on_a_gaussian_stay_before_the_cliff():
    """In four dimensions acceptance is .9 at a step of 1.2, rises to one at sqrt(2), and is .1 at 1.8."""
    gaussian = nd.exact.GaussianMixture(np.zeros((1, 4)), np.eye(4)[None])
    run = nd.anneal(jax.random.key(0), gaussian, num_chains=100, progress_bar=False)
    assert np.all(run.stats["step_size"] <= 1.2001) and np.all(run.stats["acceptance_rate"] > 0.7)
    assert not list(acceptance(run))
