r"""Five problems whose truth is known: posteriors that are narrow, bent or funnels, and two compositions.

- correlated: x of a mixture in six dimensions, y = A x + 0.05 eps with singular values of A from 2 to 0.05; closed form.
- funnel: v ~ N(0, 1), z of a mixture in four dimensions, y = exp(v / 2) z + 0.3 eps. Given v all is closed form, and v
  is summed over a grid.
- banana: x of a mixture in the plane, 1.5 = x_2 + x_1^2 + 0.2 eps; summed over a grid.
- guidance, product of three: of `posteriors.compositions`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_diffusion as nd
from benchmarks.posteriors.compositions import Mixture, formula, on_grid, random_mixture

NAMES = ("correlated", "funnel", "banana", "guidance", "product of three")
NOISE = {"correlated": 0.05, "funnel": 0.3, "banana": 0.2}


@dataclasses.dataclass(frozen=True)
class Target:
    """Log evidence, exact draws `draw(rng, count)`, and `run(key, kernel, **options)` -> run, samples [N, d]."""

    evidence: float
    draw: Callable[..., np.ndarray]
    run: Callable[..., tuple[nd.AnnealedRun, np.ndarray]]


@functools.cache
def target(name: str) -> Target:
    """The problem of that name."""
    if name in POSTERIORS:
        return POSTERIORS[name]()
    of = formula(name, 2 if name == "guidance" else 5, 0, is_hard=False)
    return Target(of.evidence, of.draw, of_density(of.density))


def of_density(density: nd.Density):
    """`run` of a density."""

    def run(key, kernel, **options):
        found = nd.anneal(key, density, kernel, progress_bar=False, **options)
        return found, np.asarray(found.samples)

    return run


def _of_model(model, *args):
    """`run` of a model: its latents side by side, in the order of their names."""

    def run(key, kernel, **options):
        mcmc = nd.AnnealedMCMC(model, kernel, progress_bar=False, **options)
        mcmc.run(key, *args)
        samples = mcmc.get_samples()
        return mcmc.annealed, np.concatenate(
            [np.reshape(samples[k], (len(samples[k]), -1)) for k in sorted(samples)], 1
        )

    return run


def _linear(prior: Mixture, A, noise: float, y) -> Mixture:
    """Posterior of x given y = A x + noise eps; its log weights sum to p(y)."""
    gap, joint = y - prior.means @ A.T, A @ prior.covariances @ A.T + noise**2 * np.eye(len(y))
    gain = np.swapaxes(np.linalg.solve(joint, A @ prior.covariances), 1, 2)
    quadratic = np.einsum("ki,ki->k", gap, np.linalg.solve(joint, gap[..., None])[..., 0])
    log_w = prior.log_weights - 0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * joint)[1])
    means = prior.means + np.einsum("kij,kj->ki", gain, gap)
    return Mixture(log_w, means, prior.covariances - gain @ A @ prior.covariances)


def _linear_model(prior, A, noise, y):
    x = numpyro.sample("x", nd.DiffusionPrior(prior))
    numpyro.sample("y", dist.Normal(A @ x, noise).to_event(1), obs=y)


def _correlated() -> Target:
    rng = np.random.default_rng(11)
    prior, noise = random_mixture(rng, 6, 0.8), NOISE["correlated"]
    u, _, vt = np.linalg.svd(rng.standard_normal((6, 6)))
    A = u * np.geomspace(2.0, 0.05, 6) @ vt
    y = A @ prior.draw(rng, 1)[0] + noise * rng.standard_normal(6)
    truth = _linear(prior, A, noise, y)
    run = _of_model(_linear_model, prior.density("p"), jnp.asarray(A), noise, jnp.asarray(y))
    return Target(truth.evidence, truth.draw, run)


def _funnel_model(prior, noise, y):
    v = numpyro.sample("v", dist.Normal(0.0, 1.0))
    z = numpyro.sample("z", nd.DiffusionPrior(prior))
    numpyro.sample("y", dist.Normal(jnp.exp(v / 2) * z, noise).to_event(1), obs=y)


def _funnel() -> Target:
    rng, noise = np.random.default_rng(12), NOISE["funnel"]
    prior = random_mixture(rng, 4, 0.5)
    y = np.exp(-0.75) * prior.draw(rng, 1)[0] + noise * rng.standard_normal(4)
    grid = np.linspace(-6.0, 6.0, 2001)
    given = [_linear(prior, np.exp(v / 2) * np.eye(4), noise, y) for v in grid]
    log_p = np.array([m.evidence for m in given]) - 0.5 * grid**2 - 0.5 * np.log(2 * np.pi)
    log_p += np.log(grid[1] - grid[0])
    share = np.exp(log_p - np.logaddexp.reduce(log_p))

    def draw(rng, count):
        v = grid[rng.choice(len(grid), count, p=share)] + (grid[1] - grid[0]) * rng.uniform(-0.5, 0.5, count)
        z = np.concatenate([_linear(prior, np.exp(a / 2) * np.eye(4), noise, y).draw(rng, 1) for a in v])
        return np.column_stack([v, z])

    return Target(
        float(np.logaddexp.reduce(log_p)), draw, _of_model(_funnel_model, prior.density("p"), noise, jnp.asarray(y))
    )


def _banana_model(prior, noise, y):
    x: Any = numpyro.sample("x", nd.DiffusionPrior(prior))
    numpyro.sample("y", dist.Normal(x[1] + x[0] ** 2, noise), obs=y)


def _banana() -> Target:
    prior, noise, y = random_mixture(np.random.default_rng(13), 2, 0.8), NOISE["banana"], 1.5
    wide = prior._replace(covariances=4 * prior.covariances)

    def log_prob(x):
        gap = (y - x[:, 1] - x[:, 0] ** 2) / noise
        return wide.log_prob(x) - 0.5 * gap**2 - np.log(noise) - 0.5 * np.log(2 * np.pi)

    return Target(run=_of_model(_banana_model, wide.density("p"), noise, jnp.asarray(y)), **on_grid(log_prob))


POSTERIORS: dict[str, Any] = {"correlated": _correlated, "funnel": _funnel, "banana": _banana}
