"""Trained diffusion models as densities: train, compose, anneal, diagnose."""
__version__ = "0.1.0"
from . import exact
from .energy import NetworkConfig
from .training import TrainingConfig, fit
from .density import as_density
