"""The curl of a score: none of a gradient, all of a rotation, and the share between that is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.density.energy import zero_with_gradient
from numpyro_diffusion.diagnose.curl import mean_curl, score_curl
from numpyro_diffusion.diagnose.findings import integrable
from numpyro_diffusion.errors import ParameterError, ShapeError

KEY = jax.random.key(0)
POINTS = jax.random.normal(jax.random.key(1), (200, 2))


def rotated(angle: float, factor: float = 1.0):
    """The score of a round Gaussian, turned by an angle everywhere: its relative curl is |sin(angle)|."""
    turn = factor * jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    return nd.as_density(lambda x, t: zero_with_gradient(x, -turn @ x), (2,))


@pytest.mark.parametrize("angle", [0.0, 0.01, 0.5, 1.5708, 3.0])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_the_curl_of_a_turned_gaussian_is_the_sine_of_the_angle(angle, factor):
    curl = score_curl(rotated(angle, factor), POINTS, 0.5, KEY)
    np.testing.assert_allclose(curl, np.sin(angle), rtol=1e-4, atol=1e-6)


def test_flat_places_count_little_in_the_mean():
    # Turned by half a radian, but a thousand times flatter and turned by a right angle on one side.
    def score(x, t):
        turn = jnp.array([[0.0, -1.0], [1.0, 0.0]])
        return jnp.where(x[0] > 0, -(jnp.cos(0.5) * x + jnp.sin(0.5) * turn @ x), -1e-3 * turn @ x)

    density = nd.as_density(lambda x, t: zero_with_gradient(x, score(x, t)), (2,))
    assert mean_curl(density, POINTS, 0.5, KEY) == pytest.approx(np.sin(0.5), rel=1e-3)
    assert float(score_curl(density, POINTS, 0.5, KEY).mean()) > 0.6


def test_energies_have_no_curl_and_trained_scores_have_some():
    energy, score = nd.load_pretrained("ring"), nd.load_pretrained("ring_score")
    times = jnp.linspace(0.05, 1.0, 200)
    assert float(jnp.max(score_curl(energy, POINTS, times, KEY))) < 1e-5
    curl = score_curl(score, POINTS, times, KEY)
    assert curl.shape == (200,) and 1e-3 < float(curl.mean()) < 0.1
    assert float(score_curl(score**2.0, POINTS, times, KEY).mean()) == pytest.approx(float(curl.mean()), rel=1e-3)


@pytest.mark.slow
def test_the_score_of_a_score_model_can_be_differentiated():
    score = nd.load_pretrained("ring_score")
    at, t, h = jnp.array([0.3, 0.4]), jnp.asarray(0.3), 1e-3
    there = jax.jit(lambda x: jax.grad(score.log_density)(x, t))
    slopes = jnp.stack([(there(at + h * e) - there(at - h * e)) / (2 * h) for e in jnp.eye(2)], axis=1)
    for derivative in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(derivative(there)(at), slopes, rtol=2e-3, atol=2e-3)


def test_one_point_of_any_shape_and_a_score_that_is_constant():
    constant = nd.as_density(lambda x, t: jnp.sum(x), (3, 2))
    assert float(score_curl(constant, jnp.ones((3, 2), dtype=int), 0.5, KEY)) == 0.0


@pytest.mark.parametrize(("curl", "words"), [(np.nan, "is not finite at some samples"), (0.3, "a rotation: p 30%")])
def test_what_is_found(monkeypatch, curl, words):
    monkeypatch.setattr(integrable, "curl_of", lambda run: {"p": curl, "q": 0.01})
    (found,) = integrable.rotating(None)  # pyright: ignore[reportArgumentType]
    assert words in found


def test_refused():
    density = rotated(0.5)
    with pytest.raises(ShapeError, match=r"points must have shape"):
        score_curl(density, jnp.ones((4, 3)), 0.5, KEY)
    with pytest.raises(ShapeError, match="match the batch"):
        score_curl(density, POINTS, jnp.full(3, 0.5), KEY)
    with pytest.raises(ParameterError, match=r"t must lie in \[0, 1\]"):
        score_curl(density, POINTS, 2.0, KEY)
    with pytest.raises(ParameterError, match="rng_key"):
        score_curl(density, POINTS, 0.5, 0)  # pyright: ignore[reportArgumentType]
