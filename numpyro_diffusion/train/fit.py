"""Training: `fit`, its batches and devices, and runs that go on after a kill. What is minimised is in `losses`."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tqdm.auto import tqdm

from ..checks.text import check_name
from ..density.energy import PARAMETERISATIONS, EnergyDensity, NetworkConfig, PatchConfig, ScoreModel, UNetConfig
from ..density.mixture import MixtureBase
from ..density.schedule import NoiseSchedule, VariancePreserving
from ..density.typical import typical_log_probs
from ..disk.format import named_leaves, restored
from ..disk.runs import Interrupt, Keeper, sole_writer
from ..errors import ParameterError, check_key, check_number, check_untraced, warn
from ..networks.convolution import native_gradients
from ..program import fingerprint, versions
from .data import Rows, Sampled, check_data, moments
from .losses import loss
from .optimise import TrainingConfig

#: Optimiser steps between two looks at progress, checkpoint and interrupts; for images, whose steps take longer.
CHUNK, IMAGE_CHUNK = 100, 10


@functools.cache
def _mesh(num_devices: int):
    return jax.make_mesh((num_devices,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:num_devices])


def _num_devices(batch_size: int) -> int:
    """Devices that share a batch: as many of those there are as divide it."""
    return max(n for n in range(1, jax.local_device_count() + 1) if batch_size % n == 0)


@functools.partial(jax.jit, static_argnames=("config", "count", "num_devices"), donate_argnums=0)
def _train_chunk(
    carry, density, rng_key, data: Rows | Sampled, *, config: TrainingConfig, count: int, num_devices: int = 1
):
    """`count` optimiser steps; the keys depend on the step's number only, so a resumed run repeats exactly."""
    optimiser = config.optimiser()

    def step(carry, _):
        state, optimiser_state, average, number = carry
        batch_key, drop_key, loss_key = jax.random.split(jax.random.fold_in(rng_key, number), 3)
        x, condition = data.draw(batch_key, config.batch_size)
        y = x.reshape(config.batch_size, -1) - density.mean
        if condition is not None:
            kept = jax.random.bernoulli(drop_key, 1 - config.condition_dropout, (config.batch_size, 1))
            condition = jnp.concatenate([condition * kept, kept], axis=-1)
        if num_devices > 1:
            shard = NamedSharding(_mesh(num_devices), PartitionSpec("batch"))
            y, condition = jax.lax.with_sharding_constraint((y, condition), shard)

        def objective(state):
            density_now = density._replace(state=state)
            return loss(density_now, loss_key, y, condition, config.time_score_weight, config.weighting)

        value, gradient = jax.value_and_grad(objective)(state)
        updates, optimiser_state = optimiser.update(gradient, optimiser_state, state)
        state = optax.apply_updates(state, updates)
        # The average forgets its start faster while young.
        decay = jnp.minimum(config.ema_decay, (1.0 + number) / (10.0 + number))
        average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, average, state)
        return (state, optimiser_state, average, number + 1), value

    # Convolutions are slow inside loops on CPUs.
    return step(carry, None) if count == 1 else jax.lax.scan(step, carry, None, length=count)


