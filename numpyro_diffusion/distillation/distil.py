r"""Distillation: a score-only model becomes a calibrated energy.

On noised data y = y_0 + r eps, log r uniform, with the teacher's score s and time score tau (see `teacher`) and w the
weight of time scores, an energy is fitted by

.. math::
    L = \frac2d r^2 |\nabla_y \log p - s|^2 + \frac{w}{2d} \left( \partial_{\log r} \log p - \tau \right)^2 .

This is `train.losses` with both targets replaced by their means given y, as the teacher knows them: the same minimum
for a teacher that is right, and less variance. The first term is that of Thornton et al. (2025); the second sets the
constants that scores leave open. What is left of log Z is measured in the end, and taken out.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.calls import checked_call
from ..checks.fields import check_choice, check_flag, check_instance
from ..checks.room import make_room
from ..checks.text import LONGEST_NAME, check_name
from ..density.base import BASES, Base
from ..density.density import Density
from ..density.energy import PARAMETERISATIONS, EnergyDensity
from ..density.typical import typical_log_probs
from ..disk.runs import Keeper
from ..errors import ShapeError, check_key, check_untraced, warn
from ..networks.config import CONFIGS, NetworkConfig, PatchConfig, UNetConfig
from ..program import fingerprint, versions
from ..train.conditional import base_of, unnormalised
from ..train.data import check_data
from ..train.fit import NUM_MOMENTS, NUM_MOMENTS_OF_IMAGES, Denoising
from ..train.losses import Targets, mismatch, noised
from ..train.optimise import TrainingConfig, optimise
from .normalise import normalised
from .student import fresh_student
from .teacher import check_conditions, check_finite_scores, check_teacher, drawn, scores, takes_images


class _Distilling(NamedTuple):
    """A density, learnt from a teacher on noised data."""

    learner: Denoising
    teacher: Density
    ema_warmup = Denoising.ema_warmup

    @property
    def fast_in_scan(self) -> bool:
        return self.learner.fast_in_scan and not takes_images(self.teacher)

    def draw(self, rng_key, config: TrainingConfig):
        return self.learner.draw(rng_key, config)

    def loss(self, weights, batch, rng_key, config: TrainingConfig):
        density = self.learner.density._replace(state=weights)
        noise_key, probe_key = jax.random.split(rng_key)
        noisy = noised(density, noise_key, batch.data)
        r, keys = jnp.exp(noisy.log_r), jax.random.split(probe_key, len(batch.data))
        asked = lambda y, r, c, key: scores(self.teacher, y + density.mean, r, c, key)
        score, time_score = jax.vmap(asked)(noisy.points, r, batch.conditions, keys)
        targets = Targets(-r[:, None] * score, time_score)
        return mismatch(density, noisy, batch.conditions, targets, config.time_score_weight, config.weighting)[0]

    def check(self, batch) -> None:
        self.learner.check(batch)


@checked_call(training=TrainingConfig, network=NetworkConfig)
def distil(
    rng_key: jax.Array,
    teacher: Density,
    data: Any = None,
    *,
    conditions: Any = None,
    parameterisation: str = "l2",
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    network: NetworkConfig | PatchConfig | UNetConfig | None = None,
    training: TrainingConfig | None = None,
    base: Base | None = None,
    normalise: bool | None = None,
    name: str | None = None,
    checkpoint_path: str | Path | None = None,
    checkpoint_every_seconds: float = 60.0,
    progress_bar: bool = True,
) -> EnergyDensity:
    """A calibrated energy density with the score of a score-only model.

    The energy's gradient is fitted to the teacher's score on noised data, its derivative in the noise level to what the
    teacher's score says of it by the heat equation; then log Z is measured at every noise level and taken out.

    Args:
        rng_key: JAX random key.
        teacher: A model with a score alone: a `ScoreModel`, what `nd.from_noise_prediction` and its like make, or one
            of them given a condition.
        data: Array [n, *event_shape], or a sampler `(rng_key, num_samples) -> x` (or `-> (x, conditions)`), which
            say where the teacher is asked. None for the teacher's own samples by reverse diffusion: 20,000, or 2,000
            images.
        conditions: Array [n, c] of condition vectors for an array of data, of a teacher that takes such.
        parameterisation: Energy form "l2", "dae" or "inner_product", see `EnergyDensity`; "l2" is bounded above.
        sigma_min, sigma_max: Range of noise-to-signal ratios; a `ScoreModel`'s own by default, else 0.006 and 20
            standard deviations of the data as far as the teacher's levels reach.
        network: Architecture; that of a `ScoreModel` by default, whose weights are then where training starts.
        training: Optimisation settings, as in `nd.fit`.
        base: What the energy stands on, as in `nd.fit`.
        normalise: Whether to measure log Z and take it out: by quadrature up to two dimensions, by annealed runs with
            growing effort beyond. None does so for all but images.
        name: Name for formulas; says what was distilled by default.
        checkpoint_path, checkpoint_every_seconds, progress_bar: As in `nd.fit`: files, resuming, Ctrl-C.

    Returns:
        EnergyDensity, under the teacher's schedule, that saves and loads like any other.

    Raises:
        ArgumentTypeError: if the teacher has a log density already, or is a composition.
        ShapeError: for points or conditions of another shape than the teacher's.
        ParameterError: for settings out of range, NaN in the data, and a teacher whose score is not finite, at which
            noise levels.
        CheckpointError: if `checkpoint_path` belongs to another run.

    Warns:
        DiagnosticWarning: if log Z could not be measured to a nat: it stays in, for `nd.recalibrate`; if it differs
            between conditions.

    Cost: a step is one of `nd.fit` for an energy, and on the teacher a score and its divergence: d derivatives, one
    beyond 8 dimensions.

    References:
        Thornton et al. (2025), Composition and control with distilled energy diffusion models. arXiv:2502.12786.
    """
    check_untraced("nd.distil", rng_key, data, conditions, teacher)
    make_room()
    rng_key = check_key(rng_key)
    check_name(name)
    check_choice("parameterisation", parameterisation, PARAMETERISATIONS)
    check_teacher("nd.distil", teacher)
    teacher = jax.tree.map(lambda a: a, teacher)  # what a user's function computes is read once, here
    training = TrainingConfig() if training is None else training
    check_instance("training", training, TrainingConfig)
    for what, value, kinds in (("network", network, CONFIGS.values()), ("base", base, BASES)):
        if value is not None:
            check_instance(what, value, *kinds)
    if normalise is not None:
        check_flag("normalise", normalise, "None measures log Z of all but images.")
    init_key, step_key, try_key, draw_key, typical_key, z_key = jax.random.split(rng_key, 6)
    source = "" if data is not None else " from its samples"
    if data is None:
        data = drawn(draw_key, teacher, progress_bar=progress_bar)
    count = NUM_MOMENTS_OF_IMAGES if takes_images(teacher) else NUM_MOMENTS
    batches, (x, c), of_data = check_data(rng_key, data, conditions, count, training.batch_size)
    if x.shape[1:] != teacher.event_shape:
        raise ShapeError(f"data must be points of the teacher's shape {teacher.event_shape}; got {x.shape[1:]}.")
    if training.time_score_weight is None:
        # What a teacher says of vectors has little noise, or none.
        weight = 2 / x[0].size if takes_images(teacher) else 1.0
        training = dataclasses.replace(training, time_score_weight=weight)
    check_conditions(teacher, c)
    if base is None and c is not None and not takes_images(teacher):
        base = base_of(x, c)
    name = name or f"{teacher!r} distilled{source}"[:LONGEST_NAME]
    density = fresh_student(
        init_key, teacher, x, c, network=network, parameterisation=parameterisation,
        base=base, sigmas=(sigma_min, sigma_max), name=name,
    )  # fmt: skip
    check_finite_scores(teacher, x, c, density.sigmas, try_key)
    identity = {} if checkpoint_path is None else {
        "kind": "distillation", **{f"teacher's {what}": value for what, value in teacher.identity().items()},
        "parameterisation": density.parameterisation, "network": dataclasses.asdict(density.config),
        "training": dataclasses.asdict(training), "rng_key": fingerprint(rng_key), **of_data,
        "sigma_min, sigma_max": np.asarray(density.sigmas).tolist(), "base": fingerprint(base), **versions(),
    }  # fmt: skip
    weights = optimise(
        step_key, _Distilling(Denoising(density, batches), teacher), density.state, training,
        Keeper(checkpoint_path, identity, checkpoint_every_seconds), name=name, progress_bar=progress_bar,
    )  # fmt: skip
    density = density._replace(state=weights)
    density = density._replace(typical=typical_log_probs(density, x, c, typical_key))
    if normalise is None:
        normalise = not takes_images(teacher)
    density = normalised(z_key, density, progress_bar) if normalise else density
    if finding := unnormalised(density, c, jax.random.fold_in(typical_key, 1)):
        warn(finding)
    return density
