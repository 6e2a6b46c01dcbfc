"""The annealed kernel inside NumPyro's own MCMC and Gibbs: exact posteriors, chain methods, resumption, errors."""

import copy
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from counting import compilations
from densities import COVARIANCE, MEAN, gaussian
from infer.linear_gaussian import LEVELS, PRIOR, SIGMA, A, Y, assert_posterior, exact, model
from numpyro.infer import MCMC, Predictive
from scipy.stats import multivariate_normal, norm

import numpyro_diffusion as nd
from numpyro_diffusion.annealing.effort import read_plan
from numpyro_diffusion.annealing.pilot import Plan
from numpyro_diffusion.infer.pilot import _scales, warn_if_few

FIELDS = ("log_weight", "accept_prob", "noise_level", "potential_energy")


def run(chain_method, num_chains, num_samples, *, seed=0, **kwargs):
    mcmc = MCMC(
        nd.AnnealedKernel(model), num_warmup=LEVELS, num_samples=num_samples, num_chains=num_chains,
        chain_method=chain_method, **{"progress_bar": False, **kwargs},
    )  # fmt: skip
    mcmc.run(jax.random.key(seed), Y, extra_fields=FIELDS)
    return mcmc


@pytest.fixture(scope="module")
def warmed():
    """An MCMC after its warm-up, and what was collected on the way."""
    mcmc = MCMC(
        nd.AnnealedKernel(model), num_warmup=LEVELS, num_samples=50, num_chains=64, chain_method="vectorized",
        progress_bar=False,
    )  # fmt: skip
    mcmc.warmup(jax.random.key(1), Y, collect_warmup=True, extra_fields=FIELDS)
    return mcmc, {k: np.asarray(v) for k, v in mcmc.get_extra_fields(group_by_chain=True).items()}


@pytest.fixture(scope="module")
def vectorized(warmed):
    """The same after its draws."""
    mcmc = copy.copy(warmed[0])
    mcmc.run(jax.random.key(0), Y, extra_fields=FIELDS)
    return mcmc


def test_vectorized_posterior_and_evidence(vectorized):
    assert_posterior(vectorized.get_samples(group_by_chain=True)["x"], exact(Y))
    fields = vectorized.get_extra_fields(group_by_chain=True)
    log_weight = np.asarray(fields["log_weight"])
    assert log_weight.shape == (64, 50)
    # Weights stand still at t = 0.
    np.testing.assert_array_equal(log_weight, log_weight[:, :1].repeat(50, 1))
    weight = np.exp(log_weight[:, 0] - exact(Y).log_evidence)
    assert abs(weight.mean() - 1) < 5 * weight.std() / np.sqrt(len(weight))
    assert weight.std() < 1
    assert np.all(fields["noise_level"] == 0)
    assert 0.5 < np.mean(fields["accept_prob"]) < 1


