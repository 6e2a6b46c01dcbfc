"""Conditional teachers: students take the same conditions, and networks from elsewhere are asked under theirs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import network

import numpyro_diffusion as nd
from numpyro_diffusion.distillation import teacher

KEY = jax.random.key(0)
SHORT = nd.TrainingConfig(num_steps=10, batch_size=32)
X = np.random.default_rng(0).standard_normal((60, 2))
CONDITIONS = np.eye(2)[np.arange(60) % 2]


def distil(teacher, **kwargs):
    return nd.distil(KEY, teacher, X, training=SHORT, normalise=False, progress_bar=False, **kwargs)


@pytest.mark.slow
def test_a_student_takes_the_teachers_conditions():
    density = distil(network("score", condition_size=2), conditions=CONDITIONS)
    assert density.config.condition_size == 2 and density.typical.shape[0] == 2
    assert np.all(np.isfinite(density.given([1.0, 0.0]).log_prob(X[:3])))


@pytest.mark.slow
def test_a_teacher_given_a_condition_has_a_student_without():
    density = distil(network("score", condition_size=2).given([1.0, 0.0]))
    assert density.config.condition_size == 0 and density.config.width == network("score").config.width


def test_the_teacher_is_asked_under_the_condition_or_under_none():
    """log p(y | c) = log N(y; c, (1 + r^2) I), and N(y; -9, ...) under none."""
    schedule = nd.VarianceExploding()
    noise = lambda x, r, c: r * (x - c) / (1 + r**2)
    model = nd.from_noise_prediction(noise, (2,), schedule, conditions=np.full(2, -9.0), timesteps="sigma")
    y, r, c = jnp.array([0.3, 0.2]), 0.5, jnp.array([1.0, -1.0])
    for flag, mean in ((1.0, c), (0.0, jnp.full(2, -9.0))):
        found, _ = teacher.scores(model, y, r, jnp.append(c, flag), KEY)
        np.testing.assert_allclose(found, (mean - y) / (1 + r**2), rtol=1e-4)
    np.testing.assert_allclose(teacher.scores(model, y, r, None, KEY)[0], (-9.0 - y) / (1 + r**2), rtol=1e-4)


@pytest.mark.slow
def test_conditions_without_one_that_stands_for_none():
    model = nd.from_noise_prediction(
        lambda x, r, c: x - c, (2,), nd.VarianceExploding(), timesteps="sigma",
        conditions=jax.ShapeDtypeStruct((2,), jnp.float32), name="f",
    )  # fmt: skip
    for kwargs in ({}, {"conditions": CONDITIONS}):
        with pytest.raises(nd.errors.ParameterError, match=r"f has no condition that stands for none.*density.given"):
            distil(model, **kwargs)
    assert isinstance(distil(model.given([0.0, 1.0])), nd.EnergyDensity)
