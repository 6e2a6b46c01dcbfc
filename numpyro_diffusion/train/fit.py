"""Training of densities: `fit`. What is minimised is in `losses`, how in `optimise`."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.calls import checked_call
from ..checks.fields import check_instance
from ..checks.room import make_room
from ..checks.text import check_name
from ..density.base import BASES, Base, data_gaussian
from ..density.energy import PARAMETERISATIONS, EnergyDensity, ScoreModel
from ..density.schedule import NoiseSchedule, VariancePreserving
from ..density.typical import typical_log_probs
from ..disk.runs import Keeper
from ..errors import ParameterError, check_key, check_number, check_untraced, warn
from ..networks.config import CONFIGS, NetworkConfig, PatchConfig, UNetConfig
from ..program import fingerprint, versions
from .conditional import base_of, conditioned, unnormalised
from .data import Points, Rows, Sampled, check_data, check_finite, moments
from .doubts import doubts, doubts_of_images
from .losses import loss
from .normaliser import normalised_by_data
from .optimise import TrainingConfig, optimise, settled, with_defaults
from .unfinished import unfinished

#: Points that moments are taken of, where data are drawn by a sampler.
NUM_MOMENTS, NUM_MOMENTS_OF_IMAGES = 50_000, 5_000
#: Range of noise-to-signal ratios, in standard deviations of the data.
SIGMAS, SIGMAS_OF_IMAGES = (0.006, 20), (0.05, 20)
#: Dimensions of vectors, at most, whose energies are residual by default: in 8 and more they hold too much mass where
#: no data are, as runs find, though at data they are nearer to the truth.
MOST_RESIDUAL = 2
#: Training data that points off the data are measured by, at most.
NUM_REFERENCE = 5_000


class Denoising(NamedTuple):
    """A density, learnt from data; see `losses` for what is minimised."""

    density: Any
    data: Rows | Sampled
    #: Centred training data that points off the data are measured by, or None.
    reference: Points | None = None
    ema_warmup = (1.0, 10.0)

    @property
    def fast_in_scan(self) -> bool:
        return not self.density.config.takes_images

    def draw(self, rng_key, config: TrainingConfig):
        batch_key, drop_key, loss_key = jax.random.split(rng_key, 3)
        x, condition = self.data.draw(batch_key, config.batch_size)
        y = x.reshape(config.batch_size, -1) - self.density.mean
        if condition is not None:
            kept = jax.random.bernoulli(drop_key, 1 - config.condition_dropout, (config.batch_size, 1))
            condition = jnp.concatenate([condition * kept, kept], axis=-1)
        return Points(y, condition), loss_key

    def loss(self, weights, batch, rng_key, config: TrainingConfig):
        density = self.density._replace(state=weights)
        return loss(density, rng_key, batch.data, batch.conditions, config, self.reference)

    def check(self, batch) -> None:
        check_finite(batch)


@checked_call(training=TrainingConfig, network=NetworkConfig)
def fit(
    rng_key: jax.Array,
    data: Any,
    *,
    model: str = "energy",
    parameterisation: str | None = None,
    calibrated: bool = True,
    schedule: NoiseSchedule | None = None,
    conditions: Any = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    network: NetworkConfig | PatchConfig | UNetConfig | None = None,
    training: TrainingConfig | None = None,
    base: Base | None = None,
    name: str | None = None,
    checkpoint_path: str | Path | None = None,
    checkpoint_every_seconds: float = 60.0,
    progress_bar: bool = True,
):
    """Train a diffusion model as a density at every noise level.

    Args:
        rng_key: JAX random key.
        data: Array [n, *event_shape], or a sampler `(rng_key, num_samples) -> x` (or `-> (x, conditions)`).
        model: "energy" (a log density) or "score" (cheaper, but no log density).
        parameterisation: Energy form "l2", "dae", "inner_product" or "residual", see `EnergyDensity`; by default
            "residual" for calibrated energies of images and of one or two dimensions, "l2" else, which are bounded
            above.
        calibrated: Train a normalised log density. False gives the energies of Du et al. (2023).
        schedule: Noise schedule t is read under; variance preserving cosine by default. Training itself is in
            noise-to-signal ratios, so any other schedule can be taken afterwards with `with_schedule`.
        conditions: Array [n, c] of condition vectors for an array of data, or n captions where the network reads them;
            see `EnergyDensity.given`.
        sigma_min, sigma_max: Range of noise-to-signal ratios in data units; 0.006 and 20 data standard deviations by
            default, for images 0.05 and 20. Below `sigma_min` the density is that at `sigma_min`: choose it well
            below the finest detail.
        network: Architecture, `NetworkConfig`, `PatchConfig` or `UNetConfig`; `condition_size` follows from the data.
        training: Optimisation settings; 10,000 steps of 512 points or of 32 images by default.
        base: What a calibrated energy stands on, a Gaussian mixture (`MixtureBase.fit`) or a Gaussian that follows
            conditions of numbers (`RegressionBase.fit`). By default one Gaussian, of vectors with one-hot conditions
            one for each class, with other conditions one that follows them: densities are normalised under each.
        name: Name for formulas.
        checkpoint_path: File to keep the run's state in. If it exists and belongs to the same settings, training
            goes on from there and ends with the same weights as an uninterrupted run.
        checkpoint_every_seconds: The most training time a kill can lose.
        progress_bar: Show steps and loss.

    An interrupt (Ctrl-C) ends training early, with a warning, and returns the density as trained so far.

    Where there are several local devices, as many of them as divide the batch share it; the weights are those of one
    device up to rounding.

    Data that no training makes a good density of are warned of before it: coordinates or directions narrower than
    `sigma_min`, heavy tails, few different values or rows.

    Returns:
        EnergyDensity or ScoreModel, with the exponential moving average of the weights. Of a calibrated energy of
        vectors without conditions, of 100 rows per dimension or more, log Z is measured on the data and taken out.

    Raises:
        ShapeError, ParameterError: for data or settings out of range, NaN in the data among them.
        TextError: for a caption with words that the network does not know.
        CheckpointError: if `checkpoint_path` belongs to other settings or other data, or another run writes to it.

    References:
        Du et al. (2023), arXiv:2302.11552, Section 3; Guth et al. (2025), arXiv:2506.05310 (time scores).
    """
    check_untraced("nd.fit", rng_key, data, conditions)
    make_room()
    rng_key = check_key(rng_key)
    check_name(name)
    if model not in ("energy", "score"):
        raise ParameterError(f"model must be 'energy' or 'score'; got {model!r}.")
    if parameterisation not in (None, *PARAMETERISATIONS):
        raise ParameterError(f"parameterisation must be one of {PARAMETERISATIONS}; got {parameterisation!r}.")
    network = NetworkConfig() if network is None else network
    check_instance("network", network, *CONFIGS.values())
    if base is not None:
        check_instance("base", base, *BASES)
    is_energy = model == "energy"
    training = with_defaults(training, images=network.takes_images)
    if network.text is not None:
        conditions = network.text.rows(conditions)
    num_moments = NUM_MOMENTS_OF_IMAGES if network.takes_images else NUM_MOMENTS
    batches, (x, condition), of_data = check_data(rng_key, data, conditions, num_moments, training.batch_size)
    if network.text is not None and condition is not None:
        network.text.checked(condition)
    training = settled(
        training, math.prod(x.shape[1:]), images=network.takes_images, energy=is_energy,
        calibrated=is_energy and calibrated,
    )  # fmt: skip
    mean, covariance = moments(x, network)
    std = float(np.sqrt(np.mean(covariance if network.takes_images else np.diag(covariance))))
    usual = SIGMAS_OF_IMAGES if network.takes_images else SIGMAS
    remedy = f"Leave it out for {' or '.join(map(str, usual))} standard deviations of the data."
    given = zip(("sigma_min", "sigma_max"), (sigma_min, sigma_max), usual, strict=True)
    sigmas = [share * std if s is None else check_number(what, s, 0.0, remedy=remedy) for what, s, share in given]
    if not 0 < sigmas[0] < sigmas[1]:
        raise ParameterError(f"need 0 < sigma_min < sigma_max; got {sigmas[0]} and {sigmas[1]}. {remedy}")
    of_images = network.takes_images
    init_key, step_key = jax.random.split(rng_key)
    of_vectors = is_energy and calibrated and not of_images and network.form is None
    if of_vectors and condition is not None and base is None and parameterisation != "residual":
        base = base_of(x, condition)
    if parameterisation is None:
        is_safe = of_images or math.prod(x.shape[1:]) <= MOST_RESIDUAL
        parameterisation = "residual" if is_safe and calibrated and base is None else "l2"
    cls, form = (EnergyDensity, network.form or parameterisation) if is_energy else (ScoreModel, "score")
    network = conditioned(network, condition, form, is_calibrated=is_energy and calibrated)
    decays = training.weight_decay > 0
    doubted = doubts_of_images(x.shape[1:]) if of_images else doubts(x, covariance, sigmas[0], base, decays=decays)
    for doubt in doubted:
        warn(doubt)
    density = cls.fresh(
        init_key, network, x.shape[1:], schedule=schedule or VariancePreserving.cosine(), parameterisation=form,
        sigmas=jnp.array(sigmas, dtype=float), is_calibrated=calibrated and is_energy, base=base, name=name,
        moments=data_gaussian(mean, covariance, network, base),
    )  # fmt: skip
    identity = {
        "kind": "training", "model": model, "parameterisation": form, "calibrated": calibrated,
        "schedule": repr(density.schedule), "network": dataclasses.asdict(network),
        "training": dataclasses.asdict(training), "rng_key": fingerprint(rng_key), **of_data,
        "sigma_min, sigma_max": sigmas, "base": fingerprint(base), **versions(),
    }  # fmt: skip
    weights = optimise(
        step_key, Denoising(density, batches, _reference(density, x, condition, training)), density.state, training,
        Keeper(checkpoint_path, identity, checkpoint_every_seconds), name=name or "fit", progress_bar=progress_bar,
    )  # fmt: skip
    density = density._replace(state=weights)
    # Folded in, not split off: the keys of weights and steps stay what they were before there was a third.
    typical_key = jax.random.fold_in(rng_key, 0x7E57)
    density = normalised_by_data(density, x, condition, training, jax.random.fold_in(typical_key, 3))
    if finding := unnormalised(density, condition, jax.random.fold_in(typical_key, 2)):
        warn(finding)
    if finding := unfinished(density, x, condition, jax.random.fold_in(typical_key, 1)):
        warn(finding + (" But what was said of the data no number of steps mends." if doubted else ""))
    return density._replace(typical=typical_log_probs(density, x, condition, typical_key))


def _reference(density, x, condition, training: TrainingConfig) -> Points | None:
    """Some of the training data x [n, *event_shape] and their conditions, centred; None where no points need them."""
    if not training.outlier_share:
        return None
    index = np.random.default_rng(0).permutation(len(x))[:NUM_REFERENCE]
    known = Points(np.asarray(x)[index].reshape(len(index), -1) - np.asarray(density.mean), condition)
    known = known if condition is None else known._replace(conditions=np.asarray(condition)[index])
    return jax.tree.map(lambda a: jnp.asarray(a, dtype=float), known)
