"""Trained classifiers on disk: weights (safetensors) and architecture (JSON) in one file."""

from __future__ import annotations

import dataclasses
import os

from ..disk import checkpoint, contents
from ..networks.classifier import ClassifierConfig
from .classifier import Classifier, checked


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


def _described(arrays, config) -> Classifier:
    """The classifier of arrays and a config, which hold what they may hold."""
    contents.check_texts(config["name"] or "", config.get("card", {}))
    network = contents.network_of(config["network"], {"ClassifierConfig": ClassifierConfig}, len(arrays))
    _, state = contents.network_in(arrays, network.build)
    return Classifier(state, network, config["name"] or "")
