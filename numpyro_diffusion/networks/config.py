"""Architectures of a density's network: static, compared by value, stored with its checkpoint."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from ..checks.text import shown
from ..errors import ParameterError, ShapeError
from .mlp import Offset, ResidualMLP
from .patches import PatchPotential
from .unet import UNet

#: Most units, pixels or blocks: far beyond what is trained, and short of what an allocation of nonsense would take.
LARGEST = 2**20


def is_integer(value, lowest: int = 1) -> bool:
    """Whether it is an integer, and no boolean, from the lowest to `LARGEST`."""
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= LARGEST


def check_integers(config, least: dict[str, int]) -> None:
    """Raise ParameterError unless these fields of a config are integers from their least to `LARGEST`."""
    for field, lowest in least.items():
        value = getattr(config, field)
        if not is_integer(value, lowest):
            raise ParameterError(f"{field} must be an integer >= {lowest}, of at most {LARGEST}; got {shown(value)}.")
    if config.embedding_size % 2:
        raise ParameterError(f"embedding_size must be even; got {config.embedding_size}.")


def make_tuples(config, *fields: str) -> None:
    """Make tuples of these fields of a config, which JSON gives as lists, or raise ParameterError: integers from 1."""
    for field in fields:
        value = getattr(config, field)
        if not isinstance(value, list | tuple) or not all(is_integer(n) for n in value):
            raise ParameterError(f"{field} must be a tuple of integers >= 1; got {shown(value)}.")
        object.__setattr__(config, field, tuple(value))


def is_real(value) -> bool:
    """Whether it is a finite number, and no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_reals(config, *fields: str, or_zero: bool = False) -> None:
    """Raise ParameterError unless these fields of a config are positive numbers, or zero where that is allowed."""
    for field in fields:
        value = getattr(config, field)
        if not is_real(value) or value < 0 or (value == 0 and not or_zero):
            raise ParameterError(f"{field} must be {'>= 0' if or_zero else 'positive'}; got {shown(value)}.")


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
        check_integers(self, least)

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
        make_tuples(self, "grid")
        check_integers(self, {"width": 1, "patch_size": 1, "embedding_size": 2, "condition_size": 0})
        if len(self.grid) != 2:
            raise ParameterError(f"grid must be the image's height and width; got {shown(self.grid)}.")
        if self.patch_size % 2 == 0:
            raise ParameterError(f"patch_size must be odd, so that a patch has a middle; got {self.patch_size}.")
        limits = self.limits
        pair = isinstance(limits, list | tuple) and len(limits) == 2 and all(map(is_real, limits))
        if not pair or not limits[0] < limits[1]:
            raise ParameterError(f"limits must be the grey values of black and white, in order; got {shown(limits)}.")
        object.__setattr__(self, "limits", tuple(map(float, limits)))
        check_reals(self, "resolution")

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
        make_tuples(self, "shape", "multipliers", "attention")
        check_integers(
            self, {"width": 1, "num_blocks": 1, "embedding_size": 2, "condition_size": 0, "num_positions": 0}
        )
        if len(self.shape) != 3:
            raise ParameterError(f"shape must be (height, width, channels); got {self.shape}.")
        if len(self.multipliers) > 20:
            raise ParameterError(f"multipliers may halve images 20 times; got {len(self.multipliers)}.")
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
            raise ParameterError(f"compute_dtype must be 'float32' or 'bfloat16'; got {shown(self.compute_dtype)}.")
        check_reals(self, "position_width")
        for field in ("rematerialise", "normalise", "small_start"):
            if not isinstance(getattr(self, field), bool):
                raise ParameterError(f"{field} must be True or False; got {shown(getattr(self, field))}.")

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
