"""One loop of training, for densities and classifiers.

Adam with warm-up, cosine decay and clipping, weight decay where data are few, and an average of the weights.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tqdm.auto import tqdm

from ..disk.contents import named_leaves, restored
from ..disk.runs import Interrupt, Keeper, sole_writer
from ..errors import ParameterError, check_integer, warn
from ..networks.convolution import native_gradients

#: Optimiser steps between two looks at progress, checkpoint and interrupts; fewer where steps take longer.
CHUNK, SLOW_CHUNK = 100, 10

WEIGHTINGS = ("score", "denoiser")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Optimisation settings of `fit`; static, and part of a checkpoint's identity.

    `weighting` is that of noise levels in the loss: "score" that of |r score + eps|^2, which makes log densities right
    where the noise is small, "denoiser" 1 + r^2 / s^2 times that (Karras et al. 2022), which teaches what is decided at
    large noise, such as where things are in an image.
    """

    num_steps: int = 10_000
    batch_size: int = 512
    learning_rate: float = 2e-3
    ema_decay: float = 0.999
    max_gradient_norm: float = 1.0
    time_score_weight: float = 1.0
    condition_dropout: float = 0.1
    weight_decay: float = 0.0
    weighting: str = "score"

    def __post_init__(self):
        for field in ("num_steps", "batch_size"):
            object.__setattr__(self, field, check_integer(field, getattr(self, field)))
        for field, must, fine in (
            ("learning_rate", "be positive", lambda v: v > 0), ("max_gradient_norm", "be positive", lambda v: v > 0),
            ("ema_decay", "lie in [0, 1)", lambda v: 0 <= v < 1), ("time_score_weight", "be >= 0", lambda v: v >= 0),
            ("condition_dropout", "lie in [0, 1)", lambda v: 0 <= v < 1), ("weight_decay", "be >= 0", lambda v: v >= 0),
        ):  # fmt: skip
            value = getattr(self, field)
            if not (np.isfinite(value) and fine(value)):
                raise ParameterError(f"{field} must {must}; got {value}.")
        if self.weighting not in WEIGHTINGS:
            raise ParameterError(f"weighting must be one of {WEIGHTINGS}; got {self.weighting!r}.")

    def optimiser(self) -> optax.GradientTransformation:
        """Adam with warm-up, cosine decay and gradient clipping; `weight_decay` shrinks the network's matrices."""
        warmup = min(200, self.num_steps // 10)
        rate = optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, warmup, self.num_steps)
        if self.weight_decay == 0:
            adam = optax.adam(rate)
        else:
            adam = optax.adamw(rate, weight_decay=self.weight_decay, mask=_decayed)
        return optax.chain(optax.clip_by_global_norm(self.max_gradient_norm), adam)


def optimise(rng_key, task, state, config: TrainingConfig, keeper: Keeper, *, name: str, progress_bar: bool):
    """Weights after the steps of `config`, as their exponential moving average.

    An interrupt (Ctrl-C) ends it early, with a warning. Where there are several local devices, as many of them as
    divide the batch share it.

    Args:
        rng_key: Key of all steps.
        task: What is optimised: a pytree, whose arrays are arguments of the compiled steps. It has methods
            `draw(rng_key, config)`, a batch, whose arrays have `config.batch_size` rows, and a key for its loss;
            `loss(state, batch, rng_key, config)`, the mean loss of weights over a batch; and `check(batch)`, which
            raises ParameterError if it is the batch that makes a loss that is not finite. `in_loop` says whether steps
            are fast within a loop of JAX; convolutions are not, on CPUs. `young` are numbers (a, b): in step n the
            average's decay is at most (a + n) / (b + n), so that it forgets its start faster while young.
        state: Weights to start from.
        config: Settings.
        keeper: Of the run's state; a run that it knows goes on, and ends with the same weights as an uninterrupted one.
        name: Of the progress bar.
        progress_bar: Show steps and loss.

    Raises:
        ParameterError: if a loss is not finite.
        CheckpointError: if the keeper's file is damaged or belongs to another run.
    """
    with sole_writer(keeper.path):
        return _optimised(rng_key, task, state, config, keeper, name, progress_bar)


def _optimised(rng_key, task, state, config, keeper, name, progress_bar):
    carry = (state, config.optimiser().init(state), state, jnp.zeros((), jnp.int32))
    carry = jax.tree.map(jnp.array, carry)  # distinct buffers: the carry is donated
    carry = keeper.load(lambda arrays, _: restored(carry, arrays)) or carry
    settings = {"config": config, "num_devices": _num_devices(config.batch_size)}
    if settings["num_devices"] > 1:
        carry = jax.device_put(carry, NamedSharding(_mesh(settings["num_devices"]), PartitionSpec()))
    number, chunk = int(carry[3]), CHUNK if task.in_loop else SLOW_CHUNK
    bar = tqdm(total=config.num_steps, initial=number, disable=not progress_bar, desc=name)
    with bar, Interrupt() as interrupt:
        while number < config.num_steps and not interrupt.asked:
            count = min(chunk, config.num_steps - number)
            carry, value = _advance(carry, task, rng_key, count, settings)
            number += count
            if not np.isfinite(value):
                for step in range(number - count, number):
                    task.check(task.draw(jax.random.fold_in(rng_key, step), config)[0])
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
        warn(f"interrupted after step {number} of {config.num_steps}: the weights are as trained so far. {remedy}")
    return carry[2]


def _advance(carry, task, rng_key, count, settings):
    """`count` steps: (carry, mean loss)."""
    if task.in_loop:
        carry, values = _train_chunk(carry, task, rng_key, count=count, **settings)
        return carry, float(jnp.mean(values))
    values = []
    with native_gradients():
        for _ in range(count):
            carry, one = _train_chunk(carry, task, rng_key, count=1, **settings)
            values.append(one)
    return carry, float(jnp.mean(jnp.stack(values)))


@functools.partial(jax.jit, static_argnames=("config", "count", "num_devices"), donate_argnums=0)
def _train_chunk(carry, task, rng_key, *, config: TrainingConfig, count: int, num_devices: int = 1):
    """`count` optimiser steps; the keys depend on the step's number only, so a resumed run repeats exactly."""
    optimiser, (a, b) = config.optimiser(), task.young

    def step(carry, _):
        state, optimiser_state, average, number = carry
        batch, loss_key = task.draw(jax.random.fold_in(rng_key, number), config)
        if num_devices > 1:
            batch = jax.lax.with_sharding_constraint(batch, NamedSharding(_mesh(num_devices), PartitionSpec("batch")))
        value, gradient = jax.value_and_grad(task.loss)(state, batch, loss_key, config)
        updates, optimiser_state = optimiser.update(gradient, optimiser_state, state)
        state = optax.apply_updates(state, updates)
        decay = jnp.minimum(config.ema_decay, (a + number) / (b + number))
        average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, average, state)
        return (state, optimiser_state, average, number + 1), value

    return step(carry, None) if count == 1 else jax.lax.scan(step, carry, None, length=count)


@functools.cache
def _mesh(num_devices: int):
    return jax.make_mesh((num_devices,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:num_devices])


def _num_devices(batch_size: int) -> int:
    """Devices that share a batch: as many of those there are as divide it."""
    return max(n for n in range(1, jax.local_device_count() + 1) if batch_size % n == 0)


def _decayed(state):
    # Matrices of the network: no biases, no frequencies, and not the offset, which has heights to reach.
    def is_matrix(path, leaf):
        return leaf.ndim >= 2 and "offset" not in jax.tree_util.keystr(path)

    return jax.tree_util.tree_map_with_path(is_matrix, state)
