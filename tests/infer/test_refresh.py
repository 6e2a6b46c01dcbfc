"""Models by replica exchange, and finished runs taken to other data, against closed forms."""

import functools

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from densities import gaussian
from scipy.stats import multivariate_normal

import numpyro_diffusion as nd
from numpyro_diffusion.errors import DiagnosticWarning, NotRunError, ParameterError, UnsupportedModelError

MEAN, COVARIANCE, SIGMA = np.array([1.0, -0.5]), np.array([[1.0, 0.6], [0.6, 0.8]]), 0.5
ROWS = np.random.default_rng(0).normal(size=(12, 2))
Y = ROWS @ [0.6, 0.1] + SIGMA * np.random.default_rng(1).normal(size=12)
ENGINES = {"annealing": {"num_chains": 600}, "tempering": {"num_chains": 2, "num_samples": 300}}


def linear(prior, rows, y, extra=False):
    """A linear model, beside a latent that the data say nothing about, or two."""
    x = numpyro.sample("x", prior)
    numpyro.sample("g", dist.Exponential(1.0))
    numpyro.sample("y", dist.Normal(rows @ x, SIGMA), obs=y)
    if extra:
        numpyro.sample("h", dist.Normal())


@functools.cache
def prior():
    return nd.DiffusionPrior(gaussian(MEAN, COVARIANCE))


def exact(rows, y):
    """Mean, covariance and log evidence."""
    precision = np.linalg.inv(COVARIANCE) + rows.T @ rows / SIGMA**2
    covariance = np.linalg.inv(precision)
    mean = covariance @ (np.linalg.solve(COVARIANCE, MEAN) + rows.T @ y / SIGMA**2)
    marginal = multivariate_normal(rows @ MEAN, rows @ COVARIANCE @ rows.T + SIGMA**2 * np.eye(len(y)))
    return mean, covariance, marginal.logpdf(y)


def assert_posterior(mcmc, rows, y):
    """Moments and evidence to five standard errors; draws of one founder count as one."""
    mean, covariance, evidence = exact(rows, y)
    x, g = (np.asarray(mcmc.get_samples()[name], dtype=float) for name in ("x", "g"))
    count = len(np.unique(np.asarray(mcmc.annealed.ancestors)))
    assert count > 60
    root = np.linalg.cholesky(covariance)
    z = np.linalg.solve(root, (x - mean).T)
    assert np.all(np.abs(z.mean(1)) < 5 / np.sqrt(count))
    assert np.all(np.abs(z @ z.T / len(x) - np.eye(2)) < 5 * np.sqrt(2 / count))
    assert abs(g.mean() - 1) < 5 / np.sqrt(count)
    assert abs(mcmc.log_evidence - evidence) < 5 * mcmc.log_evidence_error < 1.0


def run_with(engine, rows=ROWS[:10], y=Y[:10], **options):
    mcmc = nd.AnnealedMCMC(linear, engine=engine, progress_bar=False, **ENGINES[engine] | options)
    mcmc.run(jax.random.key(0), prior(), jnp.asarray(rows), jnp.asarray(y))
    return mcmc


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["annealing", pytest.param("tempering", marks=pytest.mark.slow)])
def test_more_data_at_a_fraction_of_a_run(engine):
    mcmc = run_with(engine)
    assert_posterior(mcmc, ROWS[:10], Y[:10])
    # What a fresh run takes: its pilot, too.
    per_draw = mcmc.evaluations_per_chain + mcmc.annealed.pilot_evaluations
    if engine == "tempering":
        per_draw /= 300
        assert mcmc.get_samples(group_by_chain=True)["x"].shape == (2, 300, 2)
        assert float(az.summary(mcmc.to_datatree())["r_hat"].astype(float).max()) < 1.05
    # All of the data, in NumPy's precision.
    mcmc.refresh(jax.random.key(1), prior(), ROWS, Y)
    assert_posterior(mcmc, ROWS, Y)
    assert mcmc.evaluations_per_chain <= 0.3 * per_draw
    # And on to other data of the same size.
    mcmc.refresh(jax.random.key(2), prior(), jnp.asarray(ROWS), jnp.asarray(Y) + 0.2)
    assert_posterior(mcmc, ROWS, Y + 0.2)
    assert mcmc.to_datatree().posterior.x.shape == (4, 150, 2)


@pytest.mark.slow
def test_further_away_there_are_stages_and_then_a_run_afresh(capsys):
    mcmc, rows = run_with("annealing"), jnp.asarray(ROWS[:10])
    mcmc.refresh(jax.random.key(1), prior(), rows, jnp.asarray(Y[:10]) + 0.7)
    assert len(mcmc.annealed.levels) > 1
    assert_posterior(mcmc, ROWS[:10], Y[:10] + 0.7)
    y = ROWS[:10] @ [9.0, -9.0]
    with pytest.warns(DiagnosticWarning, match="sampled anew"):
        mcmc.refresh(jax.random.key(1), prior(), rows, jnp.asarray(y))
    assert_posterior(mcmc, ROWS[:10], y)
    mcmc.print_summary()
    assert "sampled anew" in capsys.readouterr().out


@pytest.mark.slow
def test_what_cannot_be_refreshed():
    data = prior(), jnp.asarray(ROWS[:10]), jnp.asarray(Y[:10])
    with pytest.raises(NotRunError, match=r"run\(rng_key"):
        nd.AnnealedMCMC(linear).refresh(jax.random.key(1), *data)
    mcmc = run_with("annealing")
    before = np.asarray(mcmc.get_samples()["x"])
    with pytest.raises(UnsupportedModelError, match="'h' differ"):
        mcmc.refresh(jax.random.key(1), *data, extra=True)
    mcmc.annealed.is_complete = False
    with pytest.raises(NotRunError, match="ended early"):
        mcmc.refresh(jax.random.key(1), *data)
    mcmc.annealed.is_complete, mcmc.annealed.kernel = True, nd.ULA(0.1)
    with pytest.raises(ParameterError, match=r"nd\.HMC or nd\.MALA"):
        mcmc.refresh(jax.random.key(1), *data)
    np.testing.assert_array_equal(mcmc.get_samples()["x"], before)


@pytest.mark.parametrize(("engine", "match"), [("gibbs", "engine must be one of"), (3, "engine must be one of")])
def test_unknown_engines_are_refused(engine, match):
    with pytest.raises(ParameterError, match=match):
        nd.AnnealedMCMC(linear, engine=engine)
