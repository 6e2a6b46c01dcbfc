"""Classifiers: trained by cross entropy, used as judges, for features, as guides, and to sculpt score models."""

from .batch import Batch
from .classifier import Classifier, features, load_classifier, log_prob, predict, pretrained_classifier, save_classifier
from .guide import likelihood, noised
from .joint import JointClassifier, train_joint_classifier
from .judge import all_present, position_queries
from .scenes import judged_labels, scene_queries
from .sculpted import sculpted
from .train import train_classifier

__all__ = [
    "Batch", "Classifier", "JointClassifier", "all_present", "features", "judged_labels", "likelihood",
    "load_classifier", "log_prob", "noised", "position_queries", "predict", "pretrained_classifier", "save_classifier",
    "scene_queries", "sculpted", "train_classifier", "train_joint_classifier",
]  # fmt: skip