def test_potential_energy_is_minus_the_log_joint(vectorized):
    x = np.asarray(vectorized.get_samples()["x"], dtype=float)
    log_joint = multivariate_normal(MEAN, COVARIANCE).logpdf(x) + norm(x @ A[0], SIGMA).logpdf(Y)
    energy = vectorized.get_extra_fields()["potential_energy"]
    np.testing.assert_allclose(energy, -log_joint, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_callable_chain_method():
    mcmc = run(jax.vmap, 4, 250)
    assert_posterior(mcmc.get_samples(group_by_chain=True)["x"], exact(Y))


@pytest.mark.slow
def test_sequential_chains_with_and_without_a_progress_bar(capsys):
    quiet, loud = (run("sequential", 2, 500, progress_bar=show) for show in (False, True))
    assert_posterior(quiet.get_samples(group_by_chain=True)["x"], exact(Y))
    # Two programs round differently, and a rounding may flip a decision much later.
    samples = [mcmc.get_samples(group_by_chain=True)["x"][:, :10] for mcmc in (quiet, loud)]
    np.testing.assert_allclose(*samples, atol=1e-3)
    if loud.progress_bar:  # NumPyro switches it off under continuous integration
        assert "t = 0.000, acc. prob" in capsys.readouterr().err
    one = jax.tree.map(lambda a: a[0], loud.last_state)
    assert loud.sampler.get_diagnostics_str(one).startswith("t = 0.000, acc. prob")


@pytest.mark.slow
def test_collect_warmup_shows_the_levels(warmed):
    fields = warmed[1]
    assert fields["accept_prob"].shape == (64, LEVELS)
    t = fields["noise_level"][0]
    assert t[0] == 1 and t[-1] == 0 and np.all(np.diff(t) < 0)
    assert np.all(fields["accept_prob"].mean(0) > 0.6)
    # Equal conditional ESS: no level takes much more of the weights' spread than its share.
    increment = np.diff(fields["log_weight"], axis=1, prepend=0)
    variance = increment.var(0)
    assert np.all(np.mean(np.exp(increment), 0) ** 2 / np.mean(np.exp(2 * increment), 0) > 0.9)
    assert variance.max() < 0.25 * variance.sum()


@pytest.mark.slow
def test_a_second_run_compiles_the_loop_of_numpyro_alone():
    # Which NumPyro compiles at every call, for NUTS as well.
    mcmc = run("vectorized", 64, 2)
    with compilations() as compiled:
        mcmc.run(jax.random.key(1), 0.9 * Y, extra_fields=FIELDS)
    assert len(compiled) <= 1


def test_resume_from_last_state(warmed):
    mcmc = warmed[0]
    assert np.all(mcmc.last_state.i == LEVELS)
    for i in range(2):
        mcmc.run(jax.random.key(i), Y, extra_fields=FIELDS)
        assert np.all(mcmc.last_state.i == LEVELS + 50 * (i + 1))
        np.testing.assert_array_equal(mcmc.last_state.log_weight, warmed[1]["log_weight"][:, -1])
        assert np.all(mcmc.get_extra_fields()["noise_level"] == 0)
        assert_posterior(mcmc.get_samples(group_by_chain=True)["x"], exact(Y))
        mcmc.post_warmup_state = mcmc.last_state


@pytest.mark.slow
def test_resume_in_another_mcmc(vectorized):
    mcmc = MCMC(
        nd.AnnealedKernel(model), num_warmup=LEVELS, num_samples=20, num_chains=64, chain_method="vectorized",
        progress_bar=False,
    )  # fmt: skip
    mcmc.post_warmup_state = vectorized.last_state
    mcmc.run(jax.random.key(5), Y)
    assert np.all(mcmc.last_state.i == vectorized.last_state.i + 20)
    assert_posterior(mcmc.get_samples(group_by_chain=True)["x"], exact(Y))


def test_predictive_and_deterministic_sites(vectorized):
    samples = vectorized.get_samples()
    np.testing.assert_allclose(samples["total"], samples["x"].sum(-1), atol=1e-6)
    drawn = Predictive(model, samples)(jax.random.key(0))["y"]
    assert drawn.shape == (64 * 50, 1)
    assert abs(drawn.mean() - (A @ exact(Y).mean)[0]) < 0.1
    vectorized.print_summary()


@pytest.mark.slow
def test_state_is_a_pytree_that_steps_alike_alone_and_in_a_batch():
    kernel = nd.AnnealedKernel(model)
    state = kernel.init(jax.random.split(jax.random.key(0), 3), LEVELS, None, (Y,), {})
    leaves, treedef = jax.tree.flatten(state)
    assert jax.tree.unflatten(treedef, leaves)._fields == state._fields

    @jax.jit
    def steps(state):
        return jax.lax.fori_loop(0, 3, lambda _, s: kernel.sample(s, (Y,), {}), state)

    together = steps(state)
    one = jax.tree.map(lambda a: a[1], state._replace(frozen=None))._replace(frozen=state.frozen)
    alone = steps(one)
    assert alone.i == 3
    for name in ("position", "log_weight", "potential_energy", "accept_prob"):
        np.testing.assert_allclose(getattr(alone, name), getattr(together, name)[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        kernel.refresh(alone, (Y,), {}).potential_energy, alone.potential_energy, rtol=1e-4, atol=1e-4
    )
    # The densities' weights are arguments of the compiled program: others give another chain, without compiling.
    joint = copy.copy(state.frozen.joint)
    joint.bound = {"x": joint.bound["x"]._replace(density=gaussian(MEAN + 1, COVARIANCE))}
    other = steps(one._replace(frozen=state.frozen._replace(joint=joint)))
    assert abs(other.potential_energy - alone.potential_energy) > 1e-3
    assert steps._cache_size() == 2


def test_plan_is_read_at_any_number_of_levels():
    schedule = PRIOR.schedule
    plan = Plan(schedule.levels(12), np.geomspace(1, 0.5, 12), np.linspace(1, 2, 12)[:, None, None] * np.eye(2))
    same = read_plan(plan, schedule, 12)
    np.testing.assert_allclose(same.levels, plan.levels, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(same.scales, plan.scales)
    for count in (2, 5, 100):
        levels, steps, scales, *_ = read_plan(plan, schedule, count)
        assert levels[0] == 1 and levels[-1] == 0 and np.all(np.diff(levels) < 0)
        assert len(steps) == len(scales) == count and steps[-1] == pytest.approx(0.5)
    two = read_plan(Plan(np.array([1.0, 0.0]), np.ones(2)), schedule, 10)
    assert np.all(np.diff(two.levels) < 0)
    with pytest.warns(nd.errors.DiagnosticWarning, match="Set num_warmup to 12"):
        warn_if_few(plan, 2, 0.98)


def test_scales_of_a_block_are_conditional():
    sites = tuple(SimpleNamespace(name=name, size=size) for name, size in (("a", 1), ("b", 2)))
    root = np.linalg.cholesky(np.array([[2.0, 0.5, 0.3], [0.5, 1.0, 0.2], [0.3, 0.2, 1.5]]))
    covariance = root @ root.T
    conditional = covariance[1:, 1:] - np.outer(covariance[1:, 0], covariance[0, 1:]) / covariance[0, 0]
    scale = _scales(SimpleNamespace(sites=sites), ("b",), root[None])[0]
    np.testing.assert_allclose(scale @ scale.T, conditional)
