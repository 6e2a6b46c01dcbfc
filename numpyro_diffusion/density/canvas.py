r"""The Gaussian that a product of views of one point is like.

Of factors :math:`N(A_k x; m_k, C_k)^{a_k}` precisions add on the point that all of them see part of,

.. math:: \Lambda = \sum_k a_k A_k^T C_k^{-1} A_k, \qquad \Lambda m = \sum_k a_k A_k^T C_k^{-1} m_k .

Small points have this matrix. Images whose factors have cosines for axes get its diagonal along the cosines of the
whole, a few small matrix products, for frames; only where chains start the exact one is factored, once, channel by
channel of the cosine transform along channels, which views leave alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .axes import CosineAxes, TriangularAxes, channels, cosines, image
from .gaussian import Gaussian, limited, quotient
from .views import View


class Part(NamedTuple):
    """A Gaussian of A x, flattened, of a view A; of x itself where that is None."""

    gaussian: Gaussian
    view: View | None

    def pull(self) -> jax.Array:
        """A' C^-1 m [D]."""
        mean, variance, axes = self.gaussian
        pulled = axes.point(axes.coordinates(mean) / variance)
        return pulled if self.view is None else self.view.adjoint(pulled)

    def precision(self) -> jax.Array:
        """A' C^-1 A [D, D]."""
        precision = self.gaussian.matrix_function(jnp.reciprocal)
        if self.view is None:
            return precision
        return jnp.einsum("ij,ik,kl->jl", self.view.matrix, precision, self.view.matrix, precision="highest")

    def along(self, axes: CosineAxes) -> jax.Array:
        """The diagonal [D] of the precision along cosines of the whole."""
        value = 1 / self.gaussian.variance.reshape(_shape(self))
        for axis, (turn, whole) in enumerate(zip(_turns(self), axes.shape, strict=True)):
            square = (turn @ cosines(whole).T) ** 2
            value = jnp.moveaxis(jnp.tensordot(square.T, value, axes=(1, axis), precision="highest"), 0, axis)
        return value.reshape(-1)

    def by_channel(self) -> jax.Array:
        """The precision [c, n, n] of the n pixels for each cosine along channels."""
        rows, columns, _ = _turns(self)
        turned = jnp.einsum("ap,bq,abc->cabpq", rows, columns, 1 / self.gaussian.variance.reshape(_shape(self)))
        left = jnp.einsum("cabpq,ar->cbrpq", turned, rows, precision="highest")
        both = jnp.einsum("cbrpq,bs->crspq", left, columns, precision="highest")
        size = rows.shape[1] * columns.shape[1]
        return both.reshape(-1, size, size)

    def lifted_mean(self) -> tuple[jax.Array, jax.Array]:
        """The mean as it shows in x, A' m / s^2, and how much of each component is seen, diag A' A / s^2; both [D]."""
        mean, view = self.gaussian.mean, self.view
        return (mean, jnp.ones_like(mean)) if view is None else (view.adjoint(mean) / view.scale**2, view.shares())


def _shape(part: Part) -> tuple[int, int, int]:
    axes = part.gaussian.axes
    assert isinstance(axes, CosineAxes)
    return axes.shape


def _turns(part: Part) -> list:
    """For each axis the cosines of what is seen, of the whole [seen, all]."""
    turns = [jnp.asarray(cosines(n)) for n in _shape(part)]
    if part.view is None:
        return turns
    return [jnp.matmul(turn, m, precision="highest") for turn, m in zip(turns, part.view.matrices, strict=True)]


def _are_cosines(parts: Sequence[Part]) -> bool:
    return all(
        isinstance(part.gaussian.axes, CosineAxes) and (part.view is None or len(part.view.matrices) == 3)
        for part in parts
    )


def canvas_gaussian(pairs: Sequence[tuple[Part, jax.Array]], event_shape: tuple[int, ...]) -> Gaussian | None:
    """The Gaussian of a product of parts to their exponents, or None where there is none of them.

    As of other products the precisions of denominators are subtracted up to 3/4 of what there is.
    """
    if not pairs:
        return None
    parts, exponents = [part for part, _ in pairs], jnp.stack([exponent for _, exponent in pairs])
    above = jnp.maximum(exponents, 0.0)
    if not _are_cosines(parts):
        plus, minus = (_weighted(values, [p.precision() for p in parts]) for values in (above, above - exponents))
        pulls = [part.pull() for part in parts]
        return quotient(plus, minus, _weighted(above, pulls), _weighted(exponents, pulls))
    axes = CosineAxes(event_shape)  # pyright: ignore[reportArgumentType]
    along = [part.along(axes) for part in parts]
    plus = _weighted(above, along)
    precision = plus * (1 - limited(_weighted(above - exponents, along) / plus))
    means, shares = zip(*[part.lifted_mean() for part in parts], strict=True)
    return Gaussian(_weighted(above, means) / _weighted(above, shares), 1 / precision, axes)


def _weighted(coefficients, values) -> jax.Array:
    # One after the other: [k, D, D] would not fit.
    return sum(c * v for c, v in zip(coefficients, values, strict=True))  # pyright: ignore[reportReturnType]


def start_gaussian(pairs: Sequence[tuple[Part, jax.Array]], event_shape: tuple[int, ...]) -> Gaussian | None:
    """As `canvas_gaussian`, but of images without denominators exact."""
    parts, exponents = [part for part, _ in pairs], [exponent for _, exponent in pairs]
    views = [part.view for part in parts if part.view is not None]
    if not (pairs and _are_cosines(parts)) or any(len(set(view.matrices[2].shape)) > 1 for view in views):
        return canvas_gaussian(pairs, event_shape)
    roots = jnp.linalg.cholesky(_weighted(exponents, [part.by_channel() for part in parts]))
    scale = jnp.diagonal(roots, axis1=1, axis2=2)
    pull = channels(_weighted(exponents, [part.pull() for part in parts]), event_shape[-1])
    mean = image(jax.vmap(lambda root, pull: jax.scipy.linalg.cho_solve((root, True), pull))(roots, pull))
    axes = TriangularAxes(roots / scale[:, None, :])
    return Gaussian(mean, scale.reshape(-1) ** -2, axes)  # pyright: ignore[reportArgumentType]
