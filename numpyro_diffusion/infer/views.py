r"""How a model sees a noisy latent: the value that stands for x in likelihoods and in other latents' distributions.

At noise level t a diffusion prior's latent is x_t = alpha_t x_0 + sigma_t eps. What the rest of the model gets is

    "gaussian"  m + C (C + r^2 I)^{-1} (x_t / alpha_t - m)       r = sigma_t / alpha_t
    "denoised"  (x_t + sigma_t^2 grad log p(x_t, t)) / alpha_t   the denoised mean (Tweedie)
    "scaled"    x_t / alpha_t
    "x"         x_t itself

All are x at t = 0. "gaussian", the default, is the denoised mean under the Gaussian with the prior's mean m and
covariance C: exact at large noise, bounded, and free. The true denoised mean costs a Hessian-vector product of the
energy per gradient. "scaled" hands noise of scale r to the likelihood, "x" a signal that fades with alpha_t.
"""

from __future__ import annotations

import jax

from ..density.abstract import gaussian_at
from ..density.density import Density
from ..density.gaussian import Gaussian
from ..errors import ParameterError

VIEWS = ("gaussian", "denoised", "scaled", "x")


def check_view(view: str) -> None:
    """Raise ParameterError for an unknown view."""
    if view not in VIEWS:
        raise ParameterError(f"view must be one of {VIEWS}; got {view!r}.")


def seen(view: str, density: Density, x, t, known: Gaussian | None = None) -> jax.Array:
    """The view of points x [*batch, *event_shape] at noise level t.

    Args:
        view: One of `VIEWS`.
        known: The density's Gaussian approximation at t = 0 if it is at hand; worth computing once, outside of loops.
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
