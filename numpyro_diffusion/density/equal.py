r"""Points that are equally likely under several densities: the AND of superposed diffusion models.

Skreta et al. (2024, arXiv:2412.17762) steer reverse diffusion by :math:`\sum_i \kappa_i \nabla \log p_i` with weights
of sum one, chosen at every step so that the log densities, tracked along the path, stay equal. Where a product asks for
points of high density under each factor, and takes any ratio, this asks for a ratio of one. It is a way to sample, not
a density: nothing is known of what is sampled but where it lies, so that there are no weights and no evidence.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..errors import ParameterError, ScoreOnlyError
from ..pytree import register, replace
from .composed import Composed
from .density import Density
from .formula import Node, gaussian_of
from .operands import check_densities


@register(data=("parts",), static=("schedule", "event_shape", "name"))
class EqualDensity(Composed, Density):
    """Made by `nd.equal_density`."""

    has_log_density = False
    is_calibrated = False
    has_increments = False  # pyright: ignore[reportAssignmentType]

    def __init__(self, parts: tuple[Density, ...], name: str | None):
        self.parts, self.name = parts, name
        self.schedule, self.event_shape = parts[0].schedule, parts[0].event_shape

    def log_density(self, x, t):
        raise ScoreOnlyError(
            f"{self!r} is a way of sampling and has no log density at a point. Sample it by nd.Reverse(); for a "
            "density that is high where all are, use nd.product."
        )

    def of_leaves(self, call):
        return {i: call(part) for i, part in enumerate(self.parts)}

    def value(self, log_densities):
        """The least of them."""
        return jnp.min(jnp.stack(list(log_densities.values())))

    def of_formula(self):
        return self.parts

    def leaf(self, leaf):
        raise NotImplementedError("there is no formula")

    def weights(self, log_densities, scores, noise, variance) -> jax.Array:
        r"""kappa [n] of sum one for a step :math:`dy = B \sum_j \kappa_j s_j + \text{noise}` of variance B.

        To first order log p_i gains :math:`s_i \cdot dy - B |s_i|^2 / 2`, beside what is common to all. Least squares
        with a little of equal weights, where scores are nearly alike and the step cannot tell them apart.
        """
        count = len(scores)
        aim = log_densities + scores @ noise - 0.5 * variance * jnp.sum(scores**2, axis=1)
        centre = jnp.eye(count) - 1 / count
        matrix = variance * centre @ scores @ scores.T @ centre
        # In the plane of sum zero: gram kappa = -aim.
        ridge = 1e-3 * jnp.trace(matrix) / count + 1e-12
        offset = variance * scores @ jnp.mean(scores, axis=0)
        return 1 / count + centre @ jnp.linalg.solve(matrix + ridge * jnp.eye(count), -(centre @ (aim + offset)))

    def gaussian(self, t):
        known = [(part.gaussian(t), 1.0) for part in self.parts]
        equal = jnp.full(len(known), 1 / len(known))
        return gaussian_of(equal, Node("product", tuple(range(len(known))), 0), known)[0]  # pyright: ignore

    def with_schedule(self, schedule):
        parts = tuple(part.with_schedule(schedule) for part in self.parts)
        return replace(self, parts=parts, schedule=schedule)

    def __repr__(self):
        return self.name or f"equal_density({', '.join(map(repr, self.parts))})"


def equal_density(*densities: Density, name: str | None = None) -> EqualDensity:
    """What reverse diffusion samples if it keeps the log densities of all equal (AND of SuperDiff).

    Sample it by `nd.anneal(rng_key, nd.equal_density(p, q), nd.Reverse())`; see `equal` for what it is and is not.

    Args:
        *densities: At least two, of known increments: models with or without log densities, products, powers.
        name: Name for formulas.

    Raises:
        ParameterError: for fewer than two.
        ShapeError, ScheduleError, ScoreOnlyError: for densities on other points, under other schedules, or mixtures of
            score-only models.
    """
    check_densities("nd.equal_density", densities)
    if len(densities) < 2:
        raise ParameterError(f"nd.equal_density needs at least two densities; got {len(densities)}.")
    for density in densities:
        if not density.has_increments:
            raise ScoreOnlyError(
                f"nd.equal_density tracks log densities along paths, and {density!r} mixes score-only models. Give the "
                "models themselves."
            )
    return EqualDensity(densities, name)
