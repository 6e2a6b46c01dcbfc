"""Trained diffusion models as densities at every noise level: train, compose, anneal, diagnose.

The names below follow the path: schedules, densities, training, composition, sampling, bounds.
"""

from . import datasets, exact, metrics, plots
from .anneal import anneal
from .base import MixtureBase
from .bounds import Bound, ais_bound, bdmc, raise_bound
from .calibration import calibration_report, recalibrate
from .compose import (
    classifier_free_guided,
    compose_conditions,
    guided,
    mixture,
    negation,
    product,
    temper,
)
from .density import Density
from .energy import EnergyDensity, NetworkConfig, PatchConfig, ScoreModel, UNetConfig
from .function import as_density
from .infer import handlers
from .infer.kernel import AnnealedKernel
from .infer.mcmc import AnnealedMCMC
from .infer.prior import DiffusionPrior
from .kernels import HMC, MALA, UHMC, ULA, BlackJAX
from .reverse import Reverse
from .run import AnnealedRun
from .schedule import NoiseSchedule, VarianceExploding, VariancePreserving
from .sculpting import contrast, harmonic_mean
from .storage import list_pretrained, load, load_pretrained, pretrained_card, save
from .training import TrainingConfig, fit

__version__ = "0.1.0"
