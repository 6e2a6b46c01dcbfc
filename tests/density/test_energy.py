"""Trained networks as densities: the formulas of `energy`, without training anything."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import (
    COVARIANCE,
    MEAN,
    gaussian,
    in_float64,
    log_prob_of,
    mixture,
    moments_of,
    network,
    score_of,
    untrained,
)
from flax import nnx
from quick import quick_among

from numpyro_diffusion.density.energy import PARAMETERISATIONS
from numpyro_diffusion.errors import ParameterError

X = jax.random.normal(jax.random.key(0), (4, 2))
UNCALIBRATED = [form for form in PARAMETERISATIONS if form != "residual"]
EVERY = [*((form, True) for form in PARAMETERISATIONS), *((form, False) for form in UNCALIBRATED)]

every_energy = pytest.mark.parametrize(
    ("form", "calibrated"),
    quick_among(EVERY, [("l2", True), ("residual", True), ("dae", False), ("inner_product", True)]),
)


@jax.jit
def network_of(density, y, r):
    return jax.vmap(lambda v: density._network(v, r)[1])(y)


@jax.jit
def offset_of(density, r):
    offset = nnx.merge(density.graphdef, density.state)["offset"]
    return offset(jnp.log(r) / 4) - offset(jnp.log(density.sigmas[1]) / 4)


def network_value(density, x, t):
    """(u, r, s, f, variance) in double precision, from the definitions in the module."""
    alpha, r = float(density.schedule.alpha(t)), float(density.schedule.noise_to_signal(t))
    eigenvalues, eigenvectors = np.linalg.eigh(COVARIANCE)
    # Eigenvectors have no sign of their own: take the density's, which must be eigenvectors all the same.
    ours = np.asarray(density.eigenvectors, dtype=np.float64)
    np.testing.assert_allclose(np.abs(ours.T @ eigenvectors), np.eye(2), atol=1e-5)
    variance = eigenvalues + r**2
    y = np.asarray(x, dtype=np.float64) / alpha - MEAN
    u = y @ ours / np.sqrt(variance)
    f = np.asarray(network_of(density, jnp.asarray(y, dtype=float), r))
    return u, r, np.sqrt(eigenvalues.mean()), f, variance, alpha


def energy_of(form, u, f, amplitude):
    gain = amplitude / np.sqrt(1 + amplitude)
    f, height = f[:, : u.shape[1]], f[:, u.shape[1] :]
    return {
        "l2": 0.5 * f**2, "dae": 0.5 * (u - f) ** 2, "inner_product": u * f,
        "residual": ((u + gain * f) ** 2 - u**2) / (2 * amplitude),
    }[form].sum(-1) + 0.5 * (height**2).sum(-1)  # fmt: skip


@pytest.mark.quick_cases(2)
@every_energy
def test_log_prob_is_its_formula(form, calibrated):
    density = network(form, calibrated)
    for t in (0.2, 0.6):
        u, r, s, f, variance, alpha = network_value(density, X, t)
        energy = energy_of(form, u, f, s / r)
        if calibrated:
            offset = 2 * float(offset_of(density, r))
            base = -0.5 * np.sum(u**2, -1) - 0.5 * np.sum(np.log(2 * np.pi * variance))
            expected = base + s**2 / (r**2 + s**2) * (offset - s / r * energy)
        else:
            expected = -np.sqrt(r**2 + s**2) / r * energy
        np.testing.assert_allclose(log_prob_of(density, X, t), expected - 2 * np.log(alpha), rtol=1e-3, atol=1e-3)


@pytest.mark.quick_cases(2)
@every_energy
def test_score_is_the_gradient(form, calibrated):
    # In double precision a difference of 1e-4 is right to eight digits; in single precision it is mostly rounding.
    with jax.enable_x64(True):
        density, x, t, step = in_float64(network(form, calibrated)), np.asarray(X, np.float64), 0.6, 1e-4
        shifts = step * np.eye(2)
        numeric = jnp.stack(
            [(log_prob_of(density, x + h, t) - log_prob_of(density, x - h, t)) / (2 * step) for h in shifts], -1
        )
        assert numeric.dtype == jnp.float64
        np.testing.assert_allclose(score_of(density, x, t), numeric, rtol=1e-5, atol=1e-5)


def test_score_model_is_its_formula():
    density = network("score")
    for t in (0.2, 0.6):
        u, r, s, f, variance, alpha = network_value(density, X, t)
        score = -u / np.sqrt(variance) + s / (r * np.sqrt(r**2 + s**2)) * f
        expected = score @ np.asarray(density.eigenvectors).T / alpha
        np.testing.assert_allclose(score_of(density, X, t), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("form", [*PARAMETERISATIONS, "score"])
def test_tends_to_the_gaussian_of_the_data_at_large_noise(form):
    density, oracle = network(form), gaussian(MEAN, COVARIANCE)
    for t in (0.99, 1.0):
        scale, ratio = float(oracle.schedule.sigma(t)), float(oracle.schedule.noise_to_signal(t))
        # The network's part decays like (s / r)^3 in an energy, like s / r in a score model.
        np.testing.assert_allclose(score_of(density, X, t) * scale, score_of(oracle, X, t) * scale, atol=4 / ratio)
        if form != "score":
            np.testing.assert_allclose(log_prob_of(density, X, t), log_prob_of(oracle, X, t), atol=0.02)


def test_gaussian_is_that_of_the_data_with_the_least_trained_noise():
    density = network()
    for t in (0.0, float(density.schedule.time(0.5 * density.resolution))):
        mean, covariance = moments_of(density.gaussian(t))
        alpha = float(density.schedule.alpha(t))
        np.testing.assert_allclose(mean, alpha * MEAN, atol=1e-6)
        expected = alpha**2 * (COVARIANCE + density.resolution**2 * np.eye(2))
        np.testing.assert_allclose(covariance, expected, atol=1e-6)


def test_measured_normaliser_is_subtracted():
    density = network()
    knots, values = jnp.log(jnp.array([0.01, 0.1, 20.0])), jnp.array([0.5, 1.5, -0.5])
    corrected = density._replace(log_z=jnp.stack([knots, values]))
    t = density.schedule.time(0.1)
    np.testing.assert_allclose(log_prob_of(density, X, t) - log_prob_of(corrected, X, t), 1.5, atol=2e-3)


def test_below_the_trained_range_nothing_changes():
    density = network()
    t = float(density.schedule.time(0.01))
    np.testing.assert_allclose(log_prob_of(density, X, 0.0), log_prob_of(density, X, 0.5 * t), rtol=2e-3)
    assert np.all(np.isfinite(score_of(density, X, 0.0)))


@pytest.mark.slow
def test_points_of_any_shape():
    density = network(event_shape=(2, 3))
    x = jax.random.normal(jax.random.key(1), (5, 2, 3))
    assert log_prob_of(density, x, 0.3).shape == (5,)
    assert score_of(density, x, 0.3).shape == (5, 2, 3)
    flat = network(event_shape=(6,))
    np.testing.assert_allclose(log_prob_of(flat, x.reshape(5, 6), 0.3), log_prob_of(density, x, 0.3), rtol=1e-5)
    np.testing.assert_allclose(
        score_of(flat, x.reshape(5, 6), 0.3).reshape(x.shape), score_of(density, x, 0.3), rtol=1e-4
    )


def test_score_model_composes_linearly():
    model, other, energy, t = network("score"), mixture("p"), network("l2"), 0.5
    A, C, mixed = (score_of(density, X, t) for density in (model, energy, 0.5 * other + 0.5 * energy))
    formulas = {
        "mass": (2 * model, A),
        "all": (model**2 * (0.5 * other + 0.5 * energy) / energy**0.3, 2 * A + mixed - 0.3 * C),
    }
    for name, (density, expected) in formulas.items():
        assert not density.has_log_density
        score = score_of(density, X, t)
        np.testing.assert_allclose(score, expected, rtol=2e-3, atol=2e-3, err_msg=name)


def test_which_is_calibrated():
    assert network("l2").is_calibrated
    assert not network("l2", False).is_calibrated
    assert not network("score").is_calibrated


# Conditions.


@pytest.mark.parametrize("form", ["l2", "score"])
def test_conditions_change_the_density_and_none_is_no_condition(form):
    density, t = network(form, condition_size=2), 0.4
    score = lambda d: score_of(d, X, t)
    free, one, two = density.given(None), density.given([1.0, 0.0]), density.given([0.0, 1.0])
    np.testing.assert_array_equal(score(density), score(free))
    assert not np.allclose(score(one), score(two)) and not np.allclose(score(one), score(free))
    # A condition of zeros is a condition.
    assert not np.allclose(score(density.given([0.0, 0.0])), score(free))
    np.testing.assert_array_equal(score(one.given(None)), score(free))
    # No array of the network is copied.
    assert all(a is b for a, b in zip(jax.tree.leaves(one.state), jax.tree.leaves(density.state), strict=True))
    assert repr(one) == f"{form}|[1. 0.]"


def test_conditions_can_be_traced():
    density = network(condition_size=2)
    gradient = jax.grad(lambda c: log_prob_of(density.given(c), X[0], 0.4))(jnp.array([0.5, -0.5]))
    assert gradient.shape == (2,) and np.all(np.asarray(gradient) != 0)


def test_heights_belong_to_residual_energies():
    config = dataclasses.replace(network("l2").config, scalar_outputs=1)
    with pytest.raises(ParameterError, match="scalar_outputs belong to parameterisation='residual'; got 'l2'"):
        untrained(config, (2,), "l2", mean=MEAN, covariance=COVARIANCE)
