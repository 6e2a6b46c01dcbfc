"""What is observed in a model: which values are refused, since no latent could explain them."""

from __future__ import annotations

import reprlib

import jax.numpy as jnp
import numpy as np
from numpyro import validation_enabled

from ..checks.numbers import MASKED
from ..errors import ParameterError, ShapeError
from .sites import counted, is_jacobian, unwrapped


def check_data(sites, others) -> None:
    """Refuse what no latent could explain, by name of the site; `others` is a second trace of the model.

    Raises:
        ParameterError: for what are no numbers, NaN, and values outside of a support that does not depend on latents.
        ShapeError: for a value of another shape than its distribution's.
    """
    for name, site in sites.items():
        if site["type"] != "sample" or not site["is_observed"] or is_jacobian(site):
            continue
        if np.ma.is_masked(site["value"]):
            masked = MASKED.format(f"the observed value of site {name!r}", np.ma.count_masked(site["value"]))
            raise ParameterError(
                f"{masked} Give value.data, and numpyro.handlers.mask(mask=~value.mask) around the site."
            )
        value, shape = np.asarray(site["value"]), tuple(site["fn"].shape())
        if not (jnp.issubdtype(value.dtype, np.number) or value.dtype == bool):
            raise ParameterError(
                f"the observed value of site {name!r} must be numbers; got {reprlib.repr(site['value'])}. Code "
                "names by integers, and leave missing values out with numpyro.handlers.mask."
            )
        if np.issubdtype(value.dtype, np.floating):
            where = np.isnan(value)
            if np.any(where & counted(site["fn"])):
                raise ParameterError(
                    f"the observed value of site {name!r} holds {int(where.sum())} NaN of {value.size}. Leave missing "
                    "values out with numpyro.handlers.mask, or impute them."
                )
        try:
            fits = np.broadcast_shapes(value.shape, shape) == value.shape or value.size == 0
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(
                f"the observed value of site {name!r} has shape {value.shape}, its distribution {shape}. They must "
                "agree; compare the data with the plates around the site and with what its distribution is made of."
            )
        if value.size and (outside := _impossible(site, others.get(name))):
            raise ParameterError(
                f"the observed value of site {name!r} lies outside the support of its "
                f"{type(unwrapped(site['fn'])[0]).__name__} at {outside} of {value.size} places, whatever the latents "
                "are. Correct it, or leave these out with numpyro.handlers.mask."
            )


def _impossible(site, other) -> int:
    """How many elements of an observed value have no density by a support that is the same in two traces."""
    if other is None:
        return 0
    try:
        supports = [one["fn"].support for one in (site, other)]
        if not bool(np.all(supports[0] == supports[1])):
            return 0
        outside = ~np.asarray(supports[0](jnp.asarray(site["value"])))
        if not outside.any():
            return 0
        with validation_enabled(False):
            zero = ~np.isfinite([np.asarray(one["fn"].log_prob(jnp.asarray(site["value"]))) for one in (site, other)])
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return 0  # a support, or a density, that says nothing of single values
    return int(np.sum(outside & zero.all(axis=0))) if zero[0].shape == outside.shape else 0
