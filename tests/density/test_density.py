"""Laws of the algebra: formulas against direct computation, through every transformation, at the promised cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import ANY, T, X, evaluated, evaluated_directly, log_prob_of, mixture, moments_of, network, three
from quick import quick_among

import numpyro_diffusion as nd

# name: (formula over densities, the same over their values)
FORMULAS = {
    "product": (lambda p, q, r: p * q * r, lambda p, q, r: p * q * r),
    "quotient": (lambda p, q, r: p / q, lambda p, q, r: p / q),
    "power": (lambda p, q, r: p**0.7, lambda p, q, r: p**0.7),
    "power_of_product": (lambda p, q, r: (p * q**2) ** 0.5 / r, lambda p, q, r: (p * q**2) ** 0.5 / r),
    "inverse": (lambda p, q, r: 1 / (p * q), lambda p, q, r: 1 / (p * q)),
    "number_over_density": (lambda p, q, r: 3 / p, lambda p, q, r: 3 / p),
    "mass": (lambda p, q, r: 2.5 * p / 5, lambda p, q, r: 0.5 * p),
    "mixture": (lambda p, q, r: 0.2 * p + 0.8 * q, lambda p, q, r: 0.2 * p + 0.8 * q),
    "sum_of_three": (lambda p, q, r: p + (q + 2 * r), lambda p, q, r: p + q + 2 * r),
    "twice": (lambda p, q, r: p + p, lambda p, q, r: 2 * p),
    "scaled_sum": (lambda p, q, r: 0.3 * (p + 2 * q), lambda p, q, r: 0.3 * (p + 2 * q)),
    "product_of_mixtures": (lambda p, q, r: (p + q) * (p + 2 * r), lambda p, q, r: (p + q) * (p + 2 * r)),
    "mixture_of_products": (lambda p, q, r: 0.5 * p * q + r**2, lambda p, q, r: 0.5 * p * q + r**2),
    "harmonic_mean": (lambda p, q, r: p * q / (p + q), lambda p, q, r: p * q / (p + q)),
    "contrast": (lambda p, q, r: p**2 / (p + q), lambda p, q, r: p**2 / (p + q)),
    "paper": (lambda p, q, r: p * (0.5 * q + 0.5 * r) / q**0.3, lambda p, q, r: p * (0.5 * q + 0.5 * r) / q**0.3),
    "deep": (
        lambda p, q, r: (1 / (1 / p + 2 / (q + r**0.5))) ** 1.5 / (p * q + r),
        lambda p, q, r: (1 / (1 / p + 2 / (q + r**0.5))) ** 1.5 / (p * q + r),
    ),
}
EQUAL = {
    "products commute": (lambda p, q, r: p * q * r, lambda p, q, r: r * (q * p)),
    "sums commute": (lambda p, q, r: p + q + r, lambda p, q, r: r + (q + p)),
    "distributive": (lambda p, q, r: p * (q + r), lambda p, q, r: p * q + p * r),
    "quotient undoes product": (lambda p, q, r: p * q / q, lambda p, q, r: p**1.0),
    "quotient of quotient": (lambda p, q, r: p / (q / r), lambda p, q, r: p * r / q),
    "powers multiply": (lambda p, q, r: (p**2) ** 0.25, lambda p, q, r: p**0.5),
    "powers add": (lambda p, q, r: p**0.4 * p**0.6, lambda p, q, r: 1.0 * p),
    "power of product": (lambda p, q, r: (p * q) ** 0.3, lambda p, q, r: p**0.3 * q**0.3),
    "mass distributes": (lambda p, q, r: 2 * (p + q), lambda p, q, r: 2 * p + 2 * q),
    "harmonic mean": (lambda p, q, r: p * q / (p + q), lambda p, q, r: 1 / (1 / p + 1 / q)),
}  # fmt: skip


@functools.cache
def ours_and_direct():
    formulas = {name: pair[0] for name, pair in FORMULAS.items()}
    formulas |= {f"{name}/{side}": pair[side] for name, pair in EQUAL.items() for side in (0, 1)}
    direct = {name: pair[1] for name, pair in FORMULAS.items()}
    return evaluated(formulas, three()), evaluated_directly(direct, three())


@pytest.mark.quick_cases(6)
@pytest.mark.parametrize("name", FORMULAS)
def test_formula_is_what_it_says(name):
    ours, direct = (results[name] for results in ours_and_direct())
    np.testing.assert_allclose(ours[0], direct[0], atol=2e-4, rtol=2e-4)
    np.testing.assert_allclose(ours[1], direct[1], atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name", EQUAL)
def test_laws(name):
    left, right = ours_and_direct()[0][f"{name}/0"], ours_and_direct()[0][f"{name}/1"]
    np.testing.assert_allclose(left[0], right[0], atol=2e-4, rtol=2e-4)
    np.testing.assert_allclose(left[1], right[1], atol=2e-3, rtol=2e-3)


def test_formulas_print():
    p, q, r = three()
    printed = {
        "p * q / (p + q)": p * q / (p + q),
        "p ** 2 / (p + q)": p**2 / (p + q),
        "p * (0.5 * q + 0.5 * r) / q ** 0.3": p * (0.5 * q + 0.5 * r) / q**0.3,
        "1 / (p * q)": 1 / (p * q),
        "(0.5 * p + 0.5 * q)": 0.5 * p + 0.5 * q,
        "2 * p": p + p,
        "(2 * p) ** 0.5": (2 * p) ** 0.5,
        "p / (q * r)": p / q / r,
        "p ** 0.5": p**0.5,
    }
    for text, density in printed.items():
        assert repr(density) == text
    assert repr(mixture(name=None)) == "GaussianMixture"


def test_print_reads_back():
    p, q, r = three()
    for density in (p / (2 * q), (2 * p) ** 2 * q, (p + q) / (q + r) ** 0.5, 1 / (0.5 / p + q), 0.5 * p * q + r / p):
        again = eval(repr(density), {"p": p, "q": q, "r": r})
        np.testing.assert_allclose(log_prob_of(again, X[0], T), log_prob_of(density, X[0], T), rtol=1e-5)


@pytest.mark.parametrize(
    ("number", "formula"),
    [
        (1, lambda p, q, r: p**2 / p),
        (2, lambda p, q, r: p * q / (p + q)),
        (2, lambda p, q, r: (p * q) ** 2 / (q + p * (q + p))),
        (3, lambda p, q, r: p * (0.5 * q + 0.5 * r) / q**0.3),
        (3, lambda p, q, r: 1 / (1 / p + 1 / q + 1 / r) + p),
    ],
)  # fmt: skip
def test_distinct_leaves_are_evaluated_once(number, formula):
    calls = []

    def leaf(name):
        def fn(x, t):
            calls.append(name)
            return -0.5 * jnp.sum(x**2)

        return nd.as_density(fn, (2,), name=name, normalised=True)

    density = formula(leaf("p"), leaf("q"), leaf("r"))
    assert len(density.leaves) == number
    jax.make_jaxpr(density.log_density)(X[0], T)
    assert len(calls) == len(set(calls)) == number
    calls.clear()
    jax.make_jaxpr(density.score)(X, T)
    assert len(calls) == number


def test_leaves_on_one_network_are_one_call(network_calls):
    density = network(condition_size=2)
    a, b, free = density.given([1.0, 0.0]), density.given([0.0, 1.0]), density.given(None)
    expression = a * b**0.5 / free + 2 * a
    assert len(expression.leaves) == 3
    jax.make_jaxpr(expression.log_density)(X[0], T)
    assert len(network_calls) == 1
    network_calls.clear()
    jax.make_jaxpr(lambda e: e.score(X, T))(expression)  # the sharing survives flattening
    assert len(network_calls) == 1
    network_calls.clear()
    jax.make_jaxpr(expression.with_schedule(nd.VarianceExploding()).log_prob)(X, T)
    assert len(network_calls) == 1
    value = jax.jit(lambda e: e.log_prob(X, T))(expression)
    A, B, F = (log_prob_of(d, X, T) for d in (a, b, free))
    np.testing.assert_allclose(value, np.logaddexp(A + 0.5 * B - F, A + np.log(2)), rtol=1e-4, atol=1e-4)


def test_other_networks_are_calls_of_their_own(network_calls):
    jax.make_jaxpr((network(seed=1) * network(seed=2)).log_density)(X[0], T)
    assert len(network_calls) == 2


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("name", quick_among(ANY, ["mixture", "box", "function", "l2", "score"]))
def test_through_transformations(name):
    density = ANY[name]()
    leaves, treedef = jax.tree.flatten(density)
    again = jax.tree.unflatten(treedef, leaves)
    assert jax.tree.structure(again) == treedef
    assert (again.event_shape, again.schedule) == (density.event_shape, density.schedule)
    assert repr(again) == repr(density)

    @jax.jit
    def through_jit(d, x, t):
        return d.score(x, t), d.log_prob(x, t) if d.has_log_density else jnp.zeros(x.shape[:-1])

    t = jnp.linspace(0.1, 0.9, 5)
    score, value = through_jit(density, X, t)
    assert score.shape == (5, 2) and value.shape == (5,)
    np.testing.assert_allclose(through_jit(again, X, t)[0], score, rtol=1e-6)
    # One point at a time gives what the batch gives.
    point_score, point_value = through_jit(density, X[2], t[2])
    assert point_score.shape == (2,) and point_value.shape == ()
    np.testing.assert_allclose(point_score, score[2], rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(point_value, value[2], rtol=1e-3, atol=1e-4)
    if name == "mixture":
        grid = jax.jit(density.log_prob)(X, t[:, None])
        assert grid.shape == (5, 5)
        np.testing.assert_allclose(jnp.diag(grid), value, rtol=1e-4, atol=1e-4)


def retrained(density):
    state = jax.tree.map(lambda a: a + 0.1, density.state)
    return density._replace(state=state, name="retrained")


def test_one_trace_for_all_weights():
    traces = []

    @jax.jit
    def value(density, x):
        traces.append(density)
        return density.log_prob(x, T)

    p, n = mixture("p"), network()
    values = [
        value(0.3 * p + 0.7 * n, X),
        value(0.6 * p + 0.4 * n, X),  # other weights
        value(0.3 * mixture("other") + 0.7 * n, X),  # another name
        value(0.3 * p + 0.7 * retrained(n), X),  # other network weights
        value(0.3 * p + 0.7 * network(seed=5), X),
        value(jax.tree.map(lambda a: 1.01 * a, 0.3 * p + 0.7 * n), X),
    ]
    assert len(traces) == 1
    assert not np.allclose(values[0], values[1]) and not np.allclose(values[0], values[3])
    np.testing.assert_allclose(values[0], values[2])
    value(p * n, X)
    assert len(traces) == 2


def test_coefficients_can_be_traced_and_differentiated():
    p, q, _ = three()
    gradient = jax.grad(lambda a: (p**a / q ** (1 - a)).log_prob(X[0], T))(0.3)
    expected = p.log_prob(X[0], T) + q.log_prob(X[0], T)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)
    gradient = jax.grad(lambda w: (w * p + (1 - w) * q).log_prob(X[0], T))(0.3)
    P, Q = jnp.exp(p.log_prob(X[0], T)), jnp.exp(q.log_prob(X[0], T))
    np.testing.assert_allclose(gradient, (P - Q) / (0.3 * P + 0.7 * Q), rtol=1e-4)


@pytest.mark.parametrize("scalar", [np.float64(0.5), np.float32(0.5), jnp.float32(0.5), 0.5], ids=str)
def test_any_scalar(scalar):
    p = mixture("p")
    for density in (scalar * p, p * scalar, p / (1 / scalar)):
        assert repr(density) == "0.5 * p"


def test_gaussian_is_finite_for_every_formula():
    gaussians = jax.jit(lambda leaves: {name: pair[0](*leaves).gaussian(0.3) for name, pair in FORMULAS.items()})
    for name, gaussian in gaussians(three()).items():
        mean, covariance = moments_of(gaussian)
        assert np.all(np.isfinite(mean)) and np.all(np.linalg.eigvalsh(covariance) > 0), name


def test_calibration_of_expressions():
    p, q, r = three()
    assert (0.3 * p + 0.7 * q).is_calibrated
    assert not (p + q).is_calibrated  # mass 2
    assert not (p * q).is_calibrated
    with pytest.warns(nd.errors.DiagnosticWarning, match=r"not calibrated.*recalibrate"):
        assert not (0.5 * p + 0.5 * network(calibrated=False)).is_calibrated
