"""NumPyro models whose diffusion prior has only a score: Metropolis steps, weights and evidence by its integrals."""

import functools

import blackjax
import densities
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.density.path import Place

run_quietly = functools.partial(nd.AnnealedMCMC, num_chains=512, progress_bar=False)


def score_model(prior, y):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)


@pytest.mark.slow
def test_score_only_priors_have_metropolis_steps_and_evidence():
    prior = nd.DiffusionPrior(densities.network("score"))
    with pytest.raises(nd.errors.ScoreOnlyError, match=r"accepts by log densities.*nd.HMC or nd.MALA"):
        run_quietly(score_model, nd.BlackJAX(blackjax.barker)).run(jax.random.key(0), prior, jnp.zeros(2))
    for kernel in (nd.MALA(), nd.ULA(0.05)):
        mcmc = run_quietly(score_model, kernel, levels=6, num_chains=16, metric="frame")
        mcmc.run(jax.random.key(0), prior, jnp.zeros(2))
        assert np.all(np.isfinite(mcmc.get_samples()["x"])) and np.isfinite(mcmc.log_evidence)
        assert "log_density" not in mcmc.get_extra_fields()


@pytest.mark.slow
def test_the_evidence_of_a_score_only_prior_is_that_of_its_density():
    exact = densities.mixture()
    found = []
    for prior in (exact, densities.ScoreOf(exact)):
        mcmc = run_quietly(score_model, nd.MALA(), levels=30, num_chains=300)
        mcmc.run(jax.random.key(0), nd.DiffusionPrior(prior), jnp.array([0.5, 0.2]))
        found.append((mcmc.log_evidence, mcmc.log_evidence_error))
    (exact_value, exact_error), (value, error) = found
    assert 0 < error < 0.3 and abs(value - exact_value) < 5 * np.hypot(error, exact_error)


@pytest.mark.slow
def test_an_annealed_kernel_of_a_score_only_prior():
    exact = densities.mixture()
    found = []
    for prior in (exact, densities.ScoreOf(exact)):
        mcmc = numpyro.infer.MCMC(
            nd.AnnealedKernel(score_model, nd.HMC()), num_warmup=40, num_samples=4, num_chains=300,
            chain_method="vectorized", progress_bar=False,
        )  # fmt: skip
        mcmc.run(jax.random.key(0), nd.DiffusionPrior(prior), jnp.array([0.5, 0.2]))
        found.append(np.asarray(mcmc.get_samples(group_by_chain=True)["x"]).mean(1))
    error = np.hypot(*(x.std(0) / np.sqrt(len(x)) for x in found))
    assert np.all(np.abs(found[0].mean(0) - found[1].mean(0)) < 5 * error)


@pytest.mark.slow
def test_two_sites_of_one_score_gain_what_each_does():
    exact, y = densities.mixture(), jnp.zeros(2)

    def twice(prior, y):
        x, z = numpyro.sample("x", prior), numpyro.sample("z", prior)
        numpyro.sample("y", dist.Normal(x + z, 1.0).to_event(1), obs=y)

    start, end = (Place(jax.random.normal(jax.random.key(k), (4,)), t) for k, t in ((0, 0.5), (1, 0.48)))
    key, priors = jax.random.key(2), [nd.DiffusionPrior(p) for p in (exact, densities.ScoreOf(exact))]
    whole, scored = (densities.joint_density(key, twice, (prior, y)) for prior in priors)
    np.testing.assert_allclose(scored.increment(key, start, end), whole.increment(key, start, end), atol=0.05)
    np.testing.assert_allclose(scored.first_log_density(end.x), whole.first_log_density(end.x), atol=1e-3)
