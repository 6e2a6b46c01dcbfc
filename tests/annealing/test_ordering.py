"""Chains are ordered by neighbourhood before a resampling, and nothing else about them changes."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.annealing import loop, population
from numpyro_diffusion.annealing.advance import LevelStats
from numpyro_diffusion.annealing.kernels import systematic_resampling
from numpyro_diffusion.annealing.ordering import by_neighbourhood, ordered, resamples_soon
from numpyro_diffusion.datasets import planar

RING = planar.exact("ring")


@pytest.mark.parametrize(("size", "dimension"), [(1, 1), (3, 2), (7, 5), (250, 2), (1000, 8)])
def test_every_chain_has_one_place(size, dimension):
    points = np.random.default_rng(0).standard_normal((size, dimension))
    points[::3, 0] = np.nan
    for scale in (1.0, 1e30):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            order = by_neighbourhood(np.float32(scale) * points.astype(np.float32))
        assert sorted(order) == list(range(size))


def test_chains_of_a_mode_stand_together():
    """In an order by number modes would change some 750 times."""
    rng = np.random.default_rng(1)
    mode = rng.integers(0, 4, 1000)
    points = 20 * np.eye(6)[mode] + rng.standard_normal((1000, 6))
    assert np.count_nonzero(np.diff(mode[by_neighbourhood(points)])) < 75


def test_resampling_leaves_masses_of_modes_as_weights_have_them():
    rng = np.random.default_rng(2)
    mode, log_weight = rng.integers(0, 2, 500), jnp.asarray(rng.standard_normal(500))
    weight = np.asarray(jax.nn.softmax(log_weight))
    keys = jax.random.split(jax.random.key(0), 200)

    def masses(order):
        index = jax.vmap(lambda key: systematic_resampling(key, log_weight[order], 500))(keys)
        return mode[order][np.asarray(index)].mean(1)

    along, anyhow = (
        masses(by_neighbourhood(20.0 * mode[:, None] + rng.standard_normal((500, 1)))),
        masses(np.arange(500)),
    )
    truth = weight[mode == 1].sum()
    # Of two runs of chains either has its expected number, give or take one.
    assert np.abs(along - truth).max() < 2 / 500
    assert along.std() < 0.3 * anyhow.std()
    assert abs(along.mean() - truth) < 1e-3


@pytest.mark.parametrize("num_islands", [1, 4])
def test_chains_keep_what_is_theirs(num_islands):
    chains = population.start(RING, jax.random.key(0), num_chains=64, frame_kind="whitened", num_islands=num_islands)
    chains = chains._replace(log_weight=chains.state.position[:, 0])
    moved, island = ordered(chains, chains.state.position), 64 // num_islands
    np.testing.assert_array_equal(moved.log_weight, moved.state.position[:, 0])
    for k in range(0, 64, island):
        assert sorted(np.asarray(moved.ancestor[k : k + island])) == list(range(island))
    assert not np.array_equal(moved.founders(), chains.founders())
    np.testing.assert_array_equal(np.sort(moved.founders()), chains.founders())
    assert float(moved.evidence()) == pytest.approx(float(chains.evidence()), abs=1e-5)


@pytest.mark.parametrize(
    ("ess", "share", "resampled", "threshold", "soon"),
    [
        (0.9, 0.9, False, 0.5, False),
        (0.6, 0.9, False, 0.5, True),
        (0.4, 0.9, True, 0.5, False),
        (0.4, 0.5, True, 0.5, True),
        (0.99, 0.99, False, 2.0, True),
        (0.1, 0.1, False, 0.0, False),
    ],
)
def test_orders_where_a_resampling_is_near(ess, share, resampled, threshold, soon):
    last = LevelStats(*[np.nan] * len(LevelStats._fields))._replace(
        ess=ess, conditional_ess=share, resampled=np.array(resampled)
    )
    assert resamples_soon((last,), threshold) is soon
    assert not resamples_soon((), threshold)


def test_a_run_orders_before_it_resamples(monkeypatch):
    """Levels that lie at equal distances resample as was foreseen."""
    calls = []

    def noted(population, x, mesh):
        calls.append(x.shape)
        return ordered(population, x, mesh)

    monkeypatch.setattr(loop, "ordered", noted)
    run = nd.anneal(
        jax.random.key(0),
        RING,
        nd.MALA(),
        num_chains=100,
        level_ess=0.9,
        num_steps=1,
        predictor=False,
        progress_bar=False,
    )
    resampled = int(np.sum(run.stats["resampled"]))
    assert 1 < resampled <= len(calls) < len(run.levels) / 2
    assert set(calls) == {(100, 2)}
