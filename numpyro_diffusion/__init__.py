"""Trained diffusion models as densities at every noise level: train, compose, anneal, diagnose.

The names below follow the path: schedules, densities, training, composition, sampling, bounds.
"""

from . import classifier, datasets, gflownet
from .adapters.adapters import from_denoiser, from_energy, from_flow, from_noise_prediction, from_score, from_velocity
from .adapters.check import check_model
from .adapters.files import load, save
from .adapters.torch_weights import check_outputs, load_state_dict
from .annealing.anneal import anneal
from .annealing.bounds import Bound, ais_bound, bdmc, raise_bound
from .annealing.calibration import calibration_report, recalibrate
from .annealing.kernels import HMC, MALA, UHMC, ULA, BlackJAX
from .annealing.reverse import Reverse
from .annealing.verdict import verdict
from .compose.conditions import classifier_free_guided, compose_conditions, guided
from .compose.operators import mixture, negation, product, temper
from .compose.prompts import prompt
from .compose.sculpting import contrast, harmonic_mean, observe, sculpt
from .compose.tapestry import tapestry
from .density import exact
from .density.density import Density
from .density.energy import EnergyDensity, NetworkConfig, PatchConfig, ScoreModel, UNetConfig
from .density.equal import equal_density
from .density.function import as_density
from .density.mixture import MixtureBase
from .density.regression import RegressionBase
from .density.schedule import LinearFlow, NoiseSchedule, TabulatedSchedule, VarianceExploding, VariancePreserving
from .density.views import affine, crop, pool
from .diagnose import metrics, plots
from .diagnose.coverage import coverage
from .diagnose.expectations import expectation, quantile
from .diagnose.result import AnnealedRun, TemperedRun
from .diagnose.thinning import thinned
from .diagnose.verdict import Verdict
from .disk.checkpoint import read_state_dict
from .disk.densities import list_pretrained, load_pretrained, pretrained_card
from .distillation.distil import distil
from .distillation.report import distillation_report
from .infer import handlers
from .infer.kernel import AnnealedKernel
from .infer.mcmc import AnnealedMCMC
from .infer.prior import DiffusionPrior
from .infer.sbc import sbc
from .networks.text import TextConfig
from .train.fit import TrainingConfig, fit

__version__ = "0.1.0"
