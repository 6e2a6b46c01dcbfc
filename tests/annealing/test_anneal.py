"""The annealed sampler against closed forms: moments, evidence, weights, and settings that must not matter."""

import blackjax
import numpy as np
import pytest
from exact_problems import LEVELS, NUM_CHAINS, P2, Q2, assert_moments, of_product, sample
from quick import slow

from numpyro_diffusion.annealing.kernels import HMC, MALA, UHMC, ULA, BlackJAX
from numpyro_diffusion.density.schedule import VarianceExploding

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")


# Right results.


# A structure under a kernel is a pipeline of programs, seconds to compile: the quick ones are two.
CASES = [
    slow(("gaussian", MALA())),
    ("product", HMC()),
    slow(("mixture", MALA())),
    slow(("product", ULA())),
    slow(("gaussian", HMC())),
    slow(("mixture", HMC())),
    slow(("product", MALA())),
    slow(("product", UHMC())),
    slow(("product in 5-d", HMC())),
    slow(("product in 5-d", UHMC())),
    slow(("harmonic mean", HMC())),
]
IDS = [f"{case[0]}-{type(case[1]).__name__}" for case in [getattr(c, "values", c) for c in CASES]]


@pytest.mark.parametrize("name, kernel", CASES, ids=IDS)
def test_moments_and_evidence(name, kernel, problems, runs):
    problem, run = problems[name], runs(name, kernel)
    assert run.samples.shape == (NUM_CHAINS, *problem.density.event_shape)
    assert np.all(run.log_weights == 0), "samples are equally weighted by default"
    assert run.levels[0] == 1 and run.levels[-1] == 0 and np.all(np.diff(run.levels) < 0)
    assert 0 < run.log_evidence_error < 0.1, "a check at 5 sigma needs a small sigma"
    assert abs(run.log_evidence - problem.log_z) < 5 * run.log_evidence_error
    assert_moments(run.samples, problem, run.log_evidence_error)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [HMC(), ULA()], ids=["HMC", "ULA"])
def test_evidence_is_unbiased_and_its_error_honest(kernel, problems, runs):
    """exp(log_evidence) is unbiased; over seeds the reported standard errors match the scatter."""
    problem = problems["product"]
    seeds = [runs("product", kernel, seed) for seed in range(16)]
    ratio = np.exp([run.log_evidence - problem.log_z for run in seeds])
    reported = np.array([run.log_evidence_error for run in seeds])
    assert abs(ratio.mean() - 1) < 5 * max(ratio.std(), reported.mean()) / np.sqrt(len(ratio))
    # 16 seeds know a standard deviation to 18 %: five of those, on either side of a chi square of 15.
    assert 0.25 < ratio.std() / np.sqrt(np.mean(reported**2)) < 2


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [HMC(), ULA()], ids=["HMC", "ULA"])
def test_plain_ais_leaves_weights_that_reproduce_the_moments(kernel, problems, runs):
    problem, run = problems["product"], runs("product", kernel, resample_threshold=0)
    log_weights = np.asarray(run.log_weights, np.float64)
    assert np.std(log_weights) > 0.1 and not np.any(run.stats["resampled"])
    assert run.log_evidence == pytest.approx(np.log(np.mean(np.exp(log_weights))), abs=1e-4)
    assert abs(run.log_evidence - problem.log_z) < 5 * run.log_evidence_error < 0.5
    assert run.ess == pytest.approx(np.exp(log_weights).sum() ** 2 / (np.exp(2 * log_weights)).sum(), rel=1e-3)
    assert_moments(run.samples, problem, run.log_evidence_error, log_weights)


@pytest.mark.slow
def test_without_their_weights_unadjusted_samples_are_biased(problems):
    """The check above can fail: few coarse levels and a coarse ULA step, weights dropped."""
    problem = problems["product"]
    run = sample(problem.density, ULA(0.3), levels=LEVELS, resample_threshold=0)
    assert_moments(run.samples, problem, run.log_evidence_error, run.log_weights)
    with pytest.raises(AssertionError):
        assert_moments(run.samples, problem, 0.0)


@pytest.mark.slow
def test_identity_frame_agrees(problems):
    problem = problems["product"]
    run = sample(problem.density, HMC(), frame="identity", levels=60)
    assert run.log_evidence_error < 0.1
    assert abs(run.log_evidence - problem.log_z) < 5 * run.log_evidence_error
    assert_moments(run.samples, problem, run.log_evidence_error)


@pytest.mark.slow
def test_mass_is_evidence(problems):
    """A weight multiplies its density: twice the denominator is half the mass."""
    scaled = sample(P2 * Q2 / (0.8 * P2 + 1.2 * Q2), HMC())
    assert abs(scaled.log_evidence - problems["harmonic mean"].log_z + np.log(2)) < 5 * scaled.log_evidence_error < 0.5


