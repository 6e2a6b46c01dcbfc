"""Kernels where a density fails."""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from annealing.targets import TARGETS, D, features, run_kernel
from quick import slow

from numpyro_diffusion.annealing.kernels import HMC, MALA, UHMC, ULA, BlackJAX, init

# Where a density fails.

FAILURES = {"NaN": jnp.nan, "minus infinity": -jnp.inf, "plus infinity": jnp.inf}
WALL = 0.8


@partial(jax.jit, static_argnames="num_steps")
def run_walled(density, kernel, rng_key, x, step_size, value, *, num_steps=5):
    def log_prob(u):
        return jnp.where(u[0] > WALL, value, density.log_density(u, 0.0))

    return run_kernel(log_prob, kernel, rng_key, x, step_size, num_steps)


@pytest.mark.quick_cases(2)
@pytest.mark.quick_cases(4)
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize(
    "kernel, step_size",
    [
        slow((MALA(), 0.3)),
        (HMC(), 0.5),
        slow((HMC(persistence=0.9), 0.5)),
        (ULA(), 0.1),
        slow((UHMC(), 0.3)),
        (BlackJAX(blackjax.barker), 0.8),
    ],
    ids=lambda v: type(v).__name__ if not isinstance(v, float) else "",
)
def test_chains_never_enter_a_region_where_the_density_fails(kernel, step_size, failure):
    """Beyond the wall the energy is NaN or infinite. The truncated density that remains is left invariant."""
    density = TARGETS["skewed"]
    draws = density.sample(jax.random.key(5), 60_000)
    x = draws[np.asarray(draws[:, 0]) < WALL][:40_000]
    assert len(x) == 40_000
    state, rate, diverged, log_weight = run_walled(density, kernel, jax.random.key(6), x, step_size, FAILURES[failure])
    assert np.all(np.isfinite(state.position)) and np.all(np.asarray(state.position[:, 0]) <= WALL)
    assert np.all(np.isfinite(state.logdensity)) and np.all(np.isfinite(state.logdensity_grad))
    assert np.isfinite(rate) and 0 < rate < 1
    assert diverged.sum() > 1000, "walking into the wall counts"
    # The truth is estimated from exact draws too, hence two standard errors.
    weights = np.exp(np.asarray(log_weight, np.float64))
    new, old = features(state.position) * weights[:, None], features(x)
    se = np.sqrt((new.var(0) + old.var(0)) / len(x))
    assert np.max(np.abs(new.mean(0) - old.mean(0)) / se) < 5
    assert abs(weights.mean() - 1) <= 5 * weights.std() / np.sqrt(len(x))


@pytest.mark.parametrize(
    "kernel", [MALA(), HMC(), ULA(), UHMC(), BlackJAX(blackjax.barker)], ids=lambda k: type(k).__name__
)
def test_a_chain_that_starts_where_the_energy_is_nan_stays_finite(kernel):
    log_prob = lambda u: jnp.where(u[0] > 0, jnp.nan * jnp.sum(u), -0.5 * jnp.sum(u**2))
    state = init(jnp.ones(D), jnp.zeros(D), log_prob)
    state, info = jax.jit(lambda k, s: kernel.step(k, s, log_prob, 0.5))(jax.random.key(0), state)
    assert np.all(np.isfinite(state.position)) and np.all(np.isfinite(state.momentum))
    assert info.is_divergent and info.acceptance_rate == 0 and info.log_weight == 0


# Settings.


def test_kernels_are_pytrees_with_traced_settings():
    for kernel in [ULA(0.1), MALA(0.1), HMC(0.1, 4, 0.5), UHMC(0.1, 4, 0.5), BlackJAX(blackjax.barker, 0.1)]:
        leaves, treedef = jax.tree.flatten(kernel)
        again = jax.tree.unflatten(treedef, [2 * leaf for leaf in leaves])
        assert type(again) is type(kernel) and again.step_size == pytest.approx(0.2)
        assert jax.tree.structure(again) == treedef
    assert jax.tree.structure(HMC(0.1, 3)) != jax.tree.structure(HMC(0.1, 4)), "the number of leapfrogs is static"
