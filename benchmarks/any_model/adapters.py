"""Every adapter x schedule x make of network on closed forms: are the scores right, also under another schedule?

    python benchmarks/any_model/adapters.py [--quick]      # five seeds; one with --quick

The networks are exact, of a random mixture of three Gaussians in the plane: noise, velocity, data, flow, score and
energy. They know signal and noise by formulas of their own, not through this package, and are told what networks of
their kind are told. The truth is computed in double precision, by linear algebra in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.scipy.special import logsumexp

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure

ADAPTERS = {
    "noise": nd.from_noise_prediction, "velocity": nd.from_velocity, "denoiser": nd.from_denoiser,
    "flow": nd.from_flow, "score": nd.from_score, "energy": nd.from_energy,
}  # fmt: skip
NUM_LEVELS, NUM_POINTS, LEAST, MOST = 12, 64, 0.03, 39.0
COLUMNS = ["told", "function", "nnx", "linen", "equinox", "under another schedule", "in double precision", "seconds"]
HEADER = """# Adapters on closed forms

`python benchmarks/any_model/adapters.py`. Largest error of a score vector at 64 points of each of 12 noise levels, r from .03 to 39 or the schedule's largest, over
the root mean square score of the level, in single precision; by make of the network, and of all makes when the density is read under
another schedule (variance preserving cosine, up to r = 40 or the schedule's largest). `told`: what the network is told of the level. 1e-4 was asked.
A network that returns x_0 rounded to single precision cannot have the score (x_0 - y) / r^2 to better than about 1e-7 |y| / r^2, which is 2e-4 at r = .03; `in double
precision` the same networks, as functions, are right under both schedules.
"""


def other_schedule(schedule: nd.NoiseSchedule) -> nd.NoiseSchedule:
    """The other schedule that scores are read under as well; it must not ask for more noise than the network knows."""
    return nd.VariancePreserving.cosine(min(1.02 * MOST, schedule.noise_range[1]))


class World(NamedTuple):
    """How a model was trained: its schedule as this package says it, and signal and noise by formulas of its own.

    `ratios` are those that are tried: all steps of a discrete model that lie within [LEAST, MOST], thinned out.
    """

    schedule: nd.NoiseSchedule
    alpha_sigma: Callable[[Any], tuple[Any, Any]]
    told: str
    timesteps: Any
    ratios: np.ndarray


def continuous(schedule, alpha_sigma, told="time") -> World:
    return World(schedule, alpha_sigma, told, None, np.geomspace(LEAST, MOST, NUM_LEVELS))


def discrete(schedule, ratios, alpha_of, told, timesteps, of_told=lambda told: told) -> World:
    """Of a table of ratios [K]; between steps their logarithms are linear."""

    def alpha_sigma(told):
        logs = jnp.asarray(np.log(ratios), dtype=float)
        r = jnp.exp(jnp.interp(of_told(told), jnp.arange(len(logs)), logs))
        return alpha_of(r), alpha_of(r) * r

    within = ratios[(ratios >= LEAST) & (ratios <= MOST)]
    return World(
        schedule, alpha_sigma, told, timesteps, within[np.linspace(0, len(within) - 1, NUM_LEVELS).astype(int)]
    )


def worlds() -> dict[str, World]:
    angle, betas = np.arctan(100.0), np.linspace(1e-4, 0.02, 1000)
    sigmas = np.geomspace(0.002, 80.0, 60)
    config = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
    scaled = np.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, 1000) ** 2
    alphas_cumprod = np.cos((np.arange(400) + 1.0) / 401 * np.pi / 2) ** 2

    def linear(t):
        log_alpha = -0.25 * t**2 * 19.9 - 0.05 * t
        return jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2 * log_alpha))

    def exploding(t):
        low, high = 0.01 ** (1 / 7), 80.0 ** (1 / 7)
        return jnp.ones_like(t), (low + t * (high - low)) ** 7

    ratio = lambda abar: np.sqrt((1 - abar) / abar)
    preserving, one = lambda r: 1 / jnp.sqrt(1 + r**2), jnp.ones_like
    schedule = nd.NoiseSchedule
    log_sigma = schedule.from_sigmas(sigmas)
    return {
        "VP cosine": continuous(nd.VariancePreserving.cosine(), lambda t: (jnp.cos(angle * t), jnp.sin(angle * t))),
        "VP linear": continuous(nd.VariancePreserving.linear(), linear),
        "VE": continuous(nd.VarianceExploding(0.01, 80.0), exploding),
        "from_betas": discrete(
            schedule.from_betas(betas), ratio(np.cumprod(1 - betas)), preserving, "integer", "integer"),
        "from_alphas_cumprod": discrete(
            schedule.from_alphas_cumprod(alphas_cumprod), ratio(alphas_cumprod), preserving, "fractional", "fractional"),
        "from_sigmas": discrete(
            log_sigma, sigmas, one, "log(sigma) / 4", lambda t: jnp.log(log_sigma.sigma(t)) / 4,
            lambda told: (4 * told - np.log(sigmas[0])) / np.log(sigmas[1] / sigmas[0])),
        "linear_flow": continuous(schedule.linear_flow(), lambda tau: (1 - tau), "tau")._replace(
            alpha_sigma=lambda tau: (1 - tau, tau)),
        "diffusers config": discrete(
            schedule.from_diffusers_config(config), ratio(np.cumprod(1 - scaled)), preserving, "blended", "blended"),
    }  # fmt: skip


def mixture(seed: int) -> dict[str, np.ndarray]:
    """Means [3, 2], eigenvalues [3, 2] and axes [3, 2, 2] of covariances, log weights [3]."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(3, 2, 2)))[0]
    return {
        "means": 1.2 * rng.normal(size=(3, 2)), "variances": rng.uniform(0.05, 0.5, size=(3, 2)), "axes": axes,
        "log_weights": np.log(rng.dirichlet(np.full(3, 3.0))),
    }  # fmt: skip


def network(prediction: str, world: World, weights, x, told):
    """What an exact network returns for one point x [2]."""
    alpha, sigma = world.alpha_sigma(told)
    r, y = sigma / alpha, x / alpha
    z = jnp.einsum("kij,ki->kj", weights["axes"], y - weights["means"])
    variances = weights["variances"] + r**2
    logs = weights["log_weights"] - 0.5 * jnp.sum(z**2 / variances + jnp.log(variances), axis=1)
    if prediction == "energy":
        return 2 * jnp.log(alpha) - logsumexp(logs)
    shares = jax.nn.softmax(logs)
    noise = r * jnp.einsum("k,kij,kj->i", shares, weights["axes"], z / variances)
    shrunk = jnp.einsum("kij,kj->ki", weights["axes"], z * weights["variances"] / variances)
    clean = shares @ (weights["means"] + shrunk)
    return {
        "noise": noise, "velocity": alpha * noise - sigma * clean, "denoiser": clean, "flow": noise - clean,
        "score": -noise / sigma,
    }[prediction]  # fmt: skip


def true_scores(m: dict[str, np.ndarray], y: np.ndarray, r: float) -> np.ndarray:
    """Scores [n, 2] of y [n, 2] at ratio r, in double precision."""
    logs, pulls = [], []
    for mean, variance, axes, log_weight in zip(m["means"], m["variances"], m["axes"], m["log_weights"], strict=True):
        covariance = axes @ np.diag(variance) @ axes.T + r**2 * np.eye(2)
        pull = -np.linalg.solve(covariance, (y - mean).T).T
        logs.append(log_weight + 0.5 * np.sum(pull * (y - mean), axis=1) - 0.5 * np.linalg.slogdet(covariance)[1])
        pulls.append(pull)
    shares = np.exp(np.array(logs) - np.logaddexp.reduce(logs, axis=0))
    return np.einsum("kn,kni->ni", shares, pulls)


def makes(prediction: str, world: World, weights) -> dict[str, tuple[Any, dict]]:
    """The network as each library would have it, and the options that its adapter is given beside."""
    call = lambda weights, x, told: network(prediction, world, weights, x, told)
    weights = {name: jnp.asarray(value, dtype=float) for name, value in weights.items()}

    class Module(nnx.Module):
        def __init__(self):
            self.weights = nnx.Dict({name: nnx.Param(value) for name, value in weights.items()})
            self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

        def __call__(self, x, told):
            return self.dropout(call({name: value[...] for name, value in self.weights.items()}, x, told))

    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x, told, train: bool = True):
            held = {k: self.param(k, lambda key, v=v: v) for k, v in weights.items()}
            return nn.Dropout(0.5, deterministic=not train)(call(held, x, told))

    class Equinox(eqx.Module):
        weights: dict
        dropout: eqx.nn.Dropout

        def __call__(self, x, told):
            return self.dropout(call(self.weights, x, told))

    return {
        "function": (call, {"parameters": weights}),
        "nnx": (Module(), {}),
        "linen": (Linen(), {"parameters": {"params": weights}}),
        "equinox": (Equinox(weights, eqx.nn.Dropout(0.5)), {}),
    }


