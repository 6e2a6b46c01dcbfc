"""Densities, algebra and schedules under arguments drawn at random: the right answer by NumPy, or a typed error."""

import os

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import gaussian, log_prob_of, mixture, network, score_of
from drawn import COVARIANCES, MEANS, TYPED, few, noised, points, times, typed, weights
from hypothesis import given

import numpyro_diffusion as nd

# Points, times and precision


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3)])
@pytest.mark.parametrize("shared_time", [True, False])
@given(seed=st.integers(0, 1000), t=times)
@few(5)
def test_batches_of_points_and_times(batch, shared_time, seed, t):
    rng = np.random.default_rng(seed)
    x, t = rng.normal(size=(*batch, 2)), t if shared_time else rng.uniform(size=batch)
    value, slope = log_prob_of(mixture(), x, t), score_of(mixture(), x, t)
    assert value.shape == batch and slope.shape == (*batch, 2) and value.dtype == slope.dtype == jnp.float32
    pairs = [
        noised(point, time) for point, time in zip(x.reshape(-1, 2), np.resize(t, len(x.reshape(-1, 2))), strict=True)
    ]
    np.testing.assert_allclose(np.ravel(value), pairs, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "float16", "bfloat16"])
@given(seed=st.integers(0, 1000), t=st.sampled_from([0.0, 0.25, 0.5, 0.99, 1.0]))
@few(4)
def test_dtypes_of_points(dtype, seed, t):
    x = jnp.asarray(np.random.default_rng(seed).uniform(0, 3, (3, 2)).astype(jnp.dtype(dtype)))
    if dtype == "float16" and "max_isa=SSE" in os.environ.get("XLA_FLAGS", ""):
        pytest.skip("XLA lacks conversions of half precision there")
    value = mixture().log_prob(x, t)
    # What is given in half precision is still evaluated at the time that was asked for.
    np.testing.assert_allclose(np.asarray(value, float), noised(np.asarray(x, float), t), rtol=0.02, atol=0.02)


@given(x=points, t=times)
@few(10)
def test_double_precision(x, t):
    with jax.enable_x64(True):
        density = mixture()
        value, slope = log_prob_of(density, x, t), score_of(density, x, t)
        assert value.dtype == slope.dtype == jnp.float64
        np.testing.assert_allclose(value, noised(x, t), rtol=1e-9)
        step = 1e-5 * np.eye(2)
        difference = [(noised(x + h, t) - noised(x - h, t)) / 2e-5 for h in step]
        np.testing.assert_allclose(slope, difference, rtol=1e-4, atol=1e-4)


@given(x=points, t=times)
@few(5)
def test_a_density_made_in_single_precision_is_read_in_double(x, t):
    density = mixture()
    with jax.enable_x64(True):
        np.testing.assert_allclose(log_prob_of(density, x, t), noised(x, t), rtol=1e-4, atol=1e-4)


