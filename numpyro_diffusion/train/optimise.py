"""One loop of training, for densities and classifiers.

Adam with warm-up, cosine decay and clipping, weight decay where data are few, and an average of the weights.
"""

from __future__ import annotations

import dataclasses
import functools
from contextlib import nullcontext
from typing import Annotated, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tqdm.auto import tqdm

from ..checks.fields import Checked, NotNegative, Positive, Share, check_choice, check_instance
from ..disk.contents import named_leaves, restored
from ..disk.runs import Interrupt, Keeper, sole_writer
from ..errors import InterruptWarning, ParameterError, check_integer, check_number, warn
from ..networks.convolution import native_gradients

#: Optimiser steps between two looks at progress, checkpoint and interrupts; fewer where steps take longer.
CHUNK, SLOW_CHUNK = 100, 10


def _weighting(name: str, value, remedy: str = "") -> str | None:
    return None if value is None else check_choice(name, value, ("score", "denoiser"), remedy)


def _weight(name: str, value, remedy: str = "") -> float | None:
    return None if value is None else check_number(name, value, 0, remedy=remedy, ends="[)")


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Checked):
    """Optimisation settings of `fit`; static, and part of a checkpoint's identity.

    `weighting` is that of noise levels in the loss: "score" that of |r score + eps|^2, which makes log densities right
    where the noise is small, "denoiser" 1 + r^2 / s^2 times that (Karras et al. 2022), which teaches what is decided at
    large noise, such as where things are in an image, or how much each of several modes holds; by default that for
    images and calibrated energies, "score" else.

    `outlier_share` is the share of each batch that lies off the data, for energies that have false wells there, see
    `losses`.

    `time_score_weight` is that of the time score beside the score, see `losses`; by default 2 / d for points of d
    values, 1 for a single one, at which both count by the noise of their targets.

    `contrastive_weight` is that of telling conditions apart by log densities, so that ratios of conditions are right;
    by default 8 / d for calibrated energies of images, 0 else. Larger ones make ratios more exact, all else less.
    """

    num_steps: Annotated[int, check_integer] = 10_000
    batch_size: Annotated[int, check_integer] = 512
    learning_rate: Positive = 2e-3
    ema_decay: Share = 0.999
    max_gradient_norm: Positive = 1.0
    time_score_weight: Annotated[float | None, _weight] = None
    condition_dropout: Share = 0.1
    weight_decay: NotNegative = 0.0
    weighting: Annotated[str | None, _weighting] = None
    outlier_share: Share = 0.0
    contrastive_weight: Annotated[float | None, _weight] = None

    def optimiser(self) -> optax.GradientTransformation:
        """Adam with warm-up, cosine decay and gradient clipping; `weight_decay` shrinks the network's matrices."""
        warmup = min(200, self.num_steps // 10)
        rate = optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, warmup, self.num_steps)
        # Two optimisers, since the state of adamw is another tree, and files hold that of adam.
        decay = {"weight_decay": self.weight_decay, "mask": _decayed}
        adam = optax.adamw(rate, **decay) if self.weight_decay else optax.adam(rate)
        return optax.chain(optax.clip_by_global_norm(self.max_gradient_norm), adam)


#: For images, where nothing is said: steps cost more.
OF_IMAGES = TrainingConfig(batch_size=32, learning_rate=1e-3, max_gradient_norm=10.0)


def with_defaults(training: TrainingConfig | None, *, images: bool) -> TrainingConfig:
    """The settings, or those of images or of other points where there are none."""
    training = (OF_IMAGES if images else TrainingConfig()) if training is None else training
    check_instance("training", training, TrainingConfig)
    return training


def settled(training: TrainingConfig, size: int, *, images: bool, energy: bool, calibrated: bool) -> TrainingConfig:
    """Settings with nothing left open, for images or other points of `size` values, energies or score models.

    ParameterError where what is not calibrated is to be told apart by log densities.
    """
    weighting = training.weighting or ("denoiser" if images or calibrated else "score")
    contrastive = training.contrastive_weight
    if contrastive and not calibrated:
        raise ParameterError(
            f"contrastive_weight must be 0 where log densities are not calibrated; got {contrastive}. Leave it out."
        )
    time_score_weight = min(1, 2 / size) if training.time_score_weight is None else training.time_score_weight
    contrastive = 8 / size * (images and calibrated) if contrastive is None else contrastive
    return dataclasses.replace(
        training, weighting=weighting, contrastive_weight=contrastive, time_score_weight=time_score_weight
    )


class Task(Protocol):
    """What is optimised: a pytree, whose arrays are arguments of the compiled steps."""

    @property
    def fast_in_scan(self) -> bool:
        """Whether steps are fast within a loop of JAX; convolutions are not, on CPUs."""
        ...

    @property
    def ema_warmup(self) -> tuple[float, float]:
        """(p, q): in step n the average's decay is at most (p + n) / (q + n), so that it soon forgets its start."""
        ...

    def draw(self, rng_key, config: TrainingConfig) -> tuple[Any, Any]:
        """A batch, whose arrays have `config.batch_size` rows, and a key for its loss."""
        ...

    def loss(self, weights, batch, rng_key, config: TrainingConfig) -> jax.Array:
        """The mean loss over a batch."""
        ...

    def check(self, batch) -> None:
        """Raise ParameterError if it is the batch that makes a loss that is not finite."""


