"""A NumPyro model as Python has it, and the programs a run is made of: what the model computes now, traced once.

A model may read anything: globals, attributes, a closure, a frame among its arguments. Whatever it reads is read here,
at the start of a run. Its programs then hold every array they met, of whatever type, as data (see `program`), and what
Python holds later changes nothing.

Programs take (bound, siblings, ...): the densities of the diffusion priors, and in a Gibbs block the values of the
sites that other blocks own, else None. With x the flat point [d], there are

    log_prob          x, t, power, widths by site -> log joint density
    start             rng_key -> x, an exact draw at t = 1
    start_log_prob    x -> its log density
    constrain         x -> latent and deterministic sites
    log_likelihood    x -> log likelihood of every observation, by site
    counted           x -> which of them count
    site_log_probs    x -> log density by site at t = 0, and of every observed one the least of its finite terms
    generated         rng_key, x -> log likelihood of data that the model generates at x
    predicted         x -> (location, scale) of observed Normal sites
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from numpyro.handlers import substitute
from numpyro.handlers import trace as record
from numpyro.infer import log_likelihood
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.infer.util import compute_log_probs, constrain_fn, potential_energy, unconstrain_fn

from ..checks.numbers import MASKED
from ..errors import ArgumentTypeError, ParameterError
from ..program import ASKS_FOR_VALUES, Traced, array_digest, trace
from .enumeration import Enumeration
from .handlers import Bound, arrays, drawn, generated, noise_level, widened
from .prior import StartDensity
from .sites import is_data, is_observed, mask_of, normal_parameters
from .zeros import Zeros, zeros

NOT_TRACED = (
    "the model {} must compute with its latents by JAX; something asks for their values, which are not there when a "
    "model is compiled. Write jnp. for np., column.to_numpy() for the column of a data frame, and jnp.where or "
    "jax.lax.cond for an if."
)


def name_of(model: Any) -> str:
    """A model's name: its function's, or else its class's."""
    inner = getattr(model, "func", None)  # of a partial
    return getattr(model, "__name__", type(model).__name__ if inner is None else f"partial({name_of(inner)})")


class Site(NamedTuple):
    """A latent's place in the flat point: its name, unconstrained shape, and whether it has a diffusion prior."""

    name: str
    shape: tuple[int, ...]
    is_prior: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def unravel(sites: tuple[Site, ...], z) -> dict[str, jax.Array]:
    """Flat point [d] to unconstrained values by site."""
    parts = jnp.split(z, np.cumsum([site.size for site in sites])[:-1])
    return {site.name: part.reshape(site.shape) for site, part in zip(sites, parts, strict=True)}


def ravel(sites: tuple[Site, ...], values: dict[str, Any]) -> jax.Array:
    """Unconstrained values by site to the flat point [d]."""
    return jnp.concatenate([jnp.ravel(values[site.name]) for site in sites])


