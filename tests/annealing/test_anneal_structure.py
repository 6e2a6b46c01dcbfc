"""The annealed sampler: no stale state, one trace for all levels and weights, scores alone, reverse diffusion."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import compilations
from densities import untrained
from exact_problems import LEVELS, NUM_CHAINS, P2, Q2, SCHEDULE, assert_moments, gaussian, mixture, sample

from numpyro_diffusion.annealing import advance as onward
from numpyro_diffusion.annealing import pilot as tuning
from numpyro_diffusion.annealing import placing
from numpyro_diffusion.annealing import population as populations
from numpyro_diffusion.annealing.devices import chain_keys
from numpyro_diffusion.annealing.kernels import HMC, MALA, UHMC, BlackJAX
from numpyro_diffusion.annealing.level import level_at
from numpyro_diffusion.annealing.plan import PlannedLevel
from numpyro_diffusion.annealing.reverse import Reverse
from numpyro_diffusion.annealing.settings import Settings
from numpyro_diffusion.density.energy import EnergyDensity, NetworkConfig, ScoreModel
from numpyro_diffusion.errors import ParameterError, ScoreOnlyError

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")


# The trap of the stale state.


def test_a_state_carried_across_levels_is_silently_wrong_and_advance_is_not():
    """A cached log density of the old level makes MALA accept against the wrong density, at a healthy rate."""
    sd = 0.3
    density, levels = gaussian([0.0, 0.0], sd**2 * np.eye(2)), SCHEDULE.levels(40)
    kernel, start_key, key = MALA(), jax.random.key(0), jax.random.key(1)

    @jax.jit
    def steps(density, population, key, t, step_size, refresh):
        log_prob = level_at(density, t, "identity").log_prob

        def move(key, state):
            value, gradient = jax.value_and_grad(log_prob)(state.position)
            state = state._replace(
                logdensity=jnp.where(refresh, value, state.logdensity),
                logdensity_grad=jnp.where(refresh, gradient, state.logdensity_grad),
            )
            step = lambda s, k: kernel.step(k, s, log_prob, step_size)
            state, info = jax.lax.scan(step, state, jax.random.split(key, 2))
            return state, info.acceptance_rate.mean()

        state, rate = jax.vmap(move)(chain_keys(key, NUM_CHAINS), population.state)
        return population._replace(state=state), rate.mean()

    def by_hand(refresh):
        population, rates = populations.start(density, start_key, num_chains=NUM_CHAINS, frame_kind="identity"), []
        for i, t in enumerate(levels):
            fresh = refresh or i == 0
            population, rate = steps(density, population, jax.random.fold_in(key, i), t, 0.04, fresh)
            rates.append(rate)
        return np.std(population.state.position), np.mean(rates)

    se = sd / np.sqrt(2 * 2 * NUM_CHAINS)
    stale, rate = by_hand(refresh=False)
    assert stale > 2 * sd and rate > 0.6, "wrong by a factor, and nothing warns"
    right, _ = by_hand(refresh=True)
    # 80 small steps leave a little of the start behind; weights would correct it.
    assert abs(right - sd) < 5 * se + 0.02

    population = populations.start(density, start_key, num_chains=NUM_CHAINS, frame_kind="identity")
    for i, t in enumerate(levels):
        population, stats, _ = onward.advance(
            density, kernel.without_step_size(), population, jax.random.fold_in(key, i), PlannedLevel(float(t), 0.04),
            0.5, Settings(frame="identity"),
        )  # fmt: skip
        state = population.state
        log_prob = level_at(density, float(t), "identity").log_prob
        value, gradient = jax.vmap(jax.value_and_grad(log_prob))(state.position[:50])
        np.testing.assert_allclose(state.logdensity[:50], value, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(state.logdensity_grad[:50], gradient, rtol=1e-3, atol=1e-2)
    weights = jax.nn.softmax(population.log_weight)
    moment = float(jnp.sqrt(jnp.sum(weights[:, None] * population.state.position**2) / 2))
    families = jnp.zeros(NUM_CHAINS).at[population.ancestor].add(weights)
    assert abs(moment - sd) < 5 * sd * np.sqrt(float(jnp.sum(families**2)) / 4)
    assert abs(float(population.evidence())) < 5 * np.sqrt(float(jnp.sum(families**2)))


# One trace.


def cache_sizes():
    functions = [onward.advance, populations.start, populations.points, tuning._pilot_level, placing.next_level]
    return [f._cache_size() for f in functions]


# With one step a level, and two, and more of the pilot.
@pytest.mark.slow
@pytest.mark.parametrize("ways", [(False,), (False, True, None)], ids=str)
def test_one_trace_for_other_weights_coefficients_step_sizes_and_levels(problems, ways):
    density = problems["product"].density
    run = lambda density, kernel, **settings: sample(density, kernel, predictor=ways[-1], **settings)
    for way in ways:
        sample(density, HMC(), predictor=way)
        sample(density, HMC(), level_ess=0.9, predictor=way)
    before = cache_sizes()
    run(mixture(7, 2) * mixture(8, 2), HMC())  # retrained
    run(P2**0.7 * Q2**1.2, HMC())  # re-weighted
    run(density, HMC(0.3), levels=LEVELS)  # other step sizes and levels
    run(density, HMC(np.linspace(0.6, 0.3, 7)), levels=7)
    run(density, HMC(), levels=9)
    run(density, HMC(0.4), level_ess=0.8)
    run(density, HMC(persistence=0.5), resample_threshold=0)
    assert cache_sizes() == before
    # As many leapfrogs as no other case has.
    run(density, HMC(0.4, num_integration_steps=3 + len(ways)), levels=LEVELS)
    assert cache_sizes() != before, "the count can tell"


@pytest.mark.slow
def test_a_run_with_its_pilot_compiles_each_program_once():
    before = cache_sizes()
    sample(gaussian(np.zeros(5), np.eye(5)), HMC())
    # Of `start` and `points` two, for the pilot's chains and for the run's.
    assert [now - then for now, then in zip(cache_sizes(), before, strict=True)] == [1, 2, 2, 1, 1]


def network_density(kind, seed):
    config = NetworkConfig(width=8, num_blocks=1, embedding_size=4)
    return untrained(
        config, (2,), "l2", kind is EnergyDensity, mean=np.zeros(2), covariance=np.eye(2), seed=seed, cls=kind
    )


@pytest.mark.slow
def test_one_trace_for_a_retrained_network():
    first, second = network_density(EnergyDensity, 0), network_density(EnergyDensity, 1)
    run = sample(first, MALA(0.3), levels=LEVELS)
    before = cache_sizes()
    other = sample(second, MALA(0.3), levels=LEVELS)
    assert cache_sizes() == before
    assert not np.array_equal(run.samples, other.samples), "the weights did change"


# Score-only densities.


@pytest.mark.slow
def test_score_only_densities():
    density = network_density(ScoreModel, 0)
    with pytest.raises(ScoreOnlyError, match=r"accepts by log densities.*Use nd.HMC or nd.MALA"):
        sample(density, BlackJAX(blackjax.barker, step_size=0.3))
    with pytest.raises(ParameterError, match=r"has only a score.*Give it a step_size"):
        sample(density, BlackJAX(blackjax.mala, is_adjusted=False))
    for kernel in (MALA(0.3), UHMC(0.3)):
        run = sample(density, kernel, levels=LEVELS, num_chains=64)
        assert run.is_weighted and np.isfinite(run.log_evidence) and run.log_evidence_error > 0
        assert np.all(np.isfinite(run.samples)) and np.all(np.isfinite(run.stats["acceptance_rate"]))
    reverse = sample(density, Reverse(), levels=10)
    assert np.all(np.isfinite(reverse.samples)) and np.isnan(reverse.log_evidence)


@pytest.mark.slow
def test_one_trace_for_a_retrained_score():
    first, second = network_density(ScoreModel, 0), network_density(ScoreModel, 1)
    for kernel in (MALA(0.3), Reverse(weighted=True)):
        run = sample(first, kernel, levels=LEVELS, num_chains=64)
        with compilations() as found:
            other = sample(second, kernel, levels=LEVELS, num_chains=64)
        assert not found and not np.array_equal(run.samples, other.samples)


# Reverse diffusion.


def test_reverse_diffusion_of_a_mixture(problems):
    problem = problems["mixture"]
    run = sample(problem.density, Reverse(), levels=200)
    assert run.samples.shape == (NUM_CHAINS, 2) and len(run.levels) == 200
    assert np.isnan(run.log_evidence) and np.all(run.log_weights == 0)
    assert run.evaluations_per_chain == 199
    assert_moments(run.samples, problem, 0.0, allowance=0.03)


def test_reverse_diffusion_of_a_product_is_biased(problems):
    """Why the annealed samplers exist: the noised product is not the product of the noised."""
    problem = problems["product"]
    run = sample(problem.density, Reverse(), levels=200)
    with pytest.raises(AssertionError):
        assert_moments(run.samples, problem, 0.0, allowance=0.03)


@pytest.mark.slow
def test_predictor_keeps_weights(problems):
    problem = problems["mixture"]
    run = sample(problem.density, HMC(), predictor=True, levels=100)
    assert abs(run.log_evidence - problem.log_z) < 5 * run.log_evidence_error
    assert_moments(run.samples, problem, 0.0, allowance=0.03)
