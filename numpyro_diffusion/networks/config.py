"""Architectures of a density's network: static, compared by value, stored with its checkpoint."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import jax
from flax import nnx

from ..errors import ParameterError, ShapeError
from .mlp import Offset, ResidualMLP
from .patches import PatchPotential


def _check_integers(config, least: dict[str, int]) -> None:
    for field, lowest in least.items():
        value = getattr(config, field)
        if not isinstance(value, int) or value < lowest:
            raise ParameterError(f"{field} must be an integer >= {lowest}; got {value!r}.")
    if config.embedding_size % 2:
        raise ParameterError(f"embedding_size must be even; got {config.embedding_size}.")


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """A residual MLP f(u, log r, condition), see `networks.mlp`: for any data."""

    width: int = 128
    num_blocks: int = 4
    expansion: int = 2
    embedding_size: int = 32
    condition_size: int = 0

    #: The one energy form the network can take, or None where the user chooses.
    form: ClassVar[str | None] = None

    def __post_init__(self):
        least = {field.name: 0 if field.name == "condition_size" else 1 for field in dataclasses.fields(self)}
        _check_integers(self, least)

    def build(self, size: int, rng_key: jax.Array) -> tuple[Any, Any]:
        """A fresh network and offset as nnx (graph definition, state)."""
        rngs = nnx.Rngs(params=rng_key)
        shape = (size, self.width, self.num_blocks, self.expansion, self.embedding_size, self.condition_size)
        return nnx.split(nnx.Dict(network=ResidualMLP(*shape, rngs=rngs), offset=Offset(rngs=rngs)))


@dataclasses.dataclass(frozen=True)
class PatchConfig:
    """A bounded potential of small images, see `networks.patches`: for few images, on a mixture base.

    The condition acts through the base alone: classes share the potential.
    """

    grid: tuple[int, int] = (8, 8)
    width: int = 32
    patch_size: int = 3
    limits: tuple[float, float] = (-1.0, 1.0)
    resolution: float = 0.04
    embedding_size: int = 16
    condition_size: int = 0

    form: ClassVar[str | None] = "potential"

    def __post_init__(self):
        # JSON has no tuples.
        object.__setattr__(self, "grid", tuple(self.grid))
        object.__setattr__(self, "limits", tuple(float(v) for v in self.limits))
        _check_integers(self, {"width": 1, "patch_size": 1, "embedding_size": 2, "condition_size": 0})
        if len(self.grid) != 2 or not all(isinstance(n, int) and n >= 1 for n in self.grid):
            raise ParameterError(f"grid must be the image's height and width; got {self.grid}.")
        if self.patch_size % 2 == 0:
            raise ParameterError(f"patch_size must be odd, so that a patch has a middle; got {self.patch_size}.")
        if len(self.limits) != 2 or not self.limits[0] < self.limits[1]:
            raise ParameterError(f"limits must be the grey values of black and white, in order; got {self.limits}.")
        if not (math.isfinite(self.resolution) and self.resolution > 0):
            raise ParameterError(f"resolution must be positive; got {self.resolution}.")

    def build(self, size: int, rng_key: jax.Array) -> tuple[Any, Any]:
        """A fresh potential and offset as nnx (graph definition, state)."""
        if size != math.prod(self.grid):
            raise ShapeError(f"a grid of {self.grid} has {math.prod(self.grid)} pixels; the data have {size}.")
        rngs = nnx.Rngs(params=rng_key)
        shape = (self.grid, self.width, self.patch_size, self.limits, self.resolution, self.embedding_size)
        return nnx.split(nnx.Dict(network=PatchPotential(*shape, rngs=rngs), offset=Offset(rngs=rngs)))


CONFIGS = {cls.__name__: cls for cls in (NetworkConfig, PatchConfig)}
