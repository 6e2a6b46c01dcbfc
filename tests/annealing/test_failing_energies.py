"""The annealed sampler where energies fail."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from exact_problems import LEVELS, NUM_CHAINS, SCHEDULE, Problem, assert_moments, gaussian, sample
from scipy.stats import norm

from numpyro_diffusion.annealing.kernels import HMC, MALA, UHMC
from numpyro_diffusion.density.exact import UniformBox
from numpyro_diffusion.density.function import as_density
from numpyro_diffusion.errors import DiagnosticWarning

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")


def hole(value, low, high):
    """N(0, I) at every level, but `value` where x_0 > 1 while low <= t < high. One function, so one trace."""
    parameters = jnp.array([value, low, high])
    return as_density(_holed, (2,), SCHEDULE, parameters=parameters, mean=np.zeros(2), covariance=np.eye(2))


def _holed(parameters, x, t):
    value, low, high = parameters
    normal = -0.5 * jnp.sum(x**2) - jnp.log(2 * jnp.pi)
    return jnp.where((x[0] > 1) & (t >= low) & (t < high), value, normal)


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf], ids=str)
@pytest.mark.parametrize("high", [2.0, 0.5], ids=["always", "late"])
@pytest.mark.parametrize("kernel", [HMC(), pytest.param(UHMC(), marks=pytest.mark.slow)], ids=["HMC", "UHMC"])
def test_nan_energies_are_counted_and_never_sampled(value, high, kernel):
    """What is left is a truncated Gaussian: Z = Phi(1), E x_0 = -phi(1) / Phi(1), E x_0^2 = 1 - phi(1) / Phi(1)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiagnosticWarning)
        run = sample(hole(value, 0.0, high), kernel, levels=LEVELS, keep_history=True)
    assert np.all(np.isfinite(run.samples)) and np.all(run.samples[:, 0] <= 1)
    assert np.sum(run.stats["divergences"]) > 0
    for name, values in run.stats.items():
        assert np.all(np.isfinite(values)), name
    killed = np.isneginf(run.history["log_weight_increment"])
    dead = (killed[0] if high > 1 else killed[np.searchsorted(-LEVELS, -high, side="right")]).mean()
    assert abs(dead - norm.sf(1)) < 5 * np.sqrt(norm.sf(1) * norm.cdf(1) / NUM_CHAINS)
    assert abs(run.log_evidence - norm.logcdf(1)) < 5 * run.log_evidence_error < 0.5
    ratio = norm.pdf(1) / norm.cdf(1)
    truth = Problem(None, norm.logcdf(1), np.array([-ratio, 0.0]), np.diag([1 - ratio, 1.0]))
    assert_moments(run.samples, truth, run.log_evidence_error)


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf], ids=str)
def test_chains_once_dead_stay_dead(value):
    """A hole that opens and closes again: chains that fell in must not come back with NaN or infinite weight."""
    run = sample(hole(value, 0.3, 0.6), HMC(), levels=LEVELS)
    assert np.isfinite(run.log_evidence) and np.all(np.isfinite(run.samples))
    weights = sample(hole(value, 0.3, 0.6), HMC(), levels=LEVELS, resample_threshold=0).log_weights
    assert not np.any(np.isnan(weights)) and np.any(np.isneginf(weights)) and np.max(weights) < 20


def test_a_density_that_is_nan_everywhere_ends_without_an_evidence():
    nowhere = as_density(lambda x, t: jnp.nan * jnp.sum(x), (2,), SCHEDULE)
    run = sample(nowhere, MALA(0.3), levels=LEVELS, num_chains=50)
    assert not np.isfinite(run.log_evidence)
    assert np.all(np.isfinite(run.samples)), "no chain ever moved"


@pytest.mark.slow
def test_a_box_has_hard_walls():
    """The log density is -inf outside at t = 0: divergences there, all samples inside, Z of a cut Gaussian."""
    box = UniformBox([-1.0, -1.0], [1.0, 1.0], SCHEDULE)
    g = gaussian([0.5, 0.0], 0.5 * np.eye(2))
    run = sample(box * g, HMC())
    assert np.all(np.abs(run.samples) <= 1)
    a, b = (np.array([-1.5, -1.0]) / np.sqrt(0.5)), (np.array([0.5, 1.0]) / np.sqrt(0.5))
    log_z = np.sum(np.log(norm.cdf(b) - norm.cdf(a))) - np.log(4)
    assert abs(run.log_evidence - log_z) < 5 * run.log_evidence_error < 0.5
