"""Metropolis steps by a line integral of the score: what is invariant, accepted and weighed as with log densities."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from annealing.targets import TARGETS, D, run_kernel
from annealing.test_kernels import ADJUSTED, UNADJUSTED, exact_moments, worst_deviation
from densities import ScoreOf, mixture, network
from exact_problems import P2, Q2, assert_moments, components, of_components, of_product, sample
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.annealing.kernels import init
from numpyro_diffusion.annealing.kernels.line_integral import gained
from numpyro_diffusion.density.path import line_integral
from numpyro_diffusion.errors import ParameterError, ScoreOnlyError

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
CHAINS, STEPS = 10_000, 10
KERNELS = {
    "MALA": nd.MALA(num_nodes=5), "HMC": nd.HMC(num_nodes=7), "HMC persistent": nd.HMC(persistence=0.9, num_nodes=7),
    "ULA": nd.ULA(num_nodes=5), "UHMC": nd.UHMC(num_nodes=7),
}  # fmt: skip


@partial(jax.jit, static_argnames="num_steps")
def run(density, kernel, x, step_size, num_steps=STEPS):
    return run_kernel(lambda u: density.log_density(u, 0.0), kernel, jax.random.key(1), x, step_size, num_steps)


def test_gained_is_the_difference_of_log_densities():
    density = TARGETS["skewed"]
    score = lambda u: ScoreOf(density).log_density(u, 0.0)
    x = density.sample(jax.random.key(0), 2 * 50).reshape(50, 2, D)
    x = x.at[:, 1].set(x[:, 0] + 0.5 * (x[:, 1] - x[:, 0]))

    @jax.jit
    def both(x):
        ends = [init(v, None, score) for v in x]
        exact = density.log_density(x[1], 0.0) - density.log_density(x[0], 0.0)
        there = jnp.array([gained(score, *ends, n) for n in (2, 3, 5, 8)])
        return exact, there, gained(score, *ends[::-1], 5)

    exact, there, back = (np.asarray(v) for v in jax.vmap(both)(x))
    worst = np.abs(there - exact[:, None]).max(axis=0)
    assert worst[0] > worst[1] > worst[2] > worst[3] and worst[3] < 0.05
    np.testing.assert_allclose(back, -there[:, 2], atol=1e-4)


@pytest.mark.parametrize("num_nodes", [2, 3, 5])
def test_lines_are_exact_where_the_score_is_a_polynomial(num_nodes):
    # Along a line of a quartic log density the score is cubic.
    log_density = lambda x: -jnp.sum(x**4) / 4 - 0.5 * x[0] * x[1] ** 2
    score = jax.grad(log_density)
    x, y = jnp.array([0.3, -0.8]), jnp.array([-0.9, 0.5])
    found = line_integral(score, x, y, (score(x), score(y)), num_nodes)
    error = abs(float(found - (log_density(y) - log_density(x))))
    assert error < 1e-5 if num_nodes > 2 else error > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MALA", pytest.param("HMC", marks=pytest.mark.slow), "HMC persistent"])
def test_invariance_at_the_acceptance_of_log_densities(name):
    density, (plain, step_size) = TARGETS["skewed"], ADJUSTED[name, "skewed"]
    x = density.sample(jax.random.key(11), CHAINS)
    state, rate, diverged, log_weight = run(ScoreOf(density), KERNELS[name], x, step_size)
    _, expected, *_ = run(density, plain, x, step_size)
    assert abs(rate - expected) < 0.015 and diverged.sum() == 0 and np.all(log_weight == 0)
    assert not np.allclose(state.position, x, atol=1e-3)
    assert worst_deviation(state.position, exact_moments(density)) < 5


def test_without_the_metropolis_step_moments_are_off():
    """The check of invariance can fail."""
    density, (_, step_size) = TARGETS["skewed"], ADJUSTED["MALA", "skewed"]
    x = density.sample(jax.random.key(11), CHAINS)
    state, *_ = run(ScoreOf(density), KERNELS["ULA"], x, step_size)
    assert worst_deviation(state.position, exact_moments(density)) > 10


@pytest.mark.parametrize("name", ["ULA", pytest.param("UHMC", marks=pytest.mark.slow)])
def test_log_weights_of_unadjusted_kernels_are_those_of_log_densities(name):
    density, (plain, step_size) = TARGETS["skewed"], UNADJUSTED[name, "skewed"]
    x = density.sample(jax.random.key(11), CHAINS)
    state, _, _, log_weight = run(ScoreOf(density), KERNELS[name], x, step_size)
    weights = np.exp(np.asarray(log_weight, np.float64))
    assert 0.02 < weights.std() < 3
    assert abs(weights.mean() - 1) < 5 * weights.std() / np.sqrt(CHAINS)
    assert worst_deviation(state.position, exact_moments(density), weights) < 5
    exact_state, _, _, exact = run(density, plain, x, step_size)
    assert np.median(np.abs(state.position - exact_state.position)) < 1e-3
    assert np.abs(exact - log_weight).mean() < 0.02


@pytest.mark.slow
def test_evaluations_are_counted():
    calls = []

    def score(x):
        jax.debug.callback(lambda x: calls.append(1), x)  # of each point of a batch
        return -x

    density = nd.from_score(lambda x, t: score(x), (D,), nd.VariancePreserving.cosine())
    log_prob = lambda u: density.log_density(u, 0.5)
    for kernel in (nd.MALA(num_nodes=2), nd.MALA(), nd.HMC(), nd.HMC(num_integration_steps=2, num_nodes=6), nd.UHMC()):
        kernel = kernel.suited(density)
        state = init(jnp.ones(D), jnp.ones(D), log_prob)
        jax.effects_barrier()
        calls.clear()
        jax.jit(lambda s, kernel=kernel: kernel.step(jax.random.key(0), s, log_prob, 0.1))(state)
        jax.effects_barrier()
        assert len(calls) == kernel.evaluations_per_step, kernel


def test_nodes_are_those_of_the_kernel_or_usual_and_none_where_there_are_log_densities():
    score, exact = ScoreOf(mixture()), mixture()
    assert nd.MALA().suited(score).num_nodes == 9 and nd.HMC().suited(score).num_nodes == 9
    assert nd.HMC(num_nodes=9).suited(score).num_nodes == 9 and nd.HMC(num_nodes=9).suited(exact).num_nodes is None
    assert "num_nodes=9" in repr(nd.HMC(num_nodes=9))


# Runs.


@pytest.fixture(scope="module")
def product():
    return of_product(P2, Q2)


def assert_right(product, kernel, **settings):
    run = sample(ScoreOf(P2, "p") * ScoreOf(Q2, "q"), kernel, **settings)
    assert run.is_weighted and 0 < run.log_evidence_error < 0.3
    assert abs(run.log_evidence - product.log_z) < 5 * run.log_evidence_error
    assert_moments(run.samples, product, run.log_evidence_error, allowance=0.03)
    assert 0.4 < run.stats["acceptance_rate"].mean() < 0.99


@pytest.mark.slow
def test_evidence_and_moments_of_a_product_of_two_scores(product):
    assert_right(product, nd.MALA(), num_chains=500, levels=40)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [nd.MALA(), nd.HMC(), nd.UHMC()], ids=lambda k: type(k).__name__)
def test_evidence_and_moments_of_a_product_of_two_scores_at_placed_levels(product, kernel):
    assert_right(product, kernel, num_chains=1000)


@pytest.mark.slow
def test_a_normalised_mixture_has_the_evidence_of_one():
    problem = of_components(P2, components(P2))
    run = sample(ScoreOf(P2), nd.MALA(), num_chains=500, levels=40)
    assert abs(run.log_evidence) < 5 * run.log_evidence_error < 0.5
    assert_moments(run.samples, problem, run.log_evidence_error, allowance=0.03)


@pytest.mark.slow
def test_a_score_weighs_as_its_log_density_does():
    # Without steps both go the same ways: levels are entered, nothing else.
    settings = {"num_chains": 64, "levels": np.geomspace(1.0, 0.02, 40), "resample_threshold": 0.0, "num_steps": 1}
    runs = [sample(d, nd.MALA(1e-6), **settings) for d in (P2 * Q2, ScoreOf(P2, "p") * ScoreOf(Q2, "q"))]
    spread = np.std(runs[0].log_weights)
    assert spread > 0.3
    np.testing.assert_allclose(runs[1].log_weights, runs[0].log_weights, atol=0.05 * max(1.0, spread))


@pytest.mark.slow
def test_factors_with_log_densities_and_scores_together(product):
    run = sample(P2 * ScoreOf(Q2, "q"), nd.MALA(), num_chains=300, levels=30)
    assert abs(run.log_evidence - product.log_z) < 5 * run.log_evidence_error < 2


@pytest.mark.slow
def test_conditional_scores_and_guidance_by_mala():
    model = network("score", condition_size=2)
    a, b = (model.given(np.array(c)) for c in ([1.0, 0.0], [0.0, 1.0]))
    for density in (a, nd.guided(model, a, 2.0), nd.compose_conditions(model, np.eye(2), np.array([1.0, 0.5])), a * b):
        run = sample(density, nd.MALA(), num_chains=64, levels=8)
        assert run.is_weighted and np.isfinite(run.log_evidence) and np.all(np.isfinite(run.samples))
        assert 0.1 < run.stats["acceptance_rate"].mean() < 0.9


@pytest.mark.slow
def test_in_many_dimensions_weights_are_asked_for():
    wide = ScoreOf(nd.exact.GaussianMixture(np.zeros((1, 256)), np.eye(256)[None]))
    settings = {"num_chains": 8, "levels": 30, "num_steps": 1}
    assert not sample(wide, nd.MALA(0.1), **settings).is_weighted
    run = sample(wide, nd.MALA(0.1), resample_threshold=0.5, **settings)
    assert run.is_weighted and abs(run.log_evidence) < 5 * run.log_evidence_error + 0.1


@pytest.mark.slow
def test_pieces_and_history(tmp_path):
    density, settings = ScoreOf(P2, "p") * ScoreOf(Q2, "q"), {"num_chains": 32, "levels": 5, "keep_history": True}
    whole, pieces = (sample(density, nd.MALA(0.3), chain_batch_size=n, **settings) for n in (None, 16))
    np.testing.assert_allclose(pieces.samples, whole.samples, atol=1e-4)
    np.testing.assert_allclose(pieces.log_evidence, whole.log_evidence, atol=1e-4)
    assert whole.history["log_weight_increment"].shape == (5, 32)


MIXED = r"shares at one point need log densities.*nd\.Reverse\(\)"
KEY = jax.random.key(0)
REFUSED = {
    "one node": (lambda: nd.MALA(num_nodes=1), ParameterError, r"num_nodes.*2.*got 1.*More of them"),
    "too many nodes": (lambda: nd.HMC(num_nodes=21), ParameterError, r"num_nodes.*20.*got 21"),
    "half a node": (lambda: nd.ULA(num_nodes=2.5), ParameterError, r"num_nodes.*got 2.5"),
    "no nodes": (lambda: nd.UHMC(num_nodes="many"), ParameterError, r"num_nodes.*got 'many'"),
    "a mixture of scores": (
        lambda: nd.anneal(KEY, 0.5 * ScoreOf(P2, "p") + 0.5 * ScoreOf(Q2, "q"), nd.HMC(), progress_bar=False),
        ScoreOnlyError, MIXED),
    "a product with a mixture of scores": (
        lambda: nd.anneal(KEY, P2 * (0.5 * ScoreOf(P2, "p") + 0.5 * Q2), nd.MALA(0.1), progress_bar=False),
        ScoreOnlyError, MIXED),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)
