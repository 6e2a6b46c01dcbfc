"""Normalisers by quadrature: right, warned of, or refused; never silently wrong."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.diagnose.quadrature import Seeds, integrate
from numpyro_diffusion.errors import DiagnosticWarning, ParameterError, ShapeError

VP, VE = nd.VariancePreserving, nd.VarianceExploding


def pair(distance, sd, d=1, schedule=None):
    """Two narrow modes far apart, of weights 1/4 and 3/4."""
    means = np.array([[-1.0, 0.3], [1.0, -0.2]])[:, :d] * distance
    return nd.exact.GaussianMixture(means, np.tile(sd**2 * np.eye(d), (2, 1, 1)), [1, 3], schedule=schedule)


def still(mean, sd=1.0, d=1):
    """A normalised function that ignores its noise level, without moments."""

    def fn(parameters, x, t):
        mean, sd = parameters
        return jnp.sum(jax.scipy.stats.norm.logpdf(x, mean, sd))

    return nd.as_density(fn, (d,), parameters=(jnp.asarray(float(mean)), jnp.asarray(float(sd))))


def checked(density, **settings):
    """The report, asserted to know its own error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DiagnosticWarning)
        report = nd.calibration_report(density, **settings)
    return report


@pytest.mark.quick_cases(1)
@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize(("distance", "sd"), [(10, 1e-3), (10, 0.1), (100, 1e-3), (1000, 0.1)])
def test_narrow_modes_far_apart(distance, sd, d):
    density = pair(distance, sd, d)
    report = checked(density, levels=[0.0, 0.004, 0.6], modes=density.means)
    assert np.abs(report.log_z).max() < 3e-3
    assert 0 < report.log_z_error.max() < 1e-2
    assert report.mode_weights is not None
    np.testing.assert_allclose(report.mode_weights[0], [0.25, 0.75], atol=2e-3)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("narrow", "levels"),
    [(1e-2, [0.0]), (1e-3, [0.3, 0.0]), (1e-5, [0.0, 1.0, 0.01])],
)
def test_one_mode_far_narrower_than_the_other(narrow, levels):
    for d in (1, 2):
        covariances = np.stack([np.eye(d), narrow**2 * np.eye(d)])
        density = nd.exact.GaussianMixture(np.array([[0.0, 0.0], [1.3, 0.4]])[:, :d], covariances, [0.3, 0.7])
        assert np.abs(checked(density, levels=levels).log_z).max() < 3e-3


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("schedule", [VE(), VE(sigma_min=0.002, sigma_max=1.0), VP.linear(), VP.cosine(3.0)], ids=str)
def test_any_schedule(schedule):
    assert np.abs(checked(pair(10, 1e-3, schedule=schedule)).log_z).max() < 3e-3


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("mean", [0.0, 10.0, 1000.0])
def test_functions_without_moments_that_ignore_their_noise_level(mean):
    assert np.abs(checked(still(mean)).log_z).max() < 3e-3
    assert np.abs(checked(still(mean, 0.3, d=2), levels=[0.9, 0.0]).log_z).max() < 3e-3


def test_narrow_modes_of_a_function_that_ignores_its_noise_level():
    def fn(x, t):
        return jnp.logaddexp(*(jnp.sum(jax.scipy.stats.norm.logpdf(x, mean, 1e-3)) for mean in (30.0, -7.0)))

    report = checked(nd.as_density(fn, (2,)), levels=[0.8, 0.0])
    np.testing.assert_allclose(report.log_z, np.log(2), atol=3e-3)


def test_a_needle_of_a_function_that_ignores_its_noise_level():
    def fn(x, t):
        parts = (jax.scipy.stats.norm.logpdf(x[0], *at) for at in ((0.0, 1.0), (4.0, 1e-3)))
        return jnp.logaddexp(*parts) - jnp.log(2)

    assert np.abs(checked(nd.as_density(fn, (1,)), levels=[0.8, 0.0]).log_z).max() < 3e-3


def test_reports_are_short():
    assert repr(checked(still(0.0), levels=[0.5, 0.0])) == (
        "CalibrationReport(fn, by quadrature, 2 levels, largest |Z - 1| 0.0000)"
    )


def test_products_as_their_closed_form():
    def log_z(gap, a, b):
        return -0.5 * gap**2 / (a**2 + b**2) - 0.5 * np.log(2 * np.pi * (a**2 + b**2))

    def gaussian(mean, sd):
        return nd.exact.GaussianMixture([[mean]], [[[sd**2]]])

    report = checked(gaussian(0.0, 1.0) * gaussian(10.0, 0.1), levels=[0.0])
    assert report.log_z[0] == pytest.approx(log_z(10, 1, 0.1), abs=5e-3)
    report = checked(pair(10, 0.01, 2) * pair(10, 0.1, 2), levels=[0.0])
    assert report.log_z[0] == pytest.approx(np.log(10 / 16) + 2 * log_z(0, 0.01, 0.1), abs=5e-3)
    report = checked(gaussian(5.0, 1e-3) ** 3, levels=[0.0])
    assert report.log_z[0] == pytest.approx(-np.log(2 * np.pi * 1e-6) - 0.5 * np.log(3), abs=5e-3)


