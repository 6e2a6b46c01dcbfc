"""Classifiers of images: trained by cross entropy, used as judges, for features and as guides."""

from .batch import Batch
from .classifier import Classifier, features, load_classifier, log_prob, predict, save_classifier
from .guide import likelihood, noised
from .judge import all_present, position_queries
from .scenes import judged_labels, scene_queries
from .train import train_classifier

__all__ = [
    "Batch", "Classifier", "all_present", "features", "judged_labels", "likelihood", "load_classifier", "log_prob",
    "noised", "position_queries", "predict", "save_classifier", "scene_queries", "train_classifier",
]  # fmt: skip
