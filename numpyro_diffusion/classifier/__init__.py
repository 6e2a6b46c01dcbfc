"""Classifiers of images: trained by cross entropy, used as judges, for features and as guides."""

from .batch import Batch
from .classifier import Classifier, features, load_classifier, log_prob, predict, save_classifier
from .guide import likelihood, noised
from .judge import all_present, position_queries
from .train import train_classifier

__all__ = [
    "Batch", "Classifier", "all_present", "features", "likelihood", "load_classifier", "log_prob", "noised",
    "position_queries", "predict", "save_classifier", "train_classifier",
]  # fmt: skip
