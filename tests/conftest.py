"""Fixtures of all tests."""

import gc
import os
import signal

# Before JAX is imported, and for the processes that tests start: compiling costs more than what they run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import pytest
from images import random_images

from numpyro_diffusion.checks.room import make_room
from numpyro_diffusion.networks.mlp import ResidualMLP


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of a test with `quick_cases(n)` all but n cases, spread evenly, are slow."""
    tests = {}
    for item in items:
        if item.get_closest_marker("quick_cases") and not item.get_closest_marker("slow"):
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in tests.values():
        (count,) = cases[0].get_closest_marker("quick_cases").args
        quick = {round(i * (len(cases) - 1) / max(count - 1, 1)) for i in range(count)}
        for i in set(range(len(cases))) - quick:
            cases[i].add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """What imports have left stays for good: every look for garbage would go through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def forget_before_maps_run_out():
    """Drop compiled programs between files where they take a fifth of what a process may have; else they serve on.

    From half of it on runs drop them themselves, which a test that counts compilations would take for one.
    """
    yield
    make_room(0.2)


@pytest.fixture(autouse=True)
def forget_within_a_file(request):
    """Drop them within a file of many slow tests, too, which aborted the process."""
    yield
    if request.node.get_closest_marker("slow"):
        make_room()


@pytest.fixture(autouse=True, scope="module")
def quick_compilation(request):
    """Tests run their programs briefly: compiling costs more than running, except in files marked `optimised`."""
    if request.node.get_closest_marker("optimised") is None:
        yield
        return
    before = jax.config.read("jax_disable_most_optimizations")
    # Programs of other files are of the other kind.
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()


@pytest.fixture
def network_calls(monkeypatch):
    """A list that grows at every call of a network."""
    calls, original = [], ResidualMLP.__call__

    def counted(self, *args):
        calls.append(type(self))
        return original(self, *args)

    monkeypatch.setattr(ResidualMLP, "__call__", counted)
    return calls


@pytest.fixture(scope="session")
def density():
    """An energy of small images with random weights: training it would compile more than all that it is for."""
    return random_images()


@pytest.fixture
def interruptible():
    """Python's own answer to Ctrl-C, which test workers may have replaced."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
