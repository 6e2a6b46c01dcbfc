"""The doctor names what is there and what is not, finds what is wrong, and says so by its exit code."""

import importlib.util
from importlib import metadata

import pytest
from command import invoke

import numpyro_diffusion as nd
from numpyro_diffusion.cli import doctor
from numpyro_diffusion.errors import EXTRAS


@pytest.fixture
def quick(monkeypatch):
    """Only the checks that sample nothing."""
    monkeypatch.setattr(doctor, "CHECKS", {name: doctor.CHECKS[name] for name in ("gradients", "files")})


def test_a_sound_installation(quick):
    result = invoke("doctor")
    assert result.exit_code == 0, result.output
    assert nd.__version__ in result.stdout and metadata.version("jax") in result.stdout
    assert "2 of 2 checks passed" in result.stdout and "FAIL" not in result.stdout


def test_missing_extras_are_named_with_their_remedy(quick, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in EXTRAS.values() else find(name))
    result = invoke("doctor")
    assert result.exit_code == 0
    for extra, library in EXTRAS.items():
        assert f"no {library}: pip install 'numpyro-diffusion[{extra}]'" in result.stdout


def test_wrong_gradients_are_found(quick, monkeypatch):
    score = nd.EnergyDensity.score
    monkeypatch.setattr(nd.EnergyDensity, "score", lambda self, x, t=0.0: 1.1 * score(self, x, t))
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "FAIL gradients" in result.stdout and "1 of 2 checks passed" in result.stdout


def test_a_check_that_raises_does_not_hide_the_others(quick, monkeypatch):
    monkeypatch.setattr(nd, "save", lambda *_: 1 / 0)
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "FAIL files: ZeroDivisionError" in result.stdout and "ok   gradients" in result.stdout


@pytest.mark.slow
def test_all_of_it():
    result = invoke("doctor")
    assert result.exit_code == 0, result.output
    assert f"{len(doctor.CHECKS)} of {len(doctor.CHECKS)} checks passed" in result.stdout
