"""Laws of the kernels: invariance, exact weights, counted gradients, walls of NaN, bad settings.

Chains start from exact draws of a closed-form density, so they are stationary from the first step, stay independent of
each other, and need neither burn-in nor effective sample sizes: se = sd / sqrt(N). All comparisons are at 5 sigma.
"""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from annealing.targets import TARGETS, D, features, run_kernel
from blackjax.mcmc import hmc as blackjax_hmc
from quick import slow

from numpyro_diffusion.annealing.kernels import HMC, MALA, UHMC, ULA, BlackJAX, init
from numpyro_diffusion.annealing.kernels.hamiltonian import SPREAD, _shrunk

pytestmark = pytest.mark.optimised
NUM_CHAINS = 100_000
NUM_STEPS = 20


# Settings that reject a fifth to two fifths of all proposals: a kernel that hardly ever rejects tests nothing.
ADJUSTED = {
    ("MALA", "anisotropic"): (MALA(), 1.1),
    ("MALA", "skewed"): (MALA(), 0.45),
    ("HMC", "anisotropic"): (HMC(persistence=0.0), 1.45),
    ("HMC", "skewed"): (HMC(persistence=0.0), 0.9),
    ("HMC persistent", "anisotropic"): (HMC(persistence=0.9), 1.45),
    ("HMC persistent", "skewed"): (HMC(persistence=0.9), 0.9),
    ("Barker", "anisotropic"): (BlackJAX(blackjax.barker), 1.8),
    ("Barker", "skewed"): (BlackJAX(blackjax.barker), 1.1),
}
UNADJUSTED = {
    ("ULA", "anisotropic"): (ULA(), 0.15),
    ("ULA", "skewed"): (ULA(), 0.12),
    ("UHMC", "anisotropic"): (UHMC(persistence=0.0), 0.5),
    ("UHMC", "skewed"): (UHMC(persistence=0.0), 0.45),
    ("UHMC persistent", "anisotropic"): (UHMC(persistence=0.9), 0.5),
    ("UHMC persistent", "skewed"): (UHMC(persistence=0.9), 0.45),
}


@partial(jax.jit, static_argnames="num_steps")
def run(density, kernel, rng_key, x, step_size, *, num_steps=NUM_STEPS):
    return run_kernel(lambda u: density.log_density(u, 0.0), kernel, rng_key, x, step_size, num_steps)


@pytest.fixture(scope="module", params=[pytest.param("anisotropic", marks=pytest.mark.slow), "skewed"])
def target(request):
    """Name, density, exact draws and exact moments."""
    density = TARGETS[request.param]
    x = density.sample(jax.random.key(11), NUM_CHAINS)
    return request.param, density, x, exact_moments(density)


def exact_moments(density):
    """What `features` has as means under a Gaussian mixture."""
    weights = np.exp(np.asarray(density.log_weights, dtype=np.float64))
    values, vectors = np.asarray(density.eigenvalues, np.float64), np.asarray(density.eigenvectors, np.float64)
    total = 0.0
    for w, m, value, vector in zip(weights, np.asarray(density.means, np.float64), values, vectors, strict=True):
        C = (vector * value) @ vector.T
        second = np.outer(m, m) + C
        third = np.einsum("i,j,k", m, m, m) + sum(np.einsum(s, m, C) for s in ("i,jk->ijk", "j,ik->ijk", "k,ij->ijk"))
        i, j = np.triu_indices(D)
        thirds = [third[a, b, c] for a in range(D) for b in range(a, D) for c in range(b, D)]
        total = total + w * np.concatenate([m, second[i, j], thirds])
    return total


def worst_deviation(x, expected, weights=None):
    """Largest deviation of moments from the truth, in standard errors of independent chains."""
    values = features(x) if weights is None else features(x) * np.asarray(weights, np.float64)[:, None]
    return np.max(np.abs(values.mean(0) - expected) / (values.std(0) / np.sqrt(len(values))))


def test_draws_and_exact_moments_agree(target):
    _, _, x, expected = target
    assert worst_deviation(x, expected) < 5


def test_the_skewed_target_is_skewed():
    x = np.asarray(TARGETS["skewed"].sample(jax.random.key(0), NUM_CHAINS))
    z = (x - x.mean(0)) / x.std(0)
    assert np.all(np.abs((z**3).mean(0)) > 5 * np.sqrt(15 / NUM_CHAINS))


