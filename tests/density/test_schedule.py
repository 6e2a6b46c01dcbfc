"""Laws of noise schedules."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_diffusion as nd

SCHEDULES = {
    "cosine": nd.VariancePreserving.cosine(),
    "cosine_10": nd.VariancePreserving.cosine(sigma_max=10.0),
    "linear": nd.VariancePreserving.linear(),
    "exploding": nd.VarianceExploding(),
    "karras": nd.VarianceExploding(sigma_min=0.002, sigma_max=80.0),
    "exploding_rho_3": nd.VarianceExploding(sigma_min=0.01, sigma_max=5.0, rho=3.0),
    "ddpm": nd.NoiseSchedule.from_betas(np.linspace(1e-4, 0.02, 1000)),
    "edm": nd.NoiseSchedule.from_sigmas(np.geomspace(80.0, 0.002, 40)),
    "two_levels": nd.NoiseSchedule.from_sigmas([0.1, 10.0]),
    "log_snr": nd.NoiseSchedule.from_log_snr(lambda t: 10.0 - 20.0 * t),
    "flow_table": nd.NoiseSchedule.from_log_snr(np.linspace(9.0, -9.0, 50), "linear_flow"),
    "flow": nd.NoiseSchedule.linear_flow(),
}
T = np.linspace(0.0, 1.0, 41)

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


@every_schedule
def test_noise_over_signal_is_their_ratio_and_increases(schedule):
    ratio = np.asarray(schedule.noise_to_signal(T))
    np.testing.assert_allclose(schedule.sigma(T), schedule.alpha(T) * ratio, rtol=1e-6)
    assert np.all(np.diff(ratio) > 0)
    np.testing.assert_allclose(schedule.noise_range, (ratio[0], ratio[-1]), rtol=1e-5)


@every_schedule
def test_time_inverts_the_ratio(schedule):
    np.testing.assert_allclose(schedule.time(schedule.noise_to_signal(T)), T, atol=2e-4)


@every_schedule
def test_time_is_clipped_to_the_range(schedule):
    np.testing.assert_allclose(schedule.time(jnp.array([0.0, 1e9])), [0.0, 1.0], atol=1e-6)


@pytest.mark.parametrize("name", ["cosine", "cosine_10", "linear", "ddpm", "log_snr"])
def test_variance_preserving_preserves_variance(name):
    schedule = SCHEDULES[name]
    np.testing.assert_allclose(schedule.alpha(T) ** 2 + schedule.sigma(T) ** 2, 1.0, atol=1e-5)
    np.testing.assert_allclose(schedule.sigma(0.0), {"ddpm": 0.01, "log_snr": np.exp(-5)}.get(name, 0.0), rtol=1e-4)


@every_schedule
def test_signal_and_what_is_lost_of_it_make_one(schedule):
    np.testing.assert_allclose(schedule.alpha(T) + schedule.signal_lost(T), 1.0, rtol=1e-6)


def test_cosine_reaches_sigma_max():
    np.testing.assert_allclose(SCHEDULES["cosine_10"].noise_range[1], 10.0, rtol=1e-5)


def test_linear_is_linear_in_the_rate():
    # d/dt log alpha = -beta(t) / 2 with beta linear from beta_min to beta_max.
    slope = jax.vmap(jax.grad(lambda t: jnp.log(SCHEDULES["linear"].alpha(t))))(jnp.asarray(T[:-1]))
    np.testing.assert_allclose(-2 * slope, 0.1 + T[:-1] * 19.9, rtol=1e-4)


def test_exploding_is_equation_5_of_karras():
    schedule, n = SCHEDULES["karras"], 18
    karras = (80.0 ** (1 / 7) + np.arange(n) / (n - 1) * (0.002 ** (1 / 7) - 80.0 ** (1 / 7))) ** 7
    np.testing.assert_allclose(schedule.sigma(np.linspace(1, 0, n)), karras, rtol=1e-4)
    np.testing.assert_array_equal(schedule.alpha(T), 1.0)


@pytest.mark.quick_cases(12)
@every_schedule
@pytest.mark.parametrize("num_levels", [2, 3, 25])
def test_levels_decrease_from_noise_to_data(schedule, num_levels):
    levels = schedule.levels(num_levels)
    assert levels.shape == (num_levels,)
    assert levels[0] == 1.0 and levels[-1] == 0.0
    assert np.all(np.diff(levels) < 0)


def test_levels_are_geometric_in_the_ratio():
    ratios = np.asarray(SCHEDULES["cosine"].noise_to_signal(SCHEDULES["cosine"].levels(20)))[:-1]
    np.testing.assert_allclose(ratios[1:] / ratios[:-1], ratios[1] / ratios[0], rtol=5e-3)


@every_schedule
def test_traced_times(schedule):
    np.testing.assert_allclose(jax.jit(schedule.sigma)(T), schedule.sigma(T), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(jax.vmap(schedule.alpha)(jnp.asarray(T)), schedule.alpha(T), rtol=1e-5, atol=1e-7)


def test_compared_by_value_and_frozen():
    assert nd.VariancePreserving.cosine(50.0) == nd.VariancePreserving("cosine", sigma_max=50.0)
    assert hash(nd.VariancePreserving.cosine(50.0)) == hash(nd.VariancePreserving.cosine(50.0))
    assert nd.VariancePreserving.cosine() != nd.VarianceExploding()
    with pytest.raises(dataclasses.FrozenInstanceError):
        nd.VarianceExploding().sigma_max = 3.0  # pyright: ignore