class ModelCall(NamedTuple):
    """A model, its arguments, and the layout of its latents.

    Attributes:
        model, args, kwargs: A NumPyro model and its arguments.
        sites: The latents in the order of the flat point.
        plates: Indices of subsampled plates, drawn once.
        view: How the model sees noisy latents.
        normal: Names of the observed Normal sites that can be widened.
        observed: Observed values by site, as they were when the model was read.
        discrete: Discrete latents, which are summed out; None without any.
        zeros: What stands for the zeros of observed sites, see `zeros`.
    """

    model: Callable
    args: tuple
    kwargs: dict[str, Any]
    sites: tuple[Site, ...] = ()
    plates: dict[str, Any] = {}
    view: str = "gaussian"
    normal: tuple[str, ...] = ()
    observed: dict[str, np.ndarray] = {}
    discrete: Enumeration | None = None
    zeros: dict[str, Zeros] = {}

    @classmethod
    def of(cls, model, args, kwargs, view: str = "gaussian") -> ModelCall:
        """A model with its arguments as they are now: numbers become data, like arrays; Gibbs siblings are left out."""
        kwargs = {k: _as_data(v) for k, v in kwargs.items() if k != GIBBS_SITES_KWARG}
        return cls(model, tuple(_as_data(a) for a in args), kwargs, view=view)

    def is_called_like(self, other: ModelCall) -> bool:
        """Whether the other has the same arguments, but for siblings: arrays by content, other objects by identity."""
        own = {k: v for k, v in self.kwargs.items() if k != GIBBS_SITES_KWARG}
        (new, new_tree), (old, tree) = map(jax.tree.flatten, ((other.args, other.kwargs), (self.args, own)))
        return new_tree == tree and all(map(_is_same, new, old))

    def seeded(self, rng_key=None):
        """The model with the subsampled plates of the run, its latents drawn by a key."""
        model = arrays(self.model)
        model = model if self.discrete is None else self.discrete.marked(model)
        return substitute(drawn(model, rng_key), data=self.plates)

    def at(self, t, power, bound, widths=None, rng_key=None):
        """The model at noise level t with its likelihood to a power, as a function of its arguments."""
        told = zeros(arrays(self.model), self.zeros) if self.zeros else arrays(self.model)
        model = self._replace(model=widened(told, widths) if widths else told)
        return noise_level(model.seeded(rng_key), t=t, likelihood_power=power, view=self.view, bound=bound)

    def flat(self, bound, values: dict[str, Any]) -> jax.Array:
        """The flat point [d] of values by site."""
        return ravel(self.sites, unconstrain_fn(self.at(0.0, 1.0, bound), self.args, self.kwargs, values))

    # What is traced.

    def log_prob(self, bound, x, t, power, widths):
        return self._log_prob(self.at(t, power, bound, widths), x)

    def _log_prob(self, model, x):
        is_summed = self.discrete is not None
        model = self.discrete.summed(model) if self.discrete is not None else model
        return -potential_energy(model, self.args, self.kwargs, unravel(self.sites, x), enum=is_summed)

    def _at_start(self, bound, rng_key=None):
        starts = {name: Bound(StartDensity(b.density), b.spectrum) for name, b in bound.items()}
        return self.at(1.0, 0.0, starts, rng_key=rng_key)

    def start(self, bound, rng_key):
        sites = record(self._at_start(bound, rng_key)).get_trace(*self.args, **self.kwargs)
        values = {site.name: sites[site.name]["value"] for site in self.sites}
        return ravel(self.sites, unconstrain_fn(self._at_start(bound), self.args, self.kwargs, values))

    def start_log_prob(self, bound, x):
        return self._log_prob(self._at_start(bound), x)

    def constrain(self, bound, x):
        model = self.at(0.0, 1.0, bound)
        values = constrain_fn(model, self.args, self.kwargs, unravel(self.sites, x), return_deterministic=True)
        hidden = () if self.discrete is None else self.discrete.dependent
        return {name: value for name, value in values.items() if name not in hidden}

    def log_likelihood(self, bound, x):
        return log_likelihood(self.seeded(), self.constrain(bound, x), *self.args, batch_ndims=0, **self.kwargs)

    def counted(self, bound, x):
        model = substitute(self.seeded(), data=self.constrain(bound, x))
        sites = record(model).get_trace(*self.args, **self.kwargs)
        return {name: mask_of(site) for name, site in sites.items() if is_data(site)}

    def site_log_probs(self, bound, x):
        model = self.at(0.0, 1.0, bound)
        values = constrain_fn(model, self.args, self.kwargs, unravel(self.sites, x))
        found, sites = compute_log_probs(model, self.args, self.kwargs, values, sum_log_prob=False)
        terms = {k: p / sites[k]["scale"] for k, p in found.items() if is_observed(sites[k])}
        least = {k: jnp.min(p, initial=jnp.inf, where=jnp.isfinite(p)) for k, p in terms.items()}
        share = {k: jnp.mean(jnp.isfinite(p), dtype=float) for k, p in terms.items()}
        return {name: jnp.sum(p) for name, p in found.items()}, least, share

    def generated(self, bound, rng_key, x):
        model = generated(self.at(0.0, 1.0, bound, rng_key=rng_key), rng_key=rng_key)
        values = constrain_fn(model, self.args, self.kwargs, unravel(self.sites, x))
        log_probs, sites = compute_log_probs(generated(model, rng_key=rng_key), self.args, self.kwargs, values)
        observed = (log_probs[k] for k, s in sites.items() if s["type"] == "sample" and s["is_observed"])
        return sum(observed, start=jnp.zeros(()))

    def predicted(self, bound, x):
        model = self.at(0.0, 1.0, bound)
        values = constrain_fn(model, self.args, self.kwargs, unravel(self.sites, x))
        sites = record(substitute(model, data=values)).get_trace(*self.args, **self.kwargs)
        return {name: normal_parameters(sites[name]) for name in self.normal}

    def traced(self, names: tuple[str, ...], bound, siblings=None, widths=None) -> dict[str, Traced]:
        """Programs by the module's names; of what they will be given, shapes and structure matter, values do not."""
        number = jax.ShapeDtypeStruct((), jnp.result_type(float))
        x = jax.ShapeDtypeStruct((sum(site.size for site in self.sites),), number.dtype)
        key, held = jax.random.key(0), {}
        more = {"log_prob": (x, number, number, widths or {}), "start": (key,), "generated": (key, x)}
        differentiated = {"log_prob", "generated", "predicted"}

        def made(name):
            def program(bound, siblings, *args):
                given = {} if siblings is None else {GIBBS_SITES_KWARG: siblings}
                return getattr(self._replace(kwargs=self.kwargs | given), name)(bound, *args)

            args = more.get(name, (x,))
            try:
                return trace(program, bound, siblings, *args, arrays=held, differentiated=name in differentiated)
            except ASKS_FOR_VALUES as error:
                raise ArgumentTypeError(NOT_TRACED.format(name_of(self.model))) from error

        return {name: made(name) for name in names}


