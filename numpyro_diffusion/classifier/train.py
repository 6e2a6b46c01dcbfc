r"""Classifiers of images: trained by cross entropy, used to judge samples, for their features, and for guidance.

classes      num_outputs = k              p(class | x), softmax; labels are integers
yes or no    num_outputs = 1              p(yes | x), sigmoid; labels are 0 and 1
at a place   with a `position_width`      p(a cube at y | x), and the place y is part of the question
with noise   with an `embedding_size`     p(class | x_t, log noise level), whose gradient guides a sampler
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tqdm import tqdm

from ..checks.text import check_name, shown
from ..disk import contents
from ..disk import format as checkpoint
from ..errors import ParameterError, ShapeError, check_key, check_untraced
from ..networks.classifier import ClassifierConfig
from ..program import Traced, trace
from ..train.optimise import TrainingConfig
from .batch import Batch, check_batch, check_values, fixed_batch

#: Optimiser steps in one compiled program, and images classified at a time.
STEPS, CHUNK = 50, 256


@partial(jax.tree_util.register_dataclass, data_fields=["state"], meta_fields=["config", "name"])
@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained network: its weights and its architecture. A pytree; the functions of this module take it first."""

    state: Any
    config: ClassifierConfig
    name: str = ""

    def __repr__(self) -> str:
        return f"Classifier({self.name!r}, {self.config})"


def train_classifier(
    rng_key: jax.Array,
    data: Callable[[jax.Array, int], Batch] | Batch,
    *,
    config: ClassifierConfig,
    training: TrainingConfig | None = None,
    name: str = "",
    progress_bar: bool = True,
) -> Classifier:
    """A classifier that minimises the mean cross entropy; the weights are averaged over the last steps.

    Args:
        rng_key: Random key; the same key gives the same weights on the same machine.
        data: Sampler `(rng_key, num_samples) -> Batch`, called within `jax.jit`, or a fixed `Batch` to draw from.
        config: Architecture.
        training: Number of steps, batch size, learning rate; 2,000 steps of 128 images by default.
        name: Shown by the progress bar and stored.
        progress_bar: Whether to show one.

    Raises:
        ShapeError: if images, labels, places or noise levels do not fit the architecture.
        ParameterError: if the loss is not finite; lower the learning rate.
    """
    training = TrainingConfig(num_steps=2_000, batch_size=128, ema_decay=0.99) if training is None else training
    for what, value, cls in (("config", config, ClassifierConfig), ("training", training, TrainingConfig)):
        if not isinstance(value, cls):
            raise ParameterError(f"{what} must be a {cls.__name__}; got {shown(value)}.")
    check_name(name)
    check_untraced("train_classifier", rng_key, data)
    rng_key = check_key(rng_key)
    # What a sampler reads, it reads now.
    size = training.batch_size
    batches = (
        trace(lambda key: Batch(*data(key, size)), rng_key, differentiated=False)
        if callable(data)
        else fixed_batch(data, config)
    )
    check_batch(jax.eval_shape(lambda: _draw(batches, rng_key, size)), config, size)
    init_key, step_key = jax.random.split(rng_key)
    _, state = config.build(init_key)
    carry = (state, training.optimiser().init(state), state, jnp.zeros((), int))
    bar = tqdm(total=training.num_steps, disable=not progress_bar, desc=name or "classifier")
    with bar:
        done = 0
        while done < training.num_steps:
            count = min(STEPS, training.num_steps - done)
            carry, losses = _train_steps(carry, step_key, batches, config=config, training=training, count=count)
            done, loss = done + count, float(jnp.mean(losses))
            if not np.isfinite(loss):
                for number in range(done - count, done):
                    key = jax.random.fold_in(step_key, number)
                    check_values(_draw(batches, key, size), config)
                raise ParameterError(f"the loss became {loss} before step {done}. Lower learning_rate.")
            bar.update(count)
            bar.set_postfix(loss=f"{loss:.4f}")
    return Classifier(carry[2], config, name)


def log_prob(classifier: Classifier, images, positions=None, log_noise=None) -> jax.Array:
    """Log probabilities of the classes [n, k], or of yes [n] for a single output; differentiable in the images.

    Args:
        classifier: A trained classifier.
        images: [n, height, width, channels].
        positions: Places [n, 2], or one [2] for all; for a classifier with a place.
        log_noise: Log noise levels [n], or one for all; for a classifier with noise level.

    Raises:
        ShapeError: if the inputs do not fit the classifier.
    """
    logits = _apply(classifier, "__call__", images, positions, log_noise)
    return jax.nn.log_softmax(logits) if classifier.config.num_outputs > 1 else jax.nn.log_sigmoid(logits[:, 0])


def predict(classifier: Classifier, images, positions=None, log_noise=None) -> jax.Array:
    """Probabilities of the classes [n, k], or of yes [n] for a single output; arguments as in `log_prob`."""
    return jnp.exp(log_prob(classifier, images, positions, log_noise))


def features(classifier: Classifier, images, positions=None, log_noise=None) -> jax.Array:
    """Activations [n, hidden_size] before the logits, as for Frechet distances; arguments as in `log_prob`."""
    return _apply(classifier, "features", images, positions, log_noise)