@jax.jit
def scores(density, y, r):
    """Scores [2, levels, n, 2] of y [levels, n, 2], in its units, under the density's schedule and under the other."""

    def at(density, y, r):
        t = density.schedule.time(r)
        alpha = density.schedule.alpha(t)
        return alpha * density.score(alpha * y, t)

    both = density, density.with_schedule(other_schedule(density.schedule))
    return jnp.stack([jax.vmap(lambda y, r, d=d: at(d, y, r))(y, r) for d in both])


def errors(prediction: str, world: World, seed: int) -> dict[str, Any]:
    """The largest error by make of network."""
    if (prediction, world.timesteps) == ("flow", None):  # once a seed
        jax.clear_caches()  # each program holds memory maps, of which a process may have 65,530
    m, rng = mixture(seed), np.random.default_rng(1000 + seed)
    k = rng.choice(3, size=(NUM_LEVELS, NUM_POINTS), p=np.exp(m["log_weights"]))
    draws = m["means"][k] + np.einsum(
        "lnij,lnj->lni", m["axes"][k], np.sqrt(m["variances"][k]) * rng.normal(size=(*k.shape, 2))
    )
    y = (draws + world.ratios[:, None, None] * rng.normal(size=draws.shape)).astype(np.float32)
    true = np.array([true_scores(m, level.astype(np.float64), r) for level, r in zip(y, world.ratios, strict=True)])
    size = np.sqrt(np.mean(np.sum(true**2, axis=2), axis=1))

    def worst(density, y):
        differences = np.asarray(scores(density, y, world.ratios)) - true
        return np.max(np.linalg.norm(differences, axis=3) / size[:, None], axis=(1, 2))

    found: dict[str, Any] = {"told": world.told, "under another schedule": 0.0}
    of = lambda fn, options: ADAPTERS[prediction](fn, (2,), world.schedule, timesteps=world.timesteps, **options)
    for make, network_of_it in makes(prediction, world, m).items():
        own, other = worst(of(*network_of_it), y)
        found |= {make: own, "under another schedule": max(other, found["under another schedule"])}
    with jax.enable_x64(True):
        function = of(*makes(prediction, world, m)["function"])
        return found | {"in double precision": max(worst(function, y.astype(np.float64)))}


def rows():
    everything = worlds()
    for prediction in ADAPTERS:
        for name, world in everything.items():
            if prediction != "flow" or name == "linear_flow":
                yield f"{prediction}, {name}", lambda seed, p=prediction, w=world: errors(p, w, seed)


def main() -> None:
    options = arguments(__doc__ or "")
    found = measure("any_model_adapters", options, rows(), HEADER, COLUMNS)
    numbers = [v for by_seed in found.values() for f in by_seed for k, v in f.items() if k in COLUMNS[1:-2]]
    print(f"largest in single precision: {max(numbers):.2g}")


if __name__ == "__main__":
    main()
