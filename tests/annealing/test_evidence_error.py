"""Standard errors of log evidence: families, tails and corrections; small where they may be, large where they must."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from densities import gaussian
from exact_problems import NUM_CHAINS, sample

import numpyro_diffusion as nd
from numpyro_diffusion.annealing.evidence import Account, evidence_error, folded, new_account
from numpyro_diffusion.diagnose.findings import findings
from numpyro_diffusion.diagnose.weights import pareto_tail, tail_size

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
RNG = np.random.default_rng(0)
tail_of = jax.jit(pareto_tail)


# Tails.


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("sd", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("count", [30, 400, 2000])
def test_the_shape_is_that_of_psis(count, sd):
    log_weight = np.random.default_rng(count).normal(size=count) * sd
    # ArviZ takes log likelihoods, whose weights are their inverses.
    expected = float(array_stats.psislw(-log_weight)[1])
    with jax.enable_x64(True):
        np.testing.assert_allclose(pareto_tail(jnp.asarray(log_weight)).pareto_k, expected, rtol=1e-6)
    np.testing.assert_allclose(tail_of(jnp.asarray(log_weight, jnp.float32)).pareto_k, expected, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("k", [0.3, 0.8, 1.5])
def test_the_shape_of_pareto_weights_is_found(k):
    """w = U^-k has shape k; the fit's standard error is (1 + k) / sqrt(M), and draws it towards 1/2."""
    count = 20_000
    log_weight = jnp.asarray(-k * np.log(np.random.default_rng(1).uniform(size=count)))
    size = tail_size(count)
    expected = (size * k + 5) / (size + 10)
    assert abs(float(tail_of(log_weight).pareto_k) - expected) < 5 * (1 + k) / np.sqrt(size)


def test_what_lies_beyond_the_largest_weight():
    """Of U^-k the mean is 1 / (1 - k): what a sample misses of it is what the tail says, within a factor of three."""
    k, count = 0.8, 1000
    draws = np.random.default_rng(2).uniform(size=(200, count)) ** -k
    said = np.median([float(tail_of(jnp.asarray(np.log(w))).nats) for w in draws])
    missed = np.log(1 / (1 - k)) - np.median(np.log(draws.mean(1)))
    assert missed > 0.1 and missed / 3 < said < 3 * missed


def test_tails_without_a_shape():
    def values(log_weight, **settings):
        return [float(v) for v in pareto_tail(jnp.asarray(log_weight, dtype=float), **settings)]

    assert values(np.zeros(400)) == [0.0, 0.0]
    assert values(np.full(400, -5.0)) == [0.0, 0.0]
    few, none = values(np.arange(9.0)), values(np.full(400, -np.inf))
    assert np.isnan(few[0]) and few[1] == 0 and np.isnan(none[0]) and none[1] == 0
    one = np.full(400, -np.inf)
    one[7] = 3.0
    assert values(one)[0] >= 1 and np.isinf(values(one)[1])
    moderate = RNG.normal(size=400)
    assert values(moderate, caution=3.0)[1] > values(moderate)[1] == 0
    assert values(moderate, caution=3.0)[0] == values(moderate)[0]


# Families.


def error_of(log_weight, ancestor=None, account=None):
    log_weight = jnp.asarray(log_weight, dtype=float)
    ancestor = jnp.arange(log_weight.size) if ancestor is None else jnp.asarray(ancestor)
    return float(evidence_error(account or new_account(log_weight.size), log_weight, ancestor))


def test_one_fold_has_the_error_of_a_mean_of_weights():
    log_weight = 0.3 * RNG.normal(size=500)
    relative = np.exp(log_weight) / np.exp(log_weight).mean()
    variance = relative.var(ddof=1) / 500
    assert error_of(log_weight) == pytest.approx(np.sqrt(variance / (1 - variance)), rel=1e-4)
    assert error_of(log_weight + 7.0) == pytest.approx(error_of(log_weight), rel=1e-4)


