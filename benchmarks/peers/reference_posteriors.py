r"""Two posteriors of `sbibm` (Lueckmann et al. 2021, arXiv:2101.04653) with its reference draws: problems of `peers.py`.

Two moons: :math:`\theta \sim U(-1, 1)^2`, :math:`y = (r \cos a + 1/4, r \sin a) + (-|\theta_1 + \theta_2|, \theta_2 - \theta_1) / \sqrt 2`,
:math:`a \sim U(-\pi/2, \pi/2)`, :math:`r \sim N(0.1, 0.01^2)`. With (u, v) what is left of y,

.. math:: p(y | \theta) = \frac{N(|(u, v)|; 0.1, 0.01^2)}{\pi \, |(u, v)|}, \qquad u > 0 .

The package's own log likelihood leaves the Jacobian 1 / |(u, v)| out; its reference draws, made by simulation, have it.

Gaussian mixture: :math:`\theta \sim U(-10, 10)^2`, :math:`y \sim (N(\theta, I) + N(\theta, 0.01 I)) / 2`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.tree_util import Partial
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

import numpyro_diffusion as nd
from benchmarks.peers.chains import nuts, tempered_smc
from benchmarks.peers.registry import DRAWS, FLOOR_SETS, Method, Problem, by_w2
from benchmarks.table import RESULTS

DATA = Path(__file__).parents[1] / "data" / "sbibm_posteriors.npz"
BUDGET, PER_LEVEL, REFERENCE = 300, 7.5, 9000
TRAINING = nd.TrainingConfig(num_steps=2_000, batch_size=256)


def two_moons(y, theta):
    """log p(y | theta)."""
    turned = jnp.array([-jnp.abs(theta[0] + theta[1]), theta[1] - theta[0]]) / jnp.sqrt(2.0)
    u, v = y - turned - jnp.array([0.25, 0.0])
    squared = u**2 + v**2
    r = jnp.sqrt(jnp.maximum(squared, 1e-12))
    inside = -0.5 * ((r - 0.1) / 0.01) ** 2 - jnp.log(r)
    return jnp.where(u > 0, inside, -jnp.inf)


def gaussian_mixture(y, theta):
    """log p(y | theta) up to a constant."""
    squared = jnp.sum((y - theta) ** 2)
    return jnp.logaddexp(-0.5 * squared, -0.5 * squared / 0.01 + 2 * jnp.log(10.0))


class Task(NamedTuple):
    """Half width of the uniform prior, and log likelihood (y, theta)."""

    half: float
    log_likelihood: Callable


TASKS = {"two_moons": Task(1.0, two_moons), "gaussian_mixture": Task(10.0, gaussian_mixture)}


def log_prior(half, theta):
    """Of the uniform prior, at t = 0."""
    return jnp.where(jnp.all(jnp.abs(theta) <= half), -2 * jnp.log(2 * half), -jnp.inf)


@functools.cache
def box(half: float) -> nd.Density:
    """The prior at every noise level, in closed form."""
    return nd.exact.UniformBox([-half] * 2, [half] * 2)


@functools.cache
def trained(half: float) -> nd.Density:
    """A calibrated energy density fitted to draws of the prior, from the cache if there."""
    path = RESULTS / ".cache" / f"box_{half:g}_{TRAINING.num_steps}.safetensors"
    if path.exists():
        return nd.load(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / ".gitignore").write_text("*\n")
    draw = lambda key, count: jax.random.uniform(key, (count, 2), minval=-half, maxval=half)
    network = nd.NetworkConfig(width=64, num_blocks=2)
    density = nd.fit(
        jax.random.key(1), draw, sigma_min=0.01 * half, sigma_max=20.0 * half, network=network, training=TRAINING,
        name=f"box{half:g}", progress_bar=False,
    )  # fmt: skip
    nd.save(density, path)
    return density


def model(prior, log_likelihood, y):
    """theta ~ prior, and the likelihood."""
    theta = numpyro.sample("theta", nd.DiffusionPrior(prior))
    numpyro.factor("y", log_likelihood(y, theta))


def c2st(x, truth, seed: int) -> float:
    """Accuracy of a classifier (random forest, three folds) that tells samples from as many reference draws."""
    both, labels = np.concatenate([x, truth]), np.repeat([0, 1], [len(x), len(truth)])
    order = np.random.default_rng(seed).permutation(len(both))
    forest = RandomForestClassifier(50, min_samples_leaf=5, random_state=seed)
    return float(cross_val_score(forest, both[order], labels[order], cv=3).mean())


def reference(name: str) -> Problem:
    """The table of a task; the seed's observation is number 1 + seed mod 3."""
    task, stored = TASKS[name], np.load(DATA)

    def row(sample):
        def compute(seed: int) -> dict:
            which, rng = seed % 3, np.random.default_rng([7, seed])
            known = stored[name][which].astype(np.float64)
            split = lambda: np.split(rng.permutation(known), [DRAWS])
            kept, truth = split()
            y = jnp.asarray(stored[f"{name}_observed"][which])
            x, cost = (kept, None) if sample is None else sample(jax.random.key(seed), y)
            found = by_w2(x, truth, (split() for _ in range(FLOOR_SETS)), cost)
            return found | {"C2ST": c2st(np.nan_to_num(np.asarray(x, np.float64)), truth[:DRAWS], seed)}

        return compute

    def ours(key, y, prior=box, **options):
        mcmc = nd.AnnealedMCMC(model, num_chains=DRAWS, progress_bar=False, **options)
        mcmc.run(key, prior(task.half), Partial(task.log_likelihood), y)
        return mcmc.get_samples()["theta"], mcmc.evaluations_per_chain + mcmc.annealed.pilot_evaluations

    def at_zero(method):
        def sample(key, y):
            start_key, key = jax.random.split(key)
            start = jax.random.uniform(start_key, (100 * DRAWS, 2), minval=-task.half, maxval=task.half)
            known = {}
            if method is nuts:
                # A chain cannot begin where the likelihood is zero.
                start = start[np.isfinite(jax.vmap(task.log_likelihood, (None, 0))(y, start))]
                known["support"] = dist.constraints.independent(dist.constraints.interval(-task.half, task.half), 1)
            given = Partial(log_prior, task.half), Partial(task.log_likelihood, y)
            return method(key, *given, start[:DRAWS], BUDGET, **known)

        return sample

    levels = {"levels": int(BUDGET / PER_LEVEL), "num_steps": 2}
    methods = {
        "exact draws": Method("reference draws set apart", row(None)),
        "ours, default": Method("`nd.AnnealedMCMC(model)`, exact prior", row(ours)),
        "ours, equal evaluations": Method(
            f"{levels['levels']} levels, two HMC steps", row(functools.partial(ours, **levels))
        ),
        "ours, closer levels": Method(
            "`level_ess=0.98, num_steps=1`", row(functools.partial(ours, level_ess=0.98, num_steps=1))
        ),
        "ours, trained prior": Method(
            f"default; prior trained on draws, {TRAINING.num_steps:,} steps",
            row(functools.partial(ours, prior=trained)),
        ),
        "tempered SMC": Method("BlackJAX, from prior draws", row(at_zero(tempered_smc))),
        "NUTS": Method("NumPyro, from prior draws", row(at_zero(nuts))),
    }
    cannot = {
        "sbi": "a torch stack; trains on simulations, asks for no likelihood: not run (see below)",
        "BayesFlow": "a keras stack; trains on simulations, asks for no likelihood: not run (see below)",
    }
    if name == "two_moons":
        # Its likelihood has walls, at which gradients are not finite: NumPyro refuses all starts.
        methods.pop("NUTS")
        cannot["NUTS"] = "NumPyro finds no valid start: the likelihood is zero outside a thin crescent"
    text = f"""Observations 1, 2 and 3 of `sbibm`'s {name.replace("_", " ")}, by seed. Distance: sliced W2 of {DRAWS:,} samples to {REFERENCE:,} of its reference draws; C2ST: accuracy of a random forest that
tells {DRAWS:,} samples from as many reference draws, 0.5 at best. {BUDGET} evaluations for every peer."""
    return Problem(text, methods, cannot)
