"""The noise of a training batch: levels that cover the range evenly, and no key used for two things."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import network

from numpyro_diffusion.train import losses

KEY, Y = jax.random.key(0), np.random.default_rng(0).normal(size=(64, 2))
DENSITIES = {kind: network(kind) for kind in ("l2", "score")}


@pytest.fixture
def drawn(monkeypatch):
    """What `losses` draws, as (key, values)."""
    calls = []

    def recorded(draw):
        def call(key, *args, **kwargs):
            calls.append((np.asarray(jax.random.key_data(key)).tolist(), draw(key, *args, **kwargs)))
            return calls[-1][1]

        return call

    for name in ("permutation", "uniform", "normal"):
        monkeypatch.setattr(jax.random, name, recorded(getattr(jax.random, name)))
    return calls


@pytest.mark.parametrize("kind", DENSITIES)
def test_every_draw_has_a_key_of_its_own(drawn, kind):
    value = losses.loss(DENSITIES[kind], KEY, jnp.asarray(Y, float), None, 1.0)
    assert np.isfinite(value) and len(drawn) == 3
    keys = [key for key, _ in drawn]
    assert len({tuple(key) for key in keys}) == 3 and np.asarray(jax.random.key_data(KEY)).tolist() not in keys


def test_levels_cover_the_range_in_any_order(drawn):
    losses.loss(DENSITIES["score"], KEY, jnp.asarray(Y, float), None, 1.0)
    (_, order), (_, place), _ = drawn
    share = np.sort((np.asarray(order) + np.asarray(place)) / len(Y))
    np.testing.assert_array_equal(np.floor(share * len(Y)), np.arange(len(Y)))
