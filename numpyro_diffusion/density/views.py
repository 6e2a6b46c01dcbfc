r"""Linear views z = A x + alpha b of a larger point x, through which a density can be read at every noise level.

With :math:`A A^T = s^2 I` a view of noise is noise: of :math:`x = \alpha (x_0 + r \varepsilon)` it shows
:math:`z = \alpha (A x_0 + b + s r \varepsilon')`, the same alpha at the ratio s r. A density p of z is read where its
schedule has that ratio, :math:`r_{t'} = s r_t`, at the point in the units there,

.. math:: \log p(A x + \alpha_t b, t) =
          \log p\big((A x + \alpha_t b) \, \alpha_{t'} / \alpha_t, t'\big) + d \log (\alpha_{t'} / \alpha_t),

with d the size of z. Of a crop s = 1, and t' = t; a mean of n pixels has :math:`s = n^{-1/2}`. A schedule whose
smallest ratio :math:`r_0` is not zero has no level of :math:`s r_t < r_0`: there t' = 0, and p is read as of data
smoothed by :math:`r_0`. Of Gaussian data of variance c that is off by :math:`(\log q + 1 - q) / 2` nats a dimension in
the mean, :math:`q = (c + s^2 r_t^2) / (c + r_0^2)`: nothing where c is large beside :math:`r_0^2`.

A view is a matrix for each axis of x, or one for all of it: places are data, so that windows of one network are stacked
and read in one call, and other places compile nothing anew.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import math
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.fields import check_flag
from ..checks.numbers import array_of, constant, is_traced
from ..errors import ParameterError, ShapeError, check_integer
from ..pytree import register


@register(("matrices", "offset", "scale"), ("name",))
class View:
    """How one density sees a point.

    Attributes:
        matrices: For each axis of the point [seen, all], or one [d, D] for the flattened point.
        offset: b, of the shape of what is seen.
        scale: s.
        name: For formulas.
    """

    def __init__(self, matrices: tuple, offset, scale, name: str):
        self.matrices, self.offset, self.scale, self.name = matrices, offset, scale, name

    def linear(self, x) -> jax.Array:
        """A x of the shape of what is seen."""
        x = x.reshape([matrix.shape[1] for matrix in self.matrices])
        for axis, matrix in enumerate(self.matrices):
            # Exact: a crop must not round.
            x = jnp.moveaxis(jnp.tensordot(matrix, x, axes=(1, axis), precision="highest"), 0, axis)
        return x.reshape(self.offset.shape)

    def shares(self) -> jax.Array:
        """How much of each component of the point is seen, diag A' A / s^2 [D]."""
        squares = View(tuple(matrix**2 for matrix in self.matrices), self.offset, self.scale, self.name)
        return squares.adjoint(jnp.ones(self.offset.shape)) / self.scale**2

    def adjoint(self, z) -> jax.Array:
        """A' z, flattened."""
        z = z.reshape([len(matrix) for matrix in self.matrices])
        for axis, matrix in enumerate(self.matrices):
            z = jnp.moveaxis(jnp.tensordot(matrix.T, z, axes=(1, axis), precision="highest"), 0, axis)
        return jnp.ravel(z)

    @property
    def matrix(self) -> Any:
        """A [d, D]; for small points only."""
        return reduce(jnp.kron, self.matrices)

    def read(self, x, t, schedule) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The point (A x + alpha b) alpha' / alpha that is seen at time t, its time t', and d log(alpha' / alpha)."""
        seen = jnp.where(self.scale == 1, t, schedule.time(self.scale * schedule.noise_to_signal(t)))
        alpha, there = schedule.alpha(t), schedule.alpha(seen)
        z = (self.linear(x) + alpha * self.offset) * (there / alpha)
        return z, seen, z.size * (jnp.log(there) - jnp.log(alpha))

    def after(self, other: View) -> View:
        """This view of what another shows."""
        # What is known stays known, whatever is being traced.
        known = contextlib.nullcontext() if is_traced((self, other)) else jax.ensure_compile_time_eval()
        with known:
            is_alike = len(self.matrices) == len(other.matrices)
            pairs = zip(self.matrices, other.matrices, strict=True) if is_alike else [(self.matrix, other.matrix)]
            matrices = tuple(jnp.matmul(own, first, precision="highest") for own, first in pairs)
            offset, scale = self.offset + self.linear(other.offset), self.scale * other.scale
        return View(matrices, offset, scale, f"{self.name}@{other.name}")

    def __repr__(self):
        return self.name


class ViewOf(abc.ABC):
    """A view that is yet to be told of what: made by `nd.crop`, `nd.pool` and `nd.affine`."""

    @abc.abstractmethod
    def of(self, seen: tuple[int, ...], whole: tuple[int, ...]) -> View:
        """The view that shows points of the shape `seen` of those of the shape `whole`."""


@dataclasses.dataclass(frozen=True)
class Crop(ViewOf):
    place: tuple[int, ...]
    wraps: bool

    def of(self, seen, whole):
        place = self.place + (0,) * (len(whole) - len(self.place))
        if not len(seen) == len(whole) == len(place):
            raise ShapeError(f"{self!r} of points of shape {whole} cannot show any of shape {seen}: axes differ.")
        for start, size, most in zip(place, seen, whole, strict=True):
            if size > most or start >= most or (start + size > most and not self.wraps):
                raise ShapeError(
                    f"{self!r} lies outside: a window of shape {seen} there ends at "
                    f"{tuple(s + n for s, n in zip(place, seen, strict=True))}, and the points have shape {whole}. "
                    f"Place it at most at {tuple(n - s for n, s in zip(whole, seen, strict=True))}."
                )
        matrices = (np.roll(np.eye(size, most), start, 1) for start, size, most in zip(place, seen, whole, strict=True))
        return View(tuple(map(constant, matrices)), constant(np.zeros(seen)), constant(1.0), repr(self))

    def __repr__(self):
        return f"crop({', '.join(map(str, self.place))})"


@dataclasses.dataclass(frozen=True)
class Pool(ViewOf):
    size: int

    def of(self, seen, whole):
        pooled = min(len(seen), 2)
        needed = tuple(self.size * n if axis < pooled else n for axis, n in enumerate(seen))
        if needed != whole:
            raise ShapeError(
                f"{self!r} shows points of shape {seen} of those of shape {needed}; got {whole}. Give that shape, or "
                "crop it out of a larger one: density.seen(nd.pool(k), shape).seen(nd.crop(i, j), larger)."
            )
        factors = [self.size if axis < pooled else 1 for axis in range(len(seen))]
        matrices = (np.kron(np.eye(n), np.full((1, k), 1 / k)) for n, k in zip(seen, factors, strict=True))
        scale = constant(self.size ** (-pooled / 2))
        return View(tuple(map(constant, matrices)), constant(np.zeros(seen)), scale, repr(self))

    def __repr__(self):
        return f"pool({self.size})"


@dataclasses.dataclass(frozen=True, eq=False)
class Affine(ViewOf):
    matrix: Any
    offset: Any

    def of(self, seen, whole):
        size = math.prod(seen), math.prod(whole)
        if self.matrix.shape != size:
            raise ShapeError(
                f"the matrix of an affine view of points of shape {whole} that shows {seen} must have shape {size}; "
                f"got {self.matrix.shape}."
            )
        square = self.matrix @ self.matrix.T
        scale = (square.trace() / size[0]) ** 0.5
        if not is_traced(self.matrix):
            off = np.max(np.abs(square - scale**2 * np.eye(size[0])))
            if not (scale > 0 and off <= 1e-5 * scale**2):
                raise ParameterError(
                    f"a view's matrix A must have A A' = s^2 I, for its noise to be white at one level; it is off by "
                    f"{off / scale**2 if scale > 0 else math.inf:.2g} of s^2. Make its rows orthogonal, of one length."
                )
            if scale > 1 + 1e-5:
                raise ParameterError(
                    f"a view must not amplify noise, which would exceed the schedule's at t = 1; its rows have length "
                    f"{scale:.4g}. Divide the matrix by it, and let the density be of such points."
                )
            scale = 1.0 if abs(scale - 1) <= 1e-6 else scale
        offset = np.zeros(size[0]) if self.offset is None else self.offset
        if jnp.size(offset) != size[0]:
            raise ShapeError(f"the offset of an affine view that shows {seen} must have that shape.")
        known = (lambda a: a) if is_traced((self.matrix, offset)) else constant
        return View((known(self.matrix),), known(offset).reshape(seen), known(scale), repr(self))

    def __repr__(self):
        return "affine"


def crop(*place: int, wrap: bool = False) -> ViewOf:
    """The view of a window at `place`, (row, column) for images; axes that are not named are seen whole.

    With `wrap` it goes on at the other side of the point.

    Raises:
        ParameterError: for places that are no whole numbers >= 0.
    """
    check_flag("wrap", wrap)
    if not place:
        raise ParameterError("crop needs a place, as in nd.crop(0, 16); got none.")
    return Crop(tuple(check_integer("a place of nd.crop", i, 0, remedy="Give row and column.") for i in place), wrap)


def pool(size: int) -> ViewOf:
    """The view of means over `size` x `size` pixels of images, whose noise is sigma / size, or over `size` neighbours.

    Below the smallest noise-to-signal ratio of the density's schedule, where that is not zero, the density is read at
    that ratio, which matters for data as narrow as it: see `views`.

    Raises:
        ParameterError: for a size that is no whole number >= 1.
    """
    return Pool(check_integer("the size of nd.pool", size, remedy="Give the side of what is averaged."))


def affine(matrix: Any, offset: Any = None) -> ViewOf:
    """The view A x + alpha b of the flattened point: a matrix A [d, D] with A A' = s^2 I, s <= 1, and an offset b [d].

    Both may be traced, and are then not checked.

    Raises:
        ShapeError: for what is no matrix.
        ParameterError: if rows are not orthogonal and of one length, at most one, where the view is taken.
    """
    matrix = array_of("matrix", matrix, "a matrix [d, D]")
    if matrix.ndim != 2:
        raise ShapeError(f"the matrix of an affine view must have shape [d, D]; got {matrix.shape}.")
    return Affine(matrix, None if offset is None else array_of("offset", offset, "an array [d]"))
