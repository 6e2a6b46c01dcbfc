"""Noise schedules of models from elsewhere: tables as others define them, and one density under all of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import COVARIANCES, MEANS, WEIGHTS, X, function, mixture
from refusals import assert_refused, assert_short, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError, ScheduleError, ShapeError

Schedule = nd.NoiseSchedule
BETAS = np.linspace(1e-4, 0.02, 1000)
ABAR = np.cumprod(1 - BETAS)
DDPM, EDM, FLOW = Schedule.from_betas(BETAS), Schedule.from_sigmas(np.geomspace(0.002, 80, 40)), Schedule.linear_flow()
STEPS = np.array([0, 1, 2, 17, 499, 998, 999])


def test_a_ddpm_has_the_scales_of_its_paper_at_every_step():
    t = np.arange(1000) / 999
    np.testing.assert_allclose(DDPM.alpha(t), np.sqrt(ABAR), rtol=1e-5)
    np.testing.assert_allclose(DDPM.sigma(t), np.sqrt(1 - ABAR), rtol=1e-5)
    np.testing.assert_allclose(DDPM.signal_lost(t), -np.expm1(0.5 * np.cumsum(np.log1p(-BETAS))), rtol=1e-5)
    np.testing.assert_allclose(DDPM.index(t), np.arange(1000), atol=1e-4)
    np.testing.assert_allclose(DDPM.time(np.sqrt(1 / ABAR - 1)), t, rtol=1e-6, atol=1e-7)
    assert DDPM.num_steps == 1000 and DDPM.is_discrete


def test_in_double_precision_to_its_last_digits():
    with jax.enable_x64(True):
        np.testing.assert_allclose(DDPM.alpha(STEPS / 999), np.sqrt(ABAR)[STEPS], rtol=1e-12)
        np.testing.assert_allclose(DDPM.time(DDPM.noise_to_signal(0.1234)), 0.1234, rtol=1e-12)
        np.testing.assert_allclose(FLOW.alpha(FLOW.time(3.0)), 0.25, rtol=1e-14)


def test_the_same_table_however_it_is_told():
    sigmas = np.sqrt(1 / ABAR - 1)
    for other in (
        Schedule.from_alphas_cumprod(ABAR),
        Schedule.from_log_snr(np.log(ABAR / (1 - ABAR))),
        Schedule.from_diffusers_config({"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}),
        Schedule.from_diffusers_config({"trained_betas": BETAS.tolist(), "num_train_timesteps": 7}),
    ):
        np.testing.assert_allclose(other.levels_of_noise, sigmas, rtol=1e-9)
        assert other.scaling == "variance_preserving"
    exploding = Schedule.from_sigmas(sigmas)
    np.testing.assert_array_equal(exploding.levels_of_noise, Schedule.from_sigmas([*sigmas[::-1], 0.0]).levels_of_noise)
    np.testing.assert_array_equal(exploding.alpha(STEPS / 999), 1.0)
    np.testing.assert_allclose(exploding.sigma(STEPS / 999), sigmas[STEPS], rtol=1e-6)


def test_between_levels_the_logarithm_of_the_ratio_is_linear():
    schedule = Schedule.from_sigmas([0.01, 1.0, 3.0])
    np.testing.assert_allclose(schedule.noise_to_signal(np.linspace(0, 1, 5)), [0.01, 0.1, 1, 3**0.5, 3], 1e-5)


def test_a_function_is_read_at_its_times_to_the_last_digits():
    t = np.arange(9) / 8
    for fn in (lambda t: -2 * np.log(np.tan(0.01 + 1.5 * t)), lambda t: -2 * jnp.log(jnp.tan(0.01 + 1.5 * t))):
        schedule = Schedule.from_log_snr(fn)
        np.testing.assert_allclose(schedule.noise_to_signal(t), np.tan(0.01 + 1.5 * t), 1e-5)
        assert not schedule.is_discrete


def test_a_linear_flow_is_one():
    t = np.linspace(0, 1, 9)
    tau = t * 1000 / 1001
    np.testing.assert_allclose(FLOW.alpha(t), 1 - tau, rtol=1e-4)
    np.testing.assert_allclose(FLOW.sigma(t), tau, rtol=1e-6)
    np.testing.assert_allclose(FLOW.network_time(t), tau, rtol=1e-6)
    np.testing.assert_allclose(FLOW.noise_range, (0.0, 1000.0), rtol=1e-6)
    np.testing.assert_allclose(DDPM.network_time(t), t)
    table = Schedule.from_log_snr(np.linspace(9.0, -9.0, 50), "linear_flow")
    np.testing.assert_allclose(table.alpha(t) + table.sigma(t), 1.0, rtol=1e-6)


COS_0 = np.cos(0.008 / 1.008 * np.pi / 2)
# abar by step, of what the configs of `diffusers` say.
CONFIGS = {
    "scaled linear": (
        {"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
         "skip_prk_steps": True, "steps_offset": 1},
        lambda: np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2),
    ),
    "sigmoid": (
        {"beta_schedule": "sigmoid", "num_train_timesteps": 50},
        lambda: np.cumprod(1 - (1e-4 + 0.0199 / (1 + np.exp(-np.linspace(-6, 6, 50))))),
    ),
    "cosine": (
        {"_class_name": "DDIMScheduler", "beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100},
        # All but the last step, whose beta is capped.
        lambda: np.cos((np.arange(100) / 100 + 0.008) / 1.008 * np.pi / 2)[1:] ** 2 / COS_0**2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_of_betas(name):
    config, abar = CONFIGS[name]
    expected = np.sqrt(1 / abar() - 1)
    found = Schedule.from_diffusers_config(config)
    assert found.num_steps == config.get("num_train_timesteps", 1000)
    np.testing.assert_allclose(found.levels_of_noise[: len(expected)], expected, rtol=1e-9)


def test_configs_of_sigmas_and_of_flows():
    edm = {"_class_name": "EDMEulerScheduler", "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "rho": 7.0}
    karras = nd.VarianceExploding(0.002, 80.0)
    found = Schedule.from_diffusers_config(edm | {"num_train_timesteps": 18})
    np.testing.assert_allclose(found.levels_of_noise, karras.sigma(np.arange(18) / 17), rtol=1e-4)
    geometric = Schedule.from_diffusers_config(edm | {"sigma_schedule": "exponential"})
    np.testing.assert_allclose(geometric.noise_to_signal(0.5), 0.4, rtol=1e-5)
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
    # Its last step below pure noise is tau = 3 s / (1 + 2 s) at s = 0.999.
    tau = 3 * 0.999 / (1 + 2 * 0.999)
    found = Schedule.from_diffusers_config(flow)
    np.testing.assert_allclose(found.sigma(1.0), tau, rtol=1e-6)
    assert isinstance(found, nd.LinearFlow)


def test_a_last_step_without_signal_is_left_out():
    cut = Schedule.from_alphas_cumprod(np.append(ABAR, 0.0))
    assert cut == Schedule.from_alphas_cumprod(ABAR)
    assert Schedule.from_betas([0.1, 0.5, 1.0]).num_steps == 2
    zero = Schedule.from_diffusers_config({"beta_schedule": "linear", "rescale_betas_zero_snr": True})
    # sqrt(abar) shifted so that the last is zero, and scaled so that the first stays.
    root = np.sqrt(ABAR)
    signal = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    assert zero.num_steps == 999
    np.testing.assert_allclose(zero.alpha(STEPS[:5] / 998), np.sqrt(signal[STEPS[:5]]), rtol=1e-5)


ALL = {
    "cosine": nd.VariancePreserving.cosine(), "exploding": nd.VarianceExploding(), "ddpm": DDPM,
    "edm": EDM, "flow": FLOW, "log_snr": Schedule.from_log_snr(lambda t: 9 - 18 * t, "linear_flow"),
}  # fmt: skip


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("other", ALL)
@pytest.mark.parametrize("name", ALL)
def test_one_mixture_under_every_schedule(name, other):
    """p'(x, t') = (alpha / alpha')^d p(x alpha / alpha', t) where the ratios are equal."""
    p, q = (nd.exact.GaussianMixture(MEANS, COVARIANCES, WEIGHTS, schedule=ALL[key]) for key in (name, other))
    converted = p.with_schedule(q.schedule)
    # The middle of the ratios that both know, in logarithms.
    low, high = (max(s.noise_range[0] for s in (p.schedule, q.schedule)), min(80.0, p.schedule.noise_range[1]))
    r = np.sqrt(max(low, 1e-3) * high)
    here, there = q.schedule.time(r), p.schedule.time(r)
    ratio = p.schedule.alpha(there) / q.schedule.alpha(here)
    np.testing.assert_allclose(converted.log_prob(X, here), q.log_prob(X, here), rtol=1e-6)
    np.testing.assert_allclose(
        q.log_prob(X, here), p.log_prob(X * ratio, there) + 2 * jnp.log(ratio), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(q.score(X, here), ratio * p.score(X * ratio, there), rtol=2e-5, atol=1e-5)


def test_a_ddpm_an_edm_and_a_flow_compose_in_one_expression():
    parts = [mixture(schedule=s, name=n) for s, n in ((DDPM, "ddpm"), (EDM, "edm"), (FLOW, "flow"))]
    common = nd.VariancePreserving.cosine()
    p_ddpm, p_edm, p_flow = (p.with_schedule(common) for p in parts)
    composed, plain = p_ddpm * p_edm / p_flow**0.5, mixture(schedule=common) ** 1.5
    for t in (0.1, 0.5, 0.9):
        np.testing.assert_allclose(composed.log_prob(X, t), plain.log_prob(X, t), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(composed.score(X, t), plain.score(X, t), rtol=1e-5, atol=1e-5)


def test_a_function_of_ones_own_is_read_where_it_is_known():
    density = function()
    narrow = Schedule.from_sigmas([0.1, 5.0])
    converted = density.with_schedule(narrow)
    there = density.schedule.time(narrow.noise_to_signal(0.5))
    ratio = density.schedule.alpha(there)
    np.testing.assert_allclose(converted.score(X, 0.5), ratio * density.score(X * ratio, there), rtol=1e-4, atol=1e-5)
    with pytest.raises(ScheduleError, match="known for noise-to-signal ratios in .*Choose a schedule within"):
        converted.with_schedule(Schedule.from_sigmas([0.1, 1e4]))


def test_hashable_comparable_and_short():
    again = Schedule.from_betas(list(BETAS))
    assert again == DDPM and hash(again) == hash(DDPM) and again is not DDPM
    other = Schedule.from_betas(np.linspace(1e-4, 0.02, 1000) * (1 + 1e-12))
    # Runs are known by what is printed.
    assert other != DDPM and repr(other) != repr(DDPM) == repr(again) and len(repr(DDPM)) < 100
    assert dataclasses.replace(DDPM, scaling="variance_exploding") != DDPM
    traces = []
    jitted = jax.jit(lambda schedule, t: traces.append(t) or schedule.alpha(t), static_argnums=0)
    for schedule in (DDPM, again, DDPM):
        jitted(schedule, 0.3)
    assert len(traces) == 1


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    "schedule",
    [
        Schedule.from_sigmas(np.geomspace(1e-6, 1e6, 100_000)),
        Schedule.from_sigmas([1e-15, 1e15]),
        Schedule.from_alphas_cumprod(1 - np.geomspace(1e-7, 1 - 1e-9, 300)),
        Schedule.linear_flow(2e6),
        Schedule.linear_flow(0.01),
    ],
    ids=repr,
)
def test_extreme_tables(schedule):
    t = np.concatenate([np.geomspace(1e-6, 0.5, 40), 1 - np.geomspace(1e-6, 0.5, 40)[::-1]]).astype(np.float32)
    for values in (schedule.alpha(t), schedule.sigma(t), schedule.noise_to_signal(t), schedule.signal_lost(t)):
        assert np.all(np.isfinite(values)) and np.all(np.asarray(values) >= 0)
    assert np.all(np.diff(schedule.noise_to_signal(t)) >= 0)
    slopes = jax.vmap(jax.grad(schedule.noise_to_signal))(jnp.asarray(t))
    assert np.all(np.isfinite(slopes)) and np.all(np.asarray(slopes) > 0)
    ratios = np.geomspace(max(schedule.noise_range[0], 1e-4), schedule.noise_range[1], 33)
    np.testing.assert_allclose(schedule.time(ratios)[-1], 1.0, atol=1e-6)
    assert np.all(np.diff(schedule.time(ratios)) > 0)
    if isinstance(schedule, nd.TabulatedSchedule):
        # Neighbouring times are half an eps apart, and one step here is a factor of ten.
        np.testing.assert_allclose(schedule.noise_to_signal(schedule.time(ratios)), ratios, rtol=1e-3)


#: What is refused: (call, error, words of the message: rule, value, remedy).
REFUSED = {
    "a beta of zero": (lambda: Schedule.from_betas([0.0, 0.1]), ParameterError, r"betas must lie in \(0, 1\); got 0 a"),
    "a beta above one": (lambda: Schedule.from_betas([0.1, 2.0]), ParameterError, r"got 2 at 1. Give the variance"),
    "a beta of one in between": (lambda: Schedule.from_betas([0.1, 1.0, 0.2]), ParameterError, r"got 1 at 1"),
    "no signal but in one step": (lambda: Schedule.from_betas([0.1, 1.0]), ParameterError, r"2 to 100000 .*got 1"),
    "no betas": (lambda: Schedule.from_betas([]), ParameterError, r"betas must have at least two levels; got 0"),
    "one beta": (lambda: Schedule.from_betas([0.1]), ParameterError, r"at least two levels; got 1. Give one"),
    "betas with NaN": (lambda: Schedule.from_betas([0.1, np.nan]), ParameterError, r"betas must be finite"),
    "betas of text": (lambda: Schedule.from_betas("linear"), ShapeError, r"betas must be a numeric array.*'linear'"),
    "betas of none": (lambda: Schedule.from_betas(None), ShapeError, r"betas must be a numeric array"),
    "betas of two axes": (lambda: Schedule.from_betas([BETAS]), ShapeError, r"1 axes; got shape \(1, 1000\)"),
    "traced betas": (
        lambda: jax.jit(lambda b: Schedule.from_betas(b).alpha(0.5))(BETAS), ParameterError, r"a schedule is static"),
    "abar backwards": (
        lambda: Schedule.from_alphas_cumprod(ABAR[::-1]), ParameterError, r"noise must grow .*step 0 .* least noise"),
    "abar of betas": (lambda: Schedule.from_alphas_cumprod(BETAS), ParameterError, r"noise must grow from step"),
    "abar of one": (lambda: Schedule.from_alphas_cumprod([1.0, 0.5]), ParameterError, r"\(0, 1\); got 1 at 0"),
    "sigmas that repeat": (lambda: Schedule.from_sigmas([1.0, 1.0, 2.0]), ParameterError, r"1 at step 0 and 1 at 1"),
    "sigmas up and down": (lambda: Schedule.from_sigmas([1.0, 3.0, 2.0]), ParameterError, r"noise must grow"),
    "a negative sigma": (lambda: Schedule.from_sigmas([-1.0, 3.0]), ParameterError, r"sigmas must lie in \(0, inf\)"),
    "sigmas beyond floats": (lambda: Schedule.from_sigmas([1.0, 1e30]), ParameterError, r"squares float32 h.*step 1"),
    "sigmas that float32 cannot tell": (
        lambda: Schedule.from_sigmas(1 + 1e-9 * np.arange(3)), ParameterError, r"float32 tell it; got .* 1.000000001"),
    "too many sigmas": (lambda: Schedule.from_sigmas(np.geomspace(1, 2, 100_001)), ParameterError, r"got 100001"),
    "an infinite log SNR": (
        lambda: Schedule.from_log_snr(lambda t: -np.log(t)), ParameterError, r"got inf at t = 0. .*keep off it"),
    "a log SNR of two numbers": (
        lambda: Schedule.from_log_snr(lambda t: np.ones(2)), ParameterError, r"shape \(2,\) at t = 0"),
    "a log SNR that grows": (lambda: Schedule.from_log_snr([-3.0, 3.0]), ParameterError, r"noise must grow"),
    "a log SNR beyond floats": (lambda: Schedule.from_log_snr([3.0, -3000.0]), ParameterError, r"squares .*got inf"),
    "an unknown scaling": (
        lambda: Schedule.from_log_snr([3.0, -3.0], "cosine"), ParameterError, r"variance_preserving, .*'cosine'"),
    "a flow up to pure noise": (lambda: Schedule.linear_flow(np.inf), ParameterError, r"sigma_max must be positive"),
    "a flow beyond floats": (lambda: Schedule.linear_flow(1e8), ParameterError, r"at most 2.1e\+06.*got 1e\+08"),
    "a traced flow": (
        lambda: jax.jit(lambda s: Schedule.linear_flow(s).alpha(0.5))(10.0), ParameterError, r"a schedule is static"),
    "a config of text": (lambda: Schedule.from_diffusers_config("ddpm"), ArgumentTypeError, r"must be a dict.*'ddpm'"),
    "an empty config": (lambda: Schedule.from_diffusers_config({}), ParameterError, r"must have betas.*from_sigmas"),
    "an unknown config": (
        lambda: Schedule.from_diffusers_config({"_class_name": "VQDiffusionScheduler"}), ParameterError, r"VQDi"),
    "unknown betas": (
        lambda: Schedule.from_diffusers_config({"beta_schedule": "laplace"}), ParameterError, r"'laplace'. .*betas"),
    "unknown sigmas": (
        lambda: Schedule.from_diffusers_config({"sigma_max": 80, "sigma_schedule": "x"}), ParameterError, r"'x'. Give"),
    "sigmas exchanged": (
        lambda: Schedule.from_diffusers_config({"sigma_min": 80, "sigma_max": 1}), ParameterError, r"sigma_max must"),
    "a number of steps of text": (
        lambda: Schedule.from_diffusers_config({"beta_schedule": "linear", "num_train_timesteps": "1000"}),
        ParameterError, r"num_train_timesteps must be an integer from 2"),
    "schedules that do not overlap": (
        lambda: mixture(schedule=Schedule.from_sigmas([0.1, 1.0])) * mixture(schedule=Schedule.from_sigmas([2.0, 9.0])),
        ScheduleError, r"do not overlap: noise-to-signal ratios from 0.1 to 1 and from 2 to 9.*with_schedule"),
    "schedules that differ": (lambda: mixture(schedule=DDPM) * mixture(schedule=EDM), ScheduleError, r"with_schedule"),
    "a damaged table": (lambda: nd.TabulatedSchedule(b"12345678" * 3), ParameterError, r"noise must grow"),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)
    assert_short(call)
