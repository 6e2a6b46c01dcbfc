"""Architectures of a density's network: static, compared by value, stored with its checkpoint."""

from __future__ import annotations

import abc
import dataclasses
import math
from functools import partial
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from ..checks.fields import Checked, Flag, Positive, check_choice, check_integers
from ..checks.text import shown
from ..errors import ParameterError, ShapeError, check_integer, check_number
from .mlp import Offset, ResidualMLP
from .patches import PatchPotential
from .text import TextConfig
from .unet import UNet

#: Most units, pixels or blocks: far beyond what is trained, and short of what an allocation of nonsense would take.
LARGEST = 2**20

_count = partial(check_integer, high=LARGEST)
Count = Annotated[int, _count]
CountOrZero = Annotated[int, partial(_count, low=0)]
Sizes = Annotated[tuple[int, ...], partial(check_integers, high=LARGEST)]
ImageShape = Annotated[tuple[int, int, int], partial(check_integers, high=LARGEST, axes="height, width, channels")]


def even(name: str, value, low: int = 1, remedy: str = "") -> int:
    """The value, an even integer >= low, or a ParameterError."""
    if _count(name, value, low, remedy=remedy) % 2:
        raise ParameterError(f"{name} must be even; got {value}. {remedy}".rstrip())
    return int(value)


def _grey_values(name: str, value, remedy: str) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ParameterError(f"{name} must be the grey values of black and white; got {shown(value)}. {remedy}")
    black = check_number(f"the first of {name}", value[0], -LARGEST, LARGEST, remedy)
    return black, check_number(f"the second of {name}", value[1], black, LARGEST, remedy, ends="(]")


def _text(name: str, value, remedy: str = "") -> TextConfig | None:
    if value is not None and not isinstance(value, TextConfig | dict):
        raise ParameterError(f"{name} must be a TextConfig or None; got {shown(value)}. {remedy}")
    return TextConfig(**value) if isinstance(value, dict) else value  # files hold fields


class _Config(Checked, abc.ABC):
    #: How captions are read, a TextConfig, or None where conditions are no captions.
    text: Any = None
    #: The one energy form the network can take, or None where the user chooses.
    form: ClassVar[str | None] = None
    #: Whether data are images [height, width, channels], with variances along cosines.
    takes_images: ClassVar[bool] = False

    def build(self, size: int, rng_key: jax.Array) -> tuple[Any, Any]:
        """A fresh network and offset as nnx (graph definition, state); ShapeError where it is for another size."""
        rngs = nnx.Rngs(params=rng_key)
        network = self._network(size, rngs)
        return nnx.split(nnx.Dict(network=network, offset=Offset(num_inputs=self._offset_inputs, rngs=rngs)))

    @property
    def _offset_inputs(self) -> int:
        """Numbers of the condition that the offset knows."""
        return 0

    @abc.abstractmethod
    def _network(self, size: int, rngs: nnx.Rngs) -> nnx.Module:
        """The network for points of `size` numbers."""


