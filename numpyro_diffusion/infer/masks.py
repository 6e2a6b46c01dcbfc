"""Which observations a mask leaves in, and their pointwise log likelihoods as ArviZ data."""

from __future__ import annotations

from typing import Any

import arviz as az
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr


def counted(fn) -> Any:
    """Whether each entry of a distribution's batch counts, a boolean array that broadcasts to its log likelihood.

    What is masked may be inside `to_event`: an entry counts as long as one of its event's components does.
    """
    base = getattr(fn, "base_dist", None)
    if isinstance(fn, dist.MaskedDistribution):
        return jnp.broadcast_to(jnp.logical_and(fn._mask, counted(base)), fn.batch_shape)
    if isinstance(fn, dist.ExpandedDistribution):
        return jnp.broadcast_to(counted(base), fn.batch_shape)
    if isinstance(fn, dist.Independent) and base is not None:
        inner = jnp.broadcast_to(counted(base), base.batch_shape)
        return inner.any(axis=tuple(range(len(fn.batch_shape), inner.ndim)))
    return jnp.ones((), bool)


def is_data(site) -> bool:
    """Whether a site of a trace is an observation; user factors are ones without values."""
    return site["type"] == "sample" and site["is_observed"] and np.size(site["value"]) > 0


def mask_of(site) -> Any:
    """Which entries of an observed site's log likelihood count, boolean in its shape."""
    fn, shape = site["fn"], jnp.shape(site["value"])
    batch = jnp.broadcast_shapes(fn.batch_shape, shape[: len(shape) - fn.event_dim])
    return jnp.broadcast_to(counted(fn), batch)


def likelihood_dataset(values: dict[str, np.ndarray], masks: dict[str, np.ndarray], dims, coords) -> xr.Dataset:
    """Log likelihoods [chain, draw, ...] by site, of the entries that count.

    A site that is masked in part keeps their labels as coordinates; several axes become one, `{site}_entry`. Sites of
    which nothing counts are left out.

    Args:
        values: By site.
        masks: Which entries count, by site where not all do; shape of the entries.
        dims: Names of axes by site; those of events may follow.
        coords: Labels by axis.
    """
    found: dict[str, xr.DataArray] = {}
    # Whole sites first: those in part stand aside where labels differ.
    for name in sorted(values, key=lambda name: name in masks):
        array = az.dict_to_dataset({name: values[name]}, coords=coords, dims=dims, skip_event_dims=True)[name]
        if name in masks:
            if not masks[name].any():
                continue
            array = _aside(_in_part(array, name, masks[name]), name, found.values())
        found[name] = array
    return xr.Dataset({name: found[name] for name in values if name in found})


def _in_part(array: xr.DataArray, name: str, mask: np.ndarray) -> xr.DataArray:
    axes, places = array.dims[2:], np.nonzero(mask)
    if len(axes) == 1:
        return array.isel({axes[0]: places[0]})
    entry = f"{name}_entry"
    return array.isel({axis: xr.DataArray(place, dims=entry) for axis, place in zip(axes, places, strict=True)})


def _aside(array: xr.DataArray, name: str, others) -> xr.DataArray:
    """The array with names of its own for axes that others have with other labels."""

    def differs(axis, other) -> bool:
        return axis in other.coords and not other[axis].equals(array[axis])

    axes = [axis for axis in array.coords if axis not in ("chain", "draw")]
    return array.rename({a: f"{name}_{a}" for a in axes if any(differs(a, other) for other in others)})
