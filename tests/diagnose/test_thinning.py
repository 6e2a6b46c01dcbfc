"""Few draws that stand for many."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.diagnose.expectations import particles_of
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError

RNG = np.random.default_rng(0)


def run_of(samples, weight=None, **more):
    weight = np.ones(len(samples)) if weight is None else weight
    with np.errstate(divide="ignore"):
        log_weights = jnp.log(jnp.asarray(weight, dtype=float))
    fields = {"samples": jnp.asarray(samples), "log_weights": log_weights, "ancestors": np.arange(len(samples))}
    return nd.AnnealedRun(
        log_evidence=0.0, log_evidence_error=0.0, levels=np.array([1.0, 0.0]), stats={}, history=None, density=None,  # pyright: ignore
        kernel=None, is_weighted=True, num_steps=1, evaluations_per_chain=1, **fields | more,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(97,), (97, 3), (97, 4, 4, 2)])
def test_all_draws_stand_for_themselves(shape):
    x = RNG.normal(size=shape)
    kept = nd.thinned(jax.random.key(0), run_of(x), 97)
    assert kept.shape == shape
    np.testing.assert_array_equal(np.sort(np.ravel(kept)), np.sort(np.ravel(jnp.asarray(x))))


@pytest.mark.parametrize("weight", [np.ones(60), RNG.exponential(size=60), RNG.integers(0, 3, 60)])
def test_every_draw_is_kept_in_proportion_to_its_weight(weight):
    run, n, repeats = run_of(np.arange(60.0), weight), 20, 150
    counts = np.array([
        np.bincount(np.asarray(nd.thinned(jax.random.key(i), run, n), int), minlength=60) for i in range(repeats)
    ])  # fmt: skip
    expected = n * weight / weight.sum()
    error = counts.std(0, ddof=1) / np.sqrt(repeats)
    # A draw that was never or always kept has no error to show: one count more or less.
    assert np.all(np.abs(counts.mean(0) - expected) <= 5 * np.maximum(error, 1 / repeats))


@pytest.mark.parametrize("d", [1, 2, 40])
def test_modes_keep_their_shares_far_better_than_a_random_subset_does(d):
    sizes = np.array([1700, 900, 400])
    which = RNG.permutation(np.repeat(np.arange(3), sizes))
    centre = np.outer([0.0, 20.0, 50.0], np.ones(d)) / np.sqrt(d)
    x = centre[which] + RNG.normal(size=(3000, d))
    found = []
    for seed in range(5):
        kept = np.asarray(nd.thinned(jax.random.key(seed), run_of(x), 300))
        found.append(np.bincount(np.argmin(np.sum((kept[:, None] - centre) ** 2, -1), 1), minlength=3))
    # Random subsets are off by eight in the first.
    assert np.max(np.abs(np.array(found) - sizes / 10)) <= 2


def test_units_do_not_matter():
    x = RNG.normal(size=(500, 2)) + 10 * RNG.integers(0, 2, (500, 2))
    kept = [nd.thinned(jax.random.key(0), run_of(x * scale), 50) / scale for scale in (1.0, np.array([1e3, 1e-3]))]
    np.testing.assert_allclose(*kept, rtol=1e-5)


def test_a_heavy_draw_is_there_as_often_as_it_weighs():
    weight = np.concatenate([[99.0], np.ones(99)])
    kept = np.asarray(nd.thinned(jax.random.key(0), run_of(np.arange(100.0), weight), 40))
    assert abs(np.sum(kept == 0) - 20) <= 1


def test_lost_draws_are_never_kept():
    x = np.where(np.arange(50) % 2, np.nan, np.arange(50.0))
    kept = nd.thinned(jax.random.key(0), run_of(x, np.isfinite(x)), 50)
    assert np.all(np.isfinite(kept))


def test_islands_keep_their_shares():
    x = np.repeat([0.0, 1.0], 100)
    run = run_of(x, np.repeat([3.0, 1.0], 100), island_log_evidences=np.log([3.0, 1.0]), ancestors=np.arange(200) % 100)
    assert abs(np.mean(nd.thinned(jax.random.key(0), run, 80)) - 1 / 4) <= 1 / 80


def test_equal_draws_can_be_thinned():
    assert np.all(np.asarray(nd.thinned(jax.random.key(0), run_of(np.ones((30, 2))), 7)) == 1)


def test_sites_of_a_draw_stay_together():
    sites = {"x": jnp.asarray(RNG.normal(size=(100, 2))), "n": jnp.arange(100)}
    mcmc = SimpleNamespace(particles=particles_of(sites, np.zeros(100), None, 1))
    kept = nd.thinned(jax.random.key(1), mcmc, 25)
    assert {name: value.shape for name, value in kept.items()} == {"x": (25, 2), "n": (25,)}
    np.testing.assert_array_equal(kept["x"], sites["x"][kept["n"]])


def test_refusals():
    run, key = run_of(np.arange(10.0)), jax.random.key(0)
    with pytest.raises(ArgumentTypeError, match=r"nd.thinned takes .* got ndarray"):
        nd.thinned(key, np.arange(10.0), 5)
    with pytest.raises(ParameterError, match="at most the 10 draws"):
        nd.thinned(key, run, 11)
    with pytest.raises(ParameterError, match="num_samples"):
        nd.thinned(key, run, 0)
    lost = dataclasses.replace(run, log_weights=jnp.full(10, -jnp.inf))
    with pytest.raises(ParameterError, match="no draw of this run"):
        nd.thinned(key, lost, 5)