@pytest.mark.slow
def test_hard_walls_and_narrow_boxes():
    box = nd.exact.UniformBox
    assert np.abs(checked(box([-1.0, -0.5], [0.8, 1.5]), levels=[0.3, 0.0]).log_z).max() < 5e-3
    # Between 50 and 50.001 lie 262 numbers of single precision: two edges are worth half a percent.
    assert abs(checked(box([50.0], [50.001]), levels=[0.0]).log_z[0]) < 1e-2


def test_heavy_tails_and_wrong_moments():
    cauchy = nd.as_density(lambda x, t: -jnp.log(jnp.pi) - jnp.log1p(x[0] ** 2), (1,))
    assert np.abs(checked(cauchy).log_z).max() < 3e-3
    wrong = nd.as_density(
        lambda x, t: jax.scipy.stats.norm.logpdf(x[0], 10.0, 1.0), (1,), mean=[0.0], covariance=[[1e-6]]
    )
    assert np.abs(checked(wrong).log_z).max() < 3e-3


@pytest.mark.parametrize(
    ("fn", "what"),
    [
        (lambda x, t: 0.5 * jnp.sum(x**2), "keeps growing"),
        (lambda x, t: 0.0 * jnp.sum(x), "keeps growing"),
        (lambda x, t: -jnp.inf + 0.0 * jnp.sum(x), "no mass"),
        (lambda x, t: jnp.nan * jnp.sum(x), "no mass"),
    ],
    ids=["improper", "flat", "zero", "NaN"],
)
def test_what_has_no_integral_is_refused(fn, what):
    for d in (1, 2):
        with pytest.raises(ParameterError, match=f"t = 1: .*{what}"):
            nd.calibration_report(nd.as_density(fn, (d,)))


@pytest.mark.parametrize(("bad", "where", "error"), [(np.nan, 0.5, np.inf), (np.inf, 0.5, np.inf), (np.nan, 60.0, 0.0)])
def test_what_is_no_number_is_warned_of(bad, where, error):
    density = nd.as_density(lambda x, t: jnp.where(x[0] > where, bad, -0.5 * x[0] ** 2), (1,))
    with pytest.warns(DiagnosticWarning, match=r"t = 0: log_prob is NaN or \+inf at \d+ points"):
        report = nd.calibration_report(density, levels=0.0)
    assert report.log_z_error[0] == pytest.approx(error, abs=1e-2)


@pytest.mark.slow
def test_what_the_numbers_cannot_hold_is_warned_of():
    # 1e8 nats are known to the nearest eight.
    product = nd.exact.GaussianMixture([[-10.0]], [[[1e-6]]]) * nd.exact.GaussianMixture([[10.0]], [[[1e-6]]])
    with pytest.warns(DiagnosticWarning, match="more than 0.01"):
        report = nd.calibration_report(product, levels=0.0)
    assert report.log_z_error[0] > 8


def test_levels_are_times():
    for levels, error in (([], ShapeError), ([[0.1]], ShapeError), ([1.5], ParameterError), (["a"], ParameterError)):
        with pytest.raises(error):
            nd.calibration_report(still(0.0), levels=levels)


def test_a_function_is_traced_once_a_report():
    traces = []

    def fn(parameters, x, t):
        traces.append(1)
        return jnp.sum(jax.scipy.stats.norm.logpdf(x, parameters, 1.0))

    nd.calibration_report(nd.as_density(fn, (2,), parameters=jnp.zeros(())))
    nd.calibration_report(nd.as_density(fn, (2,), parameters=jnp.ones(())), levels=[0.2])
    assert len(traces) == 2


@pytest.mark.parametrize("d", [1, 2])
def test_rules_are_exact_for_polynomials_within_a_box(d):
    """x^10 on [-1, 1]: to float64's digits, where the box is cut at its walls."""

    def log_density(y):
        with np.errstate(divide="ignore"):
            return np.where(np.all(np.abs(y) < 1, axis=1), 10 * np.sum(np.log(np.abs(y)), axis=1), -np.inf)

    seeds, spread = Seeds(np.zeros((1, d)), np.ones((1, d))), np.ones(d)
    found = integrate(
        log_density, np.zeros(d), spread, seeds, tolerance=1e-3, most=10**6, spacing=lambda y: np.full(len(y), 1e-9)
    )
    assert found.log_z == pytest.approx(d * np.log(2 / 11), abs=1e-12)
    nodes, mass = found.nodes()
    assert mass.sum() == pytest.approx(1)
    assert mass @ nodes[:, 0] ** 2 == pytest.approx(11 / 13, abs=1e-6)
