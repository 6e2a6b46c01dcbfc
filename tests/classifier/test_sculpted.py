"""Sculpting by a joint classifier: against closed forms with perfect answers, and learnt ones."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.classifier import JointClassifier, sculpted, train_joint_classifier
from numpyro_diffusion.errors import ArgumentTypeError, CheckpointError, ParameterError, ShapeError, TracedError
from numpyro_diffusion.networks.classifier import ClassifierConfig
from numpyro_diffusion.pytree import register

#: Cells that do not overlap, and how much of each the three models have: P(y | x_0) is constant in a cell.
MEANS, WIDTH = np.array([[-2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, -2.0]]), 0.2
A = np.array([[0.25, 0.25, 0.25, 0.25], [0.6, 0.4, 0.0, 0.0], [0.3, 0.0, 0.7, 0.0]])
WEIGHTS = np.array([0.5, 0.3, 0.2])


def cells(a, **settings):
    kept = a > 0
    covariances = np.repeat(WIDTH**2 * np.eye(2)[None], kept.sum(), 0)
    return nd.exact.GaussianMixture(MEANS[kept], covariances, a[kept], **settings)


MODELS = [cells(a, name=f"p{i}") for i, a in enumerate(A, 1)]


@jax.jit
def scores(density, x, t):
    return jax.vmap(jax.grad(density.log_density), (0, None))(x, t)


@register((), ("num_labels",))
class Perfect:
    """E[prod_j P(y_j | x_0) | x], where the cells of x_0 are known."""

    event_shape, num_models, resolution = (2,), 3, 1e-3

    def __init__(self, num_labels):
        self.num_labels = num_labels

    def log_prob(self, x, r):
        mixed = WEIGHTS @ A
        logs = jnp.log(mixed) - jnp.sum((x - MEANS) ** 2, 1) / (2 * (WIDTH**2 + r**2))
        said = jnp.asarray(WEIGHTS[:, None] * A / mixed)
        joint = jax.nn.softmax(logs)
        for _ in range(self.num_labels):
            joint = joint[..., None, :] * said
        return jnp.log(jnp.sum(joint, -1) + 1e-30)


def noised_truth(labels):
    """The cells' masses of p(x | labels), and log P(labels)."""
    mixed = WEIGHTS @ A
    said = WEIGHTS[:, None] * A / mixed
    mass = mixed * np.prod(said[[label - 1 for label in labels]], axis=0)
    return mass / mass.sum(), np.log(mass.sum())


@pytest.mark.slow
@pytest.mark.parametrize("labels", [[3], [1, 2], [2, 2], [3, 3, 1]])
def test_perfect_answers_give_the_noised_sculpted_density(labels):
    truth = cells(noised_truth(labels)[0])
    for t in (0.02, 0.2, 0.7):
        x = truth.sample(jax.random.key(0), 50, t)
        found, wanted = scores(sculpted(MODELS, Perfect(3), labels), x, t), truth.score(x, t)
        np.testing.assert_allclose(found, wanted, atol=2e-3 * float(jnp.max(jnp.abs(wanted))))


def test_fewer_labels_are_read_off_a_classifier_of_more():
    x = 2 * jax.random.normal(jax.random.key(1), (20, 2))
    found, wanted = (scores(sculpted(MODELS, Perfect(k), [2, 1]), x, 0.4) for k in (3, 2))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 0.5, 20.0, -1])
