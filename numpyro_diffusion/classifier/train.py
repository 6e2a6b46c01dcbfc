"""Training of classifiers, by cross entropy."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..checks.fields import check_instance
from ..checks.room import make_room
from ..checks.text import check_name
from ..disk.runs import Keeper
from ..errors import check_key, check_untraced
from ..networks.classifier import ClassifierConfig
from ..program import fingerprint, versions
from ..train.data import Rows, Sampled, digests
from ..train.optimise import TrainingConfig, optimise
from .batch import Batch, check_batch, check_values, fixed_batch
from .classifier import Classifier, by_head, logits_of


def train_classifier(
    rng_key: jax.Array,
    data: Callable[[jax.Array, int], Batch] | Batch,
    *,
    config: ClassifierConfig,
    training: TrainingConfig | None = None,
    name: str = "",
    checkpoint_path: str | os.PathLike[str] | None = None,
    checkpoint_every_seconds: float = 60.0,
    progress_bar: bool = True,
) -> Classifier:
    """A classifier that minimises the mean cross entropy, summed over heads; weights are averaged over the last steps.

    Args:
        rng_key: Random key; the same key gives the same weights on the same machine.
        data: Sampler `(rng_key, num_samples) -> Batch`, called within `jax.jit`, or a fixed `Batch` to draw from.
        config: Architecture.
        training: Number of steps, batch size, learning rate; 2,000 steps of 128 images by default.
        name: Shown by the progress bar and stored.
        checkpoint_path: File to keep the run's state in, from which the same call goes on, as in `nd.fit`.
        checkpoint_every_seconds: The most training time a kill can lose.
        progress_bar: Whether to show one.

    An interrupt (Ctrl-C) ends training early, with a warning, and returns the classifier as trained so far.

    Raises:
        ShapeError: if images, labels, places or noise levels do not fit the architecture.
        ParameterError: if the loss is not finite; lower the learning rate.
        CheckpointError: if `checkpoint_path` belongs to other settings or other data, or another run writes to it.
    """
    training = TrainingConfig(num_steps=2_000, batch_size=128, ema_decay=0.99) if training is None else training
    check_instance("config", config, ClassifierConfig)
    check_instance("training", training, TrainingConfig)
    check_name(name)
    check_untraced("train_classifier", rng_key, data)
    make_room()
    rng_key = check_key(rng_key)
    size = training.batch_size
    if callable(data):
        # What a sampler reads, it reads now.
        batches = Sampled.of(data, rng_key, size, lambda batch: Batch(*batch))
        of_data = batches.identity()
    else:
        batch = fixed_batch(data, config)
        batches, of_data = Rows(batch), digests(batch)
    check_batch(jax.eval_shape(lambda: batches.draw(rng_key, size)), config, size)
    identity = {
        "kind": "classifier training", "network": dataclasses.asdict(config), "training": dataclasses.asdict(training),
        "rng_key": fingerprint(rng_key), **of_data, **versions(),
    }  # fmt: skip
    init_key, step_key = jax.random.split(rng_key)
    _, state = config.build(init_key)
    state = optimise(
        step_key, _Questions(Classifier(state, config, name), batches), state, training,
        Keeper(checkpoint_path, identity, checkpoint_every_seconds), name=name or "classifier",
        progress_bar=progress_bar,
    )  # fmt: skip
    return Classifier(state, config, name)


class _Questions(NamedTuple):
    """A classifier, learnt by cross entropy from questions and answers."""

    classifier: Classifier
    data: Rows | Sampled
    fast_in_scan = True
    #: The mean of the first steps, then exponential: nothing of the initial weights remains.
    ema_warmup = (0.0, 1.0)

    def draw(self, rng_key, config: TrainingConfig):
        return self.data.draw(rng_key, config.batch_size), None

    def loss(self, weights, batch, rng_key, config: TrainingConfig):
        network = self.classifier.config
        logits = logits_of(weights, network, "__call__", batch.images, batch.positions, batch.log_noise)
        if network.num_outputs == 1:
            return jnp.mean(optax.sigmoid_binary_cross_entropy(logits[:, 0], batch.labels))
        labels = batch.labels.reshape(len(logits), -1)
        losses = [
            optax.softmax_cross_entropy_with_integer_labels(part, labels[:, i])
            for i, part in enumerate(by_head(network, logits))
        ]
        return jnp.sum(jnp.mean(jnp.stack(losses), axis=1))

    def check(self, batch) -> None:
        check_values(batch, self.classifier.config)
