r"""Classifiers of images: trained by cross entropy, used to judge samples, for their features, and for guidance.

classes      num_outputs = k              p(class | x), softmax; labels are integers
yes or no    num_outputs = 1              p(yes | x), sigmoid; labels are 0 and 1
questions    with `heads`                 p(class | x) for each of several questions, a softmax each
at a place   with a `position_width`      p(a cube at y | x), and the place y is part of the question
with noise   with an `embedding_size`     p(class | x_t, log noise level), whose gradient guides a sampler
"""

from __future__ import annotations

import dataclasses
import os
from functools import lru_cache, partial
from importlib import resources
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ..checks.fields import check_instance
from ..checks.text import shown
from ..disk import checkpoint, contents
from ..disk.densities import PRETRAINED
from ..errors import ShapeError, UnknownNameError
from ..networks.classifier import ClassifierConfig
from .batch import as_array

#: Images classified at a time.
CHUNK = 256


@partial(jax.tree_util.register_dataclass, data_fields=["state"], meta_fields=["config", "name"])
@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained network: its weights and its architecture. A pytree; the functions of this module take it first."""

    state: Any
    config: ClassifierConfig
    name: str = ""

    def __repr__(self) -> str:
        return f"Classifier({self.name!r}, {self.config})"


def log_prob(classifier: Classifier, images, positions=None, log_noise=None) -> jax.Array:
    """Log probabilities of the classes [n, k], or of yes [n] for a single output; differentiable in the images.

    Of a classifier with heads the classes of all questions stand side by side, and each question's sum to one.

    Args:
        classifier: A trained classifier.
        images: [n, height, width, channels].
        positions: Places [n, 2], or one [2] for all; for a classifier with a place.
        log_noise: Log noise levels [n], or one for all; for a classifier with noise level.

    Raises:
        ShapeError: if the inputs do not fit the classifier.
    """
    logits, config = _apply(classifier, "__call__", images, positions, log_noise), classifier.config
    return log_softmax(config, logits) if config.num_outputs > 1 else jax.nn.log_sigmoid(logits[:, 0])


def by_head(config: ClassifierConfig, values) -> list[jax.Array]:
    """Values [..., k] of all classes as those [..., k_i] of each question."""
    return jnp.split(values, np.cumsum(config.heads[:-1], dtype=int), axis=-1)


def log_softmax(config: ClassifierConfig, logits) -> jax.Array:
    """Log probabilities [..., k] of logits, normalised for each question."""
    return jnp.concatenate([jax.nn.log_softmax(part) for part in by_head(config, logits)], axis=-1)


def predict(classifier: Classifier, images, positions=None, log_noise=None) -> jax.Array:
    """Probabilities of the classes [n, k], or of yes [n] for a single output; arguments as in `log_prob`."""
    return jnp.exp(log_prob(classifier, images, positions, log_noise))


def features(classifier: Classifier, images, positions=None, log_noise=None) -> jax.Array:
    """Activations [n, hidden_size] before the logits, as for Frechet distances; arguments as in `log_prob`."""
    return _apply(classifier, "features", images, positions, log_noise)


@lru_cache
def _graph(config: ClassifierConfig):
    return jax.eval_shape(config.build, jax.random.key(0))[0]


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


def checked(classifier) -> Classifier:
    check_instance("the first argument", classifier, Classifier, remedy="Train one with train_classifier.")
    return classifier


def _apply(classifier, method, images, positions, log_noise):
    shape, images = checked(classifier).config.image_shape, as_array("images", images)
    if images.ndim != 4 or images.shape[1:] != shape:
        raise ShapeError(f"images must have shape [n, *{shape}]; got {images.shape}. Resize them.")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ShapeError(
            f"images must be floating point, in the scale of the training; got {images.dtype}. Scale them: "
            "x / 127.5 - 1 takes 0..255 to [-1, 1]."
        )

    def rows(name, value, *shape):
        try:
            return None if value is None else jnp.broadcast_to(jnp.asarray(value, dtype=float), shape)
        except (TypeError, ValueError) as error:
            raise ShapeError(f"{name} must have shape {shape} or {shape[1:]}; got {shown(value)}.") from error

    n = len(images)
    return _run(classifier, method, images, rows("positions", positions, n, 2), rows("log_noise", log_noise, n))


def save_classifier(
    classifier: Classifier, path: str | os.PathLike[str], *, card: dict | None = None, dtype: str = "float16"
) -> None:
    """Write weights (safetensors, in `dtype`) and architecture (JSON) as one file, entirely or not at all.

    Raises:
        ParameterError: for what `load_classifier` would refuse: a name that does not print, weights out of range.
        CheckpointError: if the file cannot be written.
    """
    arrays, card = contents.stored_weights(checked(classifier).state, dtype), {} if card is None else card
    contents.check_texts(classifier.name, card)
    network = dataclasses.asdict(classifier.config)
    config = {"kind": "classifier", "network": network, "name": classifier.name, "card": card}
    checkpoint.save(path, arrays, config, _described)


def load_classifier(path: str | os.PathLike[str]) -> Classifier:
    """The classifier that `save_classifier` wrote.

    Raises:
        CheckpointError: if the file is missing, damaged, foreign, does not fit the architecture it names, or holds
            numbers or texts that no classifier has.
    """
    return checkpoint.load(path, "classifier", _described, "a classifier")


def pretrained_classifier(name: str) -> Classifier:
    """A classifier that ships with the package.

    "cubes_16" and "cubes_32" say whether a cube is at a place, "coloured_digits_16" which of `coloured_digits.CELLS` a
    picture is; a card, what each was trained on and its accuracy, lies beside the weights.

    Raises:
        UnknownNameError: if there is none of that name.
    """
    folder = PRETRAINED / "classifiers"
    known = sorted(place.name[:-12] for place in folder.iterdir() if place.name.endswith(".safetensors"))
    if name not in known:
        raise UnknownNameError(f"no pretrained classifier is called {shown(name)}. There are {', '.join(known)}.")
    with resources.as_file(folder / f"{name}.safetensors") as path:
        return load_classifier(path)


def _described(arrays, config) -> Classifier:
    """The classifier of arrays and a config, which hold what they may hold."""
    contents.check_texts(config["name"] or "", config.get("card", {}))
    network = contents.network_of(config["network"], {"ClassifierConfig": ClassifierConfig}, len(arrays))
    _, state = contents.network_in(contents.floating(arrays), network.build)
    return Classifier(state, network, config["name"] or "")
