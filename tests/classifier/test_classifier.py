"""Classifiers: classes, places, noise levels; training, judging, storing."""

import dataclasses
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import in_float64

from numpyro_diffusion import classifier
from numpyro_diffusion.classifier import Batch, guide, judge
from numpyro_diffusion.datasets import cubes
from numpyro_diffusion.disk import checkpoint
from numpyro_diffusion.errors import CheckpointError, DiagnosticWarning, ParameterError, ShapeError
from numpyro_diffusion.networks.classifier import ClassifierConfig
from numpyro_diffusion.networks.embedding import position_map
from numpyro_diffusion.train import optimise
from numpyro_diffusion.train.optimise import TrainingConfig

SMALL = ClassifierConfig(image_shape=(8, 8, 1), num_outputs=3, widths=(8, 16), hidden_size=12)
BRIEF = TrainingConfig(num_steps=150, batch_size=64, learning_rate=5e-3, ema_decay=0.9)


def stripes(rng_key, num_samples, noise=0.3):
    """Flat, horizontal and vertical pictures [n, 8, 8, 1] with noise, and which they are."""
    label_key, noise_key = jax.random.split(rng_key)
    labels = jax.random.randint(label_key, (num_samples,), 0, 3)
    wave = jnp.where(jnp.arange(8) % 4 < 2, 1.0, -1.0)
    patterns = jnp.stack([jnp.zeros((8, 8)), jnp.tile(wave[:, None], (1, 8)), jnp.tile(wave, (8, 1))])
    x = patterns[labels] + noise * jax.random.normal(noise_key, (num_samples, 8, 8))
    return Batch(x[..., None], labels)


@pytest.fixture(scope="module")
def striped():
    return classifier.train_classifier(jax.random.key(0), stripes, config=SMALL, training=BRIEF, progress_bar=False)


def test_classes_are_learnt(striped):
    batch = stripes(jax.random.key(9), 500)
    probabilities = classifier.predict(striped, batch.images)
    assert probabilities.shape == (500, 3) and np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert np.mean(probabilities.argmax(1) == batch.labels) > 0.97
    found = classifier.features(striped, batch.images)
    assert found.shape == (500, 12) and np.all(np.std(np.asarray(found), axis=0) > 0)


@pytest.mark.slow
def test_a_fixed_batch_serves_as_data_and_the_key_decides_the_weights():
    batch = stripes(jax.random.key(1), 200)
    brief = dataclasses.replace(BRIEF, num_steps=60)
    one, two = (
        classifier.train_classifier(jax.random.key(3), batch, config=SMALL, training=brief, progress_bar=False)
        for _ in range(2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True))
    assert np.mean(classifier.predict(one, batch.images).argmax(1) == batch.labels) > 0.8


@pytest.mark.slow
def test_a_noise_level_is_used_and_the_log_probability_has_gradients():
    def noised(rng_key, num_samples):
        keys = jax.random.split(rng_key, 3)
        batch = stripes(keys[0], num_samples, 0.1)
        log_noise = jax.random.uniform(keys[1], (num_samples,), minval=-2.0, maxval=2.0)
        r = jnp.exp(log_noise)[:, None, None, None]
        x = (batch.images + r * jax.random.normal(keys[2], batch.images.shape)) / jnp.sqrt(1 + r**2)
        return Batch(x, batch.labels, None, log_noise)

    config = dataclasses.replace(SMALL, embedding_size=8, num_groups=4)
    trained = classifier.train_classifier(jax.random.key(0), noised, config=config, training=BRIEF, progress_bar=False)
    batch = noised(jax.random.key(1), 400)
    log_probs = classifier.log_prob(trained, batch.images, log_noise=batch.log_noise)
    right = np.take_along_axis(np.asarray(log_probs), np.asarray(batch.labels)[:, None], 1)[:, 0]
    quiet = np.asarray(batch.log_noise) < 0
    assert right[quiet].mean() > right[~quiet].mean() and np.exp(right[quiet]).mean() > 0.7
    with jax.enable_x64(True):
        double, x = in_float64(trained), jnp.asarray(batch.images[0], jnp.float64)
        one = jax.jit(lambda x: classifier.log_prob(double, x[None], log_noise=0.5)[0, 1])
        gradient = jax.grad(one)(x)
        step = 1e-5 * gradient / jnp.linalg.norm(gradient)
        assert np.isclose(one(x + step) - one(x - step), 2e-5 * jnp.linalg.norm(gradient), rtol=1e-5)


