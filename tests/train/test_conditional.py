"""Densities of vectors under conditions: normalised under each, or said not to be."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.errors import DiagnosticWarning
from numpyro_diffusion.train.conditional import base_of_classes, unnormalised

KEY, RNG = jax.random.key(0), np.random.default_rng(0)
GRID = np.linspace(-8.0, 8.0, 801)[:, None]
CLASS = RNG.choice(3, 3000, p=[0.5, 0.3, 0.2])
OF_CLASSES = (np.array([-1.0, 0.3, 1.2])[CLASS] + np.array([0.4, 0.3, 0.6])[CLASS] * RNG.normal(size=3000))[:, None]
NUMBER = RNG.normal(size=(3000, 1))
OF_NUMBERS = NUMBER + 0.5 * RNG.normal(size=(3000, 1))
SMALL = {"network": nd.NetworkConfig(width=16, num_blocks=1), "progress_bar": False}


def log_z(density) -> float:
    return float(np.log(np.exp(np.asarray(density.log_prob(GRID))).sum() * (GRID[1, 0] - GRID[0, 0])))


@pytest.mark.slow
def test_classes_are_normalised_each():
    training = nd.TrainingConfig(num_steps=1000, batch_size=256, learning_rate=3e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DiagnosticWarning)
        p = nd.fit(KEY, OF_CLASSES, conditions=np.eye(3)[CLASS], training=training, **SMALL)
    for density in (p, *(p.given(one) for one in np.eye(3))):
        assert abs(log_z(density)) < 0.05
    # In a mixture of two classes both have their share.
    run = nd.anneal(KEY, 0.5 * p.given([1, 0, 0]) + 0.5 * p.given([0, 0, 1]), num_chains=400, progress_bar=False)
    assert abs(np.mean(run.samples > 0.1) - 0.485) < 0.1 and abs(run.log_evidence) < 0.15


def test_classes_stand_on_a_gaussian_each_and_nothing_else_does():
    base = base_of_classes(OF_CLASSES, np.eye(3)[CLASS])
    np.testing.assert_allclose(base.means[:, 0], [-1.0, 0.3, 1.2], atol=0.05)
    np.testing.assert_allclose(base.weights[-1], [0.5, 0.3, 0.2], atol=0.03)
    assert base_of_classes(OF_NUMBERS, NUMBER) is None
    assert base_of_classes(OF_CLASSES, np.ones((3000, 2))) is None
    assert base_of_classes(OF_CLASSES[:4], np.eye(4)) is None  # one point of each


def test_what_is_not_normalised_by_condition_is_said():
    two_steps = nd.TrainingConfig(num_steps=2, batch_size=16)
    p = nd.fit(KEY, OF_NUMBERS, conditions=NUMBER, training=two_steps, **SMALL)
    assert unnormalised(p, None, KEY) is None and unnormalised(p, NUMBER, KEY) is None  # still the Gaussian
    off = p._replace(log_z=p.log_z.at[1].set(0.5))
    assert "log Z is from -0.5" in unnormalised(off, NUMBER, KEY) and "-0.5" in unnormalised(off, NUMBER, KEY)


@pytest.mark.slow
def test_conditions_that_are_numbers_are_warned_of():
    training = nd.TrainingConfig(num_steps=1000, batch_size=256, learning_rate=3e-3)
    with pytest.warns(DiagnosticWarning, match="not normalised by condition.*nd.recalibrate"):
        p = nd.fit(KEY, OF_NUMBERS, conditions=NUMBER, training=training, **SMALL)
    assert abs(log_z(nd.recalibrate(KEY, p.given(jnp.array([1.5])), method="quadrature"))) < 1e-3
