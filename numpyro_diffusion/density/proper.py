"""Has a composition finite mass at large noise? What has not is no prior, and nothing to anneal from."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
from jax.core import Tracer

from ..errors import ParameterError
from .density import Density, Expression
from .formula import Node, fold


def check_proper(density: Density) -> None:
    """Raise ParameterError where the exponents of a product sum to zero or less.

    At large noise all factors are Gaussians of one variance: a density of degree n is that Gaussian to the power n.
    Factors without a Gaussian approximation (classifiers) are flat there and count nothing; a sum has the least degree
    of its terms, whose tails are the heaviest. Traced exponents pass, and so does what is no formula.
    """
    if not isinstance(density, Expression) or isinstance(density.coefficients, Tracer):
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
