"""Simulation-based calibration: ranks of truths among weighted relatives, and runs of many simulations."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from arviz_stats.base import array_stats
from counting import compilations
from densities import COVARIANCE, MEAN, gaussian
from quick import slow
from scipy.stats import kstest

import numpyro_diffusion as nd
from numpyro_diffusion.diagnose.expectations import particles_of
from numpyro_diffusion.diagnose.sbc_result import SBCResult, rank_of
from numpyro_diffusion.errors import (
    ArgumentTypeError,
    CheckpointError,
    InterruptWarning,
    ParameterError,
    UnsupportedModelError,
)
from numpyro_diffusion.infer.posterior import _asked

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
A = jnp.array([[1.0, 2.0]])
PRIOR = gaussian(MEAN, COVARIANCE)


def model(A, y=None):
    x = numpyro.sample("x", nd.DiffusionPrior(PRIOR))
    numpyro.deterministic("total", x.sum())
    numpyro.sample("y", dist.Normal(A @ x, 0.3).to_event(1), obs=y)


def chains(made=model, **settings):
    settings = {"num_chains": 64, "levels": 8, "metric": "frame", "progress_bar": False} | settings
    return nd.AnnealedMCMC(made, nd.HMC(0.5), **settings)


def simulated(num_simulations=3, mcmc=None, **options):
    options = {"observed": ("y",), "progress_bar": False} | options
    return nd.sbc(jax.random.key(0), mcmc or chains(), A, num_simulations=num_simulations, **options)


@pytest.fixture(scope="module")
def few():
    return simulated()


# Ranks.


def _ranks(count, draw):
    rng = np.random.default_rng(0)
    return np.array([rank_of(*draw(rng), rng)[0] for _ in range(count)])


def _strangers(rng, weight=None, shift=0.0, size=20):
    values = rng.normal(size=size)
    return shift + rng.normal(), values, particles_of(None, np.zeros(size) if weight is None else np.log(weight))


def _relatives(rng):
    """30 founders, ten copies of each."""
    return rng.normal(), np.repeat(rng.normal(size=30), 10), particles_of(None, np.zeros(300), np.repeat(range(30), 10))


def _weighted(rng):
    """Draws of N(0, 1.5^2), weighed to be of N(0, 1)."""
    values = 1.5 * rng.normal(size=200)
    return rng.normal(), values, particles_of(None, -0.5 * values**2 * (1 - 1 / 1.5**2))


def _discrete(rng):
    return rng.integers(0, 3), rng.integers(0, 3, 25), particles_of(None, np.zeros(25))


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("draw", [_strangers, slow(_relatives), slow(_weighted), _discrete])
def test_ranks_of_right_posteriors_are_uniform(draw):
    ranks = _ranks(2000, draw)
    assert kstest(ranks, "uniform").pvalue > 1e-6
    assert np.mean(ranks < 0.02) == pytest.approx(0.02, abs=5 * np.sqrt(0.02 / 2000))


@pytest.mark.slow
def test_relatives_taken_for_strangers_are_seen():
    """Among 300 draws that are copies of 30 the truth lies below all of them once in 31 times, not 301."""

    def draw(rng):
        truth, values, _ = _relatives(rng)
        return truth, values, particles_of(None, np.zeros(300))

    assert np.mean(_ranks(2000, draw) < 0.01) == pytest.approx(1 / 31, abs=5 * np.sqrt(1 / 31 / 2000))


def test_wrong_posteriors_are_seen():
    assert kstest(_ranks(1000, lambda rng: _strangers(rng, shift=0.5)), "uniform").pvalue < 1e-6


def _result(ranks):
    zeros = np.zeros(len(ranks))
    return SBCResult({"a": ranks}, {"a": np.full_like(ranks, 50.0)}, zeros, zeros, zeros > 0, zeros)


def test_p_values():
    rng = np.random.default_rng(1)
    right, wrong = _result(rng.uniform(size=(300, 2))), _result(rng.beta(2, 2, size=(300, 2)))
    for p in (right.p_values(), right.ecdf_p_values()):
        assert p["a"].shape == (2,) and np.all(p["a"] > 1e-4)
    for p in (wrong.p_values(), wrong.ecdf_p_values()):
        assert np.all(p["a"] < 1e-4)
    # One test of many repetitions: its p-values are uniform themselves.
    many = _result(rng.uniform(size=(100, 2000)))
    assert np.mean(many.p_values()["a"] < 0.1) == pytest.approx(0.1, abs=0.03)


# Runs.


@pytest.mark.slow
def test_a_run(few):
    assert few.num_simulations == 3 and set(few.ranks) == {"x", "log_likelihood"}
    assert few.ranks["x"].shape == (3, 2) and few.ranks["log_likelihood"].shape == (3,)
    for ranks, worth in zip(few.ranks.values(), few.num_effective.values(), strict=True):
        assert np.all((ranks > 0) & (ranks < 1)) and np.all((worth >= 1) & (worth <= 64))
    assert np.all(np.isfinite(few.log_evidence)) and few.evaluations_per_chain.dtype.kind == "i"


@pytest.mark.slow
def test_data_give_shapes_only(few):
    """The same simulations whether data are missing, given, or known to the model as observed."""
    given = nd.sbc(jax.random.key(0), chains(), A, jnp.array([100.0]), num_simulations=2, progress_bar=False)
    for name, ranks in given.ranks.items():
        np.testing.assert_allclose(ranks, few.ranks[name][:2], atol=1e-4)


@pytest.mark.slow
def test_nothing_is_compiled_anew_and_the_mcmc_stays_what_it_is(few):
    mcmc = chains()
    simulated(1, mcmc)
    with compilations() as compiled:
        simulated(3, mcmc)
    # Of eager numbers of a trace at most.
    assert len(compiled) < 5, compiled
    with pytest.raises(RuntimeError, match="Call run"):
        mcmc.get_samples()


@pytest.mark.slow
def test_quantities_of_ones_own(few):
    found = simulated(2, quantities=lambda draw: {"total": draw["total"], "first": draw["x"][0]})
    assert set(found.ranks) == {"total", "first", "log_likelihood"}
    np.testing.assert_allclose(found.log_evidence, few.log_evidence[:2], rtol=1e-6)


@pytest.mark.parametrize(
    "quantities, error, words",
    [
        (lambda draw: draw["x"][0], TypeError, "must return numbers by name"),
        (lambda draw: {"z": draw["z"]}, ParameterError, "asks for 'z'; a draw has the sites x, total"),
    ],
)
def test_quantities_that_are_none(quantities, error, words):
    with pytest.raises(error, match=words):
        _asked(quantities, {"x": jnp.zeros((3, 2)), "total": jnp.zeros(3)})


@pytest.mark.slow
def test_goes_on_from_a_checkpoint(few, tmp_path, monkeypatch):
    path = tmp_path / "sbc"
    simulated(1, checkpoint_path=path)
    more = simulated(3, checkpoint_path=path)
    for name, ranks in few.ranks.items():
        np.testing.assert_array_equal(more.ranks[name], ranks)
    monkeypatch.setattr(nd.AnnealedMCMC, "run", None)
    assert simulated(2, checkpoint_path=path).num_simulations == 2
    with pytest.raises(CheckpointError, match="settings"):
        simulated(2, chains(num_steps=3), checkpoint_path=path)
    with pytest.raises(CheckpointError, match="quantities"):
        simulated(2, checkpoint_path=path, quantities=lambda draw: {"x": draw["x"] ** 3})
    with pytest.raises(CheckpointError, match="rng_key"):
        nd.sbc(jax.random.key(1), chains(), A, observed=("y",), checkpoint_path=path, progress_bar=False)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_keeps_what_is_done(few, monkeypatch):
    import os
    import signal

    original, count = nd.AnnealedMCMC.run, []

    def run(self, *args, **kwargs):
        count.append(1)
        if len(count) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(nd.AnnealedMCMC, "run", run)
    with pytest.warns(InterruptWarning, match="interrupted after 2 of 3 simulations"):
        found = simulated(3)
    np.testing.assert_array_equal(found.ranks["x"], few.ranks["x"][:2])


@pytest.mark.slow
def test_shown(few, capsys):
    few.print_summary()
    printed = capsys.readouterr().out
    assert "x (2 numbers, least p)" in printed and "3 simulations" in printed
    assert repr(few) == "SBCResult(3 simulations of x, log_likelihood)"


@pytest.mark.slow
def test_arviz_and_pictures(few):
    pytest.importorskip("matplotlib").use("Agg")
    import arviz as az

    tree = few.to_datatree()
    assert tree["prior_sbc"]["x"].shape == (1, 3, 2)
    assert az.plot_ecdf_pit(tree, backend="matplotlib").viz["figure"].item().axes
    result = _result(np.random.default_rng(0).uniform(size=(50, 20)))
    figure = nd.plots.plot_sbc(result)
    assert len(figure.axes[0].lines) == 17
    with pytest.raises(ParameterError, match="var_names must be among"):
        nd.plots.plot_sbc(few, ["z"])
    with pytest.raises(ParameterError, match="what nd.sbc returns"):
        nd.plots.plot_sbc(tree)


def with_factor(A, y=None):
    model(A, y)
    numpyro.factor("more", 1.0)


def without_data(A):
    numpyro.sample("x", nd.DiffusionPrior(PRIOR))


@pytest.mark.parametrize(
    ("made", "options", "error", "match"),
    [
        (without_data, {"observed": None}, ParameterError, "no observed site"),
        (model, {"observed": ("z",)}, ParameterError, "observed must name"),
        (with_factor, {}, UnsupportedModelError, "'more' is observed"),
    ],
)
def test_refuses_models(made, options, error, match):
    with pytest.raises(error, match=match):
        simulated(1, chains(made), **options)


def test_refuses():
    with pytest.raises(ArgumentTypeError, match="nd.sbc takes an nd.AnnealedMCMC"):
        nd.sbc(jax.random.key(0), model, A)
    with pytest.raises(ParameterError, match="num_simulations"):
        simulated(0)


def test_the_uniformity_test_is_that_of_arviz():
    ranks = np.random.default_rng(2).uniform(size=80)
    assert float(_result(ranks).ecdf_p_values()["a"]) == pytest.approx(float(array_stats.uniformity_test(ranks)[0]))


def test_dead_runs_are_told():
    values, particles = np.zeros(30), particles_of(None, np.full(30, -np.inf))
    assert np.isnan(rank_of(0.0, values, particles, np.random.default_rng(0))[0])
    ranks = np.random.default_rng(0).uniform(size=(40, 2))
    ranks[3, 0] = np.nan
    for p in (_result(ranks).p_values(), _result(ranks).ecdf_p_values()):
        assert np.isnan(p["a"]).tolist() == [True, False]


@pytest.mark.slow
def test_posteriors_of_a_linear_gaussian_model_are_calibrated():
    found = simulated(200, chains(num_chains=200, levels=None))
    for p in (found.p_values(), found.ecdf_p_values()):
        assert all(np.all(values > 1e-5) for values in p.values())
