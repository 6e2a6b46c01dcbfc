"""`AnnealedKernel` as a block of NumPyro's Gibbs sampler, and with new data."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from densities import COVARIANCE, MEAN
from infer.linear_gaussian import LEVELS, PRIOR, Y, assert_mean, assert_posterior, exact, model
from numpyro.infer import MCMC, NUTS, Gibbs

import numpyro_diffusion as nd

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")


# Gibbs.

A6 = np.array([[1.0, 2.0], [0.5, -1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, -1.0]])
Y6 = np.array([1.7, -0.2, 1.0, 0.6, 1.9, 1.2])


def noisy_model(y):
    x = numpyro.sample("x", nd.DiffusionPrior(PRIOR))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(jnp.asarray(A6) @ x, sigma).to_event(1), obs=y)


def quadrature():
    """Posterior means of x, x^2 and sigma, by quadrature over sigma."""
    sigmas, rows, log_weights = np.linspace(0.02, 6, 3000), [], []
    for sigma in sigmas:
        marginal = A6 @ COVARIANCE @ A6.T + sigma**2 * np.eye(6)
        residual, gain = Y6 - A6 @ MEAN, COVARIANCE @ A6.T @ np.linalg.inv(marginal)
        mean, covariance = MEAN + gain @ residual, COVARIANCE - gain @ A6 @ COVARIANCE
        rows.append([*mean, *(mean**2 + np.diag(covariance)), sigma])
        quadratic = residual @ np.linalg.solve(marginal, residual)
        log_weights.append(-0.5 * (quadratic + np.linalg.slogdet(marginal)[1] + sigma**2))
    weights = np.exp(np.array(log_weights) - max(log_weights))
    return weights @ np.array(rows) / weights.sum()


def assert_noisy_posterior(samples):
    x, expected = samples["x"], quadrature()
    draws = [x[..., 0], x[..., 1], x[..., 0] ** 2, x[..., 1] ** 2, samples["sigma"]]
    for values, mean in zip(draws, expected, strict=True):
        assert_mean(values, mean)


def run_gibbs(num_chains, num_samples, **kwargs):
    kernel = Gibbs([(nd.AnnealedKernel(noisy_model), ["x"]), (NUTS(noisy_model), None)])
    mcmc = MCMC(
        kernel, num_warmup=150, num_samples=num_samples, num_chains=num_chains, progress_bar=False, **kwargs
    )  # fmt: skip
    fields = ("noise_level", "accept_prob", "log_weight", "i")
    mcmc.run(jax.random.key(0), Y6, extra_fields=[f"block_states.0.{name}" for name in fields])
    return mcmc, {name: np.asarray(mcmc.get_extra_fields()[f"block_states.0.{name}"]) for name in fields}


@pytest.mark.slow
def test_gibbs_beside_nuts():
    mcmc, fields = run_gibbs(1, 3000)
    assert_noisy_posterior(mcmc.get_samples(group_by_chain=True))
    assert np.all(fields["noise_level"] == 0)
    assert 0.5 < fields["accept_prob"].mean() < 1
    # Densities that change with every sweep have no path to weigh along: no number rather than a wrong one.
    assert np.all(np.isnan(fields["log_weight"]))


@pytest.mark.slow
@pytest.mark.parametrize(("chain_method", "num_chains"), [("sequential", 2), (jax.vmap, 8)], ids=["sequential", "vmap"])
def test_gibbs_in_several_chains(chain_method, num_chains):
    mcmc, fields = run_gibbs(num_chains, 3000 // num_chains, chain_method=chain_method)
    assert_noisy_posterior(mcmc.get_samples(group_by_chain=True))
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(jax.random.key(1), Y6, extra_fields=("block_states.0.i",))
    assert_noisy_posterior(mcmc.get_samples(group_by_chain=True))
    assert mcmc.get_extra_fields()["block_states.0.i"].min() == fields["i"].max() + 1


@pytest.mark.slow
def test_all_sites_in_one_kernel():
    mcmc = MCMC(
        nd.AnnealedKernel(noisy_model), num_warmup=60, num_samples=50, num_chains=64, chain_method="vectorized",
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(0), Y6)
    assert_noisy_posterior(mcmc.get_samples(group_by_chain=True))


@pytest.mark.slow
def test_new_data_as_arguments():
    kernel = nd.AnnealedKernel(model)
    mcmc = MCMC(
        kernel, num_warmup=LEVELS, num_samples=50, num_chains=64, chain_method="vectorized", progress_bar=False,
        jit_model_args=True,
    )  # fmt: skip
    for y in (Y, -Y):
        mcmc.run(jax.random.key(0), y)
        assert_posterior(mcmc.get_samples(group_by_chain=True)["x"], exact(y))


@pytest.mark.slow
def test_parallel_chains():
    script = (
        "import jax, infer.test_annealed_kernel as t\n"
        "assert jax.local_device_count() == 2\n"
        "for show in (False, True):\n"
        "    mcmc = t.run('parallel', 2, 500, progress_bar=show)\n"
        "    assert mcmc.chain_method == 'parallel'\n"
        "    t.assert_posterior(mcmc.get_samples(group_by_chain=True)['x'], t.exact(t.Y))\n"
    )
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=os.path.dirname(os.path.dirname(__file__)),
        env={**os.environ, "XLA_FLAGS": flags},
        check=True,
    )