def test_two_families_of_equal_chains_have_an_error_of_about_their_difference():
    """Two founders with N / 2 chains each, of weights 1 and 3: d = -+1/2, e^2 = 2 (1/4)^2 / (1/2) = 1/4, over 3/4."""
    ancestor = np.repeat([0, 1], 50)
    log_weight = np.log(np.repeat([1.0, 3.0], 50))
    assert error_of(log_weight, ancestor) == pytest.approx(np.sqrt((1 / 4) / (3 / 4)), rel=1e-5)


def test_one_family_one_weight_one_chain_none():
    assert np.isinf(error_of(0.1 * RNG.normal(size=100), np.zeros(100, int)))
    alone = np.full(100, -np.inf)
    alone[3] = 0.0
    assert np.isinf(error_of(alone))
    assert np.isnan(error_of(np.full(100, -np.inf)))
    assert np.isnan(error_of([0.0]))


def test_folds_add_up_and_a_family_that_lasts_adds_up_faster():
    """Independent folds: e grows as the root of their number; the same deviation again and again: as their number."""
    log_weight = 0.2 * RNG.normal(size=400)
    one = error_of(log_weight)
    again = new_account(400)
    for _ in range(3):
        again = folded(again, jnp.asarray(log_weight), jnp.arange(400))
    assert error_of(log_weight, account=again) == pytest.approx(4 * one, rel=0.01)
    other = new_account(400)
    for seed in range(3):
        other = folded(other, jnp.asarray(0.2 * np.random.default_rng(seed).normal(size=400)), jnp.arange(400))
    assert error_of(log_weight, account=other) == pytest.approx(2 * one, rel=0.25)


def test_tails_and_corrections_come_on_top():
    plain = new_account(400)
    assert error_of(np.zeros(400), account=plain._replace(tail_nats=jnp.array(0.7))) == pytest.approx(0.7)
    account = Account(plain.deviation.at[0].set(0.1), jnp.zeros(()), jnp.array(0.15))
    assert error_of(np.zeros(400), account=account) == pytest.approx(0.1), "within two standard errors"
    assert error_of(np.zeros(400), account=account._replace(correction=jnp.array(-1.5))) == pytest.approx(1.5)


# Runs.


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [pytest.param(nd.UHMC(1.2), marks=pytest.mark.slow), nd.ULA(1.0)], ids=repr)
def test_steps_too_long_for_an_unadjusted_kernel_are_told(problems, kernel):
    problem = problems["product"]
    run = sample(problem.density, kernel, levels=6, num_chains=400)
    assert abs(run.log_evidence - problem.log_z) < 3 * run.log_evidence_error and run.log_evidence_error > 0.5
    assert np.max(run.stats["pareto_k"]) > 0.5
    found = [text for text in findings(run) if "heavy tail" in text]
    assert (
        len(found) == 1 and "nd.HMC" in found[0] and f"step_size smaller than {float(kernel.step_size):.3g}" in found[0]
    )


@pytest.mark.slow
def test_corrections_average_to_one_where_steps_are_short(problems):
    run = sample(problems["product"].density, nd.ULA(0.05), levels=20, num_chains=400)
    assert 0 < abs(run.stats["correction"][-1]) < 5 * run.log_evidence_error
    adjusted = sample(problems["product"].density, nd.HMC(0.6), levels=12)
    assert np.all(adjusted.stats["correction"] == 0)


@pytest.mark.slow
def test_errors_by_level_end_in_that_of_the_run(problems):
    run = sample(problems["product"].density, nd.HMC(0.6), levels=12)
    errors = run.stats["log_evidence_error"]
    assert errors.shape == (12,) and errors[0] < errors[-1]
    assert errors[-1] == pytest.approx(run.log_evidence_error, rel=1e-5)
    assert 0.3 / np.sqrt(NUM_CHAINS) < run.log_evidence_error < 0.1


@pytest.mark.slow
def test_a_single_chain_has_no_error():
    run = nd.anneal(jax.random.key(0), gaussian(), nd.HMC(0.5), num_chains=1, levels=4, progress_bar=False)
    assert np.isfinite(run.log_evidence) and np.isnan(run.log_evidence_error)
    bound = nd.ais_bound(jax.random.key(0), gaussian(), nd.HMC(0.5), num_chains=1, levels=4, progress_bar=False)
    assert np.isnan(bound.lower_error)
