"""LAPACK's threads, during runs and after them."""

import os
import random
import threading
import time

import jax
import pytest
from exact_problems import LEVELS, P2
from threadpoolctl import ThreadpoolController, threadpool_limits

import numpyro_diffusion as nd
from numpyro_diffusion.annealing.blas_threads import single_threaded_blas
from numpyro_diffusion.errors import ParameterError


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
    assert set(single_threaded_blas(threads)()) == {1}
    assert threads() == before


def test_calls_within_calls_and_calls_that_fail():
    before = threads()

    @single_threaded_blas
    def fails():
        assert set(single_threaded_blas(threads)()) == {1}
        # The inner one has ended, the outer has not.
        assert set(threads()) == {1}
        raise RuntimeError("in the middle")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="in the middle"):
            fails()
        assert threads() == before


def test_two_that_overlap_leave_what_the_first_found():
    before, entered, others = threads(), threading.Event(), threading.Event()
    seen = []

    @single_threaded_blas
    def first():
        entered.set()
        assert others.wait(10)

    @single_threaded_blas
    def second():
        others.set()
        one.join(10)
        seen.append(threads())

    one = threading.Thread(target=first)
    one.start()
    assert entered.wait(10)
    second()
    assert [set(counts) for counts in seen] == [{1}] and threads() == before


def test_many_that_overlap_at_random():
    before, seen = threads(), []

    @single_threaded_blas
    def work(rng):
        time.sleep(0.002 * rng.random())
        seen.append(set(threads()))
        if rng.random() < 0.3:
            raise ValueError

    def several(seed):
        rng = random.Random(seed)
        for _ in range(10):
            try:
                work(rng)
            except ValueError:
                seen.append({1})
            time.sleep(0.002 * rng.random())

    workers = [threading.Thread(target=several, args=(seed,)) for seed in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert len(seen) >= 60 and all(counts == {1} for counts in seen)
    assert threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_fork_has_no_share_in_its_parents_limit():
    before = threads()

    @single_threaded_blas
    def forked():
        child = os.fork()
        if child == 0:
            os._exit(0 if threads() == before else 1)
        return os.waitpid(child, 0)[1]

    assert forked() == 0 and threads() == before


@pytest.mark.slow
def test_runs_hold_lapack_to_one_thread_and_give_it_back():
    before, seen = threads(), []
    density = nd.as_density(lambda x, t: seen.append(threads()) or -0.5 * (x**2).sum(), (2,))
    nd.anneal(jax.random.key(0), density, nd.HMC(0.5), num_chains=4, levels=LEVELS, progress_bar=False)
    assert seen and {count for counts in seen for count in counts} == {1}
    assert threads() == before
    with pytest.raises(ParameterError):
        nd.anneal(jax.random.key(0), P2, nd.HMC(0.5), num_chains=0)
    assert threads() == before
