"""Masses are kept as logarithms, exponents as floats: any mass is right, an exponent that no float holds is refused."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import box, function, gaussian, log_prob_of, moments_of, network, score_of
from quick import quick_among

import numpyro_diffusion as nd
from numpyro_diffusion.diagnose.findings.overlap import numerator
from numpyro_diffusion.errors import ParameterError

P, Q, F = gaussian(name="p"), gaussian((1.0, -0.5), ((0.5, 0.1), (0.1, 0.8)), name="q"), function()
X = np.array([0.3, -0.4])
LOG_P, LOG_Q = float(log_prob_of(P, X)), float(log_prob_of(Q, X))
TEN = np.log(10.0)

MASSES = {
    "1e-40 * p": (lambda: 1e-40 * P, -40 * TEN + LOG_P),
    "1e-20 * (1e-20 * p)": (lambda: 1e-20 * (1e-20 * P), -40 * TEN + LOG_P),
    "1e39 * p": (lambda: 1e39 * P, 39 * TEN + LOG_P),
    "p / 1e-300": (lambda: P / 1e-300, 300 * TEN + LOG_P),
    "1e300 * (1e300 * p)": (lambda: 1e300 * (1e300 * P), 600 * TEN + LOG_P),
    "1e-46 / p": (lambda: 1e-46 / P, -46 * TEN - LOG_P),
    "1e-60 * p + 1e-62 * q": (
        lambda: 1e-60 * P + 1e-62 * Q, -60 * TEN + np.logaddexp(LOG_P, LOG_Q - 2 * TEN)),
    "mixture": (lambda: nd.mixture(P, Q, weights=[1e-50, 1]), LOG_Q),
    "mixture of huge weights": (
        lambda: nd.mixture(P, Q, weights=[1e300, 3e300]), np.logaddexp(LOG_P, LOG_Q + np.log(3)) - np.log(4)),
    "one of its terms in a product": (lambda: (1e-50 * P) * Q, -50 * TEN + LOG_P + LOG_Q),
    "power of a mass": (lambda: (1e-50 * P) ** 0.5, -25 * TEN + 0.5 * LOG_P),
    "harmonic mean": (lambda: nd.harmonic_mean(P, Q, weights=[1e-50, 1]), LOG_Q),
    "contrast": (lambda: nd.contrast(P, Q, alpha=1e-60), 2 * LOG_P - LOG_Q),
    "negation": (lambda: nd.negation(P, Q, 0.5, floor=1e-70), LOG_P - 0.5 * LOG_Q),
}  # fmt: skip


#: Large and small ones, alone, in a sum, a mixture, a power and what is named.
QUICK = ["p / 1e-300", "1e-46 / p", "1e-60 * p + 1e-62 * q", "mixture of huge weights", "power of a mass", "contrast"]


@pytest.mark.parametrize("name", quick_among(MASSES, QUICK))
def test_any_mass_is_right(name):
    make, expected = MASSES[name]
    for density in (make(), jax.tree.unflatten(*reversed(jax.tree.flatten(make())))):
        np.testing.assert_allclose(log_prob_of(density, X), expected, rtol=3e-6)
        mean, covariance = moments_of(density.gaussian(0.3))
        assert np.all(np.isfinite(mean)) and np.all(np.linalg.eigvalsh(covariance) > 0)
    np.testing.assert_allclose(jax.jit(lambda: make().log_prob(X))(), expected, rtol=3e-6)
    assert np.all(np.isfinite(score_of(make(), X)))


def test_masses_print_and_count():
    printed = {
        "1e-40 * p": 1e-20 * (1e-20 * P),
        "1e+39 * p": 1e39 * P,
        "1e-600 * p": 1e-300 * (1e-300 * P),
        "2e+600 * p": 1e300 * (2e300 * P),
        "(1e-50 * p + q)": nd.mixture(P, Q, weights=[1e-50, 1]),
    }
    for text, density in printed.items():
        assert repr(density) == text
    assert nd.mixture(P, Q, weights=[1e-50, 1]).is_calibrated and not (1e-40 * P).is_calibrated
    assert [a for _, a in numerator(1e-40 * (P**2 * (1e-50 * P + Q) / Q))] == [2.0, 1.0]
    # A mass moves nothing else: neither a prior nor where annealing starts.
    assert nd.DiffusionPrior(1e-40 * P).event_shape == (2,)
    np.testing.assert_allclose((1e-40 * P).gaussian(0.0).covariance, P.gaussian(0.0).covariance, rtol=1e-6)


@pytest.mark.slow
def test_log_evidence_of_a_tiny_mass():
    run = nd.anneal(jax.random.key(0), 1e-40 * P, nd.HMC(0.5), num_chains=50, levels=3, progress_bar=False)
    assert abs(run.log_evidence + 40 * TEN) < 1e-2


def test_masses_may_be_traced():
    def value(log_w):
        w = jnp.exp(log_w)
        return (w * P + (1 - w) * Q).log_prob(X), nd.mixture(P, Q, weights=[w, 3.0]).log_prob(X), (P / w).log_prob(X)

    log_w = np.log(0.2)
    found, slopes = jax.jit(lambda a: (value(a), jax.jacfwd(value)(a)))(log_w)
    mixed = np.logaddexp(np.log(0.2) + LOG_P, np.log(0.8) + LOG_Q)
    weighed = np.logaddexp(np.log(0.0625) + LOG_P, np.log(0.9375) + LOG_Q)
    np.testing.assert_allclose(found, [mixed, weighed, LOG_P - log_w], rtol=1e-5)
    share = 0.0625 * np.exp(LOG_P - weighed)
    expected = [0.2 * (np.exp(LOG_P) - np.exp(LOG_Q)) / np.exp(mixed), share - 0.0625, -1.0]
    np.testing.assert_allclose(slopes, expected, rtol=1e-4)


UNHELD = {
    "p ** 1e39": (lambda: P**1e39, r"exponent must be 0 or from .* which is what float32 holds; got 1e\+39"),
    "p ** -1e39": (lambda: P**-1e39, r"got -1e\+39"),
    "p ** 1e-46": (lambda: P**1e-46, r"got 1e-46"),
    "p ** 3e-39": (lambda: P**3e-39, r"got 3e-39"),
    "powers of powers": (lambda: (P**1e20) ** 1e25, r"got 1e\+45"),
    "nd.product": (lambda: nd.product(P, Q, exponents=[1, 1e39]), r"got 1e\+39"),
    "temper": (lambda: nd.temper(P, 1e39), r"got 1 / 1e\+39"),
    "negation": (lambda: nd.negation(P, Q, 1e-46), r"alpha must .*got 1e-46"),
    "guided": (lambda: nd.guided(P, Q, -1e50), r"scale must .*got -1e\+50"),
    "classifier_free_guided": (
        lambda: nd.classifier_free_guided(network(condition_size=1), [1.0], 1e40), r"scale must .*got 1e\+40"),
    "compose_conditions": (
        lambda: nd.compose_conditions(network(condition_size=1), [[1.0]], [1e-50]), r"exponent must .*got 1e-50"),
    "means": (lambda: nd.exact.GaussianMixture([[1e39]], [[[1.0]]]), r"means must be at most.*got 1e\+39"),
    "a narrow component": (lambda: nd.exact.GaussianMixture([[0.0]], [[[1e-50]]]), r"eigenvalues.*got 1e-50"),
    "weights of a base": (
        lambda: nd.MixtureBase.of(np.zeros((2, 1)), np.ones((2, 1, 1)), [[1e-50, 1.0]]), r"weights must be 0.*1e-50"),
    "covariances of a base": (
        lambda: nd.MixtureBase.of(np.zeros((1, 1)), np.full((1, 1, 1), 1e-44), [[1.0]]), r"eigenvalues.*got 1e-44"),
    "a widened base": (
        lambda: nd.MixtureBase.of(np.zeros((1, 1)), np.ones((1, 1, 1)), [[1.0]]).widened(1e39), r"got 1e\+39"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNHELD)
def test_what_no_float_holds_is_refused_with_the_users_number(name):
    make, words = UNHELD[name]
    with pytest.raises(ParameterError, match=words):
        make()


def test_double_precision_holds_more():
    with jax.enable_x64(True):
        density = gaussian() ** 1e-46
        np.testing.assert_allclose(density.log_prob(X), 1e-46 * LOG_P, rtol=1e-6)


def test_weights_of_exact_mixtures_are_logarithms():
    both = nd.exact.GaussianMixture([[0.0], [30.0]], [[[1.0]], [[1.0]]], [1.0, 1e-300])
    value = both.log_prob(np.array([[0.0], [60.0]]))
    normal = -0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(value, [normal, np.logaddexp(-300 * TEN - 450, -1800.0) + normal], rtol=1e-5)


# Which leaves are one.


def replaced(density, **changes):
    new = jax.tree.map(lambda a: a, density)
    for name, value in changes.items():
        setattr(new, name, value)
    return new


def test_leaves_hold_what_they_hold_at_the_time():
    count = len(jax.tree.leaves(F))
    one, other = replaced(F, name="one"), replaced(F, name="other")
    assert len(jax.tree.leaves(one * one)) == count + 1
    expression = one * other
    again = jax.tree.unflatten(*reversed(jax.tree.flatten(expression)))
    assert len(jax.tree.leaves(again)) == len(jax.tree.leaves(expression)) == 2 * count + 1
    # A leaf comes to hold other arrays: each is evaluated with its own.
    again.leaves[1].parameters = jax.tree.map(lambda a: a + 1.0, again.leaves[1].parameters)
    expected = log_prob_of(again.leaves[0], X, 0.2) + log_prob_of(again.leaves[1], X, 0.2)
    np.testing.assert_allclose(log_prob_of(again, X, 0.2), expected, rtol=1e-5)


def test_one_condition_twice_is_one_leaf():
    density = network(condition_size=2)
    one, other = density.given([1.0, 0.0]), density.given([0.0, 1.0])
    expression = one * other * one / density.given(None) * density
    assert repr(expression) == "l2|[1. 0.] ** 2 * l2|[0. 1.] * l2 ** 0"
    assert len(expression.leaves) == 3 and len(expression.models) == 1
    again = jax.tree.unflatten(*reversed(jax.tree.flatten(expression)))
    assert repr(again) == repr(expression) and repr(again.leaves[1]) == repr(other)
    expected = 2 * log_prob_of(one, X, 0.2) + log_prob_of(other, X, 0.2)
    np.testing.assert_allclose(log_prob_of(again, X, 0.2), expected, rtol=1e-5)


def test_conditional_densities_are_read_through_to_their_model():
    density = network(condition_size=2)
    one = density.given([1.0, 0.0])
    assert (one.config, one.schedule, one.event_shape) == (density.config, density.schedule, density.event_shape)
    assert one.log_z is density.log_z and one.given(None) is density and not hasattr(one, "leaves")
    assert repr(one.given([0.0, 1.0])) == "l2|[0. 1.]"
    np.testing.assert_array_equal(one.condition, [1.0, 0.0, 1.0])
    np.testing.assert_array_equal(density.no_condition, [0.0, 0.0, 0.0])
    again = copy.deepcopy(one)
    assert repr(again) == repr(one) and not hasattr(again, "sample")


@pytest.mark.slow
def test_sharing_survives_maps_over_the_tree():
    expression = box("a") * network(condition_size=2).given([1.0, 0.0]) * network(condition_size=2).given(None)
    structure = jax.tree.structure(expression)
    for fn in (lambda a: 0, lambda a: a + 1, lambda a: jax.ShapeDtypeStruct(jnp.shape(a), float)):
        assert jax.tree.structure(jax.tree.map(fn, expression)) == structure
    axes = jax.tree.map(lambda a: 0, expression)
    stacked = jax.tree.map(lambda a: jnp.stack([a, a]), expression)
    values = jax.vmap(lambda e: e.log_prob(X, 0.2), in_axes=(axes,))(stacked)
    np.testing.assert_allclose(values, 2 * [log_prob_of(expression, X, 0.2)], rtol=1e-4)
