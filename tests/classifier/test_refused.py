"""Classifiers, judges, guides and samplers: bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import assert_short

from numpyro_diffusion import classifier
from numpyro_diffusion.classifier import Batch, guide, judge
from numpyro_diffusion.datasets import cubes, digits, planar, targets
from numpyro_diffusion.errors import DiffusionError, ParameterError, ShapeError
from numpyro_diffusion.networks.classifier import ClassifierConfig
from numpyro_diffusion.train.optimise import TrainingConfig

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(20, 2))
TARGET = targets.target("mixture")
SMALL = ClassifierConfig(image_shape=(8, 8, 1), num_outputs=3, widths=(4, 4), hidden_size=4)
IMAGES, LABELS = np.zeros((6, 8, 8, 1), np.float32), np.arange(6) % 3


SHORT = {
    "queries of no sampler": lambda: judge.position_queries(X),
    "queries with text for noise": lambda: judge.position_queries(cubes.labelled(16), "much"),
    "a guide of nothing": lambda: guide.likelihood(None, 0),
    "noise on an array": lambda: guide.noised(X),
    "a classifier of an array": lambda: classifier.predict(X, np.zeros((1, 8, 8, 1))),
}


@pytest.mark.parametrize("what", SHORT)
def test_refused_with_a_short_text(what):
    assert_short(SHORT[what])


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


@pytest.mark.slow
def test_what_they_return_has_a_short_repr():
    scene = cubes.sample_scene(KEY)
    found = [Batch(IMAGES, LABELS), TARGET, scene, cubes.Labels(*(jnp.zeros((9, 5)) for _ in range(4)))]
    for value in found:
        assert repr(value).isprintable() and len(repr(value)) < 250, repr(value)
    assert repr(found[0]) == "Batch(images=float32[6, 8, 8, 1], labels=int64[6], positions=None, log_noise=None)"
    assert repr(TARGET) == "Target('mixture' of left_column, right_column)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_shape": (8, 8)}, "image_shape"),
        ({"widths": ()}, "widths"),
        ({"num_outputs": 0}, "num_outputs must be an integer from 1"),
        ({"position_width": -0.1}, "position_width must be >= 0"),
        ({"embedding_size": 3}, "embedding_size must be even"),
        ({"num_groups": 5}, "num_groups must divide"),
    ],
)
def test_architectures_that_cannot_be(change, message):
    with pytest.raises(ParameterError, match=message):
        dataclasses.replace(SMALL, **change)