def test_the_map_of_a_place_has_its_peak_there():
    bump = np.asarray(position_map(jnp.array([0.25, 0.75]), (16, 32, 1), 0.05))[..., 0]
    # The corner of four pixels: rows 11 and 12, columns 7 and 8.
    assert bump.shape == (16, 32) and {*zip(*np.nonzero(bump > bump.max() - 1e-6), strict=True)} >= {(11, 7), (12, 8)}
    assert np.isclose(bump[11, 10], np.exp(-((2.5 / 32) ** 2 + (0.5 / 16) ** 2) / (2 * 0.05**2)), rtol=1e-4)


@pytest.mark.slow
def test_questions_have_the_answers_they_should():
    labelled = cubes.labelled(16)
    queries = jax.jit(judge.position_queries(labelled), static_argnums=1)
    batch = queries(jax.random.key(0), 4_000)
    _, labels = jax.jit(labelled, static_argnums=1)(jax.random.split(jax.random.key(0), 5)[0], 4_000)
    distance = jnp.where(labels.mask, jnp.linalg.norm(batch.positions[:, None] - labels.positions, axis=-1), jnp.inf)
    nearest, yes = np.asarray(distance.min(1)), np.asarray(batch.labels) == 1
    assert abs(yes.mean() - 0.5) < 5 * 0.5 / np.sqrt(4_000)
    assert nearest[yes].max() < judge.NEAR + 1e-5 and nearest[~yes].min() > judge.FAR - 1e-5
    # Half of the noes are hard, and of the others some are close by chance.
    assert 0.5 < np.mean(nearest[~yes] < judge.HARD) < 0.9
    assert np.all((batch.positions >= 0) & (batch.positions <= 1))
    assert judge.position_queries(labelled) is judge.position_queries(labelled)


@pytest.mark.slow
def test_cubes_are_found_where_they_are(tmp_path):
    config = ClassifierConfig(widths=(16, 32), position_width=0.05)
    training = dataclasses.replace(BRIEF, num_steps=300)
    queries = judge.position_queries(cubes.labelled(16))
    trained = classifier.train_classifier(
        jax.random.key(0), queries, config=config, training=training, name="brief", progress_bar=False
    )
    batch = jax.jit(queries, static_argnums=1)(jax.random.key(1), 1_000)
    assert np.mean((classifier.predict(trained, batch.images, batch.positions) > 0.5) == batch.labels) > 0.9
    x, labels = jax.jit(cubes.labelled(16), static_argnums=1)(jax.random.key(2), 200)
    right = judge.all_present(trained, x, labels.positions, labels.mask)
    shuffled = judge.all_present(trained, x, labels.positions[::-1], labels.mask[::-1])
    assert right.shape == (200,) and right.mean() > 0.6 > 0.2 > shuffled.mean()


def test_all_places_must_be_right():
    config = dataclasses.replace(SMALL, num_outputs=1, position_width=0.05)
    fresh = classifier.Classifier(config.build(jax.random.key(0))[1], config)
    x, places = stripes(jax.random.key(0), 6).images, jax.random.uniform(jax.random.key(1), (6, 4, 2))
    single = np.stack([classifier.predict(fresh, x, places[:, k]) for k in range(4)], axis=1)
    threshold = float(np.median(single))
    mask = np.arange(4) < 2
    assert np.array_equal(judge.all_present(fresh, x, places, threshold=threshold), (single > threshold).all(1))
    assert np.array_equal(
        judge.all_present(fresh, x, places, mask, threshold=threshold), (single[:, :2] > threshold).all(1)
    )
    assert judge.all_present(fresh, x, places[0]).shape == (6,)
    with pytest.raises(ShapeError, match=r"positions must have shape \[n, m, 2\] or \[m, 2\]; got \(2,\)"):
        judge.all_present(fresh, x, places[0, 0])


def test_what_is_stored_comes_back(striped, tmp_path):
    path = tmp_path / "striped.safetensors"
    classifier.save_classifier(striped, path, card={"made": "by a test"}, dtype="float32")
    again = classifier.load_classifier(path)
    x = stripes(jax.random.key(5), 20).images
    expected = classifier.predict(striped, x)
    assert again.config == striped.config and np.array_equal(classifier.predict(again, x), expected)
    classifier.save_classifier(striped, path)
    assert np.allclose(classifier.predict(classifier.load_classifier(path), x), expected, atol=0.02)
    arrays, config = checkpoint.read(path, kind="classifier")
    checkpoint.write(path, arrays, config | {"network": config["network"] | {"hidden_size": 13}})
    with pytest.raises(CheckpointError, match="intact but does not describe a classifier"):
        classifier.load_classifier(path)
    checkpoint.write(path, arrays, config | {"kind": "density"})
    with pytest.raises(CheckpointError, match="must hold kind 'classifier'"):
        classifier.load_classifier(path)
    assert json.dumps(config)


