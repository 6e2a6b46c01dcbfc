"""Reverse diffusion steps that are weighed by what a composition has beside a diffusion model."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from quick import slow

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError, ShapeError
from tests.densities import gaussian, mixture

SHARED = {"num_chains": 256, "num_pilot_chains": 32, "progress_bar": False}


def pair(size: int, apart: float):
    """Two Gaussians of unit variance, `apart` along the first axis, and their mixture."""
    mean = np.zeros(size)
    mean[0] = apart / 2
    p, q = (nd.exact.GaussianMixture([m], [np.eye(size)], name=n) for m, n in ((mean, "p"), (-mean, "q")))
    return p, q, 0.5 * p + 0.5 * q


def log_mass(apart: float) -> float:
    """log of the integral of p q / (p / 2 + q / 2), which is one along the axis between them."""
    x = np.linspace(-12, 12, 20_001)
    p, q = (np.exp(-0.5 * (x - m) ** 2) / np.sqrt(2 * np.pi) for m in (apart / 2, -apart / 2))
    return float(np.log(np.trapezoid(p * q / (0.5 * p + 0.5 * q), x)))


@pytest.mark.slow
def test_what_is_nothing_but_the_reference_has_weights_all_alike():
    reference = mixture()
    run = nd.anneal(jax.random.key(0), reference**1.0, nd.HMC(), levels=12, predictor=reference, **SHARED)
    np.testing.assert_allclose(run.log_evidence, 0.0, atol=1e-4)
    assert run.log_evidence_error < 1e-4
    assert run.is_weighted


# Of a given step size there is no pilot to compile.
@pytest.mark.slow
@pytest.mark.parametrize("kernel", [nd.HMC(0.5), slow(nd.HMC())], ids=repr)
def test_evidence_of_a_sculpted_density(kernel):
    p, q, both = pair(2, 2.5)
    run = nd.anneal(jax.random.key(1), nd.sculpt([p, q], [1, 2]), kernel, levels=60, predictor=both, **SHARED)
    assert abs(run.log_evidence - log_mass(2.5)) < 5 * run.log_evidence_error + 0.03
    assert 0.005 < run.log_evidence_error < 0.1
    # Beside two steps of three leapfrogs, two of the reference: where a step starts, and where it ends.
    assert run.evaluations_per_chain == 60 * (1 + 2 * 3) + 2 * 59


@pytest.mark.slow
def test_weights_hold_where_dimensions_are_many():
    p, q, both = pair(300, 2.5)
    run = nd.anneal(jax.random.key(2), nd.sculpt([p, q], [1, 2]), nd.HMC(), levels=60, predictor=both, **SHARED)
    assert abs(run.log_evidence - log_mass(2.5)) < 5 * run.log_evidence_error + 0.03
    assert np.std(np.asarray(run.samples)[:, 1:]) == pytest.approx(1, abs=0.03)


@pytest.mark.slow
def test_a_run_goes_on_from_its_checkpoint_with_the_same_reference_only(tmp_path):
    p, q, both = pair(2, 1.0)
    target, path = nd.sculpt([p, q], [1, 2]), tmp_path / "run"
    again = [
        nd.anneal(
            jax.random.key(3), target, nd.HMC(), levels=5, predictor=both, checkpoint_path=path,
            num_chains=16, num_pilot_chains=16, progress_bar=False,
        )
        for _ in range(2)
    ]  # fmt: skip
    np.testing.assert_array_equal(again[0].samples, again[1].samples)
    with pytest.raises(nd.errors.CheckpointError):
        nd.anneal(
            jax.random.key(3), target, nd.HMC(), levels=5, predictor=p, checkpoint_path=path,
            num_chains=16, num_pilot_chains=16, progress_bar=False,
        )  # fmt: skip


def test_what_is_refused():
    p, _, both = pair(2, 1.0)
    given = {"rng_key": jax.random.key(0), "density": p, "kernel": nd.HMC(), "levels": 5}
    with pytest.raises(ParameterError, match="Give levels=100"):
        nd.anneal(**given | {"levels": None}, predictor=both)
    with pytest.raises(ArgumentTypeError, match=r"nd.Reverse\(\)"):
        nd.anneal(**given | {"kernel": nd.Reverse()}, predictor=both)
    with pytest.raises(ShapeError, match="one event shape"):
        nd.anneal(**given, predictor=gaussian([0.0, 0, 0], np.eye(3)))
    with pytest.raises(ParameterError, match="normalised at every noise level"):
        nd.anneal(**given, predictor=p * both)
