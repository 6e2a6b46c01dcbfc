"""Room for compiled programs: they are dropped before the process has no memory maps left."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import mixture

import numpyro_diffusion as nd
from numpyro_diffusion.checks import room


@pytest.fixture
def full(monkeypatch, tmp_path):
    """A process that has as many maps as it may have."""
    (tmp_path / "maps").write_text("a map\n" * 6)
    (tmp_path / "limit").write_text("10\n")
    monkeypatch.setattr(room, "MAPS", tmp_path / "maps")
    monkeypatch.setattr(room, "LIMIT", tmp_path / "limit")
    monkeypatch.setattr(room, "_left", 0)


def test_programs_are_dropped_where_there_is_no_room(full):
    twice = jax.jit(lambda x: 2 * x)
    twice(jnp.ones(3))
    assert twice._cache_size() == 1
    assert room.make_room()
    assert twice._cache_size() == 0
    assert np.all(twice(jnp.ones(3)) == 2)


def test_they_stay_where_there_is(full):
    room.MAPS.write_text("a map\n" * 5)
    twice = jax.jit(lambda x: 2 * x)
    twice(jnp.ones(3))
    assert not room.make_room()
    assert twice._cache_size() == 1


def test_what_others_hold_does_not_drop_them_again_and_again(full):
    assert room.make_room() and not room.make_room()
    room.MAPS.write_text("a map\n" * 8)
    assert room.make_room()


def test_elsewhere_than_on_linux_nothing_is_counted(full):
    room.LIMIT.unlink()
    assert not room.make_room()


def test_this_process_is_counted():
    if not room.MAPS.exists():
        pytest.skip("not on Linux")
    before = room.MAPS.read_bytes().count(b"\n")
    kept = [jax.jit(lambda x, n=n: jnp.sort(x) + n)(jnp.ones(n)) for n in range(3, 8)]
    assert len(kept) == 5 and room.MAPS.read_bytes().count(b"\n") > before
    assert not room.make_room()


@pytest.mark.slow
def test_runs_make_room_and_are_the_same(full):
    def run():
        return nd.anneal(jax.random.key(0), mixture("p"), nd.HMC(0.5), levels=4, num_chains=40, progress_bar=False)

    twice = jax.jit(lambda x: 2 * x)
    twice(jnp.ones(3))
    first = run()
    assert twice._cache_size() == 0
    np.testing.assert_array_equal(first.samples, run().samples)
