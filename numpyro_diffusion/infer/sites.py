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
from .transformed import transformed

#: Wrappers that plates, `to_event` and masks put around a distribution.
WRAPPERS = (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)
#: Largest matrix of sensitivities of an observed site to the latents; beyond it the site is not widened.
MOST_ENTRIES = 4_000_000


def is_latent(site) -> bool:
    """Whether a site is to be inferred."""
    return site["type"] == "sample" and not site["is_observed"]


def unwrapped(fn: Any) -> tuple[Any, list]:
    """The distribution inside all that has been put around it, and what that is, outermost first."""
    wrappers = []
    while hasattr(fn, "base_dist"):
        wrappers.append(fn)
        fn = fn.base_dist
    return fn, wrappers


def wrap(name: str, fn: Any, wrappers: list) -> Any:
    """The opposite of `unwrapped`, at the site of that name."""
    for wrapper in reversed(wrappers):
        if isinstance(wrapper, dist.ExpandedDistribution):
            fn = fn.expand(wrapper.batch_shape)
        elif isinstance(wrapper, dist.Independent):
            fn = fn.to_event(wrapper.reinterpreted_batch_ndims)
        elif isinstance(wrapper, dist.MaskedDistribution):
            fn = fn.mask(wrapper._mask)
        elif isinstance(wrapper, dist.TransformedDistribution):
            fn = transformed(name, fn, wrapper)
        else:
            raise UnsupportedModelError(
                f"site {name!r} wraps a diffusion prior in {type(wrapper).__name__}, which cannot be taken to a noise "
                "level. Sample the prior itself and transform its value in the model."
            )
    return fn


def prior_of(site) -> DiffusionPrior | None:
    """The diffusion prior of a latent site, if it has one."""
    inner = unwrapped(site["fn"])[0] if is_latent(site) else None
    return inner if isinstance(inner, DiffusionPrior) else None


def is_jacobian(site) -> bool:
    """Whether a site is the log determinant that NumPyro adds for a transformed latent."""
    is_factor = isinstance(unwrapped(site["fn"])[0], Unit)
    return is_factor and site["name"].startswith("_") and site["name"].endswith("_log_det")


def is_observed(site) -> bool:
    """Whether a site is part of the likelihood: an observation or a user's factor."""
    return site["type"] == "sample" and site["is_observed"] and not is_jacobian(site)


def is_data(site) -> bool:
    """Whether a site of a trace is an observation; user factors are ones without values."""
    return site["type"] == "sample" and site["is_observed"] and np.size(site["value"]) > 0


def counted(fn: Any) -> jax.Array:
    """Which elements of a value count, to be broadcast to it; masks may lie anywhere below plates and `to_event`."""
    found = jnp.ones((), bool)
    for wrapper in unwrapped(fn)[1]:
        if isinstance(wrapper, dist.MaskedDistribution):
            mask = jnp.asarray(wrapper._mask)
            found = found & mask.reshape(mask.shape + (1,) * (wrapper.event_dim if mask.ndim else 0))
    return found


def mask_of(site) -> jax.Array:
    """Which entries of an observed site's log likelihood count, in its shape: any component of their event does."""
    fn, shape = site["fn"], jnp.shape(site["value"])
    shape = jnp.broadcast_shapes(fn.shape(), shape)
    return jnp.broadcast_to(counted(fn), shape).any(axis=tuple(range(len(shape) - fn.event_dim, len(shape))))


def normal_parameters(site) -> tuple[jax.Array, jax.Array]:
    """Location and scale [n] of an observed Normal site."""
    normal, shape = unwrapped(site["fn"])[0], jnp.shape(site["value"])
    return jnp.broadcast_to(normal.loc, shape).ravel(), jnp.broadcast_to(normal.scale, shape).ravel()


def normal_sites(sites, size: int) -> tuple[str, ...]:
    """Names of the observed Normal sites of a trace that can be widened, for `size` latent dimensions."""
    found = []
    for name, site in sites.items():
        if is_data(site) and 0 < np.size(site["value"]) * size <= MOST_ENTRIES:
            inner, wrappers = unwrapped(site["fn"])
            if type(inner) is dist.Normal and all(isinstance(wrapper, WRAPPERS) for wrapper in wrappers):
                found.append(name)
    return tuple(found)
