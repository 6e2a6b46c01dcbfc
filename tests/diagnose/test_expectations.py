"""Errors of expectations and quantiles by families of particles."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.diagnose.expectations import mean_of, particles_of, quantile_of, share_of
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(240, 3))
RUN = nd.AnnealedRun(
    samples=jnp.asarray(VALUES), log_weights=jnp.zeros(240), log_evidence=0.0, log_evidence_error=0.0,
    levels=np.array([1.0, 0.0]), stats={}, history=None, density=None, kernel=None, is_weighted=True, num_steps=1,
    evaluations_per_chain=1, ancestors=np.arange(240),
)  # fmt: skip


def of(weight, founder=None, islands=1):
    return particles_of(None, np.log(weight), founder, islands)


def close(a, b, **tolerance):
    np.testing.assert_allclose(a, b, **{"rtol": 1e-9} | tolerance)


# Means.


def test_of_strangers_the_error_is_the_textbook_one():
    found = mean_of(VALUES, of(np.ones(240)))
    close(found.value, VALUES.mean(0))
    close(found.error, VALUES.std(0, ddof=1) / np.sqrt(240))
    close(found.num_effective, 239.0)
    assert np.all(np.isnan(found.island_error))


@pytest.mark.parametrize("copies", [2, 5, 24])
def test_copies_of_founders_are_worth_the_founders(copies):
    few = VALUES[: 240 // copies]
    founder = np.repeat(np.arange(len(few)), copies)
    order = RNG.permutation(240)
    found = mean_of(np.repeat(few, copies, axis=0)[order], of(np.ones(240), founder[order]))
    alone = mean_of(few, of(np.ones(len(few))))
    for name in ("value", "error", "num_effective", "lower", "upper"):
        close(getattr(found, name), getattr(alone, name))


def test_weights_are_numbers_of_copies():
    count = RNG.integers(1, 5, 60)
    founder = np.repeat(np.arange(60), count)
    many = mean_of(VALUES[founder], of(np.ones(len(founder)), founder))
    weighted = mean_of(VALUES[:60], of(count / 1.0))
    for name in ("value", "error", "num_effective", "lower", "upper"):
        close(getattr(many, name), getattr(weighted, name))


def test_units_and_names_of_founders_do_not_matter():
    founder = RNG.integers(0, 50, 240)
    weight = RNG.uniform(0.2, 2.0, 240)
    one, other = mean_of(VALUES, of(weight, founder)), mean_of(3 * VALUES - 7, of(5 * weight, 49 - founder))
    close(other.value, 3 * one.value - 7)
    close(other.error, 3 * one.error)
    close(other.num_effective, one.num_effective)
    close(other.pareto_k, one.pareto_k, rtol=0.01, atol=0.01)


def test_relatives_are_never_worth_more_than_strangers():
    """Two families that agree by chance: their sums cancel, but the draws still scatter."""
    values = np.tile([1.0, -1.0], 40)
    found = mean_of(values, of(np.ones(80), np.repeat([0, 1], 40)))
    assert found.error >= values.std(ddof=1) / np.sqrt(80) * (1 - 1e-9)


@pytest.mark.parametrize("count", [1, 240])
def test_one_family_knows_nothing(count):
    values, family = np.column_stack([VALUES[:, 0], np.ones(240)])[:count], of(np.ones(count), np.zeros(count, int))
    for found in (mean_of(values, family), quantile_of(values, family, 0.5)):
        assert np.all(np.isinf([found.error, found.lower, found.upper])) and np.all(found.num_effective == 0)


def test_constants_of_several_families_are_known():
    found = mean_of(np.full(240, 2.0), of(np.ones(240), np.arange(240) // 120))
    assert found.error == 0 and found.lower == found.upper == 2


def test_what_is_no_number_has_no_quantile():
    values = np.where(np.arange(240)[:, None] < [100, 0], np.nan, VALUES[:, :2])
    found, alone = (quantile_of(v, of(np.ones(240)), 0.3) for v in (values, VALUES[:, 1]))
    assert np.all(np.isnan([field[0] for field in found]))
    close([field[1] for field in found], alone)


def test_particles_without_weight_may_be_anywhere():
    weight = np.where(np.arange(240) < 200, 1.0, 0.0)
    values = np.where(weight[:, None] > 0, VALUES, np.nan)
    with np.errstate(divide="ignore"):
        found, alone = mean_of(values, of(weight)), mean_of(VALUES[:200], of(np.ones(200)))
        median = quantile_of(values, of(weight), 0.5)
    close(found.error, alone.error)
    close(median.value, quantile_of(VALUES[:200], of(np.ones(200)), 0.5).value)
    bad = mean_of(np.full((240, 1), np.nan), of(np.ones(240)))
    assert np.isnan(bad.value).all() and np.isnan(bad.error).all()


def test_heavy_tails_are_seen():
    heavy = np.stack([RNG.normal(size=2000), RNG.uniform(size=2000) ** -1.5], axis=1)
    found = mean_of(heavy, of(np.ones(2000)))
    assert found.pareto_k[0] < 0.5 < 0.7 < found.pareto_k[1]


def _families(repeats, num_families, num_particles, rho):
    """Values [M, repeats], each column by itself of families with correlation rho, with random sizes."""
    draw = np.random.default_rng(3)
    shares = draw.dirichlet(np.ones(num_families))
    founder = np.sort(draw.choice(num_families, num_particles, p=shares))
    common, own = draw.normal(size=(num_families, repeats)), draw.normal(size=(num_particles, repeats))
    return founder, np.sqrt(rho) * common[founder] + np.sqrt(1 - rho) * own


@pytest.mark.parametrize("rho", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("num_families", [8, 100])
def test_intervals_cover(num_families, rho):
    """Of 2,000 repetitions, each with the truth 0: binomial limits at 5 sigma around 90 to 99 %."""
    founder, values = _families(2000, num_families, 400, rho)
    particles = of(np.ones(400), founder)
    found = mean_of(values, particles)
    covered = np.mean((found.lower <= 0) & (found.upper >= 0))
    slack = 5 * np.sqrt(0.95 * 0.05 / 2000)
    assert 0.91 - slack < covered < 0.99 + slack
    median = quantile_of(values, particles, 0.5)
    # Of few families on the safe side: both the degrees of freedom and the binomial law widen it.
    most = 0.99 + slack if num_families > 8 else 1.0
    assert 0.91 - slack < np.mean((median.lower <= 0) & (median.upper >= 0)) <= most
    # The median of a normal law is worth two thirds of the mean.
    assert np.median(median.error / found.error) == pytest.approx(np.sqrt(np.pi / 2), rel=0.25)


# Quantiles.


@pytest.mark.parametrize("prob", [0.05, 0.5, 0.9])
def test_quantiles_of_strangers_are_the_usual_ones(prob):
    found = quantile_of(VALUES, of(np.ones(240)), prob)
    close(found.value, np.quantile(VALUES, prob, axis=0, method="hazen"))
    assert np.all((found.lower < found.value) & (found.value < found.upper))
    close(found.num_effective, 239.0)
    tripled = quantile_of(np.repeat(VALUES, 3, axis=0), of(np.ones(720), np.repeat(np.arange(240), 3)), prob)
    close(tripled.num_effective, 239.0, rtol=0.02)
    close(tripled.value, found.value, atol=0.05)


def test_quantiles_of_weighted_draws():
    weight = RNG.uniform(0, 1, 20_000)
    values = RNG.normal(size=20_000) + 2 * weight
    kept = values[RNG.uniform(size=20_000) < weight]
    found = quantile_of(values, of(weight + 1e-12), 0.3)
    assert abs(found.value - np.quantile(kept, 0.3)) < 5 * np.hypot(found.error, 1.5 / np.sqrt(len(kept)))


# Islands.


def test_islands_are_families_of_families():
    founder = np.arange(240)
    by_island = mean_of(VALUES, of(np.ones(240), founder, islands=4))
    as_families = mean_of(VALUES, of(np.ones(240), founder // 60))
    sums = VALUES.reshape(4, 60, 3).mean(1)
    close(by_island.island_error, sums.std(0, ddof=1) / 2)
    assert np.all(as_families.error >= by_island.island_error * (1 - 1e-9))


# The public functions.


def test_functions_of_samples():
    found = nd.expectation(RUN, lambda x: {"square": x**2, "sum": x.sum()})
    close(found["square"].value, (VALUES**2).mean(0), rtol=1e-5)
    assert found["sum"].value.shape == () and nd.expectation(RUN).value.shape == (3,)
    assert np.all(nd.expectation(RUN, confidence=0.5).upper < nd.expectation(RUN).upper)
    truth = nd.quantile(RUN, 0.25, lambda x: x[0] > 0)
    assert truth.value in (0.0, 1.0)


def test_what_no_draw_has_shown_is_bounded():
    """Exactly for strangers; by what families are worth for relatives; on the safe side for weights."""
    found = nd.expectation(RUN, lambda x: {"never": x[0] > 9, "always": x[0] < 9, "two": 2.0, "some": x[0] > 0})
    close(found["never"].upper, 1 - 0.05 ** (1 / 240))
    assert found["never"].value == found["never"].lower == 0 and found["never"].error == 1 / 240
    close([found["always"].lower, found["always"].error], [1 - found["never"].upper, 1 / 240])
    assert found["always"].value == found["always"].upper == 1
    assert found["two"].error == 0  # no share
    close(found["some"].error, mean_of((VALUES[:, 0] > 0).astype(float), of(np.ones(240))).error)
    related = share_of(np.zeros(240), of(np.ones(240), np.repeat(np.arange(10), 24)))
    close(related.upper, 1 - 0.05**0.1)
    close(share_of(np.zeros(240), of(np.ones(240), np.zeros(240, int))).upper, 0.95)
    weighted = share_of(np.zeros(240), of(RNG.uniform(size=240)))
    assert 0.001 < (1 - weighted.upper) ** 240 < 0.05  # draws that all miss a share of that size


def test_later_draws_of_a_chain_are_relatives():
    particles = particles_of(None, np.zeros(80), None, 1, num_draws=3)
    found = mean_of(np.repeat(VALUES[:80], 3, axis=0), particles)
    close(found.error, VALUES[:80].std(0, ddof=1) / np.sqrt(80))


def test_a_run_without_a_living_chain_has_no_expectation():
    dead = dataclasses.replace(RUN, log_weights=jnp.full(240, -jnp.inf))
    assert np.isnan(nd.expectation(dead).value).all()


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1, "much"])
def test_refuses_confidence(confidence):
    with pytest.raises(ParameterError, match="confidence must lie in"):
        nd.expectation(RUN, confidence=confidence)


def test_refuses():
    with pytest.raises(ArgumentTypeError, match="result of nd.anneal"):
        nd.expectation(VALUES)
    with pytest.raises(ParameterError, match="prob must lie in"):
        nd.quantile(RUN, 1.0)
    with pytest.raises(RuntimeError, match="Call run"):
        nd.expectation(nd.AnnealedMCMC(lambda: None))