@given(x=st.lists(points, min_size=3, max_size=3).map(np.array), t=times)
@few(8)
def test_transformations_agree(x, t):
    density = mixture()
    value, slope = log_prob_of(density, x, t), score_of(density, x, t)
    np.testing.assert_allclose(by_vmap(density, x, t), value, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_grad(density, x, t), slope, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(-by_potential(density, x, t), value, rtol=1e-5, atol=1e-5)


by_vmap = jax.jit(lambda density, x, t: jax.vmap(lambda p: density.log_prob(p, t))(x))
by_grad = jax.jit(lambda density, x, t: jax.grad(lambda y: jnp.sum(density.log_prob(y, t)))(x))
by_potential = jax.jit(lambda density, x, t: jax.vmap(density.potential_fn(t))(x))


@given(x=points, t=st.floats(0.01, 0.95))
@few(5)
def test_the_derivative_in_time(x, t):
    slope, h = slope_in_time(mixture(), x, t), 1e-5
    expected = (noised(x, t + h) - noised(x, t - h)) / (2 * h)
    np.testing.assert_allclose(slope, expected, rtol=5e-3, atol=5e-3)


slope_in_time = jax.jit(lambda density, x, t: jax.grad(density.log_prob, argnums=1)(x, t))


# The algebra


LEAVES = {i: gaussian(MEANS[i], COVARIANCES[i], name=f"g{i}") for i in range(3)}


def leaf_value(i, x, t):
    return noised(x, t, MEANS[i : i + 1], COVARIANCES[i : i + 1], np.ones(1))


def formulas():
    """Pairs (density, its log density by NumPy), of random formulas."""

    def grown(children):
        two = st.tuples(children, children)
        return st.one_of(
            two.map(lambda ab: ("*", *ab)), two.map(lambda ab: ("/", *ab)),
            st.tuples(st.sampled_from([0.5, 2.0]), children).map(lambda ab: ("**", *ab)),
            st.tuples(two, weights, weights).map(lambda v: ("+", *v[0], v[1], v[2])),
        )  # fmt: skip

    return st.recursive(st.sampled_from(list(LEAVES)), grown, max_leaves=4)


def built(formula):
    match formula:
        case ("*", a, b):
            return built(a) * built(b)
        case ("/", a, b):
            return built(a) / built(b)
        case ("**", power, a):
            return built(a) ** power
        case ("+", a, b, v, w):
            return v * built(a) + w * built(b)
    return LEAVES[formula]


def value_of(formula, x, t):
    match formula:
        case ("*", a, b):
            return value_of(a, x, t) + value_of(b, x, t)
        case ("/", a, b):
            return value_of(a, x, t) - value_of(b, x, t)
        case ("**", power, a):
            return power * value_of(a, x, t)
        case ("+", a, b, v, w):
            return np.logaddexp(np.log(v) + value_of(a, x, t), np.log(w) + value_of(b, x, t))
    return leaf_value(formula, x, t)


@given(formula=formulas(), x=points, t=times)
@few(10)
def test_formulas_mean_what_they_say(formula, x, t):
    density, expected = built(formula), value_of(formula, x, t)
    np.testing.assert_allclose(log_prob_of(density, x, t), expected, rtol=1e-3, atol=2e-3)
    again = jax.tree.unflatten(*reversed(jax.tree.flatten(density)))
    assert repr(again) == repr(density) and jax.tree.structure(again) == jax.tree.structure(density)
    np.testing.assert_array_equal(log_prob_of(again, x, t), log_prob_of(density, x, t))


@given(x=points, t=times, a=st.floats(0.05, 0.95))
@few(10)
def test_named_compositions(x, t, a):
    p, q = LEAVES[0], LEAVES[1]
    log_p, log_q = leaf_value(0, x, t), leaf_value(1, x, t)
    denominator = np.logaddexp(np.log(a) + log_p, np.log1p(-a) + log_q)
    expected = {
        nd.harmonic_mean(p, q, alpha=a): log_p + log_q - denominator,
        nd.contrast(p, q, alpha=a): 2 * log_p - denominator,
        nd.negation(p, q, a): log_p - a * log_q,
        nd.negation(p, q, a, floor=0.1): log_p - a * np.logaddexp(np.log(0.9) + log_q, np.log(0.1) + log_p),
        nd.temper(p, a): log_p / a,
        nd.guided(p, q, a): log_p + a * log_q,
        nd.product(p, q, exponents=[a, 1 - a]): a * log_p + (1 - a) * log_q,
        nd.mixture(p, q, weights=[a, 1 - a]): denominator,
    }
    for density, value in expected.items():
        np.testing.assert_allclose(log_prob_of(density, x, t), value, rtol=1e-3, atol=2e-3, err_msg=repr(density))


@given(x=points, scale=st.floats(0.1, 3.0))
@few(5)
def test_coefficients_may_be_traced(x, scale):
    p, q = LEAVES[0], LEAVES[1]
    value, slope = guided_in(scale, p, q, x)
    np.testing.assert_allclose(value, leaf_value(0, x, 0) + scale * leaf_value(1, x, 0), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(slope, leaf_value(1, x, 0), rtol=1e-4, atol=1e-3)
    many = mixture_of_many(jnp.array([0.2, 0.7]), p, q, x)
    expected = [np.logaddexp(np.log(w) + leaf_value(0, x, 0), np.log1p(-w) + leaf_value(1, x, 0)) for w in (0.2, 0.7)]
    np.testing.assert_allclose(many, expected, rtol=1e-4, atol=1e-3)


guided_in = jax.jit(jax.value_and_grad(lambda scale, p, q, x: nd.guided(p, q, scale).log_prob(x)))
mixture_of_many = jax.jit(
    lambda w, p, q, x: jax.vmap(lambda v: nd.mixture(p, q, weights=jnp.stack([v, 1 - v])).log_prob(x))(w)
)


@given(seed=st.integers(0, 1000), x=points, t=times)
@few(5)
def test_compositions_of_conditions(seed, x, t):
    density, rng = network(condition_size=2), np.random.default_rng(seed)
    conditions, scales = rng.normal(size=(2, 2)), rng.uniform(-1, 2, size=2)
    free, *bound = (float(log_prob_of(density.given(c), x, t)) for c in (None, *conditions))
    expected = free + sum(w * (value - free) for w, value in zip(scales, bound, strict=True))
    composed = nd.compose_conditions(density, conditions, scales)
    np.testing.assert_allclose(log_prob_of(composed, x, t), expected, rtol=1e-4, atol=1e-3)
    guided = nd.classifier_free_guided(density, conditions[0], scales[0])
    expected = (1 - scales[0]) * free + scales[0] * bound[0]
    np.testing.assert_allclose(log_prob_of(guided, x, t), expected, rtol=1e-4, atol=1e-3)


# Schedules


def schedules():
    vp = nd.VariancePreserving
    return st.one_of(
        st.floats(1.0, 1e3).map(vp.cosine),
        st.tuples(st.floats(0.01, 1.0), st.floats(2.0, 30.0)).map(lambda ab: vp.linear(*ab)),
        st.tuples(st.floats(0, 0.5), st.floats(1.0, 1e3), st.floats(1.0, 9.0)).map(lambda v: nd.VarianceExploding(*v)),
    )


@given(schedule=schedules(), num_levels=st.sampled_from([2, 17]))
@few(15)
def test_schedules_are_monotone_and_invertible(schedule, num_levels):
    with jax.enable_x64(True):
        levels = schedule.levels(num_levels)
        assert levels.shape == (num_levels,) and levels[0] == 1 and levels[-1] == 0 and np.all(np.diff(levels) < 0)
        alpha, sigma, ratio = (
            np.asarray(f(levels)) for f in (schedule.alpha, schedule.sigma, schedule.noise_to_signal)
        )
        np.testing.assert_allclose(sigma, alpha * ratio, rtol=1e-12)
        np.testing.assert_allclose(schedule.time(ratio), levels, atol=1e-8)
        one = alpha**2 + sigma**2 if isinstance(schedule, nd.VariancePreserving) else alpha
        np.testing.assert_allclose(one, 1, rtol=1e-10)
        assert np.all(np.diff(ratio) < 0)


@given(schedule=schedules(), x=points, t=st.floats(0.05, 0.9))
@few(4)
def test_a_change_of_schedule_is_a_change_of_variables(schedule, x, t):
    with jax.enable_x64(True):
        p = mixture()
        ratio = float(schedule.noise_to_signal(t))
        there = float(p.schedule.time(ratio))
        if not 0 < there < 1:
            return
        shift = np.log(float(p.schedule.alpha(there)) / float(schedule.alpha(t)))
        expected = 2 * shift + noised(x * np.exp(shift), there)
        np.testing.assert_allclose(p.with_schedule(schedule).log_prob(x, t), expected, rtol=1e-6)


@pytest.mark.parametrize("value", [-1, 0, 1, 2.5, True, np.nan, np.inf, "x", None, [1.0]])
def test_schedules_of_odd_arguments(value):
    for make in (nd.VariancePreserving.cosine, nd.VarianceExploding, lambda v: nd.VarianceExploding(0.0, v)):
        schedule = typed(lambda make=make: make(value))
        assert schedule is None or np.all(np.isfinite([float(schedule.sigma(t)) for t in (0.0, 0.5, 1.0)]))
    levels = typed(lambda: nd.VariancePreserving.cosine().levels(value))
    assert levels is None


@pytest.mark.parametrize("event_shape", [(-1,), (2.5,), (0,), "ab", 2, None, (np.nan,), ((2,),)])
def test_events_of_no_shape(event_shape):
    with pytest.raises(TYPED):
        nd.as_density(lambda x, t: jnp.sum(x), event_shape)
