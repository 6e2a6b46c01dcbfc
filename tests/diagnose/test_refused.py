"""Metrics, pictures, summaries and data trees: bad input."""

import numpy as np
import pytest
from exact_problems import P2
from refusals import assert_refused, assert_short, refusals

from numpyro_diffusion.datasets import targets
from numpyro_diffusion.diagnose import metrics, plots
from numpyro_diffusion.diagnose.datatree import to_datatree
from numpyro_diffusion.diagnose.summary import summary
from numpyro_diffusion.errors import ParameterError, ShapeError, UnknownNameError

X = np.random.default_rng(0).normal(size=(20, 2))
MODES, COVARIANCE = np.eye(2), np.eye(2)
TARGET = targets.target("mixture")
NOT_POINTS = [np.zeros((0, 2)), np.zeros((3, 0)), np.zeros(3), 1.0, None, "points", [[1.0], [1.0, 2.0]], X * 1j]
NOT_FINITE = [np.full((5, 2), np.nan), np.full((5, 2), np.inf)]


def normal(n, d=2, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


#: What is refused: (call, error, words of the message: rule, value, remedy).
REFUSED = {
    "summarise a number": (lambda: summary(1.0), TypeError, "takes the result of nd.anneal or of a bound"),
    "a tree of a number": (lambda: to_datatree(1.0), TypeError, "takes the result of nd.anneal or of a bound"),
    "sets of two shapes": (lambda: metrics.log_mmd2(normal(3), normal(4)), ShapeError, "one shape"),
    "no bandwidth": (lambda: metrics.log_mmd2(X, X, [0.0]), ParameterError, "bandwidths must be positive"),
    "no projection": (lambda: metrics.sliced_wasserstein2(X, X, 0), ParameterError, "num_projections"),
    "no points": (lambda: metrics.sliced_wasserstein2(np.zeros(3), np.zeros(3)), ShapeError, "shape"),
    "too few weights": (lambda: metrics.mode_weight_tv(X, np.zeros((2, 2)), [1.0]), ShapeError, "weights"),
    "modes of another dimension": (lambda: metrics.mode_weights(X, np.zeros((2, 3))), ShapeError, "dimension"),
    "axes of text": (lambda: plots.plot_samples(X, ax="a"), ParameterError, "ax must be matplotlib axes; got 'a'"),
    "two axes": (
        lambda: plots.image_grid(np.zeros((1, 4, 4)), ax=np.array([None, None])), ParameterError,
        r"ax must be .*got object\[2\]. Of several, pick one"),
    "no target": (lambda: targets.target("ring"), UnknownNameError, "product, mixture, negation"),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)


SHORT = {
    "a scalar for all": lambda: metrics.log_likelihood(X, lambda x: 0.0),
    "a column": lambda: metrics.log_likelihood(X, lambda x: np.zeros((len(x), 1))),
    "NaN densities": lambda: metrics.log_likelihood(X, lambda x: np.full(len(x), np.nan)),
    "no bandwidths": lambda: metrics.log_mmd2(X, X, ()),
    "a bandwidth of zero": lambda: metrics.log_mmd2(X, X, (0.0,)),
    "bandwidths that are text": lambda: metrics.log_mmd2(X, X, "wide"),
    "chunks of zero": lambda: metrics.log_mmd2(X, X, chunk_size=0),
    "chunks of True": lambda: metrics.log_mmd2(X, X, chunk_size=True),
    "no projections": lambda: metrics.sliced_wasserstein2(X, X, num_projections=0),
    "half a projection": lambda: metrics.sliced_wasserstein2(X, X, num_projections=0.5),
    "projections that are text": lambda: metrics.sliced_wasserstein2(X, X, num_projections="many"),
    "a negative seed": lambda: metrics.sliced_wasserstein2(X, X, seed=-1),
    "negative weights": lambda: metrics.mode_weight_tv(X, MODES, [2.0, -1.0]),
    "weights that sum to two": lambda: metrics.mode_weight_tv(X, MODES, [1.0, 1.0]),
    "NaN weights": lambda: metrics.mode_weight_tv(X, MODES, [np.nan, 1.0]),
    "too many weights": lambda: metrics.mode_weight_tv(X, MODES, [0.5, 0.25, 0.25]),
    "a covariance of another size": lambda: metrics.mode_std_error(X, MODES, np.eye(3)),
    "a negative variance": lambda: metrics.mode_std_error(X, MODES, -np.eye(2)),
    "a covariance of NaN": lambda: metrics.mode_variance_error(X, MODES, np.full((2, 2), np.nan)),
    "a report of nothing": lambda: metrics.report(np.zeros((0, 2)), TARGET),
    "a report of numbers": lambda: metrics.report(np.zeros(5), TARGET),
    "a report of three dimensions": lambda: metrics.report(np.zeros((5, 3)), TARGET),
    "a report on a name": lambda: metrics.report(X, "mixture"),
    "a report with half a seed": lambda: metrics.report(X, TARGET, seed=0.5),
    "features of one image": lambda: metrics.frechet_distance(X[:1], X),
    "features without columns": lambda: metrics.frechet_distance(np.zeros((5, 0)), np.zeros((5, 0))),
    "probabilities of NaN": lambda: metrics.inception_score(np.full((3, 2), np.nan)),
    "probabilities that are text": lambda: metrics.inception_score("high"),
    "pictures of nothing": lambda: plots.plot_samples(np.zeros((0, 2))),
    "pictures of text": lambda: plots.plot_samples("ring"),
    "pictures of complex points": lambda: plots.plot_samples(X * 1j),
    "no points of many": lambda: plots.plot_samples(X, max_points=0),
    "a grid of one": lambda: plots.plot_samples(X, P2, grid_size=1),
    "a level beyond noise": lambda: plots.plot_samples(X, P2, t=1.5),
    "contours of an array": lambda: plots.plot_samples(X, X),
    "limits backwards": lambda: plots.plot_samples(X, limits=((1, 0), (0, 1))),
    "limits of one axis": lambda: plots.plot_samples(X, limits=(0, 1)),
    "annealing of samples": lambda: plots.plot_annealing(X),
    "bounds of a number": lambda: plots.plot_bounds(1.0),
    "bounds of numbers": lambda: plots.plot_bounds([1.0, 2.0]),
    "bounds by name of numbers": lambda: plots.plot_bounds({"a": 1.0}),
}


@pytest.mark.parametrize("what", SHORT)
def test_refused_with_a_short_text(what):
    assert_short(SHORT[what])


def ones(x):
    return np.zeros(len(x))


CALLS = {
    "log_likelihood": lambda x: metrics.log_likelihood(x, ones),
    "fraction_outside": lambda x: metrics.fraction_outside(x, lambda x: np.zeros(len(x), bool)),
    "log_mmd2": lambda x: metrics.log_mmd2(x, X),
    "mode_weights": lambda x: metrics.mode_weights(x, MODES),
    "modes": lambda x: metrics.mode_weights(X, x),
    "mode_variance_error": lambda x: metrics.mode_variance_error(x, MODES, COVARIANCE),
    "sliced_wasserstein2": lambda x: metrics.sliced_wasserstein2(x, X),
    "truth": lambda x: metrics.report(X, TARGET, truth=x),
}


@pytest.mark.parametrize("name", CALLS)
def test_metrics_refuse_what_are_no_points(name):
    for x in NOT_POINTS if name != "truth" else [x for x in NOT_POINTS if x is not None]:
        with pytest.raises(ShapeError):
            CALLS[name](x)
    for x in NOT_FINITE:
        with pytest.raises(ParameterError, match="finite"):
            CALLS[name](x)


def test_bad_features_and_probabilities_are_refused():
    with pytest.raises(ShapeError, match="n >= 2"):
        metrics.frechet_distance(normal(1), normal(9))
    with pytest.raises(ShapeError, match="Use one classifier"):
        metrics.frechet_distance(normal(9, 2), normal(9, 3))
    with pytest.raises(ParameterError, match="sum to one"):
        metrics.inception_score(np.full((3, 2), 0.7))
    with pytest.raises(ShapeError, match=r"\[n, k\]"):
        metrics.inception_score(np.ones(3))