@pytest.mark.slow
def test_another_schedule_gives_the_same_answer():
    """Variance exploding at t = 0 is the same data density."""
    p, q = P2.with_schedule(VarianceExploding()), Q2.with_schedule(VarianceExploding())
    problem = of_product(P2, Q2)
    run = sample(p * q, MALA(), levels=40)
    assert abs(run.log_evidence - problem.log_z) < 5 * run.log_evidence_error < 0.5
    assert_moments(run.samples, problem, run.log_evidence_error)


@pytest.mark.slow
def test_blackjax_adapter_anneals(problems):
    problem = problems["gaussian"]
    run = sample(problem.density, BlackJAX(blackjax.barker), levels=LEVELS)
    assert abs(run.log_evidence) < 5 * run.log_evidence_error < 0.5
    assert_moments(run.samples, problem, run.log_evidence_error)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [HMC(), MALA()], ids=["HMC", "MALA"])
def test_step_sizes_are_tuned_to_the_target_acceptance(kernel, runs):
    run = runs("gaussian", kernel)
    assert np.all(np.abs(run.stats["acceptance_rate"] - kernel.target_acceptance) < 0.15)
    assert np.all(run.stats["step_size"] > 0)


# Settings that must not matter, and shapes.


def test_same_key_same_result(problems, runs):
    first, again = runs("product", HMC()), sample(problems["product"].density, HMC())
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.log_evidence == again.log_evidence
    assert not np.array_equal(first.samples, runs("product", HMC(), 1).samples)


@pytest.mark.slow
@pytest.mark.parametrize("chain_batch_size", [300, slow(5000)])
def test_chain_batch_size_does_not_matter(problems, chain_batch_size):
    density, settings = problems["product"].density, {"levels": LEVELS}
    whole = sample(density, HMC(0.5), **settings)
    pieces = sample(density, HMC(0.5), chain_batch_size=chain_batch_size, **settings)
    # An acceptance that hangs on the last bit may go the other way, so a chain in two hundred may differ.
    same = np.all(np.isclose(whole.samples, pieces.samples, rtol=1e-3, atol=1e-3), axis=1)
    assert same.mean() > 0.995
    assert pieces.log_evidence == pytest.approx(whole.log_evidence, abs=1e-3)


def test_history_and_statistics_by_level(problems):
    density = problems["product"].density
    run = sample(density, HMC(0.5), levels=LEVELS, keep_history=True)
    assert sorted(run.history) == ["acceptance_rate", "log_weight_increment"]
    for values in run.history.values():
        assert values.shape == (len(LEVELS), NUM_CHAINS)
    for name, values in run.stats.items():
        assert values.shape == (len(LEVELS),), name
    np.testing.assert_allclose(run.history["acceptance_rate"].mean(1), run.stats["acceptance_rate"], rtol=1e-4)
    np.testing.assert_allclose(
        run.history["log_weight_increment"].mean(1), run.stats["log_weight_increment"], rtol=1e-3, atol=1e-4
    )
    assert run.stats["log_evidence"][-1] == pytest.approx(run.log_evidence, abs=1e-5)
    assert run.evaluations_per_chain == len(LEVELS) * (1 + 2 * 3)
    assert sample(density, HMC(0.5), levels=LEVELS).history is None


@pytest.mark.slow
def test_levels_given_counted_or_placed(problems, runs):
    density = problems["product"].density
    given = sample(density, HMC(0.5), levels=list(LEVELS))
    np.testing.assert_array_equal(given.levels, LEVELS)
    np.testing.assert_allclose(given.stats["step_size"], 0.5)
    counted = sample(density, HMC(0.5), levels=12)
    assert len(counted.levels) == 12 and counted.levels[0] == 1 and counted.levels[-1] == 0
    placed = runs("product", HMC(), level_ess=0.98)
    finer = runs("product", HMC(), level_ess=0.99)
    assert 2 < len(placed.levels) < len(finer.levels)
    # Their conditional ESS is what was asked for, up to the pilot's noise; the first is the start itself.
    assert np.all(placed.stats["conditional_ess"] > 0.85) and np.all(finer.stats["conditional_ess"] > 0.95)
    per_level = sample(density, HMC(np.linspace(0.6, 0.4, len(LEVELS))), levels=LEVELS)
    np.testing.assert_allclose(per_level.stats["step_size"], np.linspace(0.6, 0.4, len(LEVELS)), rtol=1e-6)


def test_resample_threshold(problems, runs):
    density = problems["product"].density
    for threshold in [0.5, 0.9]:
        stats = sample(density, HMC(0.5), levels=LEVELS, resample_threshold=threshold).stats
        np.testing.assert_array_equal(stats["resampled"][:-1], stats["ess"][:-1] < threshold)
        assert stats["resampled"][-1], "always before the last level's steps"
        assert 1 <= np.sum(stats["resampled"]) < len(LEVELS)
