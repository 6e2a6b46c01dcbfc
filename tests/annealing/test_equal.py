"""Reverse diffusion that keeps log densities equal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import ScoreOf, exploding, gaussian, mixture, network, three_dimensional
from exact_problems import sample as annealed
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError, ScheduleError, ScoreOnlyError, ShapeError

A = gaussian((-1.0, 0.0), ((0.5, 0.0), (0.0, 0.5)), "a")
B = gaussian((1.0, 0.5), ((0.4, 0.1), (0.1, 0.8)), "b")
C = gaussian((0.0, 1.5), ((0.7, 0.0), (0.0, 0.3)), "c")


def sample(density, kernel=None, seed=0, **settings):
    return annealed(density, kernel or nd.Reverse(), seed, **{"num_chains": 200, "levels": 120} | settings)


def gaps(run, *densities):
    """Standard deviation of the densities' log densities about their mean, at every sample."""
    values = np.stack([density.log_prob(run.samples) for density in densities])
    return np.std(values, axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("densities", [(A, B), (A, B, C)], ids=["two", "three"])
def test_log_densities_stay_nearly_equal(densities):
    scores = [ScoreOf(d, d.name) for d in densities]
    run = sample(nd.equal_density(*scores))
    assert not run.is_weighted and np.isnan(run.log_evidence) and np.all(np.isfinite(run.samples))
    alone = sample(scores[0])
    assert np.median(gaps(run, *densities)) < 0.5 < 1.5 < np.median(gaps(alone, *densities))
    # And lie where densities are: no further out than samples of the product would be by much.
    assert np.mean([d.log_prob(run.samples).mean() for d in densities]) > -7


@pytest.mark.slow
def test_factors_with_log_densities_do_as_well():
    run = sample(nd.equal_density(A, ScoreOf(B, "b")))
    assert np.median(gaps(run, A, B)) < 0.5


@pytest.mark.slow
def test_one_density_twice_is_itself():
    run = sample(nd.equal_density(ScoreOf(A, "a"), ScoreOf(A, "b")), num_chains=1000, levels=60)
    x = np.asarray(run.samples)
    assert np.all(np.abs(x.mean(0) - np.array([-1.0, 0.0])) < 5 * np.sqrt(0.5 / 1000) + 0.02)
    assert np.all(np.abs(x.var(0) / 0.5 - 1) < 5 * np.sqrt(2 / 1000) + 0.05)


def test_weights_sum_to_one_and_equalise_to_first_order():
    density = nd.equal_density(ScoreOf(A, "a"), ScoreOf(B, "b"), ScoreOf(C, "c"))
    draw = np.random.default_rng(0)
    scores, logs = jnp.asarray(draw.normal(size=(3, 5))), jnp.asarray(draw.normal(size=3))
    noise, variance = jnp.asarray(0.1 * draw.normal(size=5)), 0.5
    kappa = density.weights(logs, scores, noise, variance)
    assert float(jnp.sum(kappa)) == pytest.approx(1, abs=1e-5)
    step = variance * kappa @ scores + noise
    after = logs + scores @ step - 0.5 * variance * jnp.sum(scores**2, axis=1)
    assert np.std(after) < 0.05 * np.std(logs)
    alike = density.weights(jnp.zeros(3), jnp.tile(scores[:1], (3, 1)), noise, variance)
    np.testing.assert_allclose(alike, 1 / 3, atol=1e-2)  # alike but for rounding


def test_names_schedules_and_what_it_is_not():
    density = nd.equal_density(ScoreOf(A, "a"), ScoreOf(B, "b"))
    assert repr(density) == "equal_density(a, b)" and not density.has_log_density and not density.has_increments
    assert repr(nd.equal_density(A, B, name="both")) == "both"
    schedule = nd.VarianceExploding(0.01, 50.0)
    other = density.with_schedule(schedule)
    assert other.schedule == schedule and all(part.schedule == schedule for part in other.parts)


@pytest.mark.slow
def test_under_another_schedule_log_densities_stay_nearly_equal():
    density = nd.equal_density(ScoreOf(A, "a"), ScoreOf(B, "b")).with_schedule(nd.VarianceExploding(0.01, 50.0))
    assert np.median(gaps(sample(density, levels=60), A, B)) < 0.8


@pytest.mark.slow
def test_pieces_and_checkpoints(tmp_path):
    density, settings = nd.equal_density(ScoreOf(A, "a"), ScoreOf(B, "b")), {"num_chains": 16, "levels": 40}
    whole, pieces = sample(density, **settings), sample(density, **settings, chain_batch_size=8)
    np.testing.assert_allclose(pieces.samples, whole.samples, atol=1e-4)
    for _ in range(2):
        kept = sample(density, **settings, checkpoint_path=tmp_path / "run")
        np.testing.assert_array_equal(kept.samples, whole.samples)


KEY = jax.random.key(0)
REFUSED = {
    "none": (lambda: nd.equal_density(), ParameterError, r"at least one density; got none"),
    "one": (lambda: nd.equal_density(A), ParameterError, r"at least two densities; got 1"),
    "a number": (lambda: nd.equal_density(A, 0.5), ArgumentTypeError, r"takes densities; got float"),
    "other shapes": (lambda: nd.equal_density(A, three_dimensional()), ShapeError, r"\(2,\) and \(3,\)"),
    "other schedules": (lambda: nd.equal_density(A, exploding()), ScheduleError, r"with_schedule"),
    "a mixture of scores": (
        lambda: nd.equal_density(A, 0.5 * ScoreOf(B) + 0.5 * mixture()), ScoreOnlyError, r"mixes score-only models"),
    "weighted": (
        lambda: sample(nd.equal_density(A, B), nd.Reverse(weighted=True)), ParameterError,
        r"has no weights. Leave out weighted=True"),
    "HMC": (
        lambda: sample(nd.equal_density(A, network("score")), nd.HMC()), ScoreOnlyError,
        r"Sample it by nd.Reverse\(\)"),
    "ULA": (lambda: sample(nd.equal_density(A, B), nd.ULA(0.1)), ScoreOnlyError, r"Sample it by nd.Reverse\(\)"),
    "a log density": (lambda: nd.equal_density(A, B).score(np.zeros(2)), ScoreOnlyError, r"nd.product"),
    "in a product": (lambda: sample(nd.equal_density(A, B) * A), ScoreOnlyError, r"a way of sampling.*nd.product"),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)
