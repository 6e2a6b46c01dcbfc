"""Has a composition finite mass at large noise? What has not is no prior, and nothing to anneal from."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
from jax.core import Tracer

from ..checks.numbers import is_traced
from ..checks.text import shown
from ..errors import ParameterError
from .density import Density, Expression, Seen
from .formula import Node, fold, total_exponents

#: Largest point of which views are put together as a matrix, where pixel by pixel they do not cover it.
MOST_DENSE = 1024


def check_proper(density: Density) -> None:
    """Raise ParameterError where the exponents of a product sum to zero or less.

    At large noise all factors are Gaussians of one variance: a density of degree n is that Gaussian to the power n.
    Factors without a Gaussian approximation (classifiers) are flat there and count nothing; a sum has the least degree
    of its terms, whose tails are the heaviest. Traced exponents pass, and so does what is no formula.
    """
    if isinstance(density, Seen):
        density = density**1.0  # pyright: ignore[reportAssignmentType]
    if not isinstance(density, Expression) or isinstance(density.coefficients, Tracer):
        return
    if density.is_seen:
        with jax.ensure_compile_time_eval():
            _check_covered(density)
        return
    # In NumPy: where the caller is traced, JAX would trace these operations on known numbers as well.
    coefficients = np.asarray(density.coefficients)
    # By shapes, so that nothing is computed.
    known = [float(jax.eval_shape(partial(model.gaussian, 0.0)) is not None) for model in density.models]

    def degree(node: Node, degrees) -> float:
        return float(node.own(coefficients) @ degrees) if node.kind == "product" else min(degrees)

    total = fold(density.formula, lambda leaf: known[leaf.model], degree)
    if any(known) and total <= 1e-6:
        raise ParameterError(
            f"{density!r} is improper: the exponents of its factors sum to {total:.3g}, and at large noise, where all "
            "factors look alike, a density needs a positive sum. Lower the denominator's exponent, or give the "
            "denominator a floor with nd.negation(..., floor=0.01)."
        )


def _check_covered(density: Expression) -> None:
    """Raise ParameterError where views leave some component of the point without a positive sum of exponents."""
    if is_traced([leaf.view for leaf in density.leaves if isinstance(leaf, Seen)]):
        return
    coefficients = np.asarray(density.coefficients)
    shares = {leaf: shares_of(density.leaf(leaf)) for leaf in density.formula.leaves}

    def bounds(node: Node, parts) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest degree by component."""
        low, high = (np.stack(values) for values in zip(*parts, strict=True))
        if node.kind == "mixture":
            return low.min(0), high.min(0)
        own = node.own(coefficients)
        above, below = np.maximum(own, 0), np.minimum(own, 0)
        return above @ low + below @ high, above @ high + below @ low

    # What a view shows in means it does not fix by itself; what it shows at all a denominator may take away.
    low, _ = fold(density.formula, lambda leaf: (shares[leaf] > 1 - 1e-4, shares[leaf] > 1e-6), bounds)
    if low.min() > 1e-6:
        return
    if low.size <= MOST_DENSE:
        exponents = total_exponents(density.formula, density.coefficients)
        degree = sum(
            float(exponents[leaf]) * np.asarray(seen.view.matrix.T @ seen.view.matrix / seen.view.scale**2)
            if isinstance(seen := density.leaf(leaf), Seen) else float(exponents[leaf]) * np.eye(low.size)
            for leaf in shares
        )  # fmt: skip
        if np.linalg.eigvalsh(degree).min() > 1e-4:
            return
    raise ParameterError(
        f"{shown(density)} is improper: {where(low <= 1e-6, density.event_shape)} are seen by no view at full "
        "resolution, or denominators take away what is seen. Add a window there, or a density of the whole."
    )


def shares_of(density: Density) -> np.ndarray:
    """How much [D] of each component of a point a factor sees, from 0 to 1; none of it where it is flat."""
    if isinstance(density, Seen):
        return np.asarray(density.view.shares())
    known = jax.eval_shape(partial(density.gaussian, 0.0)) is not None
    return np.full(int(np.prod(density.event_shape)), float(known))


def where(mask: np.ndarray, event_shape: tuple[int, ...]) -> str:
    """Which components [D] of a point, in words: how many pixels, and in which rows and columns."""
    missing = mask.reshape(event_shape)
    missing = missing.any(axis=2) if missing.ndim == 3 else missing
    spans = [f"{places.min()} to {places.max()}" for places in np.nonzero(missing)]
    if len(spans) != 2:
        return f"{missing.sum()} of {missing.size} components, {', '.join(spans)},"
    return f"{missing.sum()} of {missing.size} pixels, within rows {spans[0]} and columns {spans[1]},"
