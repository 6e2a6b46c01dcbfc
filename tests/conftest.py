"""Fixtures of all tests."""

import gc

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs():
    """Drop a file's compiled programs when it is done: each holds memory maps, of which a process may have 65,530."""
    yield
    jax.clear_caches()
    gc.collect()
