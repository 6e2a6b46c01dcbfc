"""The check that speaks: laws of what it compares with, right models passed, wrong conventions named."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapters.closed_form import BETAS, SCHEDULES, adapted, exact
from densities import COVARIANCES, MEANS, WEIGHTS, mixture
from quick import quick_among
from refusals import assert_refused, assert_short, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.adapters.best_possible import BestPossible
from numpyro_diffusion.adapters.noised import by_pair, noised
from numpyro_diffusion.adapters.readings import KINDS, Products, Reading, rule
from numpyro_diffusion.datasets import planar
from numpyro_diffusion.errors import DiagnosticWarning, ParameterError, ScheduleError, ShapeError, TracedError

KEY = jax.random.key(0)
TABLE, LAST = nd.NoiseSchedule.from_betas(BETAS), len(BETAS) - 1
DATA = np.asarray(mixture().sample(jax.random.key(7), 600))
FEW = {"num_points": 128, "levels": 6}


def check(density, data: Any = DATA, **options):
    return nd.check_model(density, data, **FEW | options)


def of_table(fn, make=nd.from_noise_prediction, timesteps="fractional"):
    return make(fn, (2,), TABLE, timesteps=timesteps, name="network")


EXACT = {prediction: exact(prediction, TABLE, "fractional") for prediction in ("noise", "velocity", "denoiser")}


# What is compared with.


def test_noise_comes_in_pairs_of_mean_square_one():
    draws = noised(np.random.default_rng(0), DATA, np.arange(20), 51, 3)
    half = len(draws.points) // 2
    assert half == 25 and draws.noise.shape == (3, 50, 2)
    np.testing.assert_array_equal(draws.noise[:, :half], -draws.noise[:, half:])
    np.testing.assert_array_equal(draws.points, DATA[draws.rows])
    np.testing.assert_allclose(np.mean(draws.noise**2, axis=(1, 2)), 1.0)
    assert set(draws.rows) == set(range(20))
    np.testing.assert_allclose(by_pair(np.arange(6.0)[None]), [[1.5, 2.5, 3.5]])


@pytest.mark.parametrize("shape", [(2000, 2), (300, 8), (60, 100)])
def test_the_best_possible_lies_between_floor_and_reference(shape):
    rng = np.random.default_rng(1)
    scales = np.linspace(0.5, 2.0, shape[1])
    data = 3 + scales * rng.standard_normal(shape)
    draws = noised(rng, data, np.arange(len(data) // 2), 256, 1)
    best = BestPossible(data, draws.rows)
    for ratio in (0.2, 1.0, 5.0):
        noise, rest = draws.noise[0], scales**2 / (scales**2 + ratio**2)
        y = draws.points + ratio * noise
        found = best.at(y, draws.rows, noise, ratio)
        exactly = (y - 3 - rest * (y - 3)) / ratio  # the posterior mean of a Gaussian
        errors = [np.mean((prediction - noise) ** 2, axis=1) for prediction in (found.noise, exactly)]
        # Paired: both are of the same noise.
        gaps = by_pair((errors[0] - errors[1])[None])[0]
        assert gaps.mean() > -5 * gaps.std() / np.sqrt(len(gaps))
        assert found.floor < np.mean(errors[1]) + 5 * np.std(errors[1]) / np.sqrt(len(y))
        if shape[0] == 2000:
            assert np.mean(errors[0]) < np.mean(errors[1]) + 0.02  # and with many points all but touches it


@pytest.mark.parametrize("scaling", ["variance_preserving", "variance_exploding", "linear_flow"])
def test_every_kind_of_output_gives_the_noise_back(scaling):
    rng = np.random.default_rng(2)
    r = np.geomspace(0.05, 20, 4)
    alpha = {"variance_preserving": 1 / np.hypot(1, r), "variance_exploding": 1 + 0 * r, "linear_flow": 1 / (1 + r)}[
        scaling
    ]
    sigma = alpha * r
    clean, noise = rng.standard_normal((2, 4, 5, 3))
    a, s = alpha[:, None, None], sigma[:, None, None]
    x = a * clean + s * noise
    outputs = {
        "noise": noise, "denoiser": clean, "velocity": a * noise - s * clean, "flow": noise - clean,
        "score": -noise / s, "residual": s * noise,
    }  # fmt: skip
    assert set(outputs) == set(KINDS)
    for kind, output in outputs.items():
        first, second = rule(kind, a, s)
        np.testing.assert_allclose(first * output + second * x, noise, atol=1e-10)
        right = Products(-2 * output, x, noise, alpha, sigma).errors(Reading(kind, -0.5))
        np.testing.assert_allclose(right, 0, atol=1e-8)
        products = Products(0.3 * output, x, noise, alpha, sigma)
        factors = {reading.kind: reading.factor for reading in products.readings() if abs(reading.factor) != 1}
        assert factors[kind] == pytest.approx(1 / 0.3)
        wrong = np.mean((first * 0.3 * output + second * x - noise) ** 2, axis=-1)
        np.testing.assert_allclose(products.errors(Reading(kind, 1.0)), np.minimum(wrong, 10), atol=1e-8)


# Right models.


RIGHT = {"betas": "noise", "cosine": "velocity", "exploding": "denoiser", "flow": "score", "sigmas": "noise"}


@pytest.mark.parametrize("schedule", quick_among(SCHEDULES, ["betas"]))
def test_what_is_right_is_passed(schedule):
    prediction = RIGHT[schedule]
    report = check(adapted(prediction, schedule))
    assert report.findings == [] and report.is_trusted.all()
    assert np.all(report.floor <= report.reference + 0.02)
    assert np.all(report.error < report.reference + 0.02) and np.all(report.excess < 0.05)
    assert report.trusted == pytest.approx((report.ratios[-1], report.ratios[0]))


@pytest.mark.slow
def test_a_trained_score_and_a_closed_form_are_passed():
    report = check(nd.load_pretrained("ring_score"), planar.sampler("ring")(KEY, 500))
    assert report.findings == [] and 0 < report.curl.max() < 0.1
    report = check(mixture())
    assert report.findings == [] and np.all(report.curl == 0)


@pytest.mark.slow
def test_a_conditional_model_is_checked_under_a_condition():
    schedule = nd.VariancePreserving.cosine()
    moved = lambda x, t, c: exact("noise", schedule)(x - schedule.alpha(t) * c, t)
    density = nd.from_noise_prediction(moved, (2,), schedule, conditions=jnp.zeros(2), name="moved")
    assert check(density.given([2.0, -1.0]), DATA + np.array([2.0, -1.0])).findings == []
    assert check(density.given([2.0, -1.0])).findings != []
    assert check(density.given(None)).findings == []


def whitened():
    """The mixture in units in which the data have mean zero and variance one."""
    mean, scale = DATA.mean(), float(np.sqrt(DATA.var(axis=0).mean()))
    return nd.exact.GaussianMixture((MEANS - mean) / scale, COVARIANCES / scale**2, WEIGHTS)


# Wrong conventions, each with the words that name it.


def network(conventions, x, k):
    """What a network predicts that follows conventions: one program for all of them."""
    k = jnp.where(conventions["reversed"], LAST - k, jnp.clip(conventions["counts"] * k, 0, LAST))
    outputs = [EXACT[kind](x, k) for kind in ("noise", "velocity")]
    return conventions["factor"] * jnp.stack(outputs)[conventions["kind"]]


def following(make=nd.from_noise_prediction, **conventions):
    """A network that follows conventions as its adapter is told of it, but for those given."""
    usual = {"reversed": False, "counts": 1.0, "kind": 0, "factor": 1.0}
    weights = {key: jnp.asarray(value) for key, value in (usual | conventions).items()}
    return make(network, (2,), TABLE, parameters=weights, timesteps="integer", name="network")


WRONG = {
    "velocity": ({"kind": 1}, ["looks like velocity", "nd.from_velocity"]),
    "sign": ({"factor": -1.0}, ["sign is flipped"]),
    "scale": ({"factor": 3.0}, ["times as large", "multiply the output by 0.3"]),
    "reversed": ({"reversed": True}, ["other way", "timesteps=jnp.arange(1000)[::-1]"]),
    "told t": ({"counts": float(LAST)}, ["told its time t", "timesteps='time'"]),
    "two at once": ({"kind": 1, "reversed": True}, ["looks like velocity", "other way"]),
}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("what", quick_among(WRONG, ["velocity", "sign"]))
def test_what_is_wrong_is_named(what):
    conventions, words = WRONG[what]
    report = check(following(**conventions))
    assert all(word.lower() in report.findings[0].lower() for word in words), report.findings
    assert report.trusted is None and not report.is_trusted.any()


@pytest.mark.slow
def test_other_units_of_the_data_are_named():
    assert check(following()).findings == []
    report = check(of_table(exact("noise", TABLE, "fractional", whitened())), 3 * DATA + 5)
    assert "other units" in report.findings[0] and "variance one" in report.findings[0]


def test_a_density_of_ones_own_is_asked_at_other_times():
    backwards = nd.as_density(lambda x, t: mixture().log_density(x, 1 - t), (2,), name="backwards")
    report = check(backwards)
    assert "the other way" in report.findings[0]


def test_what_no_convention_explains_is_said_too():
    report = check(mixture(), DATA + np.array([3.0, 0.0]))
    assert "worse than what the data alone say" in report.findings[0] and "mean brightness drifts" in report.findings[1]
    assert report.drift[0] < -1 and not report.is_trusted[0]


def test_curl_and_missing_scores_are_findings():
    exactly = jax.grad(mixture().log_density)

    turn = jnp.array([[1.0, -0.3], [0.3, 1.0]])
    report = check(nd.from_score(lambda x, t: turn @ exactly(x, t), (2,), mixture().schedule))
    assert any("not a gradient" in finding for finding in report.findings) and report.curl.max() > 0.1
    broken = nd.as_density(
        lambda x, t: mixture().log_density(x, t) * jnp.where(t > 0.9, jnp.nan, 1.0), (2,), name="broken"
    )
    report = check(broken)
    assert "NaN or infinite" in report.findings[0] and not report.is_trusted[0] and report.is_trusted[-1]
    assert report.trusted is not None and report.trusted[1] < report.ratios[0]


def test_noise_that_does_not_drown_the_data():
    report = check(mixture(schedule=nd.VarianceExploding(sigma_max=2.0)))
    assert "does not drown" in report.findings[-1]


# The report.


def test_the_report_reads_well_and_is_kept():
    report = check(adapted(), levels=5)
    text = str(report)
    assert "network on data with noise" in text and text.count("+-") == 10 and "findings  none" in text
    assert "trusted   from" in text and repr(report) == "ModelReport(network: no findings)"
    tree = report.to_datatree()["check"]
    np.testing.assert_array_equal(tree["error"], report.error)
    assert tree.attrs["num_points"] == 128


def test_the_picture_shows_the_report():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    report = check(adapted(), levels=5)
    panels = report.plot().axes
    assert len(panels) == 4
    np.testing.assert_array_equal(panels[0].lines[0].get_ydata(), report.error)
    np.testing.assert_array_equal(panels[1].lines[0].get_xdata(), report.ratios)
    matplotlib.pyplot.close("all")


@pytest.mark.slow
def test_one_key_one_report_and_data_of_other_types():
    density = adapted()
    first, again = check(density, rng_key=KEY), check(density, rng_key=KEY)
    np.testing.assert_array_equal(first.error, again.error)
    assert not np.array_equal(first.error, check(density, rng_key=jax.random.key(1)).error)
    times = [0.2, 0.6]
    report = check(density, np.round(100 * DATA).astype(int) // 100, levels=times)
    np.testing.assert_allclose(report.levels, times[::-1])
    assert report.num_points == 128 and check(density, num_points=33).num_points == 32


def test_data_of_something_else_are_no_convention():
    """Where data are near a Gaussian, many readings of an output of nearly nothing predict well."""
    ring, data = planar.exact("ring"), np.random.default_rng(0).standard_normal((400, 2))
    assert "No other convention explains it: check that these data" in check(ring, data, num_points=512).findings[0]
    few = check(ring, data, num_points=8)
    assert not few.is_trusted.all() and "too few points" in few.findings[0]


@pytest.mark.slow
def test_adapters_check_when_data_are_given():
    with pytest.warns(DiagnosticWarning, match="looks like velocity"):
        nd.from_noise_prediction(EXACT["velocity"], (2,), TABLE, timesteps="fractional", data=DATA[:200])


IMAGES = np.random.default_rng(0).normal(size=(20, 3, 4, 4))
REFUSED = {
    "no density": (lambda: check(lambda x: x), TypeError, "takes a density; got function"),
    "no array": (lambda: check(mixture(), "data"), TypeError, r"array of real numbers.*Draw from a sampler first"),
    "another shape": (lambda: check(mixture(), np.zeros((20, 3))), ShapeError, r"shape \[n, \*\(2,\)\]; got \(20, 3\)"),
    "one point": (lambda: check(mixture(), np.zeros(2)), ShapeError, r"got \(2,\)"),
    "channels first": (
        lambda: check(nd.as_density(lambda x, t: -jnp.sum(x**2), (4, 4, 3)), IMAGES), ShapeError,
        r"np.moveaxis\(data, 1, -1\)",
    ),
    "few points": (lambda: check(mixture(), DATA[:15]), ParameterError, "at least 16 points; got 15"),
    "NaN": (lambda: check(mixture(), np.where(DATA > 1, np.nan, DATA)), ParameterError, "finite; got .* Leave those"),
    "constant": (lambda: check(mixture(), np.ones((50, 2))), ParameterError, "data must vary"),
    "a product": (lambda: check(mixture() ** 2.0), ParameterError, r"no noised product; got .*Check its factors"),
    "a bad key": (lambda: check(mixture(), rng_key=3), ParameterError, "rng_key"),
    "no points": (lambda: check(mixture(), num_points=0), ParameterError, "num_points must be an integer >= 2"),
    "one level": (lambda: check(mixture(), levels=1), ParameterError, "levels must be an integer >= 2"),
    "times beyond 1": (lambda: check(mixture(), levels=[0.5, 2.0]), ScheduleError, r"times in \(0, 1\]"),
    "time 0": (lambda: check(mixture(), levels=[0.0, 0.5]), ScheduleError, "nothing to predict"),
    "levels as text": (lambda: check(mixture(), levels="all"), ScheduleError, "or how many"),
    "data beyond the noise": (
        lambda: check(adapted(schedule="exploding"), 1e5 * DATA), ScheduleError, "Bring the data to the units"
    ),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)
    assert_short(call)


def test_not_under_jit():
    with pytest.raises(TracedError, match="nd.check_model"):
        jax.jit(lambda x: nd.check_model(mixture(), x).error)(DATA)
