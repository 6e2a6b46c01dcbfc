"""Architectures of a density's network: static, compared by value, stored with its checkpoint."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from ..checks.fields import check_choice, check_fields, check_flag, check_integers, positive
from ..checks.text import shown
from ..errors import ParameterError, ShapeError, check_integer, check_number
from .mlp import Offset, ResidualMLP
from .patches import PatchPotential
from .unet import UNet

#: Most units, pixels or blocks: far beyond what is trained, and short of what an allocation of nonsense would take.
LARGEST = 2**20

count = partial(check_integer, high=LARGEST)
count_or_zero = partial(count, low=0)
sizes = partial(check_integers, high=LARGEST)


def even(name: str, value, low: int = 1, remedy: str = "") -> int:
    """The value, an even integer >= low, or a ParameterError."""
    if count(name, value, low, remedy=remedy) % 2:
        raise ParameterError(f"{name} must be even; got {value}. {remedy}".rstrip())
    return int(value)


def _grey_values(name: str, value, remedy: str) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ParameterError(f"{name} must be the grey values of black and white; got {shown(value)}. {remedy}")
    black = check_number(f"the first of {name}", value[0], -LARGEST, LARGEST, remedy)
    return black, check_number(f"the second of {name}", value[1], black, LARGEST, remedy, ends="(]")


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
        check_fields(
            self, width=count, num_blocks=count, expansion=count, embedding_size=even, condition_size=count_or_zero
        )

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
        check_fields(
            self, grid=partial(sizes, axes="height, width"), width=count, patch_size=count, limits=_grey_values,
            resolution=positive, embedding_size=even, condition_size=count_or_zero,
        )  # fmt: skip
        if self.patch_size % 2 == 0:
            raise ParameterError(f"patch_size must be odd, so that a patch has a middle; got {self.patch_size}. Add 1.")

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
        check_fields(
            self, shape=partial(sizes, axes="height, width, channels"), width=count, multipliers=sizes,
            num_blocks=count, attention=sizes, embedding_size=even, condition_size=count_or_zero,
            num_positions=count_or_zero, position_width=positive, rematerialise=check_flag, normalise=check_flag,
            small_start=check_flag, compute_dtype=partial(check_choice, known=("float32", "bfloat16")),
        )  # fmt: skip
        if len(self.multipliers) > 20:
            raise ParameterError(f"multipliers may halve images 20 times; got {len(self.multipliers)}. Drop some.")
        factor = 2 ** (len(self.multipliers) - 1)
        if not self.multipliers or self.shape[0] % factor or self.shape[1] % factor:
            raise ParameterError(
                f"height and width must be divisible by {factor}, once by 2 for each multiplier after the first; got "
                f"{self.shape[:2]}. Drop a multiplier or pad the images."
            )
        heights = [self.shape[0] >> level for level in range(len(self.multipliers))]
        if not set(self.attention) <= set(heights):
            raise ParameterError(f"attention must name heights among {heights}; got {self.attention}. Drop others.")

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
