"""Densities, schedules and what is asked of them: bad input."""

import jax
import numpy as np
import pytest
from densities import X, box, exploding, function, gaussian, mixture, network, three_dimensional
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ParameterError, ScheduleError, ScoreOnlyError, ShapeError

KEY = jax.random.key(0)
POINT = np.zeros(2)
EYE = np.eye(2)


#: What is refused: (call, error, words of the message: rule, value, remedy).
REFUSED = {
    "points of another dimension": (
        lambda: gaussian().log_prob(np.zeros(3)), ShapeError, r"\(2,\).*got \(3,\)"),
    "a batch of another dimension": (
        lambda: network().score(np.zeros((5, 3)), 0.5), ShapeError, r"\(2,\).*got \(5, 3\)"),
    "a scalar for a point": (lambda: gaussian().log_prob(0.0), ShapeError, r"got \(\)"),
    "complex points": (lambda: gaussian().log_prob(1j * POINT), ShapeError, r"real.*got dtype complex.*astype"),
    "points of text": (lambda: gaussian().log_prob(["a", "b"]), ShapeError, r"numeric array.*got list"),
    "boolean points": (lambda: gaussian().log_prob(POINT > 0), ShapeError, r"real numbers.*bool.*astype"),
    "t above one": (lambda: gaussian().log_prob(POINT, 1.5), ParameterError, r"t must lie in \[0, 1\].*got 1.5"),
    "t below zero": (lambda: (gaussian() * box()).score(POINT, -0.1), ParameterError, r"\[0, 1\].*got -0.1"),
    "t not a number": (lambda: gaussian().log_prob(POINT, np.nan), ParameterError, r"\[0, 1\].*got nan"),
    "t of text": (lambda: gaussian().log_prob(POINT, "late"), ParameterError, r"number in \[0, 1\].*'late'"),
    "one of many t": (
        lambda: gaussian().log_prob(np.zeros((2, 2)), np.array([0.5, 2.0])), ParameterError, r"\[0, 1\].*2\."),
    "t for the potential": (lambda: box().potential_fn(2.0), ParameterError, r"\[0, 1\].*got 2.0"),
    "t for samples": (lambda: box().sample(KEY, 3, 1.1), ParameterError, r"\[0, 1\].*got 1.1"),
    "as many t as no points": (
        lambda: gaussian().log_prob(np.zeros((4, 2)), np.full(3, 0.5)), ShapeError,
        r"match the batch of x, \(4,\); got shape \(3,\).*add an axis"),
    "other event shapes": (
        lambda: gaussian() * three_dimensional(), ShapeError, r"one event shape; got \(2,\) and \(3,\)"),
    "other schedules": (
        lambda: gaussian() * exploding(), ScheduleError, r"one schedule; got Variance.*and Variance.*with_schedule"),
    "other schedules in a sum": (lambda: gaussian() + exploding(), ScheduleError, r"one schedule.*with_schedule"),
    "potential of a score": (
        lambda: network("score").potential_fn(0.5), ScoreOnlyError, r"only a score.*nd.distil.*nd.anneal"),
    "score of a mixture with a score": (
        lambda: (gaussian() + network("score")).score(POINT, 0.5), ScoreOnlyError, r"mixes.*nd\.Reverse\(\)"),
    "probes of a flow": (
        lambda: network("score").flow_log_prob(POINT, num_probes=1), ParameterError, r"num_probes.*2.*got 1"),
    "means of one axis": (
        lambda: nd.exact.GaussianMixture([0.0, 0.0], EYE[None]), ShapeError,
        r"means must have 2 axes"),
    "covariances that do not match": (
        lambda: nd.exact.GaussianMixture(np.zeros((2, 2)), EYE[None]), ShapeError, r"\(2, 2, 2\).*got \(1, 2, 2\)"),
    "weights that do not match": (
        lambda: nd.exact.GaussianMixture([POINT], [EYE], [0.5, 0.5]), ShapeError, r"\(1,\).*got \(2,\)"),
    "mixture weight zero": (
        lambda: nd.exact.GaussianMixture([POINT] * 2, [EYE] * 2, [1.0, 0.0]), ParameterError, r"positive.*Leave out"),
    "covariance not symmetric": (
        lambda: nd.exact.GaussianMixture([POINT], [[[1.0, 0.5], [0.0, 1.0]]]), ParameterError, r"symmetric"),
    "covariance not positive": (
        lambda: nd.exact.GaussianMixture([POINT], [[[1.0, 0.0], [0.0, -1.0]]]), ParameterError, r"definite.*-1"),
    "means NaN": (lambda: nd.exact.GaussianMixture([[0.0, np.nan]], [EYE]), ParameterError, r"means must be finite"),
    "means of text": (lambda: nd.exact.GaussianMixture([["a", "b"]], [EYE]), ShapeError, r"means must be a numeric"),
    "box inside out": (lambda: nd.exact.UniformBox([0, 0], [1, -1]), ParameterError, r"low must be below high.*got"),
    "box of two shapes": (lambda: nd.exact.UniformBox([0, 0], [1]), ShapeError, r"one shape; got \(2,\) and \(1,\)"),
    "box NaN": (lambda: nd.exact.UniformBox([0, np.nan], [1, 1]), ParameterError, r"low must be finite"),
    "not a function": (lambda: nd.as_density(3.0, (2,)), TypeError, r"takes a function.*got float"),
    "one moment": (lambda: nd.as_density(lambda x, t: 0.0, (2,), mean=POINT), ShapeError, r"both mean and covariance"),
    "moments of another shape": (
        lambda: nd.as_density(lambda x, t: 0.0, (2,), mean=POINT, covariance=np.eye(3)), ShapeError,
        r"\[2\] and \[2, 2\].*got"),
    "a function that returns a vector": (
        lambda: nd.as_density(lambda x, t: x, (2,)).log_prob(POINT), ShapeError,
        r"scalar for one point; got shape \(2,\)"),
    "a third coordinate of two": (
        lambda: nd.as_density(lambda x, t: x[2], (2,)).log_prob(POINT), ShapeError, "index 2 out of .* size 2"),
    "a function beyond its levels": (
        lambda: function().with_schedule(nd.VarianceExploding(0.0, 1e3)), ScheduleError, r"asks for.*Choose"),
    "unknown shape": (lambda: nd.VariancePreserving("sine"), ParameterError, r"'cosine' or 'linear'; got 'sine'"),
    "no noise": (lambda: nd.VariancePreserving.cosine(0.0), ParameterError, r"sigma_max must be positive.*got 0.0"),
    "rates that fall": (
        lambda: nd.VariancePreserving.linear(2.0, 1.0), ParameterError,
        r"beta_max must exceed beta_min"),
    "noise that falls": (lambda: nd.VarianceExploding(2.0, 1.0), ParameterError, r"sigma_min < sigma_max; got 2.0"),
    "noise NaN": (lambda: nd.VarianceExploding(sigma_max=np.nan), ParameterError, r"sigma_max must be positive.*nan"),
    "one level": (lambda: nd.VarianceExploding().levels(1), ParameterError, r"at least 2; got 1"),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)


