"""Boxes of any width, near and far, against quadrature and CDFs in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_ndtr, logsumexp

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ParameterError

SCHEDULES = {"preserving": nd.VariancePreserving.cosine(), "exploding": nd.VarianceExploding(0.01, 80.0)}
TIMES = np.array([0.02, 0.1, 0.4, 0.8, 1.0], dtype=np.float32)
NODES, SHARES = np.polynomial.legendre.leggauss(60)
# In standard deviations of the noise beyond the walls.
BEYOND = np.array([-6.0, -3.0, -0.5, 0.0, 0.2, 4.0])


def scales(schedule, t):
    """(alpha, sigma) in double precision."""
    t = np.asarray(t, dtype=np.float64)
    if isinstance(schedule, nd.VariancePreserving):
        angle = np.arctan(schedule.sigma_max) * t
        return np.cos(angle), np.sin(angle)
    low, high = (s ** (1 / schedule.rho) for s in (schedule.sigma_min, schedule.sigma_max))
    return np.ones_like(t), (low + t * (high - low)) ** schedule.rho


def expected(distance, half_width, sigma):
    """Log density of uniform plus normal noise: the difference of CDFs, or where that cancels an integral."""
    c, h = -np.abs(distance) / sigma, half_width / sigma
    wide = log_ndtr(c + h) + np.log1p(-np.exp(log_ndtr(c - h) - log_ndtr(c + h))) - np.log(2 * half_width)
    normal = -0.5 * (c[..., None] + h * NODES) ** 2 - 0.5 * np.log(2 * np.pi) - np.log(sigma)
    narrow = np.asarray(logsumexp(normal, b=SHARES / 2, axis=-1))
    return np.where(h < 0.5, narrow, wide)


def points(schedule, centre, half_width, t, dtype):
    alpha, sigma = scales(schedule, t)
    offset = np.sign(BEYOND) * alpha * half_width * (np.abs(BEYOND) > 0.3) + BEYOND * sigma
    x = (alpha * centre + offset).astype(dtype)
    return x, np.float64(x) - alpha * np.float64(centre), alpha * half_width, sigma


value = jax.jit(lambda box, x, t: box.log_prob(x[:, None], t))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("centre", [0.0, 5.0, -300.0])
@pytest.mark.parametrize("power", range(-7, 8))
def test_any_width_at_any_place(schedule, centre, power):
    schedule, half = SCHEDULES[schedule], 0.5 * 10.0**power
    box = nd.exact.UniformBox([centre - half], [centre + half], schedule)
    # As given: far from the origin no double holds the walls exactly, either.
    half = ((centre + half) - (centre - half)) / 2
    for t in TIMES:
        x, distance, half_width, sigma = points(schedule, centre, half, t, np.float32)
        # A point so far away is itself rounded: the distance to a wall is no better known than that.
        slack = np.finfo(np.float32).eps * (abs(centre) + half) / sigma * (1 + np.abs(BEYOND))
        np.testing.assert_array_less(
            np.abs(value(box, x, t) - expected(distance, half_width, sigma)), 1e-3 + slack, err_msg=f"t = {t}"
        )


@pytest.mark.parametrize("power", range(-7, 8))
def test_in_double_precision(power):
    with jax.enable_x64(True):
        for schedule in SCHEDULES.values():
            half = 0.5 * 10.0**power
            box = nd.exact.UniformBox([-half], [half], schedule)
            for t in TIMES.astype(np.float64):
                x, distance, half_width, sigma = points(schedule, 0.0, half, t, np.float64)
                np.testing.assert_allclose(
                    value(box, x, t), expected(distance, half_width, sigma), rtol=1e-8, atol=1e-8
                )


@pytest.mark.parametrize("power", range(-7, 4, 2))
def test_scores_are_slopes(power):
    with jax.enable_x64(True):
        half, schedule = 0.5 * 10.0**power, SCHEDULES["preserving"]
        box = nd.exact.UniformBox([-half], [half], schedule)
        for t in (0.1, 0.8):
            x, distance, half_width, sigma = points(schedule, 0.0, half, t, np.float64)
            step = 1e-5 * sigma
            ahead, behind = (expected(distance + d, half_width, sigma) for d in (step, -step))
            slope = box.score(x[:, None], t)[:, 0]
            np.testing.assert_allclose(slope * sigma, (ahead - behind) / 2e-5, rtol=1e-4, atol=1e-4)


def test_narrow_boxes_are_normal_densities():
    """Width 1e-6 at t = 1, which came out 2.5 nats off."""
    box = nd.exact.UniformBox([-5e-7, 1.0], [5e-7, 1.0 + 1e-6])
    alpha, sigma = scales(box.schedule, 1.0)
    x = np.array([0.3, -1.2])
    normal = -0.5 * ((x - alpha * np.array([0.0, 1.0])) / sigma) ** 2 - 0.5 * np.log(2 * np.pi * sigma**2)
    np.testing.assert_allclose(jax.jit(box.log_prob)(x, 1.0), normal.sum(), atol=1e-5)


@pytest.mark.slow
def test_walls_stay_where_there_is_no_noise():
    box = nd.exact.UniformBox([-1e-7, -1e7], [1e-7, 1e7])
    inside, outside = jnp.array([[5e-8, 0.0], [-5e-8, 9e6]]), jnp.array([[2e-7, 0.0], [0.0, 2e7]])
    np.testing.assert_allclose(box.log_prob(inside), -np.log(2e-7) - np.log(2e7), rtol=1e-5)
    np.testing.assert_array_equal(box.log_prob(outside), -np.inf)
    np.testing.assert_array_equal(box.score(outside), 0.0)
    np.testing.assert_allclose(box.low, [-1e-7, -1e7], rtol=1e-6)
    np.testing.assert_allclose(box.high, [1e-7, 1e7], rtol=1e-6)


@pytest.mark.parametrize("width", [1e-25, 1e25, 1e-40])
def test_widths_whose_squares_no_float_holds_are_refused(width):
    with pytest.raises(
        ParameterError, match=rf"widths of a box must lie in .*got {width:.6g}. Choose".replace("+", r"\+")
    ):
        nd.exact.UniformBox([0.0], [width])
