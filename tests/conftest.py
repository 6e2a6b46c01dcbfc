"""Fixtures of all tests."""

import gc

import jax
import numpy as np
import pytest
from exact_problems import P2, Q2, components, gaussian, mixture, of_components, of_product, of_quadrature, sample

from numpyro_diffusion.disk import format as checkpoint


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs():
    """Drop a file's compiled programs when it is done: each holds memory maps, of which a process may have 65,530."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="module")
def quick_compilation():
    """For files whose programs are run briefly: compiling costs more than running."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def problems():
    g = gaussian([1.0, -2.0], [[2.0, 0.3], [0.3, 0.05]])
    return {
        "gaussian": of_components(g, components(g)),
        "mixture": of_components(P2, components(P2)),
        "product": of_product(P2, Q2),
        "product in 5-d": of_product(mixture(2, 5, 0.6), mixture(3, 5, 0.6)),
        "harmonic mean": of_quadrature(P2 * Q2 / (0.4 * P2 + 0.6 * Q2)),
    }


@pytest.fixture(scope="module")
def runs(problems):
    """Default runs by (problem, kernel), made when first asked for."""
    made = {}

    def get(name, kernel, seed=0, **settings):
        key = (name, type(kernel).__name__, seed, *settings.items())
        if key not in made:
            made[key] = sample(problems[name].density, kernel, seed, **settings)
        return made[key]

    return get


@pytest.fixture
def path(tmp_path):
    """Where a checkpoint may be written."""
    return tmp_path / "density.safetensors"


@pytest.fixture
def small(path):
    """A small checkpoint at `path`."""
    checkpoint.write(
        path, {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1, 2])}, {"kind": "energy"}
    )
    return path
