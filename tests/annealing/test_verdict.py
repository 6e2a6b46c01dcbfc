"""The verdict before a run: what a pilot knows of it."""

import contextlib
import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_problems import P2, Q2, gaussian, mixture, sample

import numpyro_diffusion as nd
from numpyro_diffusion.annealing.kernels import HMC
from numpyro_diffusion.diagnose.verdict import Verdict, _chance, kinship

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")

KEY, CHAINS = jax.random.key(0), 512
#: As many steps as where no kernel is given: of the same programs.
KERNEL = HMC(0.5, 2)


def verdict(density, kernel=None, **options):
    return nd.verdict(KEY, density, kernel, **{"num_chains": CHAINS, "progress_bar": False} | options)


@pytest.mark.slow
def test_it_is_that_of_the_run():
    expected = verdict(P2 * Q2)
    run = nd.anneal(KEY, P2 * Q2, num_chains=CHAINS, progress_bar=False)
    assert run.verdict == expected and run.pilot_evaluations == expected.pilot_evaluations > 0
    assert 0 <= expected.score <= 1 and expected.num_chains == CHAINS
    assert run.log_evidence_error / 3 < expected.log_evidence_error < 3 * run.log_evidence_error


@pytest.mark.slow
def test_good_and_bad():
    assert verdict(P2 * Q2).verdict == "good"
    apart = gaussian([-30.0, 0.0], 0.01 * np.eye(2)) * mixture(3, 2)
    few = {"levels": 2, "num_steps": 1}
    bad = verdict(apart, **few)
    assert bad.verdict == "bad" and bad.score > 0.9 and bad.reasons
    assert any("do not overlap" in reason for reason in bad.reasons)
    narrow = gaussian([-1.5, 0.0], 0.02 * np.eye(2)) * mixture(3, 2)
    assert verdict(narrow, **few).score > verdict(narrow).score


@pytest.mark.slow
def test_without_a_pilot_there_is_none_but_one_can_be_asked_for():
    given = {"levels": 4, "num_steps": 1}
    run = sample(P2 * Q2, KERNEL, num_chains=CHAINS, **given)
    assert run.verdict is None and run.pilot_evaluations == 0
    assert isinstance(verdict(P2 * Q2, KERNEL, **given), Verdict)


@pytest.mark.slow
def test_it_is_shown_first_kept_in_files_and_in_arviz_data(tmp_path):
    path, told = tmp_path / "run", io.StringIO()
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(told):
        run = nd.anneal(KEY, P2 * Q2, num_chains=CHAINS, checkpoint_path=path)
    assert told.getvalue().startswith(f"verdict before the run: {run.verdict.verdict}")
    again = nd.anneal(KEY, P2 * Q2, num_chains=CHAINS, checkpoint_path=path, progress_bar=False)
    assert again.verdict == run.verdict
    attributes = run.to_datatree().attrs
    assert attributes["verdict"] == run.verdict.verdict and attributes["verdict_score"] == run.verdict.score
    assert attributes["pilot_evaluations"] == run.pilot_evaluations
    with contextlib.redirect_stdout(told := io.StringIO()):
        run.print_summary()
    assert str(run.verdict).splitlines()[0] in told.getvalue()


@pytest.mark.slow
def test_an_accuracy_out_of_reach_is_told_with_the_chains_it_takes():
    found = verdict(P2 * Q2, accuracy=0.001)
    assert "num_chains=" in found.reasons[-1]
    needed = int(found.reasons[-1].partition("num_chains=")[2].partition(",")[0])
    assert needed == np.ceil(CHAINS * (found.log_evidence_error / 0.001) ** 2)


def test_chances():
    errors = [0.0, 0.01, 0.1, 0.3, 1.0, np.inf]
    chances = [_chance(e, 1.0) for e in errors]
    assert np.all(np.diff(chances) >= 0) and chances[0] < 0.01 and chances[-1] > 0.95
    # A third lies beyond one standard error of a normal law.
    assert abs(chances[3] - 0.317) < 0.01
    shares = [_chance(0.01, s) for s in (1.0, 0.5, 0.2, 0.05, 0.001)]
    assert np.all(np.diff(shares) > 0) and shares[-1] > 0.95
    # A pilot without a chain that is alive.
    assert _chance(np.nan, np.nan) == 1.0


def relatives(x, ancestors):
    run = sample(P2 * Q2, KERNEL, num_chains=CHAINS, levels=3)
    return dataclasses.replace(
        run, samples=jnp.asarray(x), ancestors=jnp.asarray(ancestors), log_weights=jnp.zeros(len(x))
    )


@pytest.mark.slow
def test_kinship():
    rng = np.random.default_rng(0)
    family = np.repeat(np.arange(50), 8)
    own, shared = rng.standard_normal((400, 2)), rng.standard_normal((50, 2))[family]
    # Correlations of relatives: 0, rho and 1; five standard errors of 1,400 pairs each.
    for rho in (0.0, 0.5, 1.0):
        found = kinship(relatives(np.sqrt(1 - rho) * own + np.sqrt(rho) * shared, family))
        assert abs(found - rho) < 0.2
    assert kinship(relatives(own, np.arange(400))) == 1.0
    assert kinship(relatives(np.full((400, 2), np.nan), family)) == 1.0