def typed_key(rng_key) -> jax.Array:
    """The key as programs take it: of the new kind, and of the generator that is JAX's default."""
    is_typed, default = jnp.issubdtype(rng_key.dtype, jax.dtypes.prng_key), jax.random.key(0)
    key = rng_key if is_typed else jax.random.wrap_key_data(rng_key)
    if key.dtype == default.dtype:
        return key
    # Of another generator: its bits make a key.
    return jax.random.wrap_key_data(jax.random.bits(key, jax.random.key_data(default).shape, jnp.uint32))


def _as_data(value) -> Any:
    """Numbers become arrays, which programs take as data; lists, tuples and dicts keep their order and type.

    Arrays of NumPy and data frames, which may be written to, are copied.
    """
    if type(value) is np.ndarray or _is_frame(value):
        return value.copy()
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            masked = MASKED.format("an argument of the model", np.ma.count_masked(value))
            raise ParameterError(
                f"{masked} Give value.data and ~value.mask, for numpyro.handlers.mask around the site."
            )
        return np.array(value.data)
    if type(value) in (tuple, list):
        return type(value)(_as_data(v) for v in value)
    if type(value) is dict:
        return {k: _as_data(v) for k, v in value.items()}
    if not isinstance(value, float | np.floating):
        return value
    with jax.ensure_compile_time_eval():
        return jnp.asarray(value)


def _is_frame(value) -> bool:
    """Whether a value is a data frame or a column of one, of whatever library."""
    return not isinstance(value, type) and all(hasattr(value, name) for name in ("__array__", "copy", "equals"))


def _is_same(a, b) -> bool:
    arrays = np.ndarray | np.generic | jax.Array
    if _is_frame(a) and type(a) is type(b):
        return bool(a.equals(b))
    if isinstance(a, arrays) and isinstance(b, arrays):
        return not isinstance(a, jax.core.Tracer) and array_digest(a) == array_digest(b)
    return a is b or (type(a) is type(b) and isinstance(a, int | str | bool) and a == b)
