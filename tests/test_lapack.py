"""LAPACK's threads, during runs and after them."""

import jax
import pytest
from exact_problems import LEVELS, P2
from threadpoolctl import ThreadpoolController, threadpool_limits

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ParameterError
from numpyro_diffusion.lapack import single_threaded_lapack


def threads():
    """Threads of every linear algebra library in this process."""
    return [library["num_threads"] for library in ThreadpoolController().info() if library["user_api"] == "blas"]


@pytest.fixture(autouse=True)
def two_threads():
    with threadpool_limits(2, user_api="blas"):
        yield


def test_one_thread_while_it_lasts_and_as_many_as_before_afterwards():
    before = threads()
    assert 2 in before
    assert set(single_threaded_lapack(threads)()) == {1}
    assert threads() == before


def test_runs_hold_lapack_to_one_thread_and_give_it_back():
    before, seen = threads(), []
    density = nd.as_density(lambda x, t: seen.append(threads()) or -0.5 * (x**2).sum(), (2,))
    nd.anneal(jax.random.key(0), density, nd.HMC(0.5), num_chains=4, levels=LEVELS, progress_bar=False)
    assert seen and {count for counts in seen for count in counts} == {1}
    assert threads() == before
    with pytest.raises(ParameterError):
        nd.anneal(jax.random.key(0), P2, nd.HMC(0.5), num_chains=0)
    assert threads() == before