def test_a_classifier_is_a_pytree(striped):
    leaves, treedef = jax.tree.flatten(striped)
    again = jax.tree.unflatten(treedef, leaves)
    x = stripes(jax.random.key(5), 5).images
    assert np.allclose(jax.jit(classifier.predict)(again, x), classifier.predict(striped, x), atol=1e-6)
    assert repr(striped).startswith("Classifier('', ClassifierConfig(")


def test_inputs_that_do_not_fit(striped):
    x = jnp.zeros((2, 8, 8, 1))
    with pytest.raises(ShapeError, match=r"images must have shape \[n, \*\(8, 8, 1\)\]; got \(2, 8, 8\)"):
        classifier.predict(striped, x[..., 0])
    with pytest.raises(ShapeError, match=r"the network has no position. Leave out"):
        classifier.predict(striped, x, jnp.zeros(2))
    with pytest.raises(ShapeError, match=r"positions must have shape \(2, 2\) or \(2,\); got"):
        classifier.predict(striped, x, jnp.zeros(3))
    placed = dataclasses.replace(SMALL, position_width=0.1)
    with pytest.raises(ShapeError, match=r"the network has a position. Give"):
        classifier.predict(classifier.Classifier(placed.build(jax.random.key(0))[1], placed), x)
    with pytest.raises(ShapeError, match=r"labels must be integers, .*shape \(64,\).*one-hot"):
        one_hot = lambda key, n: stripes(key, n)._replace(labels=jnp.zeros((n, 3)))
        classifier.train_classifier(jax.random.key(0), one_hot, config=SMALL, training=BRIEF, progress_bar=False)
    with pytest.raises(ParameterError, match="max_noise must lie in"):
        judge.position_queries(cubes.labelled(16), -1.0)
    with pytest.raises(ParameterError, match=r"images must be finite|the loss became nan"):
        broken = stripes(jax.random.key(0), 10)._replace(images=jnp.full((10, 8, 8, 1), jnp.nan))
        classifier.train_classifier(jax.random.key(0), broken, config=SMALL, training=BRIEF, progress_bar=False)


def test_a_guide_is_the_network_at_every_noise_level(striped):
    config = ClassifierConfig(image_shape=(8, 8, 1), num_outputs=2, widths=(8,), embedding_size=8)
    network = classifier.Classifier(config.build(jax.random.key(2))[1], config)
    factor = guide.likelihood(network, 1, event_shape=(64,))
    x, schedule = jax.random.normal(jax.random.key(3), (4, 64)), factor.schedule
    for t in (0.05, 0.6, 1.0):
        alpha, r = schedule.alpha(t), schedule.noise_to_signal(t)
        seen = (x / alpha / jnp.sqrt(1 + r**2)).reshape(4, 8, 8, 1)
        noise = jnp.log(jnp.clip(r, *guide.NOISES))
        expected = classifier.log_prob(network, seen, log_noise=noise)[:, 1]
        assert np.allclose(factor.log_prob(x, t), expected, atol=1e-4)
    with pytest.raises(ParameterError, match="knows the noise level"):
        guide.likelihood(striped, 0)
    with pytest.raises(ParameterError, match="label must be one of 0 to 1"):
        guide.likelihood(network, 2)
    with pytest.raises(ShapeError, match="points have shape"):
        guide.likelihood(network, 0, event_shape=(63,))


def test_noised_batches_are_of_order_one():
    draw = lambda key, n: (jax.random.normal(key, (n, 8, 8, 1)), jnp.arange(n) % 3)
    batch = guide.noised(draw)(jax.random.key(0), 512)
    assert 0.9 < batch.images.std() < 1.1
    assert np.array_equal(batch.labels, np.arange(512) % 3)
    low, high = np.log(guide.NOISES)
    assert low <= batch.log_noise.min() < low + 0.5 and high - 0.5 < batch.log_noise.max() <= high


@pytest.mark.slow
def test_training_that_is_interrupted_goes_on(striped, tmp_path, monkeypatch):
    path, original, settings = tmp_path / "run", optimise._train_chunk, {"config": SMALL, "progress_bar": False}
    training = dataclasses.replace(BRIEF, num_steps=30)
    monkeypatch.setattr(optimise, "CHUNK", 10)

    def train(data=stripes, **changes):
        return classifier.train_classifier(jax.random.key(0), data, **settings | {"training": training} | changes)

    def interrupted(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    whole, before = train(), signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch, pytest.warns(DiagnosticWarning, match="interrupted after step 10 of 30"):
        patch.setattr(optimise, "_train_chunk", interrupted)
        train(checkpoint_path=path)
    signal.signal(signal.SIGINT, before)
    resumed = train(checkpoint_path=path)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True))
    with pytest.raises(CheckpointError, match="other training"):
        train(checkpoint_path=path, training=BRIEF)
    with pytest.raises(CheckpointError, match="other images, labels|other sampler"):
        train(stripes(jax.random.key(0), 64), checkpoint_path=path)
