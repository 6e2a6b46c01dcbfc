"""Axes along which coordinates are uncorrelated: a covariance's own, cosines of images, or those of a precision."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft


class DenseAxes(NamedTuple):
    """Axes in the columns of `vectors` [d, d]."""

    vectors: Any

    def coordinates(self, y):
        """Point [d] to coordinates [d]."""
        return y @ self.vectors

    def point(self, v):
        """Coordinates [d] to point [d]."""
        return self.vectors @ v


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class CosineAxes:
    r"""Type-II cosine transform along rows, columns and channels of images [height, width, channels], flattened.

    Neighbouring pixels and the channels of one pixel are alike, so variances decay fast along these axes and products
    of them are nearly uncorrelated; a transform costs three small matrix products, where axes of the data's own cost
    d^2. For three channels the transform along them is brightness and two opponent colours.
    """

    shape: tuple[int, int, int]

    def coordinates(self, y):
        """Image [d], flattened, to coordinates [d]."""
        return jnp.einsum("hwc,ph,qw,rc->pqr", y.reshape(self.shape), *map(cosines, self.shape)).reshape(-1)

    def point(self, v):
        """Coordinates [d] to image [d], flattened."""
        return jnp.einsum("pqr,ph,qw,rc->hwc", v.reshape(self.shape), *map(cosines, self.shape)).reshape(-1)

    @property
    def vectors(self) -> jax.Array:
        """The axes in columns [d, d]; for small d only."""
        return jax.vmap(self.point, out_axes=1)(jnp.eye(int(np.prod(self.shape))))


def channels(y, count: int) -> jax.Array:
    """Image [d], flattened, as [c, n] along the cosines of its channels."""
    return jnp.matmul(cosines(count), y.reshape(-1, count).T, precision="highest")


def image(v) -> jax.Array:
    """What `channels` made [c, n] as the image [d] again."""
    return jnp.matmul(cosines(len(v)).T, v, precision="highest").T.reshape(-1)


@functools.cache
def cosines(size: int) -> np.ndarray:
    """The orthonormal type-II cosine transform as a matrix [frequency, place]."""
    return np.asarray(scipy.fft.dct(np.eye(size), axis=0, norm="ortho"), dtype=np.float32)


class TriangularAxes(NamedTuple):
    """Axes of images that are not orthogonal but of volume one, as a Cholesky factor of a precision has them.

    Known for draws only. `roots` [c, n, n] are lower triangular with ones on the diagonal, one for each cosine along
    the channels of n pixels.
    """

    roots: Any

    def coordinates(self, y):
        """Image [d], flattened, to coordinates [d]."""
        return jnp.einsum("cij,ci->cj", self.roots, channels(y, len(self.roots)), precision="highest").reshape(-1)

    def point(self, v):
        """Coordinates [d] to image [d], flattened."""
        solve = functools.partial(jax.scipy.linalg.solve_triangular, lower=True, trans=1, unit_diagonal=True)
        return image(jax.vmap(solve)(self.roots, v.reshape(self.roots.shape[:2])))


Axes = DenseAxes | CosineAxes
