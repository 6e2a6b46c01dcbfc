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

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..density.abstract import gaussian_at
from ..density.density import Density
from ..errors import ParameterError

VIEWS = ("gaussian", "denoised", "scaled", "x")


class Spectrum(NamedTuple):
    """Mean [d] and eigen-decomposition of the covariance [d], [d, d] of a prior's Gaussian approximation at t = 0."""

    mean: jax.Array
    eigenvalues: jax.Array
    eigenvectors: jax.Array


def spectrum(density: Density) -> Spectrum:
    """The spectrum a "gaussian" view needs; worth computing once, outside of loops."""
    gaussian = gaussian_at(density, 0.0)
    eigenvalues, eigenvectors = jnp.linalg.eigh(gaussian.covariance)
    return Spectrum(gaussian.mean, jnp.maximum(eigenvalues, 1e-12 * jnp.max(eigenvalues)), eigenvectors)


def check_view(view: str) -> None:
    """Raise ParameterError for an unknown view."""
    if view not in VIEWS:
        raise ParameterError(f"view must be one of {VIEWS}; got {view!r}.")


def seen(view: str, density: Density, x, t, known: Spectrum | None = None) -> jax.Array:
    """The view of points x [*batch, *event_shape] at noise level t.

    Args:
        view: One of `VIEWS`.
        known: `spectrum(density)` if it is at hand.
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
    mean, eigenvalues, eigenvectors = known or spectrum(density)
    r = density.schedule.noise_to_signal(t)
    flat = x.reshape((-1, mean.size)) / alpha - mean
    shrunk = ((flat @ eigenvectors) * (eigenvalues / (eigenvalues + r**2))) @ eigenvectors.T
    return (mean + shrunk).reshape(x.shape)
