"""The named compositions: their formulas and their cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import T, X, box, evaluated, evaluated_directly, log_prob_of, mixture, network, score_of, three

import numpyro_diffusion as nd
from numpyro_diffusion.density import leaves

W = np.array([0.2, 0.5, 0.3])


def classifier():
    return nd.as_density(lambda x, t: jax.nn.log_sigmoid(3 * x[0] - t), (2,), name="c")


# name: (composition of p, q, r, c; the same over their values)
COMPOSITIONS = {
    "product": (lambda p, q, r, c: nd.product(p, q, r), lambda p, q, r, c: p * q * r),
    "product_of_one": (lambda p, q, r, c: nd.product(p), lambda p, q, r, c: p),
    "exponents": (lambda p, q, r, c: nd.product(p, q, exponents=[2, -0.5]), lambda p, q, r, c: p**2 / q**0.5),
    "mixture": (lambda p, q, r, c: nd.mixture(p, q, r), lambda p, q, r, c: (p + q + r) / 3),
    "weights": (lambda p, q, r, c: nd.mixture(p, q, weights=[1, 3]), lambda p, q, r, c: 0.25 * p + 0.75 * q),
    "negation": (lambda p, q, r, c: nd.negation(p, q), lambda p, q, r, c: p / q**0.5),
    "negation_floor": (
        lambda p, q, r, c: nd.negation(p, q, 0.7, floor=0.1), lambda p, q, r, c: p / (0.9 * q + 0.1 * p) ** 0.7
    ),
    "negation_strong": (lambda p, q, r, c: nd.negation(p, q, 1.0), lambda p, q, r, c: p / q),
    "temper": (lambda p, q, r, c: nd.temper(p * q, 4.0), lambda p, q, r, c: (p * q) ** 0.25),
    "guided": (lambda p, q, r, c: nd.guided(p, c), lambda p, q, r, c: p * c),
    "guided_strongly": (lambda p, q, r, c: nd.guided(p, c, 2.5), lambda p, q, r, c: p * c**2.5),
    "harmonic_mean": (lambda p, q, r, c: nd.harmonic_mean(p, q), lambda p, q, r, c: p * q / (0.5 * p + 0.5 * q)),
    "harmonic_mean_alpha": (
        lambda p, q, r, c: nd.harmonic_mean(p, q, alpha=0.2), lambda p, q, r, c: p * q / (0.2 * p + 0.8 * q)
    ),
    "harmonic_mean_weights": (
        lambda p, q, r, c: nd.harmonic_mean(p, q, weights=[0.8, 0.2]), lambda p, q, r, c: 1 / (0.8 / p + 0.2 / q)
    ),
    "harmonic_mean_three": (
        lambda p, q, r, c: nd.harmonic_mean(p, q, r), lambda p, q, r, c: 3 / (1 / p + 1 / q + 1 / r)
    ),
    "harmonic_mean_three_weights": (
        lambda p, q, r, c: nd.harmonic_mean(p, q, r, weights=10 * W),
        lambda p, q, r, c: 1 / (W[0] / p + W[1] / q + W[2] / r),
    ),
    "contrast": (lambda p, q, r, c: nd.contrast(p, q), lambda p, q, r, c: p**2 / (0.5 * p + 0.5 * q)),
    "contrast_alpha": (
        lambda p, q, r, c: nd.contrast(p, q, alpha=0.2), lambda p, q, r, c: p**2 / (0.2 * p + 0.8 * q)
    ),
    "contrast_three": (
        lambda p, q, r, c: nd.contrast(p, q, r, weights=W), lambda p, q, r, c: p**2 / (W[0] * p + W[1] * q + W[2] * r)
    ),
    "nested": (
        lambda p, q, r, c: nd.harmonic_mean(p * c, nd.mixture(q, r), p / r**0.3, weights=W),
        lambda p, q, r, c: 1 / (W[0] / (p * c) + W[1] / (0.5 * q + 0.5 * r) + W[2] * r**0.3 / p),
    ),
}  # fmt: skip


def four():
    return *three(), classifier()


@functools.cache
def ours_and_direct():
    leaves = four()
    with pytest.warns(nd.errors.DiagnosticWarning):  # the classifier is no density of its own
        ours = evaluated({name: pair[0] for name, pair in COMPOSITIONS.items()}, leaves)
    return ours, evaluated_directly({name: pair[1] for name, pair in COMPOSITIONS.items()}, leaves)


@pytest.mark.quick_cases(7)
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_composition_is_its_formula(name):
    ours, direct = (results[name] for results in ours_and_direct())
    np.testing.assert_allclose(ours[0], direct[0], atol=2e-4, rtol=2e-4)
    np.testing.assert_allclose(ours[1], direct[1], atol=2e-3, rtol=2e-3)


def test_compositions_print_as_formulas():
    p, q, r, c = four()
    printed = {
        "p * q * r": nd.product(p, q, r),
        "(0.25 * p + 0.75 * q)": nd.mixture(p, q, weights=[1, 3]),
        "p / q ** 0.3": nd.negation(p, q, 0.3),
        "p ** 0.5": nd.temper(p, 2.0),
        "p * c ** 2": nd.guided(p, c, 2.0),
        "p * q / (0.3 * p + 0.7 * q)": nd.harmonic_mean(p, q, alpha=0.3),
        "p ** 2 / (0.3 * p + 0.7 * q)": nd.contrast(p, q, alpha=0.3),
        "p ** 2 / (0.5 * p + 0.25 * q + 0.25 * r)": nd.contrast(p, q, r, weights=[2, 1, 1]),
    }
    for text, density in printed.items():
        assert repr(density) == text


def test_each_density_is_a_leaf_once():
    p, q, r, c = four()
    assert len(nd.harmonic_mean(p, q).leaves) == 2
    assert len(nd.harmonic_mean(p, q, r).leaves) == 3
    assert len(nd.contrast(p, q, r).leaves) == 3
    assert len((nd.harmonic_mean(p, q) * nd.contrast(q, p)).leaves) == 2


def test_mixture_of_calibrated_densities_is_calibrated():
    assert nd.mixture(mixture(), box(), weights=[1, 2]).is_calibrated


def test_weights_are_traced():
    p, q, r, _ = four()
    traces = []

    @jax.jit
    def value(alpha, weights):
        traces.append(alpha)
        both = nd.harmonic_mean(p, q, alpha=alpha) * nd.mixture(p, q, r, weights=weights)
        return (both / nd.temper(nd.negation(p, q, alpha), 1 + alpha)).log_prob(X, T)

    first, second = value(0.3, jnp.array([1.0, 2.0, 3.0])), value(0.6, jnp.array([3.0, 1.0, 1.0]))
    assert len(traces) == 1
    assert np.all(np.isfinite(first)) and not np.allclose(first, second)


# Conditional networks.


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("kind", ["l2", "score"])
def test_compose_conditions_is_equation_13_in_one_call(kind, network_calls):
    density = network(kind, condition_size=3)
    conditions, weights = jnp.eye(3), jnp.array([1.0, 0.5, 2.0])
    composed = nd.compose_conditions(density, conditions, weights)
    assert len(composed.leaves) == 4  # c + 1
    free = score_of(density.given(None), X, T)
    expected = free + sum(
        w * (score_of(density.given(c), X, T) - free) for c, w in zip(conditions, weights, strict=True)
    )
    network_calls.clear()
    score = jax.jit(lambda d: d.score(X, T))(composed)
    assert len(network_calls) == 1
    np.testing.assert_allclose(score, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["l2", "score"])
def test_many_conditions_are_evaluated_in_pieces(kind, monkeypatch):
    composed = nd.compose_conditions(network(kind, condition_size=3), jnp.eye(3), jnp.array([1.0, 0.5, 2.0]))
    together = jax.jit(lambda d: d.score(X, T))(composed)
    monkeypatch.setattr(leaves, "TOGETHER", 3)  # one piece of three, and one of one
    np.testing.assert_allclose(jax.jit(lambda d: d.score(X, T))(composed), together, rtol=1e-5, atol=1e-5)
    if kind == "l2":
        np.testing.assert_allclose(composed.log_prob(X, T), log_prob_of(composed, X, T), rtol=1e-5)


def test_compose_conditions_collects_the_unconditional_exponent():
    composed = nd.compose_conditions(network(condition_size=2), [[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(composed.coefficients, [-1.0, 1.0, 1.0])
    assert composed.leaves[0].no_condition.tolist() == [0.0, 0.0, 0.0]


def test_other_conditions_and_weights_do_not_retrace():
    density, traces = network(condition_size=2), []

    @jax.jit
    def value(density):
        traces.append(density)
        return log_prob_of(density, X, T)

    first = value(nd.compose_conditions(density, [[1.0, 0.0], [0.0, 1.0]]))
    second = value(nd.compose_conditions(density, [[0.5, 0.0], [0.0, 2.0]], [2.0, 3.0]))
    assert len(traces) == 1 and not np.allclose(first, second)


def test_classifier_free_guidance(network_calls):
    density = network(condition_size=2)
    guided = nd.classifier_free_guided(density, [1.0, -1.0], 3.0)
    expected = -2 * log_prob_of(density.given(None), X, T) + 3 * log_prob_of(density.given([1.0, -1.0]), X, T)
    network_calls.clear()
    np.testing.assert_allclose(jax.jit(lambda d: d.log_prob(X, T))(guided), expected, rtol=2e-3, atol=2e-3)
    assert len(network_calls) == 1


def test_scores_alone_compose_where_no_log_density_is_needed():
    p, q = network("score", seed=1), network("score", seed=2)
    P, Q = score_of(p, X, T), score_of(q, X, T)
    for density, expected in (
        (nd.product(p, q, exponents=[1.0, 0.5]), P + 0.5 * Q),
        (nd.negation(p, q, 0.5), P - 0.5 * Q),
        (nd.temper(p, 2.0), 0.5 * P),
    ):
        assert not density.has_log_density
        np.testing.assert_allclose(score_of(density, X, T), expected, rtol=1e-3, atol=1e-3)
