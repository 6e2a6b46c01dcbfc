"""Densities of vectors under conditions: normalised under each, or said not to be."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.errors import DiagnosticWarning
from numpyro_diffusion.train.conditional import base_of, unnormalised

KEY, RNG = jax.random.key(0), np.random.default_rng(0)
GRID = np.linspace(-8.0, 8.0, 3201)[:, None]
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


def test_classes_stand_on_a_gaussian_each_and_numbers_on_one_that_follows_them():
    base = base_of(OF_CLASSES, np.eye(3)[CLASS])
    np.testing.assert_allclose(base.means[:, 0], [-1.0, 0.3, 1.2], atol=0.05)
    np.testing.assert_allclose(base.weights[-1], [0.5, 0.3, 0.2], atol=0.03)
    for of_numbers in (base_of(OF_NUMBERS, NUMBER), base_of(OF_CLASSES, np.ones((3000, 2)))):
        assert isinstance(of_numbers, nd.RegressionBase)
    assert base_of(OF_CLASSES[:4], np.eye(4)) is None  # one point of each
    assert base_of(OF_NUMBERS[:15], NUMBER[:15]) is None
    assert base_of(np.zeros((20, 4000)), NUMBER[:20]) is None  # axes too large to keep


def test_what_is_not_normalised_by_condition_is_said():
    two_steps = nd.TrainingConfig(num_steps=2, batch_size=16)
    p = nd.fit(KEY, OF_NUMBERS, conditions=NUMBER, training=two_steps, **SMALL)
    assert unnormalised(p, None, KEY) is None and unnormalised(p, NUMBER, KEY) is None  # still the Gaussian
    off = p._replace(log_z=p.log_z.at[1].set(0.5))
    assert "log Z is from -0.5" in unnormalised(off, NUMBER, KEY) and "-0.5" in unnormalised(off, NUMBER, KEY)


@pytest.mark.slow
def test_conditions_that_are_numbers_are_normalised_each():
    # Two modes close to a line, narrow beside its length: under no condition a Gaussian.
    x = NUMBER + np.where(RNG.uniform(size=(3000, 1)) < 0.3, 0.1, -0.05) + 0.03 * RNG.normal(size=(3000, 1))
    year, training = 2000 + 8 * NUMBER, nd.TrainingConfig(num_steps=1500, batch_size=256)
    p = nd.fit(KEY, x, conditions=year, training=training, progress_bar=False)
    for number in (-1.5, -0.5, 0.0, 1.0):
        assert abs(log_z(p.given([2000 + 8 * number]))) < 0.1
    # A normal of their variance has 1.17 in the mean, their own density 1.48 nearly.
    assert np.mean([p.given(c).log_prob(y) for c, y in zip(year[:300], x[:300], strict=True)]) > 1.3


@pytest.mark.slow
def test_what_stands_on_one_gaussian_is_warned_of(monkeypatch):
    monkeypatch.setattr("numpyro_diffusion.train.fit.base_of", lambda x, conditions: None)
    training = nd.TrainingConfig(num_steps=1000, batch_size=256, learning_rate=3e-3)
    with pytest.warns(DiagnosticWarning, match="not normalised by condition.*nd.recalibrate"):
        p = nd.fit(KEY, OF_NUMBERS, conditions=NUMBER, training=training, **SMALL)
    assert abs(log_z(nd.recalibrate(KEY, p.given(jnp.array([1.5])), method="quadrature"))) < 1e-3
