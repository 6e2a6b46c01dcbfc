"""How `fit` optimises: Adam with warm-up, cosine decay and clipping, and weight decay where data are few."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import optax

from ..errors import ParameterError

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
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ParameterError(f"{field} must be an integer >= 1; got {value!r}.")
        for field in ("learning_rate", "max_gradient_norm"):
            value = getattr(self, field)
            if not (np.isfinite(value) and value > 0):
                raise ParameterError(f"{field} must be positive; got {value}.")
        for field in ("ema_decay", "condition_dropout"):
            value = getattr(self, field)
            if not 0 <= value < 1:
                raise ParameterError(f"{field} must lie in [0, 1); got {value}.")
        for field in ("time_score_weight", "weight_decay"):
            value = getattr(self, field)
            if not (np.isfinite(value) and value >= 0):
                raise ParameterError(f"{field} must be >= 0; got {value}.")

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


def _decayed(state):
    # Matrices of the network: no biases, no frequencies, and not the offset, which has heights to reach.
    def is_matrix(path, leaf):
        return leaf.ndim >= 2 and "offset" not in jax.tree_util.keystr(path)

    return jax.tree_util.tree_map_with_path(is_matrix, state)
