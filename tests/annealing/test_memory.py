"""How much memory a chain takes, and runs that split themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from images import SHAPE, SIZE

import numpyro_diffusion as nd
from numpyro_diffusion.annealing import memory
from numpyro_diffusion.errors import ParameterError


@pytest.mark.slow
def test_memory_of_a_chain_is_what_the_program_holds_at_once(density):
    points = jnp.zeros((8, *SHAPE))
    gradients = jax.jit(lambda d, x: jax.vmap(jax.value_and_grad(lambda z: d.log_density(z, 0.5)))(x))
    taken = gradients.lower(density, points).compile().memory_analysis().temp_size_in_bytes / len(points)
    assert 0.7 * taken < memory.bytes_per_chain(density) < 5 * taken


def test_memory_is_counted_from_a_result_to_its_last_use():
    def three(x):
        a = jnp.broadcast_to(x, (100,))  # held until c is there
        b = jax.jit(lambda y: jnp.tile(y, 3))(a)  # 300 beside the 100 of a
        c = b[:100] * a  # 300 + 100 + a slice of 100, then 100 more for the product
        return jnp.sum(c)

    assert memory._peak(jax.make_jaxpr(three)(1.0).jaxpr) in range(4 * 500, 4 * 701)


def test_a_run_splits_itself_to_fit_into_memory(monkeypatch, density):
    each = memory.bytes_per_chain(density)
    many = nd.compose_conditions(density, np.random.default_rng(0).uniform(size=(9, 2)))
    assert 5 * each < memory.bytes_per_chain(many) < 15 * each
    monkeypatch.setattr(memory, "free_bytes", lambda: int(2 * 3.5 * each))
    assert memory.chains_that_fit(density, 2) == 2
    assert memory.chains_that_fit(density, 100) == 3
    monkeypatch.setattr(memory, "LARGE", SIZE)
    assert memory.default_batch_size(density, 2) is None and memory.default_batch_size(density, 100) == 3
    monkeypatch.setattr(memory, "free_bytes", lambda: each // 2)
    with pytest.raises(ParameterError, match=r"one chain of .* needs up to"):
        nd.anneal(jax.random.key(0), density, nd.Reverse(), num_chains=4, levels=3, progress_bar=False)