def test_scale_multiplies_the_gradient_of_the_answers(scale):
    x = 2 * jax.random.normal(jax.random.key(2), (20, 2))
    mixture, once, more = (scores(sculpted(MODELS, Perfect(2), [1, 2], scale=s), x, 0.3) for s in (0, 1, scale))
    np.testing.assert_allclose(mixture, cells(WEIGHTS @ A).score(x, 0.3), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(more, mixture + scale * (once - mixture), rtol=1e-3, atol=1e-3)


def test_read_under_another_schedule_and_compiled():
    """p'(x, t') = p(x alpha / alpha', t) where the noise-to-signal ratios are the same."""
    density, schedule = sculpted(MODELS, Perfect(2), [1, 2]), nd.VarianceExploding(sigma_max=50.0)
    converted, t = density.with_schedule(schedule), jnp.asarray(0.4)
    ratio = density.schedule.noise_to_signal(t)
    alpha, there = density.schedule.alpha(t), schedule.time(ratio)
    y = 2 * jax.random.normal(jax.random.key(3), (20, 2))
    found = jax.jit(lambda d, y: scores(d, y, there))(converted, y)
    np.testing.assert_allclose(found, alpha * scores(density, alpha * y, t), rtol=1e-3, atol=1e-3)


def test_below_the_resolution_it_stays_what_it_is():
    mixture = sculpted(MODELS, Perfect(2), [1, 2]).leaves[0]
    schedule, y = mixture.schedule, MEANS[0] + 1e-3
    least = schedule.time(Perfect.resolution)
    one, other = (schedule.alpha(t) * scores(mixture, schedule.alpha(t) * y[None], t) for t in (0.0, least))
    np.testing.assert_allclose(one, other, rtol=1e-4)
    assert mixture.resolution == Perfect.resolution and not mixture.has_log_density


@pytest.mark.slow
def test_reverse_diffusion_draws_the_sculpted_cells():
    labels = [1, 2]
    run = nd.anneal(
        jax.random.key(4), sculpted(MODELS, Perfect(2), labels), nd.Reverse(), num_chains=1000, levels=32,
        progress_bar=False,
    )  # fmt: skip
    found = np.argmin(((np.asarray(run.samples)[:, None] - MEANS) ** 2).sum(-1), axis=1)
    p = noised_truth(labels)[0]
    error = np.sqrt(p * (1 - p) / 1000) + 1e-3
    assert np.all(np.abs(np.bincount(found, minlength=4) / 1000 - p) < 5 * error)


@pytest.mark.slow
def test_weighted_paths_know_how_probable_the_answers_are():
    labels = [1, 2]
    run = nd.anneal(
        jax.random.key(5), sculpted(MODELS, Perfect(2), labels), nd.Reverse(weighted=True), num_chains=1000, levels=64,
        progress_bar=False,
    )  # fmt: skip
    assert abs(run.log_evidence - noised_truth(labels)[1]) < 5 * run.log_evidence_error < 0.5


@cache
def learnt(num_steps, num_labels=2):
    return train_joint_classifier(
        jax.random.key(0), [model.sample for model in MODELS], num_labels, weights=WEIGHTS, progress_bar=False,
        network=nd.NetworkConfig(width=32, num_blocks=2),
        training=nd.TrainingConfig(num_steps=num_steps, batch_size=128, learning_rate=5e-3, ema_decay=0.98),
    )  # fmt: skip


def divergence(classifier):
    """Mean of KL(perfect | learnt) in nats, over noised points at all levels."""
    x_key, r_key, noise_key = jax.random.split(jax.random.key(6), 3)
    x = cells(WEIGHTS @ A).sample(x_key, 1000)
    r = jnp.exp(jax.random.uniform(r_key, (1000,), minval=np.log(0.03), maxval=np.log(20)))
    y = x + r[:, None] * jax.random.normal(noise_key, x.shape)
    perfect, found = (jax.vmap(c.log_prob)(y, r) for c in (Perfect(classifier.num_labels), classifier))
    p = jnp.exp(perfect)
    return float(jnp.mean(jnp.sum(jnp.where(p > 0, p * (perfect - found), 0.0), axis=tuple(range(1, p.ndim)))))


@pytest.mark.slow
@pytest.mark.parametrize("num_labels", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_both_phases_learn_the_answers(num_labels):
    early, late = (divergence(learnt(n, num_labels)) for n in (1, 500))
    assert -1e-3 < late < 0.1 * early


@pytest.mark.slow
def test_a_learnt_classifier_sculpts():
    truth = cells(noised_truth([1, 2])[0])
    x = truth.sample(jax.random.key(7), 200, 0.3)
    wanted = truth.score(x, 0.3)
    error = jnp.mean((scores(sculpted(MODELS, learnt(500), [1, 2]), x, 0.3) - wanted) ** 2)
    assert error < 0.05 * jnp.mean(wanted**2)


@pytest.mark.slow
def test_arrays_and_samplers_and_images():
    x = jax.random.normal(jax.random.key(8), (40, 8, 8, 1))
    sampler = lambda key, n: 2 * jax.random.normal(key, (n, 8, 8, 1))
    classifier = train_joint_classifier(
        jax.random.key(0), [np.asarray(x), sampler, x], 2, progress_bar=False,
        training=nd.TrainingConfig(num_steps=2, batch_size=8),
        network=ClassifierConfig((8, 8, 1), widths=(4, 8), embedding_size=8),
    )  # fmt: skip
    logs = jax.vmap(classifier.log_prob)(x, jnp.full(40, 0.3))
    assert logs.shape == (40, 3, 3) and np.allclose(jnp.sum(jnp.exp(logs), (1, 2)), 1, atol=1e-5)
    assert 1.2 < classifier.spread < 1.6 and repr(classifier).startswith("JointClassifier(2 answers about 3 models")


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    def trained(num_labels=2, path=tmp_path / "run"):
        return train_joint_classifier(
            jax.random.key(0), [model.sample for model in MODELS], num_labels, progress_bar=False, checkpoint_path=path,
            network=nd.NetworkConfig(width=8, num_blocks=1), training=nd.TrainingConfig(num_steps=3, batch_size=8),
        )  # fmt: skip

    first = trained()
    assert {path.name for path in tmp_path.iterdir()} == {"run", "run.first"}
    for again in (trained(), trained(path=None)):
        assert jax.tree.all(jax.tree.map(jnp.allclose, again.state, first.state))
    with pytest.raises(CheckpointError, match="num_labels"):
        trained(3)


DRAWS = [np.random.default_rng(0).normal(size=(9, 2)) for _ in range(2)]
SMALL = nd.TrainingConfig(num_steps=1, batch_size=4)


def train(samples=DRAWS, num_labels=2, **settings):
    return train_joint_classifier(
        jax.random.key(0), samples, num_labels, **{"training": SMALL, "progress_bar": False} | settings
    )


@refusals({
    "one model": (lambda: train(DRAWS[:1]), ArgumentTypeError, "two or more"),
    "an array": (lambda: train(DRAWS[0]), ArgumentTypeError, "two or more"),
    "integers": (lambda: train([x.astype(int) for x in DRAWS]), ShapeError, "floating point"),
    "other shapes": (lambda: train([DRAWS[0], DRAWS[1][:, :1]]), ShapeError, "one event shape"),
    "NaN": (lambda: train([DRAWS[0], DRAWS[1] * np.nan]), ParameterError, "finite"),
    "no labels": (lambda: train(num_labels=0), ParameterError, "num_labels must be an integer >= 1"),
    "too many labels": (lambda: train(num_labels=17), ParameterError, "at most 65536; got 2 \\*\\* 17"),
    "weights of others": (lambda: train(weights=[1, 2, 3]), ParameterError, "weights must be 2"),
    "a network of images": (lambda: train(network=ClassifierConfig(embedding_size=8)), ShapeError, "images of shape"),
    "a network of names": (lambda: train(network="mlp"), ArgumentTypeError, "NetworkConfig or ClassifierConfig"),
    "a network with conditions": (
        lambda: train(network=nd.NetworkConfig(condition_size=2)), ParameterError, "no condition",
    ),
    "a network that knows no noise": (
        lambda: train([np.random.rand(9, 16, 16, 3)] * 2, network=ClassifierConfig()), ParameterError, "embedding_size",
    ),
    "inside jit": (lambda: jax.jit(lambda x: train([x, x]))(DRAWS[0]), TracedError, "cannot be traced"),
    "labels outside": (lambda: sculpted(MODELS, Perfect(2), [1, 4]), ParameterError, "from 1 to 3"),
    "labels too many": (lambda: sculpted(MODELS, Perfect(2), [1, 2, 3]), ParameterError, "num_labels=3"),
    "models too few": (lambda: sculpted(MODELS[:2], Perfect(2), [1, 2]), ParameterError, "knows 3 models; got 2"),
    "models of other points": (
        lambda: sculpted([nd.exact.GaussianMixture(np.zeros((1, 3)), np.eye(3)[None])] * 3, Perfect(2), [1]),
        ShapeError, r"shape \(2,\); got \(3,\)",
    ),
    "no classifier": (lambda: sculpted(MODELS, MODELS[0], [1]), ArgumentTypeError, "train_joint_classifier"),
    "no list": (lambda: sculpted(MODELS[0], Perfect(2), [1]), ArgumentTypeError, "list of densities"),
    "no scale": (lambda: sculpted(MODELS, Perfect(2), [1], scale=np.nan), ParameterError, "scale must be finite"),
})  # fmt: skip
def test_refused(call, error, words):
    assert_refused(call, error, words)


@pytest.mark.slow
def test_a_classifier_is_a_pytree():
    classifier = learnt(1)
    again = jax.tree.unflatten(jax.tree.structure(classifier), jax.tree.leaves(classifier))
    assert isinstance(again, JointClassifier) and again.num_labels == 2
    x, r = jnp.ones(2), jnp.asarray(0.5)
    np.testing.assert_allclose(jax.jit(lambda c: c.log_prob(x, r))(classifier), classifier.log_prob(x, r), rtol=1e-5)