@pytest.mark.parametrize("name", ["HMC", slow("MALA"), slow("HMC persistent"), slow("Barker")])
def test_invariance(target, name):
    which, density, x, expected = target
    kernel, step_size = ADJUSTED[name, which]
    state, rate, diverged, log_weight = run(density, kernel, jax.random.key(1), x, step_size)
    assert 0.6 <= rate <= 0.8
    assert np.all(np.isfinite(state.position)) and diverged.sum() == 0
    assert np.all(log_weight == 0)
    assert not np.allclose(state.position, x, atol=1e-3), "the chains must have moved"
    assert worst_deviation(state.position, expected) < 5


@pytest.mark.parametrize("name", ["HMC", "HMC persistent"])
def test_momentum_stays_standard_normal_and_independent_of_position(target, name):
    which, density, x, _ = target
    kernel, step_size = ADJUSTED[name, which]
    state, *_ = run(density, kernel, jax.random.key(1), x, step_size)
    v, u = np.asarray(state.momentum, np.float64), np.asarray(state.position, np.float64)
    u = (u - u.mean(0)) / u.std(0)
    se = 1 / np.sqrt(NUM_CHAINS)
    assert np.all(np.abs(v.mean(0)) < 5 * se)
    assert np.all(np.abs(v.T @ v / NUM_CHAINS - np.eye(D)) < 5 * np.sqrt(2) * se)
    assert np.all(np.abs(u.T @ v / NUM_CHAINS) < 5 * se)


class Stepping:
    """A kernel whose step is another's function of two keys and the arguments of a step."""

    def __init__(self, step):
        self.two_keys = step

    def step(self, rng_key, *args):
        return self.two_keys(*jax.random.split(rng_key), *args)


def stepped(target, step):
    """Worst deviation and acceptance of chains that begin stationary."""
    _, density, x, expected = target
    moved = jax.jit(lambda *args: run_kernel(lambda u: density.log_density(u, 0.0), Stepping(step), *args, NUM_STEPS))
    state, rate, *_ = moved(jax.random.key(1), x, 1.6)
    assert not np.allclose(state.position, x, atol=1e-3)
    return worst_deviation(state.position, expected), rate


@pytest.mark.slow
@pytest.mark.parametrize("target", ["skewed"], indirect=True)
@pytest.mark.parametrize("kernel", [HMC(num_integration_steps=2), slow(HMC(persistence=0.9)), slow(MALA())])
def test_steps_of_random_length_leave_densities_as_they_are(target, kernel):
    deviation, rate = stepped(target, kernel.jittered_step)
    assert deviation < 5 and 0.2 < rate < 0.97


@pytest.mark.slow
@pytest.mark.parametrize("target", ["skewed"], indirect=True)
def test_lengths_by_the_gradient_must_be_paid_for(target):
    kernel = HMC(num_integration_steps=2)

    def unpaid(rng_key, jitter_key, state, logdensity_fn, step_size):
        drawn = _shrunk(state.logdensity_grad) + SPREAD * jax.random.normal(jitter_key)
        return kernel.step(rng_key, state, logdensity_fn, step_size * jnp.exp(drawn))

    assert stepped(target, unpaid)[0] > 5


@pytest.mark.slow
def test_without_the_flip_on_rejection_persistent_hmc_is_wrong(target, monkeypatch):
    """The invariance check must be able to fail: keeping the momentum after a rejection is the classic mistake."""
    which, density, x, expected = target
    kernel, step_size = ADJUSTED["HMC persistent", which]
    # Both flips off: after an acceptance the momentum is v' as before, after a rejection v instead of -v.
    monkeypatch.setattr(blackjax_hmc, "flip_momentum", lambda state: state)
    wrong = jax.jit(lambda *args: run_kernel(lambda u: density.log_density(u, 0.0), *args, NUM_STEPS))
    state, rate, *_ = wrong(kernel, jax.random.key(1), x, step_size)
    assert 0.6 <= rate <= 0.8
    assert worst_deviation(state.position, expected) > 5


@pytest.mark.slow
def test_ula_is_biased_at_a_step_where_mala_is_exact(target):
    which, density, x, expected = target
    _, step_size = ADJUSTED["MALA", which]
    state, *_ = run(density, ULA(), jax.random.key(1), x, step_size)
    assert worst_deviation(state.position, expected) > 20


@pytest.mark.parametrize("name", ["ULA", slow("UHMC"), slow("UHMC persistent")])
def test_log_weights_of_unadjusted_kernels_are_exact(target, name):
    """From exact draws E[w f(x)] = E[f] after any number of steps, where E[f(x)] alone is off."""
    which, density, x, expected = target
    kernel, step_size = UNADJUSTED[name, which]
    state, rate, diverged, log_weight = run(density, kernel, jax.random.key(2), x, step_size)
    weights = np.exp(np.asarray(log_weight, np.float64))
    assert 0.8 < rate < 1 and diverged.sum() == 0
    assert 0.02 < weights.std() < 3, "the check needs weights that matter, and moments that exist"
    assert abs(weights.mean() - 1) < 5 * weights.std() / np.sqrt(NUM_CHAINS)
    assert worst_deviation(state.position, expected, weights) < 5
    assert worst_deviation(state.position, expected) > 5


