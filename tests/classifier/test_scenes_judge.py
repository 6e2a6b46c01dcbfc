"""Classifiers with several heads, and the judge of captioned scenes that ships with the package."""

from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import assert_refused, refusals

from numpyro_diffusion import classifier
from numpyro_diffusion.classifier import Batch, scenes
from numpyro_diffusion.datasets import captioned_scenes
from numpyro_diffusion.errors import ParameterError, ShapeError
from numpyro_diffusion.networks.classifier import ClassifierConfig
from numpyro_diffusion.train.optimise import TrainingConfig

TWO = ClassifierConfig(image_shape=(8, 8, 1), num_outputs=5, heads=(2, 3), widths=(8,), hidden_size=12)


def corners(rng_key, num_samples):
    """Pictures [n, 8, 8, 1], dark or bright, with one to three points, and which they are [n, 2]."""
    keys = jax.random.split(rng_key, 3)
    bright = jax.random.bernoulli(keys[0], shape=(num_samples,)).astype(int)
    count = jax.random.randint(keys[1], (num_samples,), 0, 3)
    places = jnp.arange(3) <= count[:, None]
    x = jnp.zeros((num_samples, 8, 8)).at[:, 2, 1:7:2].set(3.0 * places)
    x += 2.0 * bright[:, None, None] - 1 + 0.1 * jax.random.normal(keys[2], x.shape)
    return Batch(x[..., None], jnp.stack([bright, count], axis=-1))


@pytest.mark.slow
def test_each_head_is_learnt_and_sums_to_one(tmp_path):
    training = TrainingConfig(num_steps=200, batch_size=32, learning_rate=1e-2, ema_decay=0.9, max_gradient_norm=5.0)
    found = classifier.train_classifier(jax.random.key(0), corners, config=TWO, training=training, progress_bar=False)
    batch = corners(jax.random.key(1), 200)
    probabilities = np.asarray(classifier.predict(found, batch.images))
    assert probabilities.shape == (200, 5)
    for i, part in enumerate((probabilities[:, :2], probabilities[:, 2:])):
        assert np.allclose(part.sum(1), 1, atol=1e-5)
        assert np.mean(part.argmax(1) == batch.labels[:, i]) > 0.95
    classifier.save_classifier(found, tmp_path / "c.safetensors", dtype="float32")
    loaded = classifier.load_classifier(tmp_path / "c.safetensors")
    assert loaded.config == TWO and np.allclose(classifier.predict(loaded, batch.images), probabilities, atol=1e-6)


@pytest.fixture(scope="module")
def judge():
    folder = resources.files("numpyro_diffusion") / "pretrained" / "classifiers"
    with resources.as_file(folder / "captioned_scenes_32.safetensors") as path:
        return classifier.load_classifier(path)


@pytest.fixture(scope="module")
def pictures():
    x, labels = jax.jit(captioned_scenes.labelled(32), static_argnums=1)(jax.random.key(7), 400)
    return np.asarray(x), captioned_scenes.Labels(*map(np.asarray, labels))


@pytest.mark.slow
def test_answers_are_classes_of_their_questions(pictures):
    found = np.asarray(scenes.answers(pictures[1]))
    assert found.shape == (400, 9) and np.array_equal(found.min(0), [0] * 9)
    assert np.array_equal(found.max(0) + 1, scenes.HEADS)
    batch = jax.eval_shape(lambda key: classifier.scene_queries(16)(key, 5), jax.random.key(0))
    assert batch.images.shape == (5, 16, 16, 3) and batch.labels.shape == (5, 9) and batch.positions.shape == (5, 2)


@pytest.mark.slow
def test_the_judge_sees_what_is_there(judge, pictures):
    x, labels = pictures
    judged = classifier.judged_labels(judge, x)
    for name, values in labels._asdict().items():
        right = getattr(judged, name) == values
        assert right.shape == values.shape and right.mean() > 0.97, name
    captions = ("a cube", "a red ball left of a cone", "sand at night", "two objects", "a small cylinder on snow")
    for caption in captions:
        truth, seen = (captioned_scenes.holds(caption, one) for one in (labels, judged))
        assert np.mean(truth == seen) > 0.97, caption
    assert np.array_equal(judged.depth >= 0, judged.count == 2)
    assert np.array_equal(judged.shape[:, 1] >= 0, judged.count == 2)


def labels_of(values):
    images = np.zeros((len(values), 8, 8, 1), np.float32)
    return lambda: classifier.train_classifier(jax.random.key(0), Batch(images, values), config=TWO)


@refusals({
    "sum": (lambda: ClassifierConfig(num_outputs=4, heads=(2, 3)), ParameterError, "heads must be numbers of classes"),
    "one class": (lambda: ClassifierConfig(num_outputs=4, heads=(1, 3)), ParameterError, "each at least 2"),
    "labels": (labels_of(np.zeros(6, int)), ShapeError, r"labels must be integers.*shape \(6, 2\)"),
    "range": (labels_of(np.full((6, 2), 2)), ParameterError, "classes from 0 to 1; got 2 to 2"),
    "no judge": (lambda: classifier.judged_labels(None, 0), ParameterError, "a judge of scenes is a Classifier"),
    "noise": (lambda: classifier.scene_queries(16, -1), ParameterError, r"max_noise must lie in \[0"),
})  # fmt: skip
def test_refused(call, error, words):
    assert_refused(call, error, words)
