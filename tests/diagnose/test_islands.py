"""Particles as chains: which lie side by side, and what ArviZ makes of them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats

import numpyro_diffusion as nd
from numpyro_diffusion.diagnose.islands import effective_families, in_order, layout

RUN = nd.AnnealedRun(
    samples=jnp.zeros((0, 1)), log_weights=jnp.zeros(0), log_evidence=0.0, log_evidence_error=0.0,
    levels=np.array([1.0, 0.0]), stats={}, history=None, density=None, kernel=None, is_weighted=True, num_steps=1,
    evaluations_per_chain=1,
)  # fmt: skip


def run_of(ancestors, log_weights=None):
    count = len(ancestors)
    weights = np.zeros(count) if log_weights is None else log_weights
    return dataclasses.replace(
        RUN, samples=np.arange(count)[:, None], log_weights=weights, ancestors=np.asarray(ancestors)
    )


def families(count, size):
    return np.arange(count) // size


@pytest.mark.parametrize(
    ("count", "num_samples", "shape"),
    [
        (512, 1, (4, 128)), (64, 4, (4, 64)), (1002, 1, (6, 167)), (1001, 1, (7, 143)), (90, 1, (5, 18)),
        (509, 1, (1, 509)), (16, 1, (16, 1)), (4, 3, (12, 1)), (4, 100, (4, 100)), (7, 20, (7, 20)),
        (50, 1, (2, 25)), (1, 1, (1, 1)), (3, 1, (3, 1)), (32, 1, (2, 16)),
    ],
)  # fmt: skip
def test_shape(count, num_samples, shape):
    found = layout(run_of(np.arange(count)), num_samples)
    assert found.shape == shape
    assert sorted(found.particles) == list(range(count))
    assert ("withheld" in found.note) == (shape[1] == 1)
    assert ("without R-hat" in found.note) == (shape[0] == 1 < shape[1])


@pytest.mark.parametrize("size", [1, 3, 7, 40])
def test_relatives_lie_side_by_side_and_islands_share_few(size):
    ancestors = np.random.default_rng(1).permutation(families(480, size))
    islands = ancestors[layout(run_of(ancestors)).particles].reshape(4, 120)
    changes = np.sum(np.diff(islands.ravel()) != 0)
    assert changes == len(np.unique(ancestors)) - 1
    shared = sum(len(np.intersect1d(a, b)) for i, a in enumerate(islands) for b in islands[:i])
    assert shared <= 3


def test_order_is_the_same_each_time_and_not_that_of_the_founders():
    ancestors = families(512, 4)
    first, second = (layout(run_of(ancestors)).particles for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert abs(np.corrcoef(ancestors[first], np.arange(512))[0, 1]) < 5 / np.sqrt(128)


@pytest.mark.parametrize("log_weights", [np.r_[0.1, np.zeros(63)], np.r_[-np.inf, np.zeros(63)], np.full(64, -np.inf)])
def test_withheld_for_unequal_weights(log_weights):
    found = layout(run_of(np.arange(64), log_weights))
    assert found.shape == (64, 1) and "weigh unequally" in found.note


def test_withheld_where_few_families_are_left():
    ancestors = np.r_[np.zeros(300, int), np.arange(1, 213)]
    assert effective_families(ancestors) == pytest.approx(512**2 / (300**2 + 212))
    found = layout(run_of(ancestors))
    assert found.shape == (512, 1) and "effectively 2.9 founding chains" in found.note
    assert layout(run_of(families(512, 128))).shape == (4, 128)


def test_ess_is_that_of_clustered_draws():
    # Families of 8 whose members correlate by .7: a mean of them has the error of N / (1 + 7 * .7) independent draws.
    size, correlation, count = 8, 0.7, 2048
    rng = np.random.default_rng(0)
    found = layout(run_of(families(count, size)))
    expected, side_by_side, shuffled = count / (1 + (size - 1) * correlation), [], []
    for _ in range(20):
        shared, own = np.repeat(rng.normal(size=count // size), size), rng.normal(size=count)
        x = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
        x = x[found.particles].reshape(found.shape)
        side_by_side.append(array_stats.ess(x, chain_axis=0, draw_axis=1))
        shuffled.append(array_stats.ess(rng.permuted(x, axis=1), chain_axis=0, draw_axis=1))
    # ArviZ stops summing where its estimates turn negative, which leaves it a little high.
    assert np.mean(side_by_side) == pytest.approx(expected, rel=0.25)
    assert np.mean(shuffled) > 2 * expected


def test_families_apart_are_seen_by_r_hat():
    # Eight families at eight places, each in one island or two.
    ancestors = families(512, 64)
    found = layout(run_of(ancestors))
    x = (ancestors + 0.1 * np.random.default_rng(0).normal(size=512))[found.particles].reshape(found.shape)
    assert array_stats.rhat(x, chain_axis=0, draw_axis=1) > 1.5
    assert array_stats.ess(x, chain_axis=0, draw_axis=1) < 16


def test_a_run_in_another_order():
    run = run_of(families(8, 2), np.arange(8.0))
    new = in_order(run, np.arange(8)[::-1])
    np.testing.assert_array_equal(new.samples[:, 0], np.arange(8)[::-1])
    np.testing.assert_array_equal(new.log_weights, np.arange(8.0)[::-1])
    np.testing.assert_array_equal(new.ancestors, [3, 3, 2, 2, 1, 1, 0, 0])
    assert in_order(dataclasses.replace(run, ancestors=None), np.arange(8)).ancestors is None
