"""What the sites of a NumPyro model's trace are: latents, their diffusion priors, data, and what masks leave in."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions.distribution import Unit

from ..errors import UnsupportedModelError
from .prior import DiffusionPrior

#: Wrappers that plates, `to_event` and masks put around a distribution.
WRAPPERS = (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)
#: Largest matrix of sensitivities of an observed site to the latents; beyond it the site is not widened.
MOST_ENTRIES = 4_000_000


def is_latent(site) -> bool:
    """Whether a site is to be inferred."""
    return site["type"] == "sample" and not site["is_observed"]


def find_prior(fn) -> tuple[DiffusionPrior | None, list]:
    """The diffusion prior inside the wrappers that plates, `to_event` and masks put around it, outermost first."""
    wrappers = []
    while not isinstance(fn, DiffusionPrior):
        if not hasattr(fn, "base_dist"):
            return None, []
        wrappers.append(fn)
        fn = fn.base_dist
    return fn, wrappers


def wrap(name: str, fn, wrappers):
    """The opposite of `find_prior`, for the site of that name."""
    for wrapper in reversed(wrappers):
        if isinstance(wrapper, dist.ExpandedDistribution):
            fn = fn.expand(wrapper.batch_shape)
        elif isinstance(wrapper, dist.Independent):
            fn = fn.to_event(wrapper.reinterpreted_batch_ndims)
        elif isinstance(wrapper, dist.MaskedDistribution):
            fn = fn.mask(wrapper._mask)
        else:
            raise UnsupportedModelError(
                f"site {name!r} wraps a diffusion prior in {type(wrapper).__name__}, which cannot be taken to a noise "
                "level. Sample the prior itself and transform its value in the model."
            )
    return fn


def is_latent_prior(msg) -> bool:
    """Whether a site is a latent site with a diffusion prior."""
    return is_latent(msg) and find_prior(msg["fn"])[0] is not None


def is_jacobian(msg) -> bool:
    """Whether a site is the log determinant that NumPyro adds for a transformed latent."""
    return isinstance(innermost(msg["fn"]), Unit) and msg["name"].startswith("_") and msg["name"].endswith("_log_det")


def innermost(fn):
    """The distribution inside all wrappers and transforms."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn


def is_data(site) -> bool:
    """Whether a site of a trace is an observation; user factors are ones without values."""
    return site["type"] == "sample" and site["is_observed"] and np.size(site["value"]) > 0


def counted(fn: Any) -> jax.Array:
    """Which elements of a value count, to be broadcast to it; masks may lie anywhere below plates and `to_event`."""
    found = jnp.ones((), bool)
    while True:
        if isinstance(fn, dist.MaskedDistribution):
            mask = jnp.asarray(fn._mask)
            found = found & mask.reshape(mask.shape + (1,) * (fn.event_dim if mask.ndim else 0))
        if not hasattr(fn, "base_dist"):
            return found
        fn = fn.base_dist


def mask_of(site) -> jax.Array:
    """Which entries of an observed site's log likelihood count, boolean in its shape.

    An entry counts as long as one of the components of its event does.
    """
    fn, shape = site["fn"], jnp.shape(site["value"])
    shape = jnp.broadcast_shapes(fn.shape(), shape)
    return jnp.broadcast_to(counted(fn), shape).any(axis=tuple(range(len(shape) - fn.event_dim, len(shape))))


def _normal(fn):
    """The Normal inside plates, `to_event` and masks, or None."""
    while isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    return fn if type(fn) is dist.Normal else None


def normal_parameters(site) -> tuple[jax.Array, jax.Array]:
    """Location and scale [n] of an observed Normal site."""
    normal: Any = _normal(site["fn"])
    loc, scale = (jnp.broadcast_to(v, jnp.shape(site["value"])).ravel() for v in (normal.loc, normal.scale))
    return loc, scale


def normal_sites(sites, size: int) -> tuple[str, ...]:
    """Names of the observed Normal sites of a trace that can be widened, for `size` latent dimensions."""
    return tuple(
        name
        for name, site in sites.items()
        if site["type"] == "sample" and site["is_observed"] and not is_jacobian(site)
        and _normal(site["fn"]) is not None and 0 < jnp.size(site["value"]) * size <= MOST_ENTRIES
    )  # fmt: skip