@pytest.mark.parametrize("name", ["ULA", slow("UHMC"), slow("UHMC persistent")])
def test_log_weight_of_a_single_step_is_exact(target, name):
    which, density, x, expected = target
    kernel, step_size = UNADJUSTED[name, which]
    state, _, _, log_weight = run(density, kernel, jax.random.key(3), x, step_size, num_steps=1)
    weights = np.exp(np.asarray(log_weight, np.float64))
    assert abs(weights.mean() - 1) < 5 * weights.std() / np.sqrt(NUM_CHAINS)
    assert worst_deviation(state.position, expected, weights) < 5


@pytest.mark.slow
def test_mala_accepts_by_the_log_weight_of_ula():
    """One formula, two programs: from the same proposal, MALA's acceptance probability is min(1, ULA's weight)."""
    density = TARGETS["skewed"]
    log_prob = lambda u: density.log_density(u, 0.0)

    def both(key, x):
        state = init(x, jnp.zeros(D), log_prob)
        propose_key, _ = jax.random.split(key)
        return MALA().step(key, state, log_prob, 0.3)[1], ULA().step(propose_key, state, log_prob, 0.3)[1]

    x = density.sample(jax.random.key(0), 100)
    adjusted, unadjusted = jax.vmap(both)(jax.random.split(jax.random.key(1), 100), x)
    assert np.std(adjusted.acceptance_rate) > 0.1
    np.testing.assert_allclose(adjusted.acceptance_rate, unadjusted.acceptance_rate, rtol=1e-4)
    np.testing.assert_allclose(
        adjusted.acceptance_rate, np.minimum(1, np.exp(unadjusted.log_weight)), rtol=1e-4, atol=1e-6
    )


@pytest.mark.slow
def test_full_persistence_limit_moves_like_hmc_without_refreshment():
    """persistence -> 1 keeps the momentum: one accepted step from (x, v) is the plain leapfrog of (x, v)."""
    log_prob = lambda u: TARGETS["anisotropic"].log_density(u, 0.0)
    v = jnp.array([0.3, -0.2, 0.1])
    state = init(jnp.ones(D), v, log_prob)
    new, info = HMC(num_integration_steps=2, persistence=1 - 1e-7).step(jax.random.key(0), state, log_prob, 0.01)
    x = state.position
    for _ in range(2):
        v = v + 0.005 * jax.grad(log_prob)(x)
        x = x + 0.01 * v
        v = v + 0.005 * jax.grad(log_prob)(x)
    assert info.acceptance_rate > 0.99
    np.testing.assert_allclose(new.position, x, atol=2e-4)
    np.testing.assert_allclose(new.momentum, v, atol=2e-3)


# Cost.


@pytest.fixture
def counted():
    """A standard normal that counts evaluations of the value alone and of value and gradient."""
    calls = {"value": 0, "gradient": 0}

    def tick(what):
        calls[what] += 1

    @jax.custom_vjp
    def log_prob(x):
        jax.debug.callback(tick, "value")
        return -0.5 * jnp.sum(x**2)

    def forward(x):
        jax.debug.callback(tick, "gradient")
        return -0.5 * jnp.sum(x**2), x

    log_prob.defvjp(forward, lambda x, g: (-g * x,))
    return log_prob, calls


@pytest.mark.parametrize(
    "kernel, expected",
    [
        (ULA(), 1),
        (MALA(), 1),
        (HMC(num_integration_steps=1), 1),
        (HMC(num_integration_steps=4, persistence=0.5), 4),
        (UHMC(num_integration_steps=5), 5),
    ],
)
def test_gradient_evaluations(counted, kernel, expected):
    log_prob, calls = counted
    state = init(jnp.ones(D), jnp.ones(D), log_prob)
    jax.effects_barrier()
    assert calls == {"value": 0, "gradient": 1}, "init is one evaluation of value and gradient"
    step = jax.jit(lambda k, s: kernel.step(k, s, log_prob, 0.1))
    for i in range(3):
        state, _ = step(jax.random.key(i), state)
    jax.effects_barrier()
    assert calls == {"value": 0, "gradient": 1 + 3 * expected}
    assert kernel.evaluations_per_step == expected
