"""Trained diffusion models as densities: train, compose, anneal, diagnose."""
__version__ = "0.1.0"
from . import exact
from .energy import NetworkConfig
from .training import TrainingConfig, fit
from .function import as_density
from .storage import list_pretrained, load, load_pretrained, pretrained_card, save
from . import storage