@dataclasses.dataclass(frozen=True)
class NetworkConfig(_Config):
    """A residual MLP f(u, log r, condition), see `networks.mlp`: for any data.

    Attributes:
        width: Width of the residual stream.
        num_blocks: Number of residual blocks.
        expansion: Width of a block's hidden layer over `width`.
        embedding_size: Size of the random Fourier embedding of the noise level, even.
        condition_size: Length of the condition vector; set by `fit`.
        condition_offset: Whether an energy's offset knows the condition, too; set by `fit`.
        scalar_outputs: Outputs beyond the point's d, for heights of an energy of form "residual"; set by `fit`.
    """

    width: Count = 128
    num_blocks: Count = 4
    expansion: Count = 2
    embedding_size: Annotated[int, even] = 32
    condition_size: CountOrZero = 0
    condition_offset: Flag = False
    scalar_outputs: CountOrZero = 0

    @property
    def _offset_inputs(self):
        return self.condition_size + 1 if self.condition_offset and self.condition_size else 0

    def _network(self, size, rngs):
        return ResidualMLP(size, self, num_outputs=size + self.scalar_outputs, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class PatchConfig(_Config):
    """A bounded potential of small images, see `networks.patches`: for few images, on a mixture base.

    The condition acts through the base alone: classes share the potential.

    Attributes:
        grid: Height and width of the image.
        width: Number of patch features.
        patch_size: Side of a patch, odd.
        limits: Grey values of black and white.
        resolution: delta, the spread of pixels at a limit: of dequantisation noise, say.
        embedding_size: Size of the random Fourier embedding of the noise level, even.
        condition_size: Length of the condition vector; set by `fit`.
    """

    grid: Annotated[tuple[int, int], partial(check_integers, high=LARGEST, axes="height, width")] = (8, 8)
    width: Count = 32
    patch_size: Count = 3
    limits: Annotated[tuple[float, float], _grey_values] = (-1.0, 1.0)
    resolution: Positive = 0.04
    embedding_size: Annotated[int, even] = 16
    condition_size: CountOrZero = 0

    form: ClassVar[str | None] = "potential"

    def __post_init__(self):
        super().__post_init__()
        if self.patch_size % 2 == 0:
            raise ParameterError(f"patch_size must be odd, so that a patch has a middle; got {self.patch_size}. Add 1.")

    def _network(self, size, rngs):
        if size != math.prod(self.grid):
            raise ShapeError(
                f"a grid of {self.grid} has {math.prod(self.grid)} pixels; the data have {size}. Give grid=."
            )
        return PatchPotential(self, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class UNetConfig(_Config):
    """A U-Net, see `networks.unet`: for images.

    Attributes:
        shape: Height, width and channels of the images.
        width: Channels at full resolution; `multipliers` give those of each resolution, halved from one to the next.
        patch_size: Side of the patches whose pixels are the channels that the network reads and writes; 2 halves the
            full resolution (Hoogeboom et al. 2023), at a quarter of the cost.
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
        text: A `TextConfig` where conditions are captions; its transformer is trained along.
    """

    shape: ImageShape = (32, 32, 3)
    width: Count = 32
    multipliers: Sizes = (1, 2, 2)
    num_blocks: Count = 2
    attention: Sizes = ()
    embedding_size: Annotated[int, even] = 64
    condition_size: CountOrZero = 0
    num_positions: CountOrZero = 0
    position_width: Positive = 0.06
    compute_dtype: Annotated[str, partial(check_choice, known=("float32", "bfloat16"))] = "float32"
    rematerialise: Flag = False
    normalise: Flag = True
    small_start: Flag = False
    text: Annotated[TextConfig | None, _text] = None
    patch_size: Count = 1

    takes_images: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if len(self.multipliers) > 20:
            raise ParameterError(f"multipliers may halve images 20 times; got {len(self.multipliers)}. Drop some.")
        factor = self.patch_size * 2 ** (len(self.multipliers) - 1)
        if not self.multipliers or self.shape[0] % factor or self.shape[1] % factor:
            raise ParameterError(
                f"height and width must be divisible by {factor}, once by 2 for each multiplier after the first and by "
                f"patch_size; got {self.shape[:2]}. Drop a multiplier or pad the images."
            )
        heights = [self.shape[0] // self.patch_size >> level for level in range(len(self.multipliers))]
        if not set(self.attention) <= set(heights):
            raise ParameterError(f"attention must name heights among {heights}; got {self.attention}. Drop others.")
        if self.text is not None and self.num_positions:
            raise ParameterError(f"a condition is a caption or positions; got text and {self.num_positions} positions.")

    @property
    def dtype(self):
        """The type of convolutions and attention."""
        return jnp.dtype(self.compute_dtype)

    def _network(self, size, rngs):
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
        if self.text is not None and self.condition_size != self.text.max_tokens:
            raise ShapeError(
                f"the network reads captions of {self.text.max_tokens} tokens; the data's conditions have "
                f"{self.condition_size}. Give conditions=, captions or their tokens."
            )
        return UNet(self, rngs=rngs)


CONFIGS = {cls.__name__: cls for cls in (NetworkConfig, PatchConfig, UNetConfig)}
