r"""Joint classifiers: what k observers would say of a noised point, each which of n models it came from.

Let :math:`x_0` come from the mixture :math:`\sum_i w_i p_i` of models of which only samples and scores are known, and
let each observer answer by :math:`P(y | x_0) = w_y p_y(x_0) / \sum_i w_i p_i(x_0)`. A classifier that sees only
:math:`x = x_0 + r \varepsilon` learns :math:`Q(y_1, ..., y_k | x, r)` in two phases (Garipov et al. 2023, Section 5):

.. math::
    L_1 &= -\log \bar Q(y = i | x_0), \\
    L_2 &= -\sum_{y_2, ..., y_k} \prod_{j \ge 2} \bar Q(y_j | x_0) \, \log Q(y_1 = i, y_2, ..., y_k | x, r),

i the model that :math:`x_0` was drawn from. The first phase, at points without noise, says who would answer what; its
averaged copy stays as it is and gives the soft labels of the second, at noise of all levels. What minimises both is
:math:`Q = E[\prod_j P(y_j | x_0) | x]`, and :math:`\sum_i w_i p_i(x, r) \, Q(y | x, r)` is then the *noised* sculpted
density: see `sculpted`.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from functools import lru_cache, partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ..checks.fields import check_instance
from ..checks.numbers import is_traced
from ..checks.room import make_room
from ..checks.text import check_name, shown
from ..compose.operators import log_weights_of
from ..disk.runs import Keeper
from ..errors import ArgumentTypeError, ParameterError, ShapeError, check_integer, check_key, check_untraced
from ..networks.classifier import ClassifierConfig
from ..networks.config import NetworkConfig
from ..networks.mlp import ResidualMLP
from ..program import fingerprint, versions
from ..pytree import register, replace
from ..train.data import Rows, Sampled, check_data
from ..train.optimise import TrainingConfig, optimise

#: Noise that classifiers are trained on, over the spread of the data; beyond it they are told the nearest.
NOISES = (0.01, 20.0)
#: Samples of a model that its mean and spread are taken from; most joint answers of a classifier.
NUM_MOMENTS, MOST_ANSWERS = 2_000, 2**16


@register(("state", "mean", "spread"), ("config", "event_shape", "num_models", "num_labels", "name"))
class JointClassifier:
    """log Q(y_1, ..., y_k | x, r) of k answers about n models; see the module. Made by `train_joint_classifier`.

    Attributes:
        event_shape: Shape of one point.
        num_models, num_labels: n and k.
        mean, spread: Of the models' samples, [*event_shape] and a number: the network sees (x - mean) /
            sqrt(spread^2 + r^2).
    """

    def __init__(self, state, mean, spread, config, event_shape, num_models: int, num_labels: int, name: str = ""):
        self.state, self.mean, self.spread, self.config = state, mean, spread, config
        self.event_shape, self.num_models, self.num_labels, self.name = event_shape, num_models, num_labels, name

    @property
    def resolution(self) -> Any:
        """The least noise-to-signal ratio that it was trained on; below, answers stay what they are there."""
        return NOISES[0] * (self.spread if is_traced(self.spread) else float(self.spread))

    def log_prob(self, x: jax.Array, r: jax.Array) -> jax.Array:
        """log Q [n, ..., n], k axes, of one point in variance exploding units, x_t / alpha_t, at noise-to-signal r."""
        r = jnp.maximum(r, self.resolution)
        log_r = jnp.log(jnp.clip(r / self.spread, *NOISES))
        seen = (x - self.mean) / jnp.sqrt(self.spread**2 + r**2)
        network = nnx.merge(_graph(self.config, self.event_shape, self.num_models**self.num_labels), self.state)
        is_images = isinstance(self.config, ClassifierConfig)
        logits = network(seen, None, log_r) if is_images else network(jnp.ravel(seen), log_r / 4)
        return jax.nn.log_softmax(logits).reshape((self.num_models,) * self.num_labels)

    def __repr__(self) -> str:
        return f"JointClassifier({self.num_labels} answers about {self.num_models} models, {self.config})"


def train_joint_classifier(
    rng_key: jax.Array,
    samples: Sequence[Any],
    num_labels: int = 2,
    *,
    weights: Any = None,
    network: NetworkConfig | ClassifierConfig | None = None,
    training: TrainingConfig | None = None,
    name: str = "",
    checkpoint_path: str | os.PathLike[str] | None = None,
    progress_bar: bool = True,
) -> JointClassifier:
    """A joint classifier of n models' samples, in two phases of training; see the module.

    Args:
        rng_key: Random key.
        samples: Of each model: points [N, *event_shape], such as those of `nd.anneal(key, model, nd.Reverse())`, or a
            sampler `(rng_key, num_samples) -> points`, such as the one that the model was trained on.
        num_labels: k, the most answers that can be asked for; fewer are read off the same classifier.
        weights: Positive prior weights w_i, one per model, normalised to sum one; equal by default.
        network: For points of any shape a `NetworkConfig`, the default; for images a `ClassifierConfig` with an
            `embedding_size`, the default for points [height, width, channels]. The number of outputs follows.
        training: Settings of each phase; 3,000 steps of 256 points by default.
        name: Shown by the progress bar.
        checkpoint_path: File to keep the run's state in, from which the same call goes on; the first phase's lies
            beside it, ".first" appended.
        progress_bar: Whether to show one.

    Raises:
        ArgumentTypeError: if the samples are no list of two or more.
        ShapeError, ParameterError: if samples, labels, weights or network do not fit each other.
        CheckpointError: if `checkpoint_path` belongs to another run, or another run writes to it.
    """
    check_untraced("train_joint_classifier", rng_key, samples)
    make_room()
    training = TrainingConfig(num_steps=3_000, batch_size=256, ema_decay=0.99) if training is None else training
    check_instance("training", training, TrainingConfig)
    check_name(name)
    if not isinstance(samples, list | tuple) or len(samples) < 2:
        raise ArgumentTypeError(f"samples must be a list of two or more, one for each model; got {shown(samples)}.")
    log_weights = jnp.asarray(log_weights_of(weights, len(samples)), dtype=float)
    num_labels = _checked_count(len(samples), num_labels)
    data_key, *keys = jax.random.split(check_key(rng_key), 3)
    found = [
        check_data(jax.random.fold_in(data_key, i), data, None, NUM_MOMENTS, training.batch_size)
        for i, data in enumerate(samples)
    ]
    mean, spread = _moments([points.data for _, points, _ in found], np.exp(np.asarray(log_weights)))
    config = _checked_network(network, mean.shape)
    identity = {
        "network": dataclasses.asdict(config), "training": dataclasses.asdict(training),
        "rng_key": fingerprint(rng_key), "weights": fingerprint(log_weights), "num_labels": num_labels,
        "samples": [digests for *_, digests in found], **versions(),
    }  # fmt: skip
    classifier, batches = None, tuple(batch for batch, *_ in found)
    for count, key, phase in ((1, keys[0], "first"), (num_labels, keys[1], "second")):
        if num_labels == 1 and phase == "first":
            continue  # the one answer is the source: there is nothing to label
        fresh = JointClassifier(None, mean, spread, config, mean.shape, len(samples), count, name)
        init_key, step_key = jax.random.split(key)
        state = _build(config, mean.shape, len(samples) ** count, init_key)[1]
        path = (
            checkpoint_path if checkpoint_path is None or phase == "second" else f"{os.fspath(checkpoint_path)}.first"
        )
        keeper = Keeper(path, {"kind": f"{phase} phase of a joint classifier", **identity}, 60.0)
        task = _Answers(fresh, classifier, batches, log_weights, phase == "second")
        state = optimise(
            step_key, task, state, training, keeper, name=f"{name or 'joint classifier'}, {phase} phase",
            progress_bar=progress_bar,
        )  # fmt: skip
        classifier = replace(fresh, state=state)
    assert classifier is not None
    return classifier


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["classifier", "target", "batches", "log_weights"],
    meta_fields=["is_noised"],
)
@dataclasses.dataclass(frozen=True)
class _Answers:
    """A classifier, learnt from samples of models of log prior `log_weights` [n], and from the answers of `target`."""

    classifier: JointClassifier
    target: JointClassifier | None
    batches: tuple[Rows | Sampled, ...]
    log_weights: jax.Array
    is_noised: bool
    fast_in_scan = True
    #: The mean of the first steps, then exponential: nothing of the initial weights remains.
    ema_warmup = (0.0, 1.0)

    def draw(self, rng_key, config: TrainingConfig):
        source_key, level_key, noise_key, *keys = jax.random.split(rng_key, 3 + len(self.batches))
        count = config.batch_size
        source = jax.random.categorical(source_key, self.log_weights, shape=(count,))
        drawn = [batch.draw(key, count).data for batch, key in zip(self.batches, keys, strict=True)]
        x = jnp.stack(drawn)[source, jnp.arange(count)]
        low, high = np.log(NOISES)
        r = self.classifier.spread * jnp.exp(jax.random.uniform(level_key, (count,), minval=low, maxval=high))
        return (x, source, r * self.is_noised, jax.random.normal(noise_key, x.shape)), None

    def loss(self, weights, batch, rng_key, config: TrainingConfig):
        classifier = replace(self.classifier, state=weights)

        def one(x, source, r, noise):
            joint = classifier.log_prob(x + r * noise, r)[source]
            if self.target is None:
                return -joint
            said = [jnp.exp(self.target.log_prob(x, jnp.zeros(())))] * (classifier.num_labels - 1)
            return -jnp.sum(reduce(lambda product, one: product[..., None] * one, said, jnp.ones(())) * joint)

        return jnp.mean(jax.vmap(one)(*batch))

    def check(self, batch) -> None:
        pass


@lru_cache(maxsize=16)
def _graph(config, event_shape, num_outputs: int):
    return jax.eval_shape(partial(_build, config, event_shape, num_outputs), jax.random.key(0))[0]


def _build(config, event_shape, num_outputs: int, rng_key) -> tuple[Any, Any]:
    """A fresh network as nnx (graph definition, state)."""
    if isinstance(config, ClassifierConfig):
        return dataclasses.replace(config, num_outputs=num_outputs).build(rng_key)
    rngs = nnx.Rngs(params=rng_key)
    return nnx.split(ResidualMLP(math.prod(event_shape), config, num_outputs=num_outputs, rngs=rngs))


def _checked_count(num_models: int, num_labels) -> int:
    count = check_integer("num_labels", num_labels, remedy="Two, for harmonic means and contrasts, is the default.")
    if num_models**count > MOST_ANSWERS:
        raise ParameterError(
            f"the joint answers, models ** num_labels, must be at most {MOST_ANSWERS}; got {num_models} ** {count}. "
            "Give fewer labels."
        )
    return count


def _checked_network(network, event_shape: tuple[int, ...]) -> NetworkConfig | ClassifierConfig:
    is_image = len(event_shape) == 3
    if network is None:
        network = ClassifierConfig(event_shape, embedding_size=32) if is_image else NetworkConfig(width=64)
    check_instance("network", network, NetworkConfig, ClassifierConfig)
    if isinstance(network, NetworkConfig):
        if network.condition_size:
            raise ParameterError(
                f"network must take no condition; got condition_size {network.condition_size}. Give 0."
            )
        return network
    if network.image_shape != event_shape:
        raise ShapeError(f"the network takes images of shape {network.image_shape}; samples have {event_shape}.")
    if not network.embedding_size or network.position_width:
        raise ParameterError(
            "the network must know the noise level and no place: embedding_size > 0 and position_width 0; got "
            f"{network.embedding_size} and {network.position_width}."
        )
    return network


def _moments(points: list[np.ndarray], shares: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Mean [*event_shape] and spread, a number, of the mixture of samples with these shares."""
    if len(shapes := {x.shape[1:] for x in points}) > 1:
        raise ShapeError(f"samples of all models must have one event shape; got {sorted(shapes)}.")
    mean = sum(share * np.mean(x, axis=0, dtype=np.float64) for share, x in zip(shares, points, strict=True))
    square = sum(share * np.mean((x - mean) ** 2) for share, x in zip(shares, points, strict=True))
    return jnp.asarray(mean, dtype=float), jnp.sqrt(jnp.asarray(square, dtype=float))
