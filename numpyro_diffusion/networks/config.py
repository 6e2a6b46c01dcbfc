"""Architectures of a density's network: static, compared by value, stored with its checkpoint."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from ..errors import ParameterError, ShapeError
from .mlp import Offset, ResidualMLP
from .patches import PatchPotential
from .unet import UNet


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
    #: Whether data are images [height, width, channels], with variances along cosines.
    takes_images: ClassVar[bool] = False

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
    takes_images: ClassVar[bool] = False

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


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """A U-Net, see `networks.unet`: for images.

    Attributes:
        shape: Height, width and channels of the images.
        width: Channels at full resolution; `multipliers` give those of each resolution, halved from one to the next.
        num_blocks: Residual blocks per resolution, on the way down and on the way up.
        attention: Heights of the resolutions that have self-attention after each block.
        embedding_size: Size of the embedding of noise level and condition, even.
        condition_size: Length of the condition vector; set by `fit`.
        num_positions: How many positions (column, row) in [0, 1] the condition starts with; they enter as maps.
        position_width: Standard deviation of a position's map, in image widths.
        compute_dtype: "float32" or "bfloat16", of convolutions and attention; energies are summed in float32.
        rematerialise: Compute blocks anew in the backward pass, for memory.
        normalise: Group normalisation in the residual blocks; without it a third faster on a CPU.
        small_start: Start from a small output, not from zero: an l2 energy has no gradient at zero.
    """

    shape: tuple[int, int, int] = (32, 32, 3)
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2, 2)
    num_blocks: int = 2
    attention: tuple[int, ...] = ()
    embedding_size: int = 64
    condition_size: int = 0
    num_positions: int = 0
    position_width: float = 0.06
    compute_dtype: str = "float32"
    rematerialise: bool = False
    normalise: bool = True
    small_start: bool = False

    form: ClassVar[str | None] = None
    takes_images: ClassVar[bool] = True

    def __post_init__(self):
        for field in ("shape", "multipliers", "attention"):
            value = getattr(self, field)
            if not isinstance(value, list | tuple) or not all(isinstance(n, int) and n >= 1 for n in value):
                raise ParameterError(f"{field} must be a tuple of integers >= 1; got {value!r}.")
            object.__setattr__(self, field, tuple(value))
        _check_integers(
            self,
            {"width": 1, "num_blocks": 1, "embedding_size": 2, "condition_size": 0, "num_positions": 0},
        )
        if len(self.shape) != 3:
            raise ParameterError(f"shape must be (height, width, channels); got {self.shape}.")
        factor = 2 ** (len(self.multipliers) - 1)
        if not self.multipliers or self.shape[0] % factor or self.shape[1] % factor:
            raise ParameterError(
                f"height and width must be divisible by {factor}, once by 2 for each multiplier after the first; got "
                f"{self.shape[:2]}. Drop a multiplier or pad the images."
            )
        heights = [self.shape[0] >> level for level in range(len(self.multipliers))]
        if not set(self.attention) <= set(heights):
            raise ParameterError(f"attention must name heights among {heights}; got {self.attention}.")
        if self.compute_dtype not in ("float32", "bfloat16"):
            raise ParameterError(f"compute_dtype must be 'float32' or 'bfloat16'; got {self.compute_dtype!r}.")
        if not (math.isfinite(self.position_width) and self.position_width > 0):
            raise ParameterError(f"position_width must be positive; got {self.position_width}.")

    @property
    def dtype(self):
        """The type of convolutions and attention."""
        return jnp.dtype(self.compute_dtype)

    def build(self, size: int, rng_key: jax.Array) -> tuple[Any, Any]:
        """A fresh network and offset as nnx (graph definition, state)."""
        if size != math.prod(self.shape):
            raise ShapeError(
                f"images of shape {self.shape} have {math.prod(self.shape)} values; the data have {size}. "
                "Give the shape of the data."
            )
        if 2 * self.num_positions > self.condition_size:
            raise ShapeError(
                f"{self.num_positions} positions are {2 * self.num_positions} numbers of a condition; the data's "
                f"conditions have {self.condition_size}. Give conditions that start with the positions."
            )
        rngs = nnx.Rngs(params=rng_key)
        return nnx.split(nnx.Dict(network=UNet(self, rngs=rngs), offset=Offset(rngs=rngs)))


CONFIGS = {cls.__name__: cls for cls in (NetworkConfig, PatchConfig, UNetConfig)}
