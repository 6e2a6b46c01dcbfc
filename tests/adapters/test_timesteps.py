"""What networks are told of the noise level."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapters.closed_form import BETAS, OTHER, exact
from densities import mixture

import numpyro_diffusion as nd

TABLE = nd.NoiseSchedule.from_betas(BETAS[::100])  # ten levels
RATIOS = TABLE.ratios(np.linspace(0, 1, 10))


def told_at(timesteps, ratios, schedule=TABLE):
    """What a network is told at some ratios: it returns it."""
    density = nd.from_noise_prediction(
        lambda x, t: jnp.full(2, jnp.asarray(t, float)), (2,), schedule, timesteps=timesteps
    )
    return jax.jit(jax.vmap(lambda r: density.output(jnp.ones(2), r)[2][0]))(jnp.asarray(ratios))


def between(share):
    """Ratios at that share of the way from each level to the next."""
    return RATIOS[:-1] ** (1 - share) * RATIOS[1:] ** share


@pytest.mark.quick_cases(5)
@pytest.mark.parametrize(("timesteps", "at_levels", "between_levels"), [
    ("integer", np.arange(10.0), np.arange(9.0)),
    ("fractional", np.arange(10.0), np.arange(9.0) + 0.3),
    ("blended", np.arange(10.0), np.arange(9.0) + 0.3),
    ("time", np.arange(10.0) / 9, (np.arange(9.0) + 0.3) / 9),
    (np.arange(10) * 100 + 1, np.arange(10.0) * 100 + 1, np.arange(9.0) * 100 + 1),
    (np.arange(10.0) ** 2, np.arange(10.0) ** 2, np.arange(9.0) ** 2 + 0.3 * (2 * np.arange(9.0) + 1)),
    (lambda t: 7 - t, 7 - np.arange(10.0) / 9, 7 - (np.arange(9.0) + 0.3) / 9),
    ("log_snr", -2 * np.log(RATIOS), -2 * np.log(between(0.3))),
    ("sigma", RATIOS / np.hypot(1, RATIOS), between(0.3) / np.hypot(1, between(0.3))),
    ("log_sigma", np.log(RATIOS / np.hypot(1, RATIOS)), np.log(between(0.3) / np.hypot(1, between(0.3)))),
])  # fmt: skip
def test_told(timesteps, at_levels, between_levels):
    found = told_at(timesteps, np.concatenate([RATIOS, between(0.3)]))
    np.testing.assert_allclose(found, np.concatenate([at_levels, between_levels]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("timesteps", ["integer", "fractional", "blended", "none"])
def test_a_network_is_told_in_the_type_of_its_timesteps(timesteps):
    dtypes = []

    def fn(x, *time):
        dtypes.extend(t.dtype for t in time)
        return x

    nd.from_noise_prediction(fn, (2,), TABLE, timesteps=timesteps)
    kinds = {"integer": {"i"}, "blended": {"i"}, "fractional": {"f"}, "none": set()}[timesteps]
    assert {d.kind for d in dtypes} == kinds


def test_a_flow_is_told_tau():
    flow = nd.NoiseSchedule.linear_flow()
    r = np.array([0.1, 1.0, 9.0])
    np.testing.assert_allclose(told_at(None, r, flow), r / (1 + r), rtol=1e-5)


@pytest.mark.slow
def test_blended_outputs_are_closer_than_rounded_ones():
    schedule = nd.NoiseSchedule.from_betas(BETAS[::20] * 20)
    network = exact("noise", schedule, "fractional")
    middle = jnp.asarray(np.sqrt(schedule.levels_of_noise[10:40] * schedule.levels_of_noise[11:41]))
    y = jax.random.normal(jax.random.key(0), (2,))
    exploding = nd.VarianceExploding(0.005, 50.0)
    true = jax.vmap(lambda r: -r * mixture().with_schedule(exploding).score(y, exploding.time(r)))(middle)
    error = {}
    for timesteps in ("integer", "blended", "fractional"):
        density = nd.from_noise_prediction(network, (2,), schedule, timesteps=timesteps).with_schedule(OTHER)
        found = jax.jit(jax.vmap(lambda r, d=density: d.predicted_noise(y, r)))(middle)
        error[timesteps] = float(np.max(np.abs(found - true)))
    assert error["fractional"] < 1e-4 < error["blended"] < 0.2 * error["integer"]


def test_embeddings_by_level_are_a_function_of_t():
    table = jnp.asarray(np.random.default_rng(0).normal(size=(10, 4)))
    density = nd.from_noise_prediction(
        lambda x, e: x + jnp.sum(e), (2,), TABLE, timesteps=lambda t: table[jnp.round(TABLE.index(t)).astype(int)]
    )
    y, r = jnp.zeros(2), RATIOS[3]
    np.testing.assert_allclose(density.predicted_noise(y, r), np.sum(table[3]), rtol=1e-5)


def test_a_function_of_t_is_read_when_a_run_begins():
    scale = [1.0]
    density = nd.from_noise_prediction(lambda x, t: x * 0 + t, (2,), TABLE, timesteps=lambda t: scale[0] * t)
    run = jax.jit(lambda d: d.predicted_noise(jnp.ones(2), 1.0))
    before = run(density)
    scale[0] = 2.0
    np.testing.assert_allclose(run(density), 2 * before, rtol=1e-6)


@pytest.mark.slow
def test_a_table_of_whole_numbers_is_told_none_else():
    """Told sigma, to the nearest whole number, it would answer with nothing, which a unit Gaussian's velocity is."""
    betas = np.linspace(1e-4, 0.02, 1000)
    sigmas, schedule = jnp.sqrt(1 - jnp.cumprod(1 - jnp.asarray(betas))), nd.NoiseSchedule.from_betas(betas)
    density = nd.from_velocity(lambda x, step: sigmas[step] * x, (2,), schedule, timesteps="integer")
    for seed in range(2):
        data = jax.random.normal(jax.random.key(seed), (400, 2))
        assert "looks like noise (epsilon)" in nd.check_model(density, data).findings[0]
