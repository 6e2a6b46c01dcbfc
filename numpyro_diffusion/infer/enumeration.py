r"""Discrete latents, summed out: what is annealed is the density of the others,

.. math:: \gamma(x, \theta; t) = p(x, t) \sum_k p(\theta, k \mid \hat x) \, p(y \mid \hat x, \theta, k)^{\lambda(t)}.

NumPyro does the sum, with funsor; in plates it costs the size of one site's support, not the number of assignments.
Draws of the discrete sites given the others come from `numpyro.infer.Predictive(..., infer_discrete=True)`.
"""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpyro import validation_enabled
from numpyro.handlers import seed, substitute, trace
from numpyro.primitives import Messenger

from ..checks.numbers import is_traced
from ..errors import UnsupportedModelError, missing_library
from .handlers import noise_level
from .sites import is_latent


class Enumeration(NamedTuple):
    """Sites that are summed over, the first axis (from the right) that is free for it, and the deterministic sites that
    depend on them, which samples leave out."""

    names: tuple[str, ...]
    first_available_dim: int
    dependent: tuple[str, ...] = ()

    def marked(self, model):
        """The model with its discrete sites marked as NumPyro wants it."""
        return _marked(model, self.names)

    def summed(self, model):
        """The model as `potential_energy(..., enum=True)` takes it."""
        from numpyro.contrib.funsor import enum  # an extra, which few need

        return enum(self.marked(model), self.first_available_dim)


class _marked(Messenger):
    def __init__(self, fn, names: tuple[str, ...]):
        self.names = names
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] == "sample":
            # A dict of its own: NumPyro writes into the one that a user may have given to several sites.
            msg["infer"] = {**msg["infer"], **({"enumerate": "parallel"} if msg["name"] in self.names else {})}


def discrete_sites(sites) -> Enumeration | None:
    """The discrete latents of a trace, None if there are none; UnsupportedModelError where they cannot be summed."""
    names = tuple(name for name, site in sites.items() if is_latent(site) and site["fn"].support.is_discrete)
    for name in names:
        how, finite = sites[name]["infer"].get("enumerate", "parallel"), sites[name]["fn"].has_enumerate_support
        if not finite or how != "parallel":
            why = "marked otherwise" if finite else "without a finite support"
            raise UnsupportedModelError(
                f"site {name!r} is discrete and {why}: annealed kernels follow gradients, and cannot sum over it. Mark "
                "it infer={'enumerate': 'parallel'} if its support is finite, sum it out of the likelihood (for "
                "instance with dist.MixtureSameFamily), or give it to another block of numpyro.infer.Gibbs."
            )
    if names and importlib.util.find_spec("funsor") is None:
        raise missing_library(
            "enumerate", f"site {names[0]!r} is discrete, and NumPyro sums over it by",
            "or sum it out of the likelihood (for instance with dist.MixtureSameFamily)",
        )  # fmt: skip
    dims = [f.dim for s in sites.values() if s["type"] == "sample" for f in s["cond_indep_stack"] if f.dim is not None]
    return Enumeration(names, min(dims, default=0) - 1) if names else None


def with_dependents(found: Enumeration, model, args, kwargs, sites) -> Enumeration:
    """The deterministic sites that depend on discrete ones; UnsupportedModelError if a latent's support does."""
    values = {name: site["value"] for name, site in sites.items() if is_latent(site)}
    supports, deterministic = [], []  # filled while the model is traced

    def mark(discrete):
        # Under vmap, and nothing else, what depends on the discrete values is traced, and the rest is not.
        with validation_enabled(False):
            handled = substitute(seed(noise_level(model), 0), data=values | discrete)
            marked = trace(handled).get_trace(*args, **kwargs)
        for name, site in marked.items():
            if name in values and name not in found.names and is_traced(site["fn"].support):
                supports.append(name)
            if site["type"] == "deterministic" and is_traced(site["value"]):
                deterministic.append(name)
        return jnp.zeros(())

    jax.vmap(mark)({name: jnp.asarray(values[name])[None] for name in found.names})
    if supports:
        raise UnsupportedModelError(
            f"the support of site {supports[0]!r}, or what transforms its prior, depends on a discrete latent, so that "
            "its values would have none of their own. Let the discrete latent act on the likelihood."
        )
    return found._replace(dependent=tuple(deterministic))
