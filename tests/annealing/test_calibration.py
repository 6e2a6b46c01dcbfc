"""Calibration reports against closed forms, and the last correction."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from densities import network

import numpyro_diffusion as nd
from numpyro_diffusion.annealing import calibration
from numpyro_diffusion.datasets import planar
from numpyro_diffusion.errors import ParameterError, ShapeError


@pytest.mark.parametrize("name", ["ring", "bar"])
def test_closed_forms_are_calibrated(name):
    report = nd.calibration_report(
        planar.exact(name), levels=[0.9, 0.5, 0.02, 0.005], modes=planar.MODES.get(name), method="quadrature"
    )
    assert report.drift < 5e-3
    if name == "ring":
        assert report.mode_weight_error() < 1e-3
        # Where the noise has merged the modes no weights are given.
        assert np.isnan(report.mode_weights[:2]).all() and np.isfinite(report.mode_weights[2:]).all()
    assert "largest |Z - 1|" in str(report)


def test_a_wrong_normaliser_and_wrong_modes_show():
    wrong = nd.exact.GaussianMixture(planar.MODES["left_column"], 9e-4 * np.tile(np.eye(2), (3, 1, 1)), [0.6, 0.3, 0.1])
    report = nd.calibration_report(3.0 * wrong, levels=[0.02], modes=planar.MODES["left_column"])
    assert report.log_z[0] == pytest.approx(np.log(3), abs=5e-3)
    np.testing.assert_allclose(report.mode_weights[0], [0.6, 0.3, 0.1], atol=5e-3)
    assert report.mode_weight_error() == pytest.approx(0.6 - 1 / 3, abs=5e-3)
    assert report.mode_weight_error([0.6, 0.3, 0.1]) < 5e-3


@pytest.mark.slow
def test_recalibrate_takes_out_a_normaliser():
    density = network("l2")
    # Near its base: the random weights of the other tests make landscapes that no sampler crosses.
    density = density._replace(state=jax.tree.map(lambda a: 0.3 * a, density.state))
    # e^0.7 too much at every level, in the table that recalibration writes.
    shifted = density._replace(log_z=density.log_z.at[1].add(-0.7))
    before = nd.calibration_report(shifted, levels=[0.8, 0.3, 0.05])
    after = nd.calibration_report(
        nd.recalibrate(jax.random.key(0), shifted, num_chains=1000, progress_bar=False),
        levels=[0.8, 0.3, 0.05],
    )
    assert before.drift > 0.5
    assert after.drift < 0.1


def test_recalibrate_by_quadrature():
    density = network("l2")
    shifted = density._replace(log_z=density.log_z.at[1].add(np.linspace(-0.7, 0.2, 64)))
    after = nd.recalibrate(jax.random.key(0), shifted, method="quadrature")
    assert np.max(np.abs(nd.calibration_report(after, levels=[0.8, 0.3, 0.05, 0.0]).log_z)) < 5e-3
    with pytest.raises(ShapeError, match="at most 2 dimensions"):
        nd.recalibrate(jax.random.key(0), network("l2", event_shape=(4,)), method="quadrature")
    with pytest.raises(ParameterError, match=r"method must be one of anneal, quadrature; got 'exact'"):
        nd.recalibrate(jax.random.key(0), density, method="exact")


@pytest.mark.slow
def test_annealing_measures_what_quadrature_does():
    density = 2.0 * planar.exact("left_column")
    report = nd.calibration_report(
        density, method="anneal", num_chains=500, levels=np.array([1.0, 0.6, 0.3, 0.1, 0.05])
    )
    assert report.method == "anneal"
    assert report.log_z[-1] == pytest.approx(np.log(2), abs=0.3)


def test_a_run_that_measured_nothing_is_not_taken_out(monkeypatch):
    density = network("l2")

    def run(**found):
        fields = {"is_complete": True, "log_evidence": 1.0, "log_evidence_error": 0.1} | found

        def annealed(*args, levels, **kwargs):
            log_evidence = np.full(len(levels), fields["log_evidence"])
            return SimpleNamespace(levels=levels, stats={"log_evidence": log_evidence}, **fields)

        return annealed

    monkeypatch.setattr(calibration, "anneal", run())
    assert nd.recalibrate(jax.random.key(0), density).log_z[1].max() > 0.5
    for found in (
        {"log_evidence_error": np.nan}, {"log_evidence_error": np.inf}, {"log_evidence_error": 1.5},
        {"log_evidence": np.nan}, {"log_evidence": -np.inf},
    ):  # fmt: skip
        monkeypatch.setattr(calibration, "anneal", run(**found))
        with pytest.raises(ParameterError, match="at most 1 nat"):
            nd.recalibrate(jax.random.key(0), density)
    monkeypatch.setattr(calibration, "anneal", run(is_complete=False))
    with pytest.raises(ParameterError, match="interrupted"):
        nd.recalibrate(jax.random.key(0), density)
    # Nor does a report know the error of a level where the run does not know its own.
    monkeypatch.setattr(calibration, "anneal", run(log_evidence_error=np.nan))
    report = nd.calibration_report(density, levels=np.linspace(1, 0, 5), method="anneal")
    assert np.isnan(report.log_z_error).all()
