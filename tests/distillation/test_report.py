"""A report beside the teacher: errors by level as they are by hand, nothing where nothing differs."""

import jax
import numpy as np
import pytest
from densities import COVARIANCES, MEANS, WEIGHTS, ScoreOf, mixture, network
from scipy.stats import multivariate_normal

import numpyro_diffusion as nd

KEY = jax.random.key(0)
M = mixture()
X = np.asarray(M.sample(jax.random.key(1), 300))
FEW = {"num_levels": 3, "num_samples": 50, "num_likelihoods": 0}


@pytest.fixture(scope="module")
def energy():
    density = network("l2")
    # Near its base: random weights make landscapes that no sampler crosses.
    return density._replace(state=jax.tree.map(lambda a: 0.3 * a, density.state))


@pytest.fixture(scope="module")
def report(energy):
    return nd.distillation_report(KEY, energy, ScoreOf(M, "s"), X, **FEW)


@pytest.mark.slow
def test_errors_are_those_of_the_definition(energy, report):
    eps = np.asarray(jax.random.normal(jax.random.split(KEY, 4)[0], X.shape))
    for k, r in enumerate(report.noise_to_signal):
        t = M.schedule.time(r)
        alpha = float(M.schedule.alpha(t))
        ours, theirs = (r * alpha * np.asarray(d.score(alpha * (X + r * eps), t)) for d in (energy, M))
        np.testing.assert_allclose(report.mismatch[k], np.mean((ours - theirs) ** 2), rtol=1e-3)
        np.testing.assert_allclose(report.noise_error[k], np.mean((ours + eps) ** 2), rtol=1e-3)
        np.testing.assert_allclose(report.teacher_noise_error[k], np.mean((theirs + eps) ** 2), rtol=1e-3)
    assert np.max(report.mismatch) > 1e-2


@pytest.mark.slow
def test_a_student_that_is_its_teacher(energy):
    report = nd.distillation_report(KEY, energy, ScoreOf(energy), X, **FEW)
    assert np.max(report.mismatch) < 1e-8 and report.frechet == pytest.approx(report.teacher_frechet, rel=1e-2)
    assert np.isnan(report.nats) and np.isnan(report.teacher_nats)


@pytest.mark.slow
def test_nats_are_those_of_the_noised_data():
    few = FEW | {"num_likelihoods": 40, "num_samples": 2}
    density = network("l2")
    density = density._replace(
        state=jax.tree.map(lambda a: 0.1 * a, density.state), sigmas=density.sigmas.at[0].set(0.3)
    )
    report = nd.distillation_report(KEY, density, ScoreOf(M), X, **few)
    y = X[:40] + 0.3 * np.asarray(jax.random.normal(jax.random.split(KEY, 4)[2], (40, 2)))
    blurred = [multivariate_normal(m, c + 0.09 * np.eye(2)).pdf(y) for m, c in zip(MEANS, COVARIANCES, strict=True)]
    assert report.teacher_nats == pytest.approx(np.mean(np.log(WEIGHTS @ blurred)), abs=0.02)
    assert report.nats == pytest.approx(float(np.mean(density.log_prob(y))), abs=0.01)


@pytest.mark.slow
def test_log_z_is_that_of_a_calibration_report(energy, report):
    assert report.log_z == pytest.approx(nd.calibration_report(energy).log_z[-1], abs=1e-3)


@pytest.mark.slow
def test_it_prints_a_table(report):
    text = str(report)
    assert text.startswith("l2, beside s\n") and "held-out nats" in text and "log Z" in text
    assert len({len(line) for line in text.splitlines()[1:5]}) == 1
    assert repr(report).startswith("DistillationReport(l2 of s, ")
