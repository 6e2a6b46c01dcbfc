"""The annealed sampler where energies fail, and under bad input."""

import warnings

import blackjax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_problems import LEVELS, NUM_CHAINS, P2, SCHEDULE, Problem, assert_moments, gaussian, sample
from scipy.stats import norm

from numpyro_diffusion.annealing.kernels import HMC, MALA, UHMC
from numpyro_diffusion.annealing.reverse import Reverse
from numpyro_diffusion.density.exact import UniformBox
from numpyro_diffusion.density.function import as_density
from numpyro_diffusion.errors import DiagnosticWarning, ParameterError, ScheduleError

pytestmark = [
    pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning"),
    pytest.mark.usefixtures("quick_compilation"),
]


# Energies that fail.


def hole(value, low, high):
    """N(0, I) at every level, but `value` where x_0 > 1 while low <= t < high. One function, so one trace."""
    parameters = jnp.array([value, low, high])
    return as_density(_holed, (2,), SCHEDULE, parameters=parameters, mean=np.zeros(2), covariance=np.eye(2))


def _holed(parameters, x, t):
    value, low, high = parameters
    normal = -0.5 * jnp.sum(x**2) - jnp.log(2 * jnp.pi)
    return jnp.where((x[0] > 1) & (t >= low) & (t < high), value, normal)


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf], ids=str)
@pytest.mark.parametrize("high", [2.0, 0.5], ids=["always", "late"])
@pytest.mark.parametrize("kernel", [HMC(), UHMC()], ids=["HMC", "UHMC"])
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


# Bad input.


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"levels": [0.1, 0.5]}, ScheduleError, "levels must decrease; got 0.1 before 0.5. Reverse"),
        ({"levels": [1.0, 0.5, 0.5, 0.0]}, ScheduleError, "levels must decrease; got 0.5 before 0.5"),
        ({"levels": [1.5, 0.0]}, ScheduleError, r"levels must lie in \[0, 1\]; got 0.0 to 1.5"),
        ({"levels": [1.0, -0.1]}, ScheduleError, r"levels must lie in \[0, 1\]; got -0.1"),
        ({"levels": [1.0, np.nan, 0.0]}, ScheduleError, r"levels must lie in \[0, 1\]; got nan"),
        ({"levels": [1.0]}, ScheduleError, r"at least two times; got shape \(1,\)"),
        ({"levels": [[1.0, 0.0]]}, ScheduleError, r"at least two times; got shape \(1, 2\)"),
        ({"levels": 1}, ParameterError, "num_levels must be at least 2; got 1"),
        ({"levels": "many"}, ScheduleError, "levels must be None, a number of levels, or a list of times; got 'many'"),
        ({"level_ess": 1.0}, ParameterError, r"level_ess must lie in \(0, 1\); got 1.0"),
        ({"level_ess": 0.0}, ParameterError, r"level_ess must lie in \(0, 1\); got 0.0"),
        ({"num_chains": 0}, ParameterError, "num_chains must be an integer >= 1; got 0"),
        ({"num_chains": 10.0}, ParameterError, "num_chains must be an integer >= 1; got 10.0"),
        ({"num_steps": 0}, ParameterError, "num_steps must be an integer >= 1; got 0"),
        ({"resample_threshold": -0.1}, ParameterError, r"resample_threshold must lie in \[0, 1\]; got -0.1"),
        ({"resample_threshold": 1.1}, ParameterError, r"resample_threshold must lie in \[0, 1\]; got 1.1"),
        ({"resample_threshold": np.nan}, ParameterError, r"resample_threshold must lie in \[0, 1\]; got nan"),
        ({"chain_batch_size": 0}, ParameterError, "chain_batch_size must be an integer >= 1; got 0"),
        ({"chain_batch_size": 2.5}, ParameterError, "chain_batch_size must be an integer >= 1; got 2.5"),
        ({"frame": "polar"}, ParameterError, "frame must be one of .*'whitened'.*; got 'polar'"),
    ],
    ids=str,
)
def test_bad_settings(settings, error, message):
    with pytest.raises(error, match=message):
        sample(P2, HMC(), **settings)


@pytest.mark.parametrize("levels", [[0.1, 0.5], [1.5, 0.0], 1, "many"], ids=str)
def test_bad_levels_of_reverse_diffusion(levels):
    with pytest.raises((ScheduleError, ParameterError)):
        sample(P2, Reverse(), levels=levels)


def test_step_sizes_must_match_the_levels():
    with pytest.raises(ParameterError, match="got 3 step sizes for 10 levels"):
        sample(P2, HMC([0.1, 0.2, 0.3]), levels=LEVELS)
    with pytest.raises(ParameterError, match="got 3 step sizes for levels placed by conditional ESS"):
        sample(P2, HMC([0.1, 0.2, 0.3]))


@pytest.mark.parametrize("bad", [lambda x, t: 0.0, 3.0, None, "ring"], ids=["function", "number", "None", "name"])
def test_what_is_not_a_density(bad):
    with pytest.raises(TypeError, match="takes a density; got .*nd.as_density"):
        sample(bad, HMC())


@pytest.mark.parametrize("bad", [HMC, 0.1, "HMC", blackjax.nuts], ids=["class", "number", "name", "blackjax"])
def test_what_is_not_a_kernel(bad):
    with pytest.raises(TypeError, match=r"takes a kernel such as nd.HMC\(\)"):
        sample(P2, bad)


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