def test_function_refuses_levels_it_does_not_know():
    with pytest.raises(nd.errors.ScheduleError, match=r"known for noise-to-signal ratios.*Choose a schedule"):
        function().with_schedule(nd.VarianceExploding(0.0, 500.0))


def test_score_model_refuses_what_needs_a_log_density():
    model, other = network("score"), mixture("p")
    needing = {
        "potential_fn": lambda: model.potential_fn(0.5),
        "potential_fn of a product": lambda: (model * other).potential_fn(0.5),
        "potential_fn of a mixture": lambda: (0.5 * model + 0.5 * other).potential_fn(0.5),
    }
    for name, ask in needing.items():
        with pytest.raises(nd.errors.ScoreOnlyError, match=r"needs a log density, but .* has only a score\. Use"):
            ask()
            pytest.fail(name)


def test_mixtures_of_score_models_have_no_score_at_a_point():
    model, other = network("score"), mixture("p")
    mixed = {
        "mixture": 0.5 * model + 0.5 * other,
        "named mixture": nd.mixture(other, model),
        "harmonic mean": nd.harmonic_mean(model, other),
        "contrast": nd.contrast(other, model),
        "mixture of a product": model * other + other,
    }
    for name, density in mixed.items():
        assert not density.has_log_density and not density.has_increments, name
        with pytest.raises(nd.errors.ScoreOnlyError, match=r"shares at one point need log densities.*nd\.Reverse\(\)"):
            density.score(X, 0.5)
            pytest.fail(name)


@pytest.mark.parametrize("density", [gaussian(), box()], ids=str)
@pytest.mark.parametrize("key", [0, None, np.zeros(4, np.uint32), jax.random.split(jax.random.key(0))], ids=repr)
def test_what_is_no_key(density, key):
    with pytest.raises(ParameterError, match=r"one JAX key such as jax.random.key\(0\); got"):
        density.sample(key, 3)
