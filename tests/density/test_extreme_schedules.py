"""Schedules at the ends of what floats hold: right to their last digits, or refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ParameterError

COSINE, LINEAR, EXPLODING = nd.VariancePreserving.cosine, nd.VariancePreserving.linear, nd.VarianceExploding
EPS = 2.0**-24
TIMES = np.concatenate([np.geomspace(1e-6, 0.5, 15), np.linspace(0.5, 1.0, 11), 1 - EPS * np.arange(1, 5)]).astype(
    np.float32
)

SCHEDULES = {
    "cosine to 1e7": COSINE(1e7),
    "cosine to 1e6": COSINE(1e6),
    "cosine to 1e4": COSINE(1e4),
    "cosine to 100": COSINE(100.0),
    "cosine to 1e-3": COSINE(1e-3),
    "linear to 160": LINEAR(0.1, 160.0),
    "linear to 1": LINEAR(0.1, 1.0),
    "exploding": EXPLODING(0.002, 80.0),
    "exploding to 1e15": EXPLODING(1e-3, 1e15),
    "exploding geometrically": EXPLODING(0.002, 80.0, rho=1e6),
    "exploding late": EXPLODING(0.0, 80.0, rho=1e3),
    "exploding early": EXPLODING(0.0, 80.0, rho=0.3),
}


def expected(schedule, t):
    """(alpha, sigma, sigma / alpha) in double precision, without differences that cancel."""
    t = np.asarray(t, dtype=np.float64)
    if isinstance(schedule, nd.VarianceExploding):
        if schedule.sigma_min == 0:
            r = schedule.sigma_max * t**schedule.rho
        else:
            step = -np.expm1(np.log(schedule.sigma_min / schedule.sigma_max) / schedule.rho)
            r = schedule.sigma_max * np.exp(schedule.rho * np.log1p(-(1 - t) * step))
        return np.ones_like(t), r, r
    if schedule.shape == "cosine":
        angle, rest = np.arctan(schedule.sigma_max) * t, np.arctan(1 / schedule.sigma_max) * t + np.pi / 2 * (1 - t)
        return np.sin(rest), np.sin(angle), np.sin(angle) / np.sin(rest)
    log_alpha = -0.25 * t**2 * (schedule.beta_max - schedule.beta_min) - 0.5 * t * schedule.beta_min
    alpha, sigma = np.exp(log_alpha), np.sqrt(-np.expm1(2 * log_alpha))
    return alpha, sigma, sigma / alpha


@pytest.mark.parametrize("name", SCHEDULES)
def test_right_in_single_precision(name):
    schedule = SCHEDULES[name]
    functions = (schedule.alpha, schedule.sigma, schedule.noise_to_signal)
    found = jax.jit(lambda t: [f(t) for f in functions])(TIMES)
    for values, right in zip(found, expected(schedule, TIMES), strict=True):
        # What is below the floats is zero.
        np.testing.assert_allclose(values, right, rtol=1e-5, atol=1e-37)
    lost = 1 - expected(schedule, TIMES)[0]
    np.testing.assert_allclose(schedule.signal_lost(TIMES), lost, rtol=1e-5, atol=1e-15)
    slopes = jax.vmap(jax.grad(schedule.noise_to_signal))(jnp.asarray(TIMES))
    assert np.all(np.isfinite(slopes)) and np.all(np.asarray(slopes) >= 0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_right_in_double_precision(name):
    schedule, t = SCHEDULES[name], TIMES.astype(np.float64)
    with jax.enable_x64(True):
        found = [f(t) for f in (schedule.alpha, schedule.sigma, schedule.noise_to_signal)]
        for values, right in zip(found, expected(schedule, t), strict=True):
            np.testing.assert_allclose(values, right, rtol=1e-9, atol=1e-250)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name not in ("cosine to 1e7", "cosine to 1e-3")])
def test_levels_differ_and_invert(name):
    schedule = SCHEDULES[name]
    levels = schedule.levels(30)
    assert np.all(np.diff(levels) < 0)
    ratios = np.asarray(schedule.noise_to_signal(levels))[1:-1]
    # Neighbouring times below 1 are half an eps apart: the ratio is known no better where it is that steep.
    np.testing.assert_allclose(schedule.noise_to_signal(schedule.time(ratios)), ratios, rtol=0.1)


def test_alpha_at_the_end():
    """25 % off, and negative from 1e8 on, as a cosine of a rounded angle."""
    for sigma_max in (1e3, 1e5, 1e7):
        np.testing.assert_allclose(COSINE(sigma_max).alpha(1.0), 1 / np.hypot(1, sigma_max), rtol=1e-6)
        np.testing.assert_allclose(COSINE(sigma_max).noise_range[1], sigma_max, rtol=1e-6)


REFUSED = {
    "cosine to 1e8": (lambda: COSINE(1e8), r"sigma_max .* at most 1.1e\+07.*tell its.*got 1e\+08.*scale the data"),
    "cosine to 1e12": (lambda: COSINE(1e12), r"got 1e\+12"),
    "cosine to 1e-30": (lambda: COSINE(1e-30), r"noise-to-signal ratios must lie in .*got 1e-30 from sigma_max=1e-30"),
    "linear to 1000": (lambda: LINEAR(0.1, 1000.0), r"ratios must lie in .*from beta_max=1000.0. 100 is usual"),
    "linear to 1e30": (lambda: LINEAR(0.1, 1e30), r"from beta_max=1e\+30"),
    "exploding to 1e25": (lambda: EXPLODING(sigma_max=1e25), r"squares float32 holds; got 1e\+25"),
    "exploding from 1e-30": (lambda: EXPLODING(1e-30, 1.0), r"got 1e-30 from sigma_min"),
    "rho of 1e-3": (lambda: EXPLODING(rho=1e-3), r"rho must lie in \[0.16, .*got 0.001. 7 is usual"),
    "rho of 1e-3 from noise": (lambda: EXPLODING(0.002, rho=1e-3), r"rho must lie in \[0.12, .*got 0.001"),
    "rho of 1e9": (lambda: EXPLODING(rho=1e9), r"rho must lie in .*got 1e\+09"),
    "no range": (lambda: EXPLODING(1.0, 1.0 + 1e-7), r"cannot tell levels between sigma_min=1.0 and .*further apart"),
    "a boolean": (lambda: COSINE(True), r"sigma_max must be positive and finite: .*got the boolean True"),
    "text": (lambda: EXPLODING(rho="7"), r"rho must be positive and finite: .*got '7'"),
    "a vector": (lambda: COSINE(np.ones(2)), r"got an array of shape \(2,\)"),
    "NaN": (lambda: LINEAR(np.nan, 20.0), r"beta_min must be positive and finite: .*got nan"),
    "a traced number": (lambda: jax.jit(lambda s: COSINE(s).alpha(0.5))(100.0), r"and known: a schedule is static"),
    "too many levels": (lambda: COSINE(1e7).levels(100), r"float32 cannot tell 100 levels of Variance.*Use fewer"),
    "levels below all noise": (lambda: COSINE(1e-3).levels(5), r"smallest must lie in \(0, 0.001\).*got 0.002"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    make, words = REFUSED[name]
    with pytest.raises(ParameterError, match=words):
        make()


def test_double_precision_reaches_further():
    with jax.enable_x64(True):
        np.testing.assert_allclose(COSINE(1e12).alpha(1.0), 1e-12, rtol=1e-9)
        np.testing.assert_allclose(EXPLODING(0.0, 1e25).sigma(1.0), 1e25, rtol=1e-9)


def test_fields_are_floats():
    schedule = COSINE(jnp.asarray(100.0))  # pyright: ignore[reportArgumentType]
    assert schedule == COSINE(100) and hash(schedule) == hash(COSINE(np.float64(100))) and "Array" not in repr(schedule)
