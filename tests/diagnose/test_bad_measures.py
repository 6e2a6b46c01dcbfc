"""Bad input to metrics, pictures, data sets, judges, guides and classifiers: typed errors, and short reprs."""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from exact_problems import P2

from numpyro_diffusion import classifier
from numpyro_diffusion.classifier import Batch, guide, judge
from numpyro_diffusion.datasets import cubes, digits, planar, targets
from numpyro_diffusion.diagnose import metrics, plots
from numpyro_diffusion.errors import DiffusionError, ParameterError, ShapeError, UnknownNameError
from numpyro_diffusion.networks.classifier import ClassifierConfig
from numpyro_diffusion.train.optimise import TrainingConfig

matplotlib.use("Agg")
KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(20, 2))
MODES, COVARIANCE = np.eye(2), np.eye(2)
TARGET = targets.target("mixture")


def ones(x):
    return np.zeros(len(x))


NOT_POINTS = [np.zeros((0, 2)), np.zeros((3, 0)), np.zeros(3), 1.0, None, "points", [[1.0], [1.0, 2.0]], X * 1j]
NOT_FINITE = [np.full((5, 2), np.nan), np.full((5, 2), np.inf)]
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


REFUSED = {
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
    "labels beyond nine": lambda: digits.one_hot([10]),
    "negative labels": lambda: digits.one_hot([-1]),
    "labels with fractions": lambda: digits.one_hot([0.5]),
    "a split of its own": lambda: digits.images("mine"),
    "a split that is a list": lambda: digits.images(["train"]),
    "a size of True": lambda: cubes.labelled(True),
    "a size with a fraction": lambda: cubes.labelled(16.0),
    "a size that is a list": lambda: cubes.sampler([16]),
    "no draws of a target": lambda: TARGET.sample(0),
    "half a draw of a target": lambda: TARGET.sample(0.5),
    "a target's seed below zero": lambda: TARGET.sample(3, -1),
    "a place of a seed": lambda: cubes.positions(0, 2),
    "True cubes": lambda: cubes.positions(KEY, True),
    "holes of nothing": lambda: targets.hole_fraction(np.zeros((0, 2))),
    "queries of no sampler": lambda: judge.position_queries(X),
    "queries with text for noise": lambda: judge.position_queries(cubes.labelled(16), "much"),
    "a guide of nothing": lambda: guide.likelihood(None, 0),
    "noise on an array": lambda: guide.noised(X),
    "a classifier of an array": lambda: classifier.predict(X, np.zeros((1, 8, 8, 1))),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_with_a_short_text(what):
    with pytest.raises(DiffusionError) as caught:
        REFUSED[what]()
    assert 10 < len(str(caught.value)) < 400 and str(caught.value).isprintable()


SAMPLERS = {
    "planar": planar.sampler("ring"),
    "box": planar.sampler("bar"),
    "digits": digits.sampler,
    "labelled digits": digits.labelled_sampler,
    "cubes": cubes.labelled(8),
    "cubes and a place": cubes.sampler(8),
    "queries": judge.position_queries(cubes.labelled(8)),
    "noised": guide.noised(lambda key, n: (jnp.zeros((n, 8, 8, 1)), jnp.zeros(n, int))),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_take_one_key_and_a_number(name):
    for count in (0, -1, True, 1.5, "3", None):
        with pytest.raises(ParameterError, match="num_samples must be an integer >= 1"):
            SAMPLERS[name](KEY, count)
    for key in (0, None, jax.random.split(KEY, 3), "key"):
        with pytest.raises(ParameterError, match="rng_key must be one JAX key"):
            SAMPLERS[name](key, 3)


def test_names_that_are_none():
    for name in ("circle", ["ring"], None, "x" * 10_000, "\x1b[31m"):
        for call in (planar.exact, planar.sampler, targets.target):
            with pytest.raises(UnknownNameError) as caught:
                call(name)
            assert len(str(caught.value)) < 300 and str(caught.value).isprintable()


SMALL = ClassifierConfig(image_shape=(8, 8, 1), num_outputs=3, widths=(4, 4), hidden_size=4)
IMAGES, LABELS = np.zeros((6, 8, 8, 1), np.float32), np.arange(6) % 3
BATCHES = {
    "labels beyond the classes": (Batch(IMAGES, LABELS + 1), "labels must be classes from 0 to 2; got 1 to 3"),
    "negative labels": (Batch(IMAGES, LABELS - 1), "labels must be classes"),
    "one-hot labels": (Batch(IMAGES, np.eye(3)[LABELS].astype(int)), "argmax"),
    "labels with fractions": (Batch(IMAGES, LABELS + 0.5), "labels must be integers"),
    "too few labels": (Batch(IMAGES, LABELS[:5]), "images must be"),
    "no images": (Batch(IMAGES[:0], LABELS[:0]), "n >= 1"),
    "images of bytes": (Batch(np.zeros((6, 8, 8, 1), np.uint8), LABELS), "floating-point"),
    "images of 1e30": (Batch(IMAGES + 1e30, LABELS), "order one"),
    "images of NaN": (Batch(IMAGES * np.nan, LABELS), "images must be finite"),
    "flat images": (Batch(IMAGES.reshape(6, -1), LABELS), "images must be"),
    "a place for a network without": (Batch(IMAGES, LABELS, np.zeros((6, 2))), "no positions"),
    "noise for a network without": (Batch(IMAGES, LABELS, None, np.zeros(6)), "no log_noise"),
    "text": (Batch(IMAGES, ["a"] * 6), "arrays of numbers"),
    "an array": (IMAGES, "data must be a sampler"),
    "a path": ("data.npy", "data must be a sampler"),
}


@pytest.mark.parametrize("what", BATCHES)
def test_classifiers_are_trained_on_questions_and_answers(what):
    data, message = BATCHES[what]
    with pytest.raises(DiffusionError, match=message) as caught:
        classifier.train_classifier(KEY, data, config=SMALL, progress_bar=False)
    assert len(str(caught.value)) < 400


def test_a_sampler_of_classes_that_do_not_exist_is_told_as_such():
    def draw(rng_key, n):
        return Batch(jax.random.normal(rng_key, (n, 8, 8, 1)), jnp.full(n, 7))

    training = TrainingConfig(num_steps=2, batch_size=4)
    with pytest.raises(ParameterError, match="labels must be classes from 0 to 2; got 7 to 7"):
        classifier.train_classifier(KEY, draw, config=SMALL, training=training, progress_bar=False)


def test_classifiers_settings():
    for settings, message in (({"config": None}, "config must be a ClassifierConfig"), ({"name": "x" * 300}, "name")):
        with pytest.raises(ParameterError, match=message):
            classifier.train_classifier(KEY, Batch(IMAGES, LABELS), **{"config": SMALL} | settings, progress_bar=False)
    trained = classifier.Classifier(SMALL.build(KEY)[1], SMALL)
    for images, message in ((np.zeros((2, 8, 8, 1), np.uint8), "floating point"), ("x", "array"), (IMAGES[0], "shape")):
        with pytest.raises(ShapeError, match=message):
            classifier.predict(trained, images)
    with pytest.raises(ParameterError, match="a judge of places is a Classifier"):
        judge.all_present(trained, IMAGES, np.zeros((1, 2)))
    with pytest.raises(ParameterError, match="label must be one of|a guide needs|guidance needs"):
        guide.likelihood(trained, True)


def test_judges_ask_for_places_that_are():
    config = ClassifierConfig(image_shape=(8, 8, 1), widths=(4, 4), hidden_size=4, position_width=0.1)
    trained = classifier.Classifier(config.build(KEY)[1], config)
    for places, mask in ((np.zeros(2), None), (np.zeros((5, 1, 2)), None), (np.zeros((0, 2)), None),
                         (np.zeros((1, 3)), None), (np.zeros((2, 2)), np.ones(3)), ("here", None)):  # fmt: skip
        with pytest.raises(ShapeError):
            judge.all_present(trained, IMAGES, places, mask)
    with pytest.raises(ParameterError, match="finite"):
        judge.all_present(trained, IMAGES, np.full((1, 2), np.nan))
    for threshold in (-0.1, 1.1, np.nan, "half", True):
        with pytest.raises(ParameterError, match="threshold"):
            judge.all_present(trained, IMAGES, np.zeros((1, 2)), threshold=threshold)
    assert judge.all_present(trained, IMAGES, np.zeros((2, 2)), np.array([True, False])).shape == (6,)


def test_what_they_return_has_a_short_repr():
    scene = cubes.sample_scene(KEY)
    found = [Batch(IMAGES, LABELS), TARGET, scene, cubes.Labels(*(jnp.zeros((9, 5)) for _ in range(4)))]
    for value in found:
        assert repr(value).isprintable() and len(repr(value)) < 250, repr(value)
    assert repr(found[0]) == "Batch(images=float32[6, 8, 8, 1], labels=int64[6], positions=None, log_noise=None)"
    assert repr(TARGET) == "Target('mixture' of left_column, right_column)"
