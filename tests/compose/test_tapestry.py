"""Tapestries against fields and patches of which everything is known."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from densities import ScoreOf, exploding, gaussian, log_prob_of, mixture, network
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.density.axes import CosineAxes
from numpyro_diffusion.density.gaussian import Gaussian
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError, ScheduleError, ShapeError

KEY = jax.random.key(0)
#: Step sizes are given: there is nothing to tune in a frame of the field's own.
STEPS = nd.HMC(step_size=0.6)
#: A Markov field on a line: neighbours have correlation .6.
FIELD, LENGTH = 0.6 ** np.abs(np.subtract.outer(np.arange(8), np.arange(8))), 8
PATCH = nd.exact.GaussianMixture(0.3 * np.ones((1, 4)), FIELD[None, :4, :4], name="patch")
#: Windows that overlap, also at another scale.
WINDOWS = [(PATCH, 0), (PATCH, 2), (PATCH, 3), (PATCH, 4), (PATCH, 0, 2, None, 0.25)]


def closed_form(density, t=0.0):
    """Precision [D, D], mean [D] and log integral of a product of views of `PATCH` at time t, in double precision."""
    alpha, sigma = (float(f(t)) for f in (density.schedule.alpha, density.schedule.sigma))
    precision, pull, constant = np.zeros((LENGTH, LENGTH)), np.zeros(LENGTH), 0.0
    for leaf, a in density.terms:
        A = np.asarray(leaf.view.matrix, np.float64)
        C = alpha**2 * FIELD[:4, :4] + sigma**2 * A @ A.T
        m = alpha * 0.3 * np.ones(4)
        precision += a * A.T @ np.linalg.solve(C, A)
        pull += a * A.T @ np.linalg.solve(C, m)
        constant -= a * 0.5 * (np.linalg.slogdet(2 * np.pi * C)[1] + m @ np.linalg.solve(C, m))
    mean = np.linalg.solve(precision, pull)
    return precision, mean, constant + 0.5 * (pull @ mean - np.linalg.slogdet(precision / (2 * np.pi))[1])


def test_exponents_share_weights_among_what_overlaps():
    woven = nd.tapestry((LENGTH,), WINDOWS)
    # At the pixels: 1, 1, 2, 3, 3, 3, 2, 1 windows of scale 1.
    expected = [(2 + 1 / 2 + 1 / 3) / 4, (1 / 2 + 3 / 3) / 4, (3 / 3 + 1 / 2) / 4, (2 / 3 + 1 / 2 + 1) / 4, 0.25]
    np.testing.assert_allclose(woven.coefficients, expected, rtol=1e-6)
    assert sum(expected[:4]) * 4 == pytest.approx(LENGTH)
    np.testing.assert_array_equal(nd.tapestry((LENGTH,), WINDOWS, taper=False).coefficients, [1, 1, 1, 1, 0.25])
    np.testing.assert_array_equal(nd.tapestry((LENGTH,), [(PATCH, 0), (PATCH, 4)]).coefficients, [1, 1])
    same = nd.tapestry((4,), [(PATCH, 0), (mixture_of_four(), 0)])
    np.testing.assert_array_equal(same.coefficients, [0.5, 0.5])


def test_windows_round_the_sides_have_exponents_of_sum_one_at_every_pixel():
    woven = nd.tapestry((LENGTH,), [(PATCH, i) for i in range(0, LENGTH, 2)], wrap=True)
    total = sum(float(a) * leaf.view.shares() for leaf, a in woven.terms)
    np.testing.assert_allclose(total, 1.0, rtol=1e-6)
    x = jax.random.normal(KEY, (LENGTH,))
    expected = 0.5 * sum(log_prob_of(PATCH, jnp.roll(x, -i)[:4], 0.3) for i in range(0, LENGTH, 2))
    np.testing.assert_allclose(log_prob_of(woven, x, 0.3), expected, rtol=1e-5)


def mixture_of_four():
    means = np.array([[2.0, 2, -2, -2], [-2.0, -2, 2, 2]])
    return nd.exact.GaussianMixture(means, np.stack([0.3 * np.eye(4)] * 2), [0.3, 0.7], name="two")


@pytest.mark.parametrize("t", [0.0, 0.3, 0.7, 1.0])
def test_a_field_is_the_gaussian_of_added_precisions(t):
    woven = nd.tapestry((LENGTH,), WINDOWS)
    precision, mean, log_z = closed_form(woven, t)
    known = woven.gaussian(t)
    np.testing.assert_allclose(known.covariance, np.linalg.inv(precision), rtol=2e-3, atol=2e-3 * known.variance.max())
    np.testing.assert_allclose(known.mean, mean, rtol=1e-3, atol=1e-3)
    x = mean + np.linalg.cholesky(np.linalg.inv(precision)) @ np.random.default_rng(0).normal(size=(LENGTH, 4))[:, 0]
    expected = log_z - 0.5 * (x - mean) @ precision @ (x - mean) + 0.5 * np.linalg.slogdet(precision / 2 / np.pi)[1]
    np.testing.assert_allclose(log_prob_of(woven, x, t), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_windows_over_overlaps_are_a_markov_field_itself():
    whole = nd.exact.GaussianMixture(np.zeros((1, 8)), FIELD[None])
    patch, pair = (nd.exact.GaussianMixture(np.zeros((1, n)), FIELD[None, :n, :n]) for n in (4, 2))
    seen = lambda d, i: d.seen(nd.crop(i), (8,))
    junctions = nd.product(
        seen(patch, 0), seen(patch, 2), seen(patch, 4), seen(pair, 2), seen(pair, 4), exponents=[1, 1, 1, -1, -1]
    )
    x = jax.random.normal(KEY, (5, 8))
    np.testing.assert_allclose(log_prob_of(junctions, x), log_prob_of(whole, x), rtol=1e-5)
    # Of denominators the frame takes a little less.
    np.testing.assert_allclose(junctions.gaussian(0.0).covariance, FIELD, atol=0.02)


@pytest.mark.slow
def test_evidence_and_covariance_of_a_field():
    woven = nd.tapestry((LENGTH,), WINDOWS)
    run = nd.anneal(KEY, woven, STEPS, num_chains=4000, levels=12, progress_bar=False)
    precision, mean, log_z = closed_form(woven)
    assert run.log_evidence == pytest.approx(log_z, abs=max(5 * run.log_evidence_error, 0.02))
    cov = np.linalg.inv(precision)
    error = np.sqrt((cov**2 + np.outer(np.diag(cov), np.diag(cov))) / len(run.samples))
    assert np.all(np.abs(np.cov(run.samples.T) - cov) < 5 * error)
    assert np.all(np.abs(run.samples.mean(0) - mean) < 5 * np.sqrt(np.diag(cov) / len(run.samples)))


@pytest.mark.slow
def test_patches_that_tile_are_their_exact_product():
    patch = mixture_of_four()
    woven = nd.tapestry((LENGTH,), [(patch, 0), (patch, 4)])
    run = nd.anneal(KEY, woven, nd.HMC(step_size=0.3), num_chains=4000, levels=30, progress_bar=False)
    assert run.log_evidence == pytest.approx(0.0, abs=max(5 * run.log_evidence_error, 0.02))
    first, second = (run.samples[:, i] > 0 for i in (0, 4))
    counts = np.array([[np.mean(a & b) for b in (second, ~second)] for a in (first, ~first)])
    expected = np.outer([0.3, 0.7], [0.3, 0.7])
    families = len(np.unique(run.ancestors))
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected / families))


@pytest.mark.slow
def test_a_canvas_is_inpainted():
    woven = nd.tapestry((LENGTH,), WINDOWS)
    y = np.array([1.0, -1.0, 0.5])

    def model():
        x = numpyro.sample("x", nd.DiffusionPrior(woven))
        numpyro.sample("y", dist.Normal(x[3:6], 0.3), obs=y)

    mcmc = nd.AnnealedMCMC(model, STEPS, num_chains=2000, levels=20, progress_bar=False)
    mcmc.run(KEY)
    precision, mean, log_z = closed_form(woven)
    H = np.eye(8)[3:6]
    posterior = np.linalg.inv(precision + H.T @ H / 0.09)
    expected = posterior @ (precision @ mean + H.T @ y / 0.09)
    x = np.asarray(mcmc.get_samples()["x"])
    assert np.all(np.abs(x.mean(0) - expected) < 6 * np.sqrt(np.diag(posterior) / 500))
    np.testing.assert_allclose(np.cov(x.T), posterior, atol=0.12)
    S = H @ np.linalg.inv(precision) @ H.T + 0.09 * np.eye(3)
    e = y - H @ mean
    marginal = -0.5 * (e @ np.linalg.solve(S, e) + np.linalg.slogdet(2 * np.pi * S)[1])
    # A prior that is not normalised has its own integral in the evidence.
    assert mcmc.log_evidence == pytest.approx(log_z + marginal, abs=max(5 * mcmc.annealed.log_evidence_error, 0.05))


@pytest.mark.slow
def test_scores_alone_make_a_tapestry():
    score = ScoreOf(PATCH)
    woven = nd.tapestry((LENGTH,), [(score, 0), (score, 2), (score, 4)])
    assert not woven.has_log_density
    exact = nd.tapestry((LENGTH,), [(PATCH, 0), (PATCH, 2), (PATCH, 4)])
    run = nd.anneal(KEY, woven, nd.Reverse(weighted=True), num_chains=2000, levels=40, progress_bar=False)
    precision, _, log_z = closed_form(exact)
    assert run.log_evidence == pytest.approx(log_z, abs=0.1)
    np.testing.assert_allclose(np.diag(np.cov(run.samples.T)), np.diag(np.linalg.inv(precision)), rtol=0.15)


SHAPE = (4, 4, 2)


def cosine_field(mean):
    """A Gaussian of images whose variances lie along cosines, as those of trained networks."""
    variance = jnp.exp(-jnp.linspace(-2.0, 3.0, 32))
    known = Gaussian(jnp.linspace(-mean, mean, 32), variance, CosineAxes(SHAPE))
    schedule = nd.VariancePreserving.cosine()

    def fn(known, x, t):
        return known.noised(schedule.alpha(t), schedule.sigma(t)).log_prob(x.ravel())

    density = nd.as_density(fn, SHAPE, parameters=known, normalised=True, name="cosines")
    density.moments = known
    return density


@pytest.mark.slow
def test_images_start_exactly():
    patch = cosine_field(0.5)
    places = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    woven = nd.tapestry((8, 8, 2), [*((patch, at) for at in places), (patch, (0, 0), 2, None, 0.25)])

    @jax.jit
    def starts(woven, keys):
        x, log_prob = jax.vmap(woven.start)(keys)
        return x, jax.vmap(woven.first_log_density)(x.reshape(-1, 8, 8, 2)) - log_prob, woven.gaussian(0.0)

    x, gap, frame = starts(woven, jax.random.split(KEY, 4000))
    np.testing.assert_allclose(gap, jnp.mean(gap), atol=5e-3)

    def precision(t):
        r = float(woven.schedule.noise_to_signal(t))
        axes, variance = (np.asarray(a, np.float64) for a in (patch.moments.axes.vectors, patch.moments.variance))
        found = np.zeros((128, 128))
        for leaf, a in woven.terms:
            A, noise = np.asarray(leaf.view.matrix, np.float64), (float(leaf.view.scale) * r) ** 2
            found += float(a) * A.T @ (axes / (variance + noise)) @ axes.T @ A
        return found / float(woven.schedule.alpha(t)) ** 2

    std = np.sqrt(np.diag(np.linalg.inv(precision(1.0))))
    np.testing.assert_allclose(jnp.std(x, axis=0), std, rtol=5 / np.sqrt(2 * 4000))
    # The frame along cosines is the diagonal of the same precision.
    along = np.asarray(frame.axes.vectors, np.float64)
    np.testing.assert_allclose(frame.variance, 1 / np.diag(along.T @ precision(0.0) @ along), rtol=1e-3)


def test_captions_are_conditions():
    model = network(condition_size=2)
    woven = nd.tapestry((4,), [(model, 0, 1, [1, 0]), (model, 2, 1, [0, 1])])
    x = jax.random.normal(KEY, (3, 4))
    expected = log_prob_of(model.given([1, 0]), x[:, :2], 0.4) + log_prob_of(model.given([0, 1]), x[:, 2:], 0.4)
    np.testing.assert_allclose(log_prob_of(woven, x, 0.4), expected, rtol=1e-5)
    assert len(woven.models) == 1


REFUSED = {
    "no windows": (lambda: nd.tapestry((4,), []), ParameterError, r"at least one density"),
    "windows that are none": (lambda: nd.tapestry((4,), None), ArgumentTypeError, r"windows must be.*got None"),
    "a taper that is no flag": (lambda: nd.tapestry((4,), [(PATCH, 0)], taper=6), ParameterError, r"taper must be"),
    "no window": (lambda: nd.tapestry((4,), [PATCH]), ArgumentTypeError, r"tuple \(density, place"),
    "too many fields": (lambda: nd.tapestry((4,), [(PATCH, 0, 1, None, 1, 2)]), ArgumentTypeError, r"tuple \(density"),
    "text for a density": (lambda: nd.tapestry((4,), [("patch", 0)]), ArgumentTypeError, r"tuple \(density"),
    "outside": (lambda: nd.tapestry((8,), [(PATCH, 5)]), ShapeError, r"at \(5,\).*outside the canvas of \(8,\)"),
    "too large a scale": (lambda: nd.tapestry((8,), [(PATCH, 0, 3)]), ShapeError, r"\(12,\) pixels.*lower its scale"),
    "a scale that is no whole number": (
        lambda: nd.tapestry((8,), [(PATCH, 0, 1.5)]), ParameterError, r"scale.*integer >= 1; got 1\.5"),
    "a negative place": (lambda: nd.tapestry((8,), [(PATCH, -1)]), ParameterError, r"place.*>= 0; got -1"),
    "two places on a line": (lambda: nd.tapestry((8,), [(PATCH, (0, 1))]), ParameterError, r"must be \(place\)"),
    "gaps": (
        lambda: nd.tapestry((12,), [(PATCH, 0), (PATCH, 8)]), ParameterError, r"4 of 12 components, 4 to 7, are seen"),
    "means alone": (
        lambda: nd.tapestry((8, 8, 2), [(cosine_field(0.0), (0, 0), 2), (cosine_field(0.0), (4, 4))]), ParameterError,
        r"48 of 64 pixels, within rows 0 to 7 and columns 0 to 7.*at full resolution"),
    "other channels": (
        lambda: nd.tapestry((8, 8, 3), [(cosine_field(0.0), (0, 0))]), ShapeError, r"channels of the canvas, \(8, 8"),
    "other axes": (lambda: nd.tapestry((8, 8), [(PATCH, (0, 0))]), ShapeError, r"axes.*canvas.*\(4,\)"),
    "other schedules": (
        lambda: nd.tapestry((4,), [(gaussian(), 0), (exploding(), 2)]), ScheduleError, r"one schedule.*with_schedule"),
    "a weight of zero": (
        lambda: nd.tapestry((4,), [(PATCH, 0, 1, None, 0)]), ParameterError, r"weight.*positive.*got 0"),
    "a weight of text": (lambda: nd.tapestry((4,), [(PATCH, 0, 1, None, "x")]), ParameterError, r"weight"),
    "a caption for what takes none": (
        lambda: nd.tapestry((4,), [(PATCH, 0, 1, [1.0])]), ArgumentTypeError, r"takes no captions.*conditions="),
    "a caption of another length": (
        lambda: nd.tapestry((2,), [(network(condition_size=2), 0, 1, [1.0])]), ShapeError, r"condition must have"),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)


def test_mixtures_of_captions_in_a_window():
    """(p + q) / 2 seen in one window is the same formula of what both see."""
    p, q = mixture("p"), gaussian(name="q")
    woven = nd.tapestry((4,), [(0.5 * p + 0.5 * q, 0), (p, 2)])
    x = jax.random.normal(KEY, (3, 4))
    expected = log_prob_of(0.5 * p + 0.5 * q, x[:, :2], 0.3) + log_prob_of(p, x[:, 2:], 0.3)
    np.testing.assert_allclose(log_prob_of(woven, x, 0.3), expected, rtol=1e-5)
