r"""Diffusion priors under transformations whose parameters may be latent: location, scale, anything that is bijective.

For x = T(z) with z from a density p, and T depending on other latents theta, as in a prior of unknown location and
scale, x = mu + s z,

.. math:: p(x \mid \theta) = p(T_\theta^{-1}(x)) \, |\det T_\theta'(z)|^{-1} .

Noise is added to z: at level t the latent is T(z_t) with z_t = alpha_t z_0 + sigma_t eps, so that the density there and
its start at t = 1 are exact whatever theta. The flat point of a joint density holds z itself (the non-centred form):
T is taken for the map from unconstrained values to the support, and its Jacobian cancels that of the density.
"""

from __future__ import annotations

from typing import Any

import numpyro.distributions as dist
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import AbsTransform, ComposeTransform, IndependentTransform

from ..errors import UnsupportedModelError


class ImageConstraint(constraints.Constraint):
    """What a transformation makes of all reals, with the transformation as the way there."""

    def __init__(self, transform):
        self.transform = transform

    event_dim: Any = property(lambda self: self.transform.codomain.event_dim)

    def __call__(self, x):
        return self.transform.codomain(x)

    def feasible_like(self, prototype):
        return self.transform.codomain.feasible_like(prototype)

    def tree_flatten(self):
        return (self.transform,), (("transform",), {})

    def eq(self, other, static=False):
        return isinstance(other, ImageConstraint) and self.transform.eq(other.transform, static=static)


@biject_to.register(ImageConstraint)
def _of_image(constraint):
    return constraint.transform


class TransformedPrior(dist.TransformedDistribution):
    """A transformed prior whose unconstrained values are the prior's own."""

    @property
    def support(self):
        whole = ComposeTransform([biject_to(self.base_dist.support), *self.transforms])
        missing = self.event_dim - whole.codomain.event_dim
        return ImageConstraint(IndependentTransform(whole, missing) if missing else whole)


def transformed(name: str, prior, wrapper: dist.TransformedDistribution) -> TransformedPrior:
    """The prior of a site under the transformations of a wrapper; UnsupportedModelError unless they are bijective."""
    domain = wrapper.transforms[0].domain
    if getattr(domain, "base_constraint", domain) is not constraints.real or _folds(wrapper):
        kinds = " and ".join(type(t).__name__ for t in wrapper.transforms)
        raise UnsupportedModelError(
            f"site {name!r} puts a diffusion prior through {kinds}, which is no bijection of the reals, so the noisy "
            "latent cannot be told from its value. Sample the prior itself and transform its value in the model."
        )
    return TransformedPrior(prior, list(wrapper.transforms))


def _folds(wrapper) -> bool:
    return any(isinstance(transform, AbsTransform) for transform in wrapper.transforms)