def fit(
    rng_key: jax.Array,
    data: Any,
    *,
    model: str = "energy",
    parameterisation: str = "l2",
    calibrated: bool = True,
    schedule: NoiseSchedule | None = None,
    conditions: Any = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    network: NetworkConfig | PatchConfig | UNetConfig | None = None,
    training: TrainingConfig | None = None,
    base: MixtureBase | None = None,
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
        parameterisation: Energy form "l2", "dae" or "inner_product".
        calibrated: Train a normalised log density. False gives the energies of Du et al. (2023).
        schedule: Noise schedule t is read under; variance preserving cosine by default. Training itself is in
            noise-to-signal ratios, so any other schedule can be taken afterwards with `with_schedule`.
        conditions: Array [n, c] of condition vectors for an array of data; see `EnergyDensity.given`.
        sigma_min, sigma_max: Range of noise-to-signal ratios in data units; 0.006 and 20 data standard deviations by
            default. Below `sigma_min` the density is that at `sigma_min`: choose it well below the finest detail.
        network: Architecture, `NetworkConfig`, `PatchConfig` or `UNetConfig`; `condition_size` follows from the data.
        training: Optimisation settings.
        base: Gaussian mixture for a calibrated energy to stand on, see `MixtureBase.fit`; one Gaussian by default.
        name: Name for formulas.
        checkpoint_path: File to keep the run's state in. If it exists and belongs to the same settings, training
            goes on from there and ends with the same weights as an uninterrupted run.
        checkpoint_every_seconds: The most training time a kill can lose.
        progress_bar: Show steps and loss.

    An interrupt (Ctrl-C) ends training early, with a warning, and returns the density as trained so far.

    Where there are several local devices, as many of them as divide the batch share it; the weights are those of one
    device up to rounding.

    Returns:
        EnergyDensity or ScoreModel, with the exponential moving average of the weights.

    Raises:
        ShapeError, ParameterError: for data or settings out of range, NaN in the data among them.
        CheckpointError: if `checkpoint_path` belongs to other settings or other data, or another run writes to it.

    References:
        Du et al. (2023), arXiv:2302.11552, Section 3; Guth et al. (2025), arXiv:2506.05310 (time scores).
    """
    check_untraced("nd.fit", rng_key, data, conditions)
    rng_key = check_key(rng_key)
    check_name(name)
    if model not in ("energy", "score"):
        raise ParameterError(f"model must be 'energy' or 'score'; got {model!r}.")
    if parameterisation not in PARAMETERISATIONS:
        raise ParameterError(f"parameterisation must be one of {PARAMETERISATIONS}; got {parameterisation!r}.")
    check_number("checkpoint_every_seconds", checkpoint_every_seconds, 0.0)
    training, network = training or TrainingConfig(), network or NetworkConfig()
    batches, (x, condition), of_data = check_data(
        rng_key, data, conditions, 5_000 if network.takes_images else 50_000, training.batch_size
    )
    event_shape = x.shape[1:]
    mean, covariance = moments(x, network)
    variances = covariance if network.takes_images else np.diag(covariance)
    std = float(np.sqrt(np.mean(variances)))
    sigma_min = 0.006 * std if sigma_min is None else sigma_min
    sigma_max = 20 * std if sigma_max is None else sigma_max
    if not 0 < sigma_min < sigma_max:
        raise ParameterError(f"need 0 < sigma_min < sigma_max; got {sigma_min} and {sigma_max}.")
    network = dataclasses.replace(network, condition_size=0 if condition is None else int(condition.shape[-1]))
    init_key, step_key = jax.random.split(rng_key)
    cls, form = (EnergyDensity, network.form or parameterisation) if model == "energy" else (ScoreModel, "score")
    density = cls(
        init_key, event_shape, schedule or VariancePreserving.cosine(), mean, covariance, sigma_min, sigma_max,
        network, form, calibrated if model == "energy" else False, base,
    )  # fmt: skip
    density.name = name
    carry = (density.state, training.optimiser().init(density.state), density.state, jnp.zeros((), jnp.int32))
    carry = jax.tree.map(jnp.array, carry)  # distinct buffers: the carry is donated
    identity = {
        "kind": "training",
        "model": model,
        "parameterisation": form,
        "calibrated": calibrated,
        "schedule": repr(density.schedule),
        "network": json.loads(json.dumps(dataclasses.asdict(network))),  # tuples as they come back
        "training": dataclasses.asdict(training),
        "rng_key": fingerprint(rng_key),
        **of_data,
        "sigma_min, sigma_max": [float(sigma_min), float(sigma_max)],
        "base": fingerprint(base),
        **versions(),
    }
    with sole_writer(checkpoint_path):
        keeper = Keeper(checkpoint_path, identity, checkpoint_every_seconds)
        density.state = _run(carry, density, step_key, batches, training, keeper, progress_bar)
    density.typical = typical_log_probs(density, x, condition, jax.random.fold_in(rng_key, 0x7E57))
    return density


def _run(carry, density, rng_key, batches, config, keeper, progress_bar):
    found = keeper.load(lambda arrays, _: restored(carry, arrays))
    carry = carry if found is None else found
    settings = {"config": config, "num_devices": _num_devices(config.batch_size)}
    if settings["num_devices"] > 1:
        carry = jax.device_put(carry, NamedSharding(_mesh(settings["num_devices"]), PartitionSpec()))
    number, chunk = int(carry[3]), IMAGE_CHUNK if density.config.takes_images else CHUNK
    bar = tqdm(total=config.num_steps, initial=number, disable=not progress_bar, desc=density.name or "fit")
    with bar, Interrupt() as interrupt:
        while number < config.num_steps and not interrupt.asked:
            count = min(chunk, config.num_steps - number)
            carry, value = _advance(carry, density, rng_key, batches, count, settings)
            number = int(carry[3])
            if not np.isfinite(value):
                raise ParameterError(
                    f"the loss became {value} at step {number}; the checkpoint before it is kept. "
                    "Lower learning_rate or max_gradient_norm."
                )
            bar.update(count)
            bar.set_postfix(loss=f"{value:.4f}")
            ends = number == config.num_steps or interrupt.asked
            keeper.keep(lambda carry: (named_leaves(carry), {}), carry, now=ends)
    if number < config.num_steps:
        remedy = "The same call goes on from there." if keeper.path else "checkpoint_path= makes training resume."
        warn(f"interrupted after step {number} of {config.num_steps}: the density is as trained so far. {remedy}")
    return carry[2]


def _advance(carry, density, rng_key, batches, count, settings):
    """`count` optimiser steps: (carry, mean loss)."""
    if not density.config.takes_images:
        carry, values = _train_chunk(carry, density, rng_key, batches, count=count, **settings)
        return carry, float(jnp.mean(values))
    values = []
    with native_gradients():
        for _ in range(count):
            carry, one = _train_chunk(carry, density, rng_key, batches, count=1, **settings)
            values.append(one)
    return carry, float(jnp.mean(jnp.stack(values)))
