r"""What others do with a diffusion prior and an observation y = A x + sigma_y eps: the baselines.

In variance exploding units y_r = x_t / alpha_t, at noise-to-signal ratio r, Tweedie's formula gives the denoised point

.. math:: \hat x(y_r) = y_r + r^2 \nabla \log p(y_r, r) .

`dps` (Chung et al. 2023, arXiv:2209.14687, Algorithm 1) follows each step of reverse diffusion by a gradient step on the residual,

.. math:: x_{t'} \leftarrow x_{t'} - \frac{\zeta}{\|y - A \hat x\|} \nabla_{x_t} \|y - A \hat x(x_t)\|^2 .

`tds` (Wu et al. 2023, arXiv:2306.17775, Algorithm 1) is a particle filter with twisting functions
:math:`\tilde p(y | x_t) = N(y; A \hat x(x_t), S_r)`: it proposes from :math:`N(y_r + (r^2 - r'^2) \tilde s, (r^2 - r'^2) I)` with
:math:`\tilde s = \nabla \log p + \nabla \log \tilde p`, weights by p(x' | x) p~(y | x') / (p~(y | x) q(x' | x)), resamples
systematically when the effective size falls below one half, and multiplies the mean weights to an evidence. At r = 0 the twist is
the likelihood itself. The paper's choice is :math:`S_r = \sigma_y^2 I`; "matched" adds the covariance that A x would have if the data
were Gaussian, :math:`A (C^{-1} + r^{-2} I)^{-1} A'`, in the spirit of Song et al. (2023), Pseudoinverse-Guided Diffusion Models.

`nuts` is NumPyro's NUTS on the posterior at t = 0, from draws of the prior.

Gradients through the denoised point differentiate the score: such a step counts as two evaluations of the prior's value and gradient.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from numpyro.infer import MCMC, NUTS

SMALLEST = 0.02  # noise-to-signal ratio of the last level above zero; modes have unit width
TWO = 2  # evaluations per guided step
LOST = -1e30  # log weight of a particle that overflowed


def ratios(density, num_steps: int):
    """Decreasing noise-to-signal ratios [num_steps + 1], geometric, the last one zero."""
    return jnp.append(jnp.geomspace(density.schedule.noise_range[1], SMALLEST, num_steps), 0.0)


def _score(density, y, r):
    """Gradient of log p(y, r) in variance exploding units; p(y, r) = alpha^d p(alpha y, t)."""
    t = density.schedule.time(r)
    alpha = density.schedule.alpha(t)
    return alpha * jax.grad(density.log_density)(alpha * y, t)


def _denoise(density, y, r):
    return y + r**2 * _score(density, y, r)


def _start(density, rng_key, count):
    """Draws [count, d] at the largest noise from the Gaussian with the density's moments, in variance exploding units."""
    moments = density.gaussian(1.0)
    root = jnp.linalg.cholesky(moments.covariance)
    noise = jax.random.normal(rng_key, (count, moments.mean.size))
    return (moments.mean + noise @ root.T) / density.schedule.alpha(1.0)


@functools.partial(jax.jit, static_argnames=("count", "num_steps"))
def _dps(density, rng_key, A, y_obs, zeta, *, count, num_steps):
    rs = ratios(density, num_steps)
    start_key, step_key = jax.random.split(rng_key)

    def residual(y, r):
        denoised = _denoise(density, y, r)
        return jnp.linalg.norm(y_obs - A @ denoised), denoised

    def one(key, y, z, r, r_to):
        # grad ||e||^2 / ||e|| = 2 grad ||e||; with respect to x_t = alpha y it is that by y over alpha.
        alpha, alpha_to = (density.schedule.alpha(density.schedule.time(q)) for q in (r, r_to))
        gradient, denoised = jax.grad(residual, has_aux=True)(y, r)
        keep = (r_to / r) ** 2
        noise = r_to * jnp.sqrt(1 - keep) * jax.random.normal(key, y.shape)
        return denoised + keep * (y - denoised) + noise - z * 2 * gradient / (alpha * alpha_to)

    def step(y, k):
        keys = jax.random.split(jax.random.fold_in(step_key, k), count)
        return jax.vmap(one, (0, 0, 0, None, None))(keys, y, zeta, rs[k], rs[k + 1]), None

    y, _ = jax.lax.scan(step, _start(density, start_key, count), jnp.arange(num_steps))
    return y