class TrainingState(NamedTuple):
    """What a step changes: weights, the optimiser's state, the moving average of the weights, and the step's number."""

    weights: Any
    optimiser_state: Any
    average: Any
    step: jax.Array


def optimise(rng_key, task: Task, weights, config: TrainingConfig, keeper: Keeper, *, name: str, progress_bar: bool):
    """Weights after the steps of `config`, as their exponential moving average; see `fit` for interrupts and devices.

    Raises:
        ParameterError: if a loss is not finite.
        CheckpointError: if the keeper's file is damaged or belongs to another run.
    """
    fresh = TrainingState(weights, config.optimiser().init(weights), weights, jnp.zeros((), jnp.int32))
    fresh = jax.tree.map(jnp.array, fresh)  # distinct buffers: the state is donated
    num_devices = max(n for n in range(1, jax.local_device_count() + 1) if config.batch_size % n == 0)
    with sole_writer(keeper.path):
        # As a tuple, since files know its parts by their numbers.
        state = TrainingState(*(keeper.load(lambda arrays, _: restored(tuple(fresh), arrays)) or fresh))
        if num_devices > 1:
            state = jax.device_put(state, _sharding(num_devices))
        step, chunk = int(state.step), CHUNK if task.fast_in_scan else SLOW_CHUNK
        bar = tqdm(total=config.num_steps, initial=step, disable=not progress_bar, desc=name)
        with bar, Interrupt() as interrupt:
            while step < config.num_steps and not interrupt.asked:
                count = min(chunk, config.num_steps - step)
                state, value = _advance(state, task, rng_key, count, config, num_devices)
                step += count
                if not np.isfinite(value):
                    for number in range(step - count, step):
                        task.check(task.draw(jax.random.fold_in(rng_key, number), config)[0])
                    raise ParameterError(
                        f"the loss became {value} at step {step}; the checkpoint before it is kept. "
                        "Lower learning_rate or max_gradient_norm."
                    )
                bar.update(count)
                bar.set_postfix(loss=f"{value:.4f}")
                ends = step == config.num_steps or interrupt.asked
                keeper.keep(lambda state: (named_leaves(tuple(state)), {}), state, now=ends)
    if step < config.num_steps:
        remedy = "The same call goes on from there." if keeper.path else "checkpoint_path= makes training resume."
        text = f"interrupted after step {step} of {config.num_steps}: the weights are as trained so far. {remedy}"
        warn(InterruptWarning(text, step))
    return state.average


def _advance(state, task, rng_key, count, config, num_devices):
    """`count` steps, in one loop of JAX where that is fast: (state, mean loss)."""
    parts, gradients = ([count], nullcontext()) if task.fast_in_scan else ([1] * count, native_gradients())
    values = []
    with gradients:
        for part in parts:
            state, value = _train_chunk(state, task, rng_key, count=part, config=config, num_devices=num_devices)
            values.append(jnp.ravel(value))
    return state, float(jnp.mean(jnp.concatenate(values)))


@functools.partial(jax.jit, static_argnames=("config", "count", "num_devices"), donate_argnums=0)
def _train_chunk(state, task, rng_key, *, config: TrainingConfig, count: int, num_devices: int):
    """`count` optimiser steps; the keys depend on the step's number only, so a resumed run repeats exactly."""
    optimiser, (p, q) = config.optimiser(), task.ema_warmup

    def step(state, _):
        weights, optimiser_state, average, number = state
        batch, loss_key = task.draw(jax.random.fold_in(rng_key, number), config)
        if num_devices > 1:
            batch = jax.lax.with_sharding_constraint(batch, _sharding(num_devices, "batch"))
        value, gradient = jax.value_and_grad(task.loss)(weights, batch, loss_key, config)
        updates, optimiser_state = optimiser.update(gradient, optimiser_state, weights)
        weights = optax.apply_updates(weights, updates)
        decay = jnp.minimum(config.ema_decay, (p + number) / (q + number))
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, weights)
        return TrainingState(weights, optimiser_state, average, number + 1), value

    return step(state, None) if count == 1 else jax.lax.scan(step, state, None, length=count)


@functools.cache
def _sharding(num_devices: int, *axes: str) -> NamedSharding:
    devices = jax.devices()[:num_devices]
    mesh = jax.make_mesh((num_devices,), ("batch",), axis_types=(AxisType.Auto,), devices=devices)
    return NamedSharding(mesh, PartitionSpec(*axes))


def _decayed(state):
    # Matrices of the network: no biases, no frequencies, and not the offset, which has heights to reach.
    def is_matrix(path, leaf):
        return leaf.ndim >= 2 and "offset" not in jax.tree_util.keystr(path)

    return jax.tree_util.tree_map_with_path(is_matrix, state)
