"""Denominators that outweigh what they divide."""

import jax
import numpy as np
import pytest
from densities import ScoreOf, gaussian, mixture, network
from quick import slow

import numpyro_diffusion as nd
from numpyro_diffusion.diagnose.findings import findings
from numpyro_diffusion.diagnose.findings.outweighed import outweighed

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
KEY = jax.random.key(0)
QUIET = {"levels": 3, "progress_bar": False}


P, Q = gaussian(name="p"), gaussian(covariance=((0.1, 0.0), (0.0, 0.1)), name="q")
SHIFTED = gaussian(mean=(0.5, 0.0), covariance=((0.5, 0.0), (0.0, 2.0)), name="s")


@pytest.mark.slow
@pytest.mark.parametrize(
    "density",
    [P / Q**0.9, *map(slow, (P**2 / Q**0.5, 0.5 * P + 0.5 * (P / Q**0.9), P * SHIFTED / Q**0.7))],
    ids=repr,
)
def test_denominators_that_outweigh_are_found(density):
    (found,) = outweighed(density, 0.0)
    assert found[1] >= 1 and "q ** " in found[0]
    run = nd.anneal(KEY, density, nd.HMC(0.5), num_chains=16, **QUIET)
    (text,) = findings(run)
    assert "grow without bound" in text and "floor=0.01" in text


@pytest.mark.parametrize(
    "density",
    [P, P * Q, Q / P**0.9, P / Q**0.05, Q**2 / P, nd.negation(P, Q, floor=0.1), mixture() / P**0.5, network() * P],
    ids=repr,
)
def test_denominators_that_do_not(density):
    assert outweighed(density, 0.0) == []


def test_factors_with_modes_are_asked_themselves():
    """Each mode is narrower than the denominator, all together are wider: the Gaussians alone would complain."""
    angles = np.linspace(0, 2 * np.pi, 9)[:-1]
    ring = nd.exact.GaussianMixture(3 * np.c_[np.cos(angles), np.sin(angles)], np.tile(0.02 * np.eye(2), (8, 1, 1)))
    bar = gaussian(covariance=((0.1, 0.0), (0.0, 2.0)), name="bar")
    assert outweighed(ring / bar**0.5, 0.0) == []
    assert len(outweighed(ring / bar**0.5 / Q**0.4, 0.0)) <= 1


@pytest.mark.slow
def test_mixtures_of_scores_have_nothing_to_ask():
    density = nd.negation(ScoreOf(P, "p"), ScoreOf(Q, "q"), 0.9, floor=0.01)
    assert outweighed(density, 0.0) == []
    assert nd.anneal(KEY, density, nd.Reverse(), num_chains=16, **QUIET).is_weighted
