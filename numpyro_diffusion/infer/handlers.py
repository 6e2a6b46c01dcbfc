r"""Effect handlers: a NumPyro model at noise level t, with its likelihood to a power, widened, or of generated data.

At noise level t a diffusion prior's latent is x_t = alpha_t x_0 + sigma_t eps. What likelihoods and other latents'
distributions get in its place is a view of it,

    "gaussian"  m + C (C + r^2 I)^{-1} (x_t / alpha_t - m)       r = sigma_t / alpha_t
    "denoised"  (x_t + sigma_t^2 grad log p(x_t, t)) / alpha_t   the denoised mean (Tweedie)
    "scaled"    x_t / alpha_t
    "x"         x_t itself

All are x at t = 0. "gaussian", the default, is the denoised mean under the Gaussian with the prior's mean m and
covariance C: exact at large noise, bounded, and free. The true denoised mean costs a Hessian-vector product of the
energy per gradient. "scaled" hands noise of scale r to the likelihood, "x" a signal that fades with alpha_t.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from numpyro.distributions import biject_to
from numpyro.handlers import seed, trace
from numpyro.primitives import _PYRO_STACK, Messenger

from ..density.abstract import gaussian_at
from ..density.density import Density
from ..density.gaussian import Gaussian
from ..errors import ParameterError, UnsupportedModelError
from .sites import is_jacobian, prior_of, unwrapped, wrap
from .zeros import ToPower, Zeros

__all__ = ["noise_level"]

VIEWS = ("gaussian", "denoised", "scaled", "x")


def check_view(view: str) -> None:
    """Raise ParameterError for an unknown view."""
    if view not in VIEWS:
        raise ParameterError(f"view must be one of {VIEWS}; got {view!r}.")


def seen(view: str, density: Density, x, t, known: Gaussian | None = None) -> jax.Array:
    """The view of points x [*batch, *event_shape] at noise level t.

    `known` is the density's Gaussian approximation at t = 0, worth computing once, outside of loops.
    """
    check_view(view)
    alpha = density.schedule.alpha(t)
    if view == "x":
        return x
    if view == "scaled":
        return x / alpha
    if view == "denoised":
        flat = x.reshape((-1, *density.event_shape))
        score = jax.vmap(jax.grad(density.log_density), (0, None))(flat, t)
        return (x + density.schedule.sigma(t) ** 2 * score.reshape(x.shape)) / alpha
    mean, variance, axes = known or gaussian_at(density, 0.0)
    share = variance / (variance + density.schedule.noise_to_signal(t) ** 2)
    flat = x.reshape((-1, mean.size)) / alpha - mean
    return (mean + jax.vmap(lambda y: axes.point(share * axes.coordinates(y)))(flat)).reshape(x.shape)


class Bound(NamedTuple):
    """What stands in for the density of a site: traced arguments of a compiled program instead of its constants."""

    density: Density
    spectrum: Gaussian | None = None


def _refuse(msg):
    # What happens inside of scan and cond is hidden from handlers, except for substitution.
    if prior_of(msg) is not None:
        raise UnsupportedModelError(
            f"site {msg['name']!r} has a diffusion prior inside numpyro's scan or cond, where its noise level and its "
            "view cannot reach it. Sample it before, in a plate for a scan, and pass its values in."
        )


@jax.custom_vjp
def _shield(value, power):
    """`value`; where the likelihood counts nothing (power 0), its undefined gradients count nothing either."""
    return value


def _shield_backward(power, gradient):
    kept = jnp.where((power > 0) | jnp.isfinite(gradient), gradient, 0.0)
    return kept, jnp.zeros_like(power)


_shield.defvjp(lambda value, power: (value, power), _shield_backward)


class noise_level(Messenger):
    r"""Set every diffusion prior of a model to noise level t, and its likelihood to a power.

    .. math:: p(x_t, t) \; p(\theta \mid \hat x_t) \; p(y \mid \hat x_t, \theta)^\lambda

    Latents with a `DiffusionPrior` are distributed as x_t and are shown to the rest of the model through a view
    `view` :math:`\hat x_t`, so that latents whose distribution depends on x follow along; transformed priors are so
    before their transformation. Observed sites and user factors get the power; the Jacobian terms of transformed
    latents, and latents of any other distribution, are left alone. At t = 0 and power 1 the model is unchanged. Both
    numbers may be traced. Plates, masks, subsampling and deterministic sites work as they do without.

    Args:
        fn: Model; or use as a context manager around a call of it, not around inference, which is given the model.
        t: Noise level in [0, 1].
        likelihood_power: Exponent in [0, 1]; at 0 a likelihood that is NaN counts as 1, and of one that is zero
            see `infer.zeros`. A site may have its own, `infer={"likelihood_power": ...}`.
        view: "gaussian", "denoised", "scaled" or "x".
        bound: Densities by site name that replace those in the model: same formulas, other weights.

    Raises:
        UnsupportedModelError: for a diffusion prior inside `scan` or `cond`, or in a wrapper that has no noise level;
            as a context manager around what traces the model.
        ParameterError: for an unknown view.

    Example:
        >>> noisy = nd.handlers.noise_level(model, t=0.3, likelihood_power=0.5)
        >>> MCMC(NUTS(noisy), num_warmup=500, num_samples=500).run(rng_key, y)
    """

    def __init__(
        self,
        fn=None,
        t: Any = 0.0,
        likelihood_power: Any = 1.0,
        view: str = "gaussian",
        bound: dict[str, Bound] | None = None,
    ):
        check_view(view)
        self.t, self.likelihood_power, self.view, self.bound = t, likelihood_power, view, bound or {}
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] == "control_flow":
            msg["kwargs"]["substitute_stack"].append(("substitute", _refuse))
        if msg["type"] != "sample":
            return
        if msg["is_observed"]:
            if not is_jacobian(msg):
                power = msg["infer"].get("likelihood_power", self.likelihood_power)
                msg["fn"] = ToPower(msg["fn"], power, msg["infer"].get("zeros", Zeros()))
                msg["scale"] = power if msg["scale"] is None else msg["scale"] * power
            return
        if (prior := prior_of(msg)) is not None:
            self._check_place(msg["name"])
            if msg["name"] in self.bound:
                prior = prior.bind(self.bound[msg["name"]].density)
            msg["fn"] = wrap(msg["name"], prior.at(self.t), unwrapped(msg["fn"])[1])

    def _check_place(self, name):
        """Refuse traces inside of a context manager: they would record the view as the value, and weigh that."""
        inside = _PYRO_STACK[_PYRO_STACK.index(self) + 1 :] if self.fn is None and self in _PYRO_STACK else []
        if any(isinstance(handler, trace) for handler in inside):
            raise UnsupportedModelError(
                f"noise_level stands around what traces the model at site {name!r}, which would take the view of x for "
                "x itself. Give inference the model at that level: noise_level(model, t=...)."
            )

    def postprocess_message(self, msg):
        # Traces further out have recorded the value by now; from here on the model sees the view.
        if msg["type"] != "sample" or msg["is_observed"]:
            return
        if (prior := prior_of(msg)) is not None:
            known = self.bound[msg["name"]].spectrum if msg["name"] in self.bound else None
            # Of what the prior itself is about: a transformed one has its view transformed.
            transform = biject_to(msg["fn"].support)
            noisy = transform.inv(msg["value"])
            msg["value"] = transform(seen(self.view, prior.density, noisy, self.t, known))
        if isinstance(self.likelihood_power, Tracer) and jnp.issubdtype(jnp.result_type(msg["value"]), jnp.floating):
            msg["value"] = _shield(msg["value"], self.likelihood_power)


class _redrawn(Messenger):
    """Draw latents by a key of their own, whatever key they have been given further in."""

    def __init__(self, fn, rng_key):
        self.rng_key = rng_key
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] not in ("sample", "prng_key", "plate", "control_flow") or msg["value"] is not None:
            return
        self.rng_key, key = jax.random.split(self.rng_key)
        if msg["type"] != "prng_key":
            msg["kwargs"]["rng_key"] = key


def drawn(model, rng_key=None) -> Any:
    """The model with all its randomness fixed, and with a key latents drawn by that.

    What else is random, lazy parameters, `numpyro.prng_key` and blocked sites, is part of the density of the latents,
    which has to be one.
    """
    fixed = seed(model, jax.random.key(0))
    return fixed if rng_key is None else _redrawn(fixed, rng_key)


class arrays(Messenger):
    """Observed values as arrays, where they are something that can become one: a list, or a pandas Series."""

    def process_message(self, msg):
        value = msg.get("value")
        is_array = isinstance(value, jax.Array | np.ndarray) and not isinstance(value, np.ma.MaskedArray)
        if msg["type"] == "sample" and msg["is_observed"] and not is_array and not np.ma.is_masked(value):
            can_become = isinstance(value, list | tuple) or hasattr(value, "__array__")
            msg["value"] = np.asarray(value) if can_become else value


class widened(Messenger):
    """Widen observed Normal sites: `by` holds a variance [n] and a power for each; see `noise_level` for the power."""

    def __init__(self, fn=None, by: dict[str, tuple[Any, Any]] | None = None):
        self.by = by or {}
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] != "sample" or msg["name"] not in self.by:
            return
        variance, power = self.by[msg["name"]]
        normal, wrappers = unwrapped(msg["fn"])
        scale = jnp.sqrt(jnp.asarray(normal.scale) ** 2 + variance.reshape(jnp.shape(msg["value"])))
        # The variance has the shape of all plates already.
        wrappers = [wrapper for wrapper in wrappers if not isinstance(wrapper, dist.ExpandedDistribution)]
        msg["fn"] = wrap(msg["name"], dist.Normal(normal.loc, scale), wrappers)
        msg["infer"] = {**msg["infer"], "likelihood_power": power}


class generated(Messenger):
    """Replace observed values by draws of their distributions; factors stay what they are.

    `names` are sites to draw as well, whether they are observed or not.
    """

    def __init__(self, fn=None, *, rng_key, names: tuple[str, ...] = ()):
        self.rng_key, self.names = rng_key, names
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] != "sample" or msg["fn"].event_shape == (0,):
            return
        if msg["is_observed"] or msg["name"] in self.names:
            self.rng_key, key = jax.random.split(self.rng_key)
            value = jnp.zeros(()) if msg["value"] is None else msg["value"]
            shape = jnp.shape(value)[: max(jnp.ndim(value) - len(msg["fn"].shape()), 0)]
            msg["value"] = jax.lax.stop_gradient(msg["fn"].sample(key, shape))
