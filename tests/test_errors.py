"""Errors are of this package, and of the built-in kind too."""

import jax
import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.errors import (
    ArgumentTypeError,
    ParameterError,
    ScheduleError,
    ScoreOnlyError,
    ShapeError,
    UnknownNameError,
    check_integer,
    check_key,
    check_number,
)


def test_every_error_is_ours_and_the_builtin():
    assert issubclass(UnknownNameError, (nd.errors.DiffusionError, KeyError))
    for error in (ShapeError, ScheduleError, ParameterError, nd.errors.CheckpointError):
        assert issubclass(error, nd.errors.DiffusionError) and issubclass(error, ValueError)
    assert issubclass(ScoreOnlyError, nd.errors.DiffusionError) and issubclass(ScoreOnlyError, TypeError)
    assert str(UnknownNameError("no such name")) == "no such name"


def test_keys_of_both_kinds():
    typed = jax.random.key(3)
    for key in (typed, jax.random.key_data(typed), np.asarray(jax.random.key_data(typed))):
        assert isinstance(check_key(key), jax.Array)
    assert jax.jit(check_key)(typed) == typed


def test_integers_of_every_kind():
    assert [check_integer("n", n) for n in (3, np.int32(3), np.uint8(3))] == [3, 3, 3]
    with pytest.raises(ParameterError, match="n must be an integer >= 0; got -1"):
        check_integer("n", -1, low=0)


def test_numbers_of_every_kind():
    assert [check_number("x", x, 0.0, 2.0) for x in (1, np.float32(0.5), np.array(2.0))] == [1.0, 0.5, 2.0]
    for bad in (True, "1", b"1", None, [1.0], np.ones(2), 1j, np.nan, 10**400, -0.1, 2.1):
        with pytest.raises(ParameterError, match=r"x must lie in \[0, 2\]; got .*. Halve it."):
            check_number("x", bad, 0.0, 2.0, "Halve it.")


@pytest.mark.parametrize(
    ("low", "high", "ends", "rule"),
    [(0, 1, "[)", r"lie in \[0, 1\)"), (0, 1, "(]", r"lie in \(0, 1\]"), (0, np.inf, "()", "be positive"),
     (0, np.inf, "[)", "be >= 0")],
)  # fmt: skip
def test_ends_of_ranges(low, high, ends, rule):
    for bound, end in zip((low, high), ends, strict=True):
        if end in "[]":
            assert check_number("x", bound, low, high, ends=ends) == bound
        else:
            with pytest.raises(ParameterError, match=f"x must {rule}; got"):
                check_number("x", bound, low, high, ends=ends)


@pytest.mark.parametrize(
    ("call", "words"),
    [(lambda: nd.fit(0, 0, steps=100), r"fit\(\): .*'steps'. Did you mean training=nd.TrainingConfig\(num_steps=...\)"),
     (lambda: nd.fit(0, 0, lr=0.1), r"'lr'. It takes rng_key, data.*; training=nd.TrainingConfig\(...\) takes num_st"),
     (lambda: nd.HMC(num_steps=5), r"^HMC\(\): .*'num_steps'. Did you mean num_integration_steps="),
     (lambda: nd.HMC(0.1, 3, 0.0, 7), r"^HMC\(\): too many positional arguments. It takes step_size, num_int"),
     (lambda: nd.MALA(num_steps=5), "'num_steps'. It takes step_size, num_nodes.$"),
     (lambda: nd.anneal(0, 0, steps=3), "Did you mean num_steps="),
     (lambda: nd.anneal(0, 0, step_size=0.1), r"Did you mean kernel=nd.HMC\(step_size="),
     (lambda: nd.AnnealedMCMC(print, chains=3), r"^AnnealedMCMC\(\): .*Did you mean num_chains="),
     (lambda: nd.AnnealedKernel(print, stepsize=3), r"^AnnealedKernel\(\): .*kernel=nd.HMC\(step_size="),
     (lambda: nd.TrainingConfig(steps=3), r"^TrainingConfig\(\): .*Did you mean num_steps="),
     (lambda: nd.Reverse(num_steps=3), r"^Reverse\(\): .*It takes weighted.$"),
     (lambda: nd.ais_bound(0, 0, nsteps=3), r"ais_bound\(\): .*'nsteps'. Did you mean num_steps=")],
)  # fmt: skip
def test_unknown_arguments_are_named_with_what_may_be_meant(call, words):
    with pytest.raises(ArgumentTypeError, match=words):
        call()
