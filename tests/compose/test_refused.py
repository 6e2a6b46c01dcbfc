"""Named compositions and compositions of conditions: bad input."""

import numpy as np
from densities import box, exploding, gaussian, mixture, network, three_dimensional
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ParameterError, ScheduleError, ScoreOnlyError, ShapeError

#: What mixtures of score-only models say where they are asked at a point.
MIXED = r"mixes score-only models.*nd\.Reverse\(\).*nd\.distil"
#: What is refused: (call, error, words of the message: rule, value, remedy).
REFUSED = {
    "no product": (lambda: nd.product(), ParameterError, r"at least one density; got none"),
    "no mixture": (lambda: nd.mixture(), ParameterError, r"at least one density; got none"),
    "a function in a product": (
        lambda: nd.product(gaussian(), lambda x, t: 0.0), TypeError, r"takes densities; got function.*nd.as_density"),
    "too few exponents": (
        lambda: nd.product(gaussian(), box(), exponents=[1.0]), ParameterError,
        r"exponents must be 2.*got shape \(1,\)"),
    "exponents NaN": (
        lambda: nd.product(gaussian(), box(), exponents=[1.0, np.nan]), ParameterError, r"finite; got .*nan"),
    "exponents of text": (lambda: nd.product(gaussian(), exponents=["x"]), ParameterError, r"1 real numbers; got"),
    "too many weights": (
        lambda: nd.mixture(gaussian(), box(), weights=[1, 2, 3]), ParameterError,
        r"weights must be 2.*got shape \(3,\)"),
    "a weight of zero": (
        lambda: nd.mixture(gaussian(), box(), weights=[1, 0]), ParameterError, r"positive; got.*0.*Leave out"),
    "a weight below zero": (
        lambda: nd.mixture(gaussian(), box(), weights=[2, -1]), ParameterError, r"positive; got.*-1.*Leave out"),
    "negation by nothing": (
        lambda: nd.negation(gaussian(), box(), 0.0), ParameterError, r"\(0, 1\]; got 0.0.*p / q \*\* alpha"),
    "negation too strong": (lambda: nd.negation(gaussian(), box(), 1.5), ParameterError, r"\(0, 1\]; got 1.5"),
    "negation with a floor of one": (
        lambda: nd.negation(gaussian(), box(), floor=1.0), ParameterError, r"floor.*\[0, 1\); got 1.0"),
    "negation of a score with a floor, at a point": (
        lambda: nd.negation(gaussian(), network("score"), floor=0.1).score(np.zeros(2)), ScoreOnlyError, MIXED),
    "temperature zero": (lambda: nd.temper(gaussian(), 0.0), ParameterError, r"temperature must be positive; got 0"),
    "temperature negative": (
        lambda: nd.temper(gaussian(), -1), ParameterError,
        r"temperature must be positive; got -1"),
    "temperature infinite": (lambda: nd.temper(gaussian(), np.inf), ParameterError, r"temperature must be finite"),
    "guidance by text": (
        lambda: nd.guided(gaussian(), box(), "much"), ParameterError,
        r"scale must be one real number"),
    "guidance NaN": (lambda: nd.guided(gaussian(), box(), np.nan), ParameterError, r"scale must be finite; got nan"),
    "alpha zero": (lambda: nd.harmonic_mean(gaussian(), box(), alpha=0.0), ParameterError, r"\(0, 1\); got 0.0"),
    "alpha one": (lambda: nd.contrast(gaussian(), box(), alpha=1), ParameterError, r"\(0, 1\); got 1.0"),
    "alpha NaN": (lambda: nd.contrast(gaussian(), box(), alpha=np.nan), ParameterError, r"alpha must be finite"),
    "alpha by place": (lambda: nd.harmonic_mean(gaussian(), box(), 0.5), TypeError, r"got float.*by keyword"),
    "alpha for three": (
        lambda: nd.harmonic_mean(gaussian(), box(), mixture(), alpha=0.5), ParameterError,
        r"two densities; got 3.*weights"),
    "alpha for a contrast of three": (
        lambda: nd.contrast(gaussian(), box(), mixture(), alpha=0.5), ParameterError, r"two densities; got 3.*weights"),
    "alpha and weights": (
        lambda: nd.contrast(gaussian(), box(), alpha=0.5, weights=[1, 1]), ParameterError, r"not both"),
    "weights of a harmonic mean": (
        lambda: nd.harmonic_mean(gaussian(), box(), weights=[1, -1]), ParameterError, r"positive; got"),
    "harmonic mean across shapes": (
        lambda: nd.harmonic_mean(gaussian(), three_dimensional()), ShapeError, r"\(2,\) and \(3,\)|\(3,\) and \(2,\)"),
    "harmonic mean across schedules": (
        lambda: nd.harmonic_mean(gaussian(), exploding()), ScheduleError, r"one schedule.*with_schedule"),
    "mixture of scores, at a point": (
        lambda: nd.mixture(network("score"), box()).score(np.zeros(2)), ScoreOnlyError, MIXED),
    "harmonic mean of scores, at a point": (
        lambda: nd.harmonic_mean(network("score"), box()).score(np.zeros(2)), ScoreOnlyError, MIXED),
    "contrast of scores, at a point": (
        lambda: nd.contrast(box(), network("score")).score(np.zeros(2)), ScoreOnlyError, MIXED),
    "condition of another length": (
        lambda: network(condition_size=2).given(np.zeros(3)), ShapeError, r"\(2,\); got \(3,\)"),
    "condition without a network for it": (lambda: network().given([1.0]), ShapeError, r"without conditions.*nd.fit"),
    "conditions as one vector": (
        lambda: nd.compose_conditions(network(condition_size=2), [1.0, 0.0]), ShapeError, r"\[c, k\]; got \(2,\)"),
    "conditions of another length": (
        lambda: nd.compose_conditions(network(condition_size=2), np.zeros((2, 3))), ShapeError, r"\(2,\); got \(3,\)"),
    "conditions of text": (
        lambda: nd.compose_conditions(network(condition_size=2), [["a", "b"]]), ShapeError, r"array \[c, k\]; got"),
    "no conditions": (
        lambda: nd.compose_conditions(network(condition_size=2), np.zeros((0, 2))), ParameterError, r"at least one"),
    "too few condition weights": (
        lambda: nd.compose_conditions(network(condition_size=2), np.eye(2), [1.0]), ParameterError, r"must be 2"),
    "conditions on an exact density": (
        lambda: nd.compose_conditions(gaussian(), [[1.0]]), TypeError, r"trained with conditions.*product"),
    "guidance without conditions": (
        lambda: nd.classifier_free_guided(gaussian(), [1.0], 2.0), TypeError, r"trained with conditions"),
    "guidance on an unconditional network": (
        lambda: nd.classifier_free_guided(network(), [1.0], 2.0), ShapeError, r"without conditions"),
    "guidance scale infinite": (
        lambda: nd.classifier_free_guided(network(condition_size=1), [1.0], np.inf), ParameterError, r"must be finite"),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)
