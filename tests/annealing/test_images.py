"""Annealed runs of images, where no [d, d] matrix fits."""

import sys

import jax
import numpy as np
import pytest
from images import SHAPE, SIZE, fitted, images

import numpyro_diffusion as nd
from numpyro_diffusion.annealing.frame import frame_at
from numpyro_diffusion.errors import DiagnosticWarning


def test_the_frame_is_the_dense_one(density):
    diagonal = frame_at(density, 0.3, "whitened")
    gaussian = density.gaussian(0.3)
    value, vector = np.linalg.eigh(np.asarray(gaussian.covariance, dtype=np.float64))
    root = (vector * np.sqrt(value)) @ vector.T
    u = jax.random.normal(jax.random.key(0), (SIZE,))
    np.testing.assert_allclose(diagonal.point(u, (SIZE,)), gaussian.mean + root @ u, atol=1e-3)
    np.testing.assert_allclose(diagonal.coordinates(diagonal.point(u, SHAPE)), u, atol=1e-3)
    np.testing.assert_allclose(diagonal.log_det, 0.5 * np.log(value).sum(), rtol=1e-3)


@pytest.mark.slow
def test_annealing_with_a_predictor(density):
    kernel = nd.HMC(num_integration_steps=1, persistence=0.9)
    run = nd.anneal(
        jax.random.key(5), density, kernel, num_chains=8, num_steps=1, levels=6, predictor=True, num_pilot_chains=4,
        progress_bar=False,
    )  # fmt: skip
    assert run.samples.shape == (8, *SHAPE)
    assert np.all(np.isfinite(run.samples))
    # The step takes the gradient that the last move left.
    assert run.evaluations_per_chain == 6 * (1 + 1)


@pytest.mark.slow
def test_weights_that_collapse_are_given_up_and_it_is_said(monkeypatch, density):
    monkeypatch.setattr(sys.modules["numpyro_diffusion.annealing.settings"], "WATCHED_SIZE", SIZE)
    sharp = density**40_000.0
    settings = {"num_chains": 8, "num_steps": 1, "levels": 3, "progress_bar": False}
    with pytest.warns(DiagnosticWarning, match="weights collapsed at level"):
        run = nd.anneal(jax.random.key(6), sharp, nd.MALA(step_size=1e-3), **settings)
    assert not run.is_weighted
    assert np.isnan(run.log_evidence)
    assert len(np.unique(np.asarray(run.samples)[:, 0, 0, 0])) == 8
    kept = nd.anneal(jax.random.key(6), sharp, nd.MALA(step_size=1e-3), resample_threshold=0.5, **settings)
    assert kept.is_weighted


@pytest.mark.slow
def test_score_models_of_images():
    density = fitted(model="score")
    assert density.score(images(jax.random.key(7), 2)[0], 0.2).shape == (2, *SHAPE)
    run = nd.anneal(jax.random.key(8), density, nd.Reverse(), num_chains=4, levels=5, progress_bar=False)
    assert np.all(np.isfinite(run.samples))
