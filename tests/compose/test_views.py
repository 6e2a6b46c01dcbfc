"""Densities read through views: laws of A x, exact truth at every noise level, one call for one network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import COVARIANCES, LEAVES, MEANS, WEIGHTS, gaussian, log_prob_of, mixture, network, score_of, unknown
from quick import quick_among
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.density.path import Place
from numpyro_diffusion.density.proper import check_proper
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError, ShapeError

T = 0.45
X = jax.random.normal(jax.random.key(1), (3, 6))
SCHEDULES = {
    "preserving": nd.VariancePreserving.cosine(), "linear": nd.VariancePreserving.linear(),
    "exploding": nd.VarianceExploding(), "flow": nd.LinearFlow(),
}  # fmt: skip
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
VIEWS = {
    "crop": (nd.crop(3), np.eye(6)[3:5], np.zeros(2)),
    "pool": (nd.pool(3), np.kron(np.eye(2), np.full((1, 3), 1 / 3)), np.zeros(2)),
    "affine": (nd.affine(0.7 * TURN[:2], [0.5, -1.0]), 0.7 * TURN[:2], np.array([0.5, -1.0])),
}


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("leaf", quick_among(LEAVES, ["mixture", "box", "l2", "score"]))
def test_a_crop_reads_what_it_shows_and_nothing_else(leaf):
    density = LEAVES[leaf]()
    seen = density.seen(nd.crop(3), (6,))
    score = score_of(seen, X, T)
    np.testing.assert_allclose(score[:, 3:5], score_of(density, X[:, 3:5], T), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(np.delete(score, [3, 4], axis=1), 0.0)
    assert seen.event_shape == (6,) and repr(seen) == f"{density!r}@crop(3)"
    if density.has_log_density:
        np.testing.assert_allclose(log_prob_of(seen, X, T), log_prob_of(density, X[:, 3:5], T), rtol=1e-6)


@pytest.mark.parametrize(
    ("view", "schedule"),
    quick_among(
        [(view, schedule) for view in VIEWS for schedule in SCHEDULES],
        [("crop", "flow"), ("pool", "exploding"), ("affine", "preserving"), ("affine", "linear")],
    ),
)
def test_a_view_of_noised_data_has_the_law_of_the_noised_view(view, schedule):
    """Data z_0 of a mixture, seen of x_0 with A x_0 + b = z_0, and the noise that A leaves, in closed form."""
    how, A, b = VIEWS[view]
    schedule = SCHEDULES[schedule]
    seen = mixture(schedule=schedule).seen(how, (6,))
    for t in (0.0, 0.2, 0.7, 1.0):
        alpha, noise = float(schedule.alpha(t)), float(schedule.sigma(t)) ** 2 * A @ A.T
        z = np.asarray(X, np.float64) @ A.T + alpha * b
        terms = []
        for w, m, C in zip(WEIGHTS, MEANS, COVARIANCES, strict=True):
            S, e = alpha**2 * C + noise, z - alpha * m
            squares = np.einsum("ni,ij,nj->n", e, np.linalg.inv(S), e)
            terms.append(np.log(w) - 0.5 * squares - 0.5 * np.linalg.slogdet(2 * np.pi * S)[1])
        np.testing.assert_allclose(log_prob_of(seen, X, t), np.logaddexp.reduce(terms), rtol=2e-4, atol=2e-4)


def test_a_schedule_is_read_no_lower_than_it_goes():
    """By the formula in docs/tapestries.md, of data as narrow as the smallest noise."""
    c, least, m = 1e-4, 0.01, 0.3
    density = nd.exact.GaussianMixture([[m, m]], [c * np.eye(2)], schedule=nd.VarianceExploding(sigma_min=least))
    seen, x = density.seen(nd.pool(2), (4,)), m + 0.02 * X[:, :4]
    y = np.asarray(x, np.float64).reshape(3, 2, 2).mean(2)
    for t in (0.0, density.schedule.time(1.2 * least)):
        noise = float(density.schedule.noise_to_signal(t)) ** 2 / 2
        variance, q = c + noise, (c + noise) / (c + least**2)
        exact = -0.5 * ((y - m) ** 2 / variance + np.log(2 * np.pi * variance)).sum(1)
        off = (0.5 * np.log(q) + (1 - q) * (y - m) ** 2 / (2 * variance)).sum(1)
        np.testing.assert_allclose(log_prob_of(seen, x, t), exact + off, atol=2e-3)
        assert np.all(np.abs(off) > 0.01)


def test_gradients_are_the_adjoint():
    density, A = mixture(), 0.7 * TURN[:2]
    seen = density.seen(nd.affine(A), (2, 3))
    x = X[0].reshape(2, 3)
    ratio = 0.7 * density.schedule.noise_to_signal(T)
    there = density.schedule.time(ratio)
    unit = density.schedule.alpha(there) / density.schedule.alpha(T)
    expected = A.T @ (unit * density.score(unit * A @ X[0], there))
    np.testing.assert_allclose(seen.score(x, T).ravel(), expected, rtol=1e-4, atol=1e-4)


def test_views_of_views_are_one_view():
    density = mixture()
    inner = density.seen(nd.pool(2), (4,))
    seen = inner.seen(nd.crop(1), (6,))
    np.testing.assert_allclose(log_prob_of(seen, X, T), log_prob_of(inner, X[:, 1:5], T), rtol=1e-5)
    turned = density.seen(nd.crop(1), (3,)).seen(nd.affine(TURN[:3]), (6,))
    expected = density.seen(nd.affine(TURN[1:3]), (6,))
    np.testing.assert_allclose(log_prob_of(turned, X, T), log_prob_of(expected, X, T), rtol=1e-4)
    assert repr(seen) == "m@pool(2)@crop(1)"


def test_a_window_goes_round_the_sides():
    seen = mixture().seen(nd.crop(5, wrap=True), (6,))
    np.testing.assert_allclose(log_prob_of(seen, X, T), log_prob_of(mixture(), X[:, jnp.array([5, 0])], T), rtol=1e-6)


def test_a_formula_is_seen_as_the_formula_of_what_is_seen():
    p, q = mixture("p"), gaussian((1.0, 0.0), name="q")
    formula = p * (0.3 * p + 0.7 * q) / q**0.5
    seen = formula.seen(nd.crop(2), (6,))
    np.testing.assert_allclose(log_prob_of(seen, X, T), log_prob_of(formula, X[:, 2:4], T), rtol=1e-5)
    assert seen.formula == formula.formula and seen.event_shape == (6,)
    assert repr(seen) == "p@crop(2) * (0.3 * p@crop(2) + 0.7 * q@crop(2)) / q@crop(2) ** 0.5"


def test_all_views_of_one_network_are_one_call():
    model = network(condition_size=2)
    windows = [model.given(c).seen(nd.crop(i), (6,)) for i, c in enumerate(([1, 0], [0, 1], None, [1, 0]))]
    windows.append(model.given([0, 1]).seen(nd.pool(3), (6,)))
    product = nd.product(*windows)
    assert len(product.models) == 1 and len(product.conditions[0]) == 5
    expected = sum(log_prob_of(w, X, T) for w in windows)
    np.testing.assert_allclose(log_prob_of(product, X, T), expected, rtol=1e-5)
    matmuls = lambda d: str(jax.make_jaxpr(lambda d, x: d.log_density(x, T))(d, X[0])).count("tanh")
    assert matmuls(product) == matmuls(windows[0])


def test_other_places_compile_nothing_anew():
    def at(*places):
        return nd.product(*(mixture().seen(nd.crop(i), (6,)) for i in places))

    traces = []
    value = jax.jit(lambda d, x: (traces.append(1), d.log_density(x, T))[1])
    first, second = value(at(0, 2, 4), X[0]), value(at(4, 1, 3), X[0])
    assert len(traces) == 1 and first != second


def test_places_under_transformations():
    seen = lambda p: nd.exact.GaussianMixture(p[None], np.eye(2)[None]).seen(nd.crop(1), (6,))
    point = jnp.array([0.3, -0.2])
    inside = jax.jit(lambda p: seen(p).log_density(X[0], T))(point)
    np.testing.assert_allclose(inside, seen(point).log_prob(X[0], T), rtol=1e-6)
    slope = jax.grad(lambda p: seen(p).log_density(X[0], T))(point)
    direct = jax.grad(lambda p: nd.exact.GaussianMixture(p[None], np.eye(2)[None]).log_density(X[0, 1:3], T))(point)
    np.testing.assert_allclose(slope, direct, rtol=1e-5)
    leaves, treedef = jax.tree.flatten(seen(point))
    assert jax.tree.unflatten(treedef, leaves).log_prob(X[0], T) == seen(point).log_prob(X[0], T)


def test_another_schedule_is_exact():
    seen = mixture().seen(nd.pool(3), (6,))
    schedule = nd.VarianceExploding()
    there = schedule.time(seen.schedule.noise_to_signal(T))
    alpha = seen.schedule.alpha(T)
    expected = log_prob_of(seen, alpha * X, T) + 2 * jnp.log(alpha)
    np.testing.assert_allclose(log_prob_of(seen.with_schedule(schedule), X, there), expected, rtol=1e-4)


@pytest.mark.slow
def test_what_a_score_gains_along_paths_is_known_through_views():
    exact = gaussian(covariance=((1.0, 0.5), (0.5, 0.8)))
    score = network("score")
    assert not score.seen(nd.crop(0), (6,)).has_log_density
    start, end = Place(X[0], jnp.asarray(0.5)), Place(X[1], jnp.asarray(0.48))
    gain = exact.seen(nd.pool(3), (6,)).increment(jax.random.key(0), start, end)
    np.testing.assert_allclose(
        gain, exact.seen(nd.pool(3), (6,)).log_prob(X[1], 0.48) - exact.seen(nd.pool(3), (6,)).log_prob(X[0], 0.5),
        rtol=1e-4,
    )  # fmt: skip
    along = score.seen(nd.crop(1), (6,)).increment(jax.random.key(0), start, end)
    direct = score.increment(jax.random.key(0), Place(X[0, 1:3], start.t), Place(X[1, 1:3], end.t))
    np.testing.assert_allclose(along, direct, rtol=1e-5)


def test_resolution_grows_by_what_is_averaged():
    model = network()
    assert model.seen(nd.crop(0), (6,)).resolution == pytest.approx(model.resolution)
    assert model.seen(nd.pool(4), (8,)).resolution == pytest.approx(2 * model.resolution)


REFUSED = {
    "no view": (lambda: gaussian().seen(3, (6,)), ArgumentTypeError, r"view must be a ViewOf; got 3.*nd\.crop"),
    "a class that is no pytree": (
        lambda: unknown().seen(nd.crop(0), (6,)), ArgumentTypeError, r"pytrees; got Unknown.*register"),
    "outside": (lambda: gaussian().seen(nd.crop(5), (6,)), ShapeError, r"crop\(5\) lies outside.*most at \(4,\)"),
    "a negative place": (lambda: nd.crop(-1), ParameterError, r"integer >= 0; got -1"),
    "no place": (lambda: nd.crop(), ParameterError, r"needs a place"),
    "other axes": (lambda: gaussian().seen(nd.crop(0, 0), (6, 6)), ShapeError, r"shape \(6, 6\).*axes differ"),
    "a shape that is none": (lambda: gaussian().seen(nd.crop(0), 6), ParameterError, r"event_shape must be a tuple"),
    "a size that does not divide": (
        lambda: gaussian().seen(nd.pool(4), (6,)), ShapeError, r"of shape \(8,\); got \(6,\)"),
    "half a pixel": (lambda: nd.pool(0.5), ParameterError, r"nd\.pool must be an integer >= 1; got 0\.5"),
    "rows that are not orthogonal": (
        lambda: gaussian().seen(nd.affine([[1.0, 0, 0], [0.5, 0.5, 0]]), (3,)), ParameterError,
        r"A A' = s\^2 I.*rows orthogonal"),
    "rows of two lengths": (
        lambda: gaussian().seen(nd.affine([[1.0, 0, 0], [0, 0.5, 0]]), (3,)), ParameterError, r"A A' = s\^2 I"),
    "zeros": (lambda: gaussian().seen(nd.affine(np.zeros((2, 3))), (3,)), ParameterError, r"A A' = s\^2 I"),
    "noise amplified": (
        lambda: gaussian().seen(nd.affine(2 * np.eye(2)), (2,)), ParameterError, r"not amplify.*Divide the matrix"),
    "a matrix of another shape": (
        lambda: gaussian().seen(nd.affine(np.eye(3)), (3,)), ShapeError, r"must have shape \(2, 3\); got \(3, 3\)"),
    "an offset of another shape": (
        lambda: gaussian().seen(nd.affine(np.eye(2), [1.0]), (2,)), ShapeError, r"offset of an affine view"),
    "text for a matrix": (lambda: nd.affine("x"), ShapeError, r"matrix must be"),
    "one view alone": (
        lambda: nd.anneal(jax.random.key(0), gaussian().seen(nd.crop(2), (6,)), nd.HMC()), ParameterError,
        r"improper: 4 of 6 components, 0 to 5, are seen by no view.*Add a window"),
    "a denominator that takes away what is seen": (
        lambda: check_proper(mixture().seen(nd.crop(0), (2,)) / gaussian().seen(nd.crop(0), (2,)) ** 2),
        ParameterError, r"improper: 2 of 2"),
    "beside points of another shape": (
        lambda: gaussian().seen(nd.crop(2), (6,)) * gaussian(), ShapeError, r"one event shape; got \(6,\) and \(2,\)"),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)


def test_views_that_only_together_see_everything_are_proper():
    check_proper(nd.product(
        *(gaussian().seen(nd.affine(TURN[i : i + 2]), (6,)) for i in (0, 2, 4))
    ))  # fmt: skip
