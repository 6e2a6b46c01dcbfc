"""What kernels, runs and bounds say in few words, with remedies."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import mixture
from quick import slow

import numpyro_diffusion as nd
from numpyro_diffusion.diagnose.findings.statistics import closer_levels, shorter_steps
from numpyro_diffusion.diagnose.summary import summary

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
KEY, POINTS = jax.random.key(0), np.zeros((3, 2))
QUIET = {"levels": 3, "progress_bar": False}
#: One number of chains and of leapfrog steps: what has been compiled once serves the next test.
CHAINS, STEPS = 32, 2


def test_kernels_print_their_settings():
    kernels = {
        nd.HMC(): "HMC(step_size=tuned, num_integration_steps=3)",
        nd.UHMC(0.25, 5, 0.5): "UHMC(step_size=0.25, num_integration_steps=5, persistence=0.5)",
        nd.ULA(np.full(4, 0.1)): "ULA(step_size=array[4])",
        nd.BlackJAX(blackjax.nuts, inverse_mass_matrix=np.ones(2)): "BlackJAX(nuts, step_size=tuned, "
        "inverse_mass_matrix=array[2])",
        nd.Reverse(): "Reverse()",
        nd.Reverse(weighted=True): "Reverse(weighted=True)",
    }
    for kernel, text in kernels.items():
        assert repr(kernel) == text
    assert jax.jit(lambda k: jnp.zeros(len(repr(k))))(nd.MALA(0.1)).shape == (len("MALA(step_size=traced)"),)


@pytest.mark.slow
def test_runs_and_bounds_print_in_a_few_lines():
    run = nd.anneal(KEY, mixture(name="m"), num_chains=CHAINS, **QUIET)
    lines = repr(run).splitlines()
    assert len(lines) <= 5 and max(map(len, lines)) < 120
    assert "AnnealedRun of m by HMC(" in lines[0] and f"{CHAINS} chains, 3 levels" in lines[1] and "+-" in lines[2]
    assert "findings" in lines[3]
    bound = nd.ais_bound(KEY, mixture(), num_chains=CHAINS, **QUIET)
    assert len(repr(bound)) < 100 and "ais: lower" in repr(bound)
    assert "findings" in summary(bound) and "Pareto k" in summary(bound)
    reverse = nd.anneal(KEY, mixture(), nd.Reverse(), num_chains=8, **QUIET)
    assert "no log evidence" in repr(reverse) and np.isnan(reverse.ess)


@pytest.mark.slow
def test_hmc_is_the_kernel_where_none_is_given():
    settings = {"num_chains": CHAINS, **QUIET}
    kernel = nd.HMC(num_integration_steps=STEPS)
    given, default = nd.anneal(KEY, mixture(), kernel, **settings), nd.anneal(KEY, mixture(), **settings)
    np.testing.assert_array_equal(given.samples, default.samples)


@pytest.mark.slow
@pytest.mark.parametrize(("bound", "more"), [(nd.bdmc, {"num_chains": CHAINS}), slow((nd.raise_bound, {}))])
def test_it_is_so_of_bounds(bound, more):
    one, other = (
        bound(KEY, mixture(), POINTS, *k, **QUIET, **more) for k in ((), (nd.HMC(num_integration_steps=STEPS),))
    )
    assert one.lower == other.lower


@pytest.mark.slow
def test_remedies_are_what_the_call_can_do():
    given = nd.anneal(KEY, mixture(), nd.HMC(0.4, STEPS), num_chains=CHAINS, levels=4, progress_bar=False)
    placed = nd.anneal(KEY, mixture(), nd.HMC(None, STEPS), num_chains=CHAINS, progress_bar=False)
    by_level = nd.anneal(
        KEY, mixture(), nd.HMC([0.5, 0.4, 0.3, 0.2], STEPS), num_chains=CHAINS, levels=4, progress_bar=False
    )
    assert closer_levels(given) == "more levels than 4" and "level_ess" in closer_levels(placed)
    assert "smaller than 0.4" in shorter_steps(given) and "0.2 to 0.5" in shorter_steps(by_level)
    assert "step_size=0.5 * run.stats['step_size'] with levels=run.levels" in shorter_steps(placed)
    again = nd.anneal(
        KEY, mixture(), nd.HMC(0.5 * placed.stats["step_size"], STEPS), levels=placed.levels, num_chains=CHAINS,
        progress_bar=False,
    )  # fmt: skip
    assert again.stats["acceptance_rate"].mean() > placed.stats["acceptance_rate"].mean()


@pytest.mark.slow
def test_progress_shows_the_pilot_and_one_bar(capsys):
    nd.anneal(KEY, mixture(), nd.HMC(None, STEPS), num_chains=CHAINS)
    shown = capsys.readouterr().err
    assert "pilot: level 1, t = 1" in shown and "compiling" in shown and "ess=" in shown
    assert shown.rstrip("\n").count("\n") == 0, "one bar is one line"
    nd.anneal(KEY, mixture(), nd.HMC(None, STEPS), num_chains=CHAINS, progress_bar=False)
    assert capsys.readouterr().err == ""