def dps(density, rng_key, A, y, zeta, count: int, evaluations: int):
    """Guided samples [count, d]; `zeta` is a number or one per sample [count]."""
    zeta = jnp.broadcast_to(jnp.asarray(zeta, dtype=float), (count,))
    return _dps(density, rng_key, jnp.asarray(A, float), jnp.asarray(y, float), zeta, count=count,
                num_steps=max(evaluations // TWO, 2))  # fmt: skip


def systematic(rng_key, log_weights):
    """Indices [n] of systematic resampling."""
    n = len(log_weights)
    edges = jnp.cumsum(jax.nn.softmax(log_weights))
    return jnp.clip(jnp.searchsorted(edges, (jnp.arange(n) + jax.random.uniform(rng_key)) / n), 0, n - 1)


@functools.partial(jax.jit, static_argnames=("count", "num_steps", "matched"))
def _tds(density, rng_key, A, y_obs, sigma_y, *, count, num_steps, matched):
    rs = ratios(density, num_steps)
    start_key, step_key = jax.random.split(rng_key)
    eigenvalues, vectors = jnp.linalg.eigh(density.gaussian(0.0).covariance)
    projected, identity = A @ vectors, jnp.eye(len(y_obs))

    def log_normal(prediction, r):
        left = eigenvalues * r**2 / (eigenvalues + r**2) if matched else jnp.zeros_like(eigenvalues)
        root = jnp.linalg.cholesky(sigma_y**2 * identity + (projected * left) @ projected.T)
        z = jax.scipy.linalg.solve_triangular(root, y_obs - prediction, lower=True)
        return -0.5 * jnp.sum(z**2) - jnp.sum(jnp.log(jnp.diag(root))) - 0.5 * len(y_obs) * jnp.log(2 * jnp.pi)

    def twist(y, r):
        """(log p~(y_obs | y), its gradient, the score)."""

        def value(y):
            score = _score(density, y, r)
            return log_normal(A @ (y + r**2 * score), r), score

        (log_p, score), gradient = jax.value_and_grad(value, has_aux=True)(y)
        return log_p, gradient, score

    def step(carry, k):
        y, (log_p, gradient, score), log_w, log_z = carry
        r, r_to = rs[k], rs[k + 1]
        resample_key, noise_key = jax.random.split(jax.random.fold_in(step_key, k))
        log_w = log_w - logsumexp(log_w)
        few = -logsumexp(2 * log_w) < jnp.log(count / 2)
        index = jnp.where(few, systematic(resample_key, log_w), jnp.arange(count))
        log_w = jnp.where(few, -jnp.log(count), log_w)
        y, log_p, gradient, score = jax.tree.map(lambda a: a[index], (y, log_p, gradient, score))
        variance = r**2 - r_to**2
        noise = jnp.sqrt(variance) * jax.random.normal(noise_key, y.shape)
        new = y + variance * (score + gradient) + noise
        # log p(new | y) - log q(new | y): squared distances to the two means, variance * gradient apart.
        gap = noise + variance * gradient
        log_ratio = 0.5 * (jnp.sum(noise**2, -1) - jnp.sum(gap**2, -1)) / variance
        last = k == num_steps - 1
        # The scan's last turn must not pay for a twist at r = 0, where it is the likelihood.
        new_twist = jax.lax.cond(
            last,
            lambda y: (jax.vmap(lambda z: log_normal(A @ z, 0.0))(y), jnp.zeros_like(y), jnp.zeros_like(y)),
            lambda y: jax.vmap(twist, (0, None))(y, r_to),
            new,
        )
        log_w = log_w + log_ratio + new_twist[0] - log_p
        log_w = jnp.where(jnp.isfinite(log_w), log_w, LOST)
        return (new, new_twist, log_w, log_z + logsumexp(log_w)), -logsumexp(2 * (log_w - logsumexp(log_w)))

    y = _start(density, start_key, count)
    first = jax.vmap(twist, (0, None))(y, rs[0])
    log_z = logsumexp(first[0]) - jnp.log(count)
    (y, _, log_w, log_z), log_ess = jax.lax.scan(step, (y, first, first[0], log_z), jnp.arange(num_steps))
    index = systematic(jax.random.fold_in(step_key, num_steps), log_w)
    return y[index], jnp.where(log_z > LOST / 2, log_z, jnp.nan), jnp.exp(jnp.min(log_ess)) / count


def tds(density, rng_key, A, y, sigma_y, count: int, evaluations: int, matched: bool = False):
    """(samples [count, d], log evidence, smallest share of effective particles)."""
    arrays = (jnp.asarray(A, float), jnp.asarray(y, float), jnp.asarray(sigma_y, float))
    return _tds(density, rng_key, *arrays, count=count, num_steps=max(evaluations // TWO, 2), matched=matched)


def _posterior_model(density, A, sigma_y, y):
    x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real_vector, (), density.event_shape))
    numpyro.factor("prior", density.log_density(x, 0.0))
    numpyro.sample("y", dist.Normal(A @ x, sigma_y).to_event(1), obs=y)


def nuts(density, rng_key, A, y, sigma_y, start, evaluations: int, depth: int = 4):
    """(last positions [len(start), d], evaluations per chain): half of the budget adapts, the rest samples.

    Transitions are made until the mean number of leapfrog steps per chain, adaptation included, is the budget.
    """
    args = (density, *(jnp.asarray(a, float) for a in (A, sigma_y, y)))
    warmup_key, run_key = jax.random.split(rng_key)
    num_warmup = max(evaluations // 2 // (2**depth - 1), 4)
    mcmc = MCMC(NUTS(_posterior_model, max_tree_depth=depth), num_warmup=num_warmup, num_samples=1,
                num_chains=len(start), chain_method="vectorized", jit_model_args=True, progress_bar=False)  # fmt: skip
    mcmc.warmup(warmup_key, *args, extra_fields=("num_steps",), collect_warmup=True,
                init_params={"x": jnp.asarray(start, float)})  # fmt: skip
    spent = float(np.sum(mcmc.get_extra_fields(True)["num_steps"], 1).mean())
    recent = float(np.mean(mcmc.get_extra_fields(True)["num_steps"][:, -2:]))
    mcmc.num_samples = max(round((evaluations - spent) / recent), 1)
    mcmc.run(run_key, *args, extra_fields=("num_steps",))
    spent += float(np.sum(mcmc.get_extra_fields(True)["num_steps"], 1).mean())
    return mcmc.get_samples(group_by_chain=True)["x"][:, -1], spent