def save_classifier(
    classifier: Classifier, path: str | os.PathLike[str], *, card: dict | None = None, dtype: str = "float16"
) -> None:
    """Write weights (safetensors, in `dtype`) and architecture (JSON) as one file, entirely or not at all.

    Raises:
        ParameterError: for what `load_classifier` would refuse: a name that does not print, weights out of range.
        CheckpointError: if the file cannot be written.
    """
    arrays, card = contents.stored_weights(_checked(classifier).state, dtype), {} if card is None else card
    contents.check_texts(classifier.name, card)
    network = dataclasses.asdict(classifier.config)
    config = {"kind": "classifier", "network": network, "name": classifier.name, "card": card}
    _described(arrays, json.loads(json.dumps(config)))
    checkpoint.write(path, arrays, config)


def load_classifier(path: str | os.PathLike[str]) -> Classifier:
    """The classifier that `save_classifier` wrote.

    Raises:
        CheckpointError: if the file is missing, damaged, foreign, does not fit the architecture it names, or holds
            numbers or texts that no classifier has.
    """
    return checkpoint.load(path, "classifier", _described, "a classifier")


def _described(arrays, config) -> Classifier:
    """The classifier of arrays and a config, which hold what they may hold."""
    contents.check_texts(config["name"] or "", config.get("card", {}))
    network = contents.network_of(
        config["network"], {"ClassifierConfig": ClassifierConfig}, len(arrays), "ClassifierConfig"
    )
    # Built abstractly: no weights are drawn, and no memory is taken that the file does not fill.
    abstract = jax.eval_shape(lambda key: network.build(key)[1], jax.random.key(0))
    state = checkpoint.restored(abstract, arrays)
    if unknown := set(arrays) - set(checkpoint.named_leaves(abstract)):
        raise ParameterError(f"there is no place for {shown(sorted(unknown))}")
    contents.check_weights(arrays)
    return Classifier(state, network, config["name"] or "")


@lru_cache
def _graph(config: ClassifierConfig):
    found = []
    jax.eval_shape(lambda key: found.append(config.build(key)[0]), jax.random.key(0))
    return found[0]


def logits_of(state, config, method, images, positions, log_noise):
    """`method` of the network for images [n, ...]."""
    network = nnx.merge(_graph(config), state)
    return jax.vmap(getattr(network, method), (0, *(None if v is None else 0 for v in (positions, log_noise))))(
        images, positions, log_noise
    )


@partial(jax.jit, static_argnames="method")
def _run(classifier, method, images, positions, log_noise):
    def one(row):
        expanded = jax.tree.map(lambda v: v[None], row)
        return logits_of(classifier.state, classifier.config, method, *expanded)[0]

    return jax.lax.map(one, (images, positions, log_noise), batch_size=CHUNK)


def _checked(classifier) -> Classifier:
    if not isinstance(classifier, Classifier):
        raise ParameterError(f"a trained Classifier comes first, see train_classifier; got {shown(classifier)}.")
    return classifier


def _apply(classifier, method, images, positions, log_noise):
    shape = _checked(classifier).config.image_shape
    try:
        images = jnp.asarray(images)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"images must be an array; got {shown(images)}.") from error
    if images.ndim != 4 or images.shape[1:] != shape:
        raise ShapeError(f"images must have shape [n, *{shape}]; got {images.shape}.")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ShapeError(
            f"images must be floating point, in the scale of the training; got {images.dtype}. Scale them: "
            "x / 127.5 - 1 takes 0..255 to [-1, 1]."
        )
    n, rows = len(images), []
    inputs: list[tuple[str, Any, tuple[int, ...]]] = [
        ("positions", positions, (n, 2)),
        ("log_noise", log_noise, (n,)),
    ]
    for name, value, shape in inputs:
        try:
            rows.append(None if value is None else jnp.broadcast_to(jnp.asarray(value, dtype=float), shape))
        except (TypeError, ValueError) as error:
            raise ShapeError(f"{name} must have shape {shape} or {shape[1:]}; got {shown(value)}.") from error
    return _run(classifier, method, images, *rows)


def _draw(batches: Traced | Batch, rng_key, num_samples: int) -> Batch:
    """A batch by a sampler, which knows its size, or of rows drawn at random."""
    if isinstance(batches, Traced):
        return batches(rng_key)
    rows = jax.random.randint(rng_key, (num_samples,), 0, len(batches.labels))
    return jax.tree.map(lambda values: values[rows], batches)


@partial(jax.jit, static_argnames=("config", "training", "count"))
def _train_steps(carry, rng_key, batches, *, config, training, count):
    optimiser = training.optimiser()

    def loss_fn(state, batch):
        logits = logits_of(state, config, "__call__", batch.images, batch.positions, batch.log_noise)
        if config.num_outputs == 1:
            return jnp.mean(optax.sigmoid_binary_cross_entropy(logits[:, 0], batch.labels))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels))

    def step(carry, _):
        state, optimiser_state, average, number = carry
        batch = _draw(batches, jax.random.fold_in(rng_key, number), training.batch_size)
        loss, gradient = jax.value_and_grad(loss_fn)(state, batch)
        update, optimiser_state = optimiser.update(gradient, optimiser_state, state)
        state = optax.apply_updates(state, update)
        # The mean of the first steps, then exponential: nothing of the initial weights remains.
        decay = jnp.minimum(training.ema_decay, number / (number + 1))
        average = jax.tree.map(lambda a, s: decay * a + (1 - decay) * s, average, state)
        return (state, optimiser_state, average, number + 1), loss

    return jax.lax.scan(step, carry, length=count)
