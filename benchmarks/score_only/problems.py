"""Compositions whose truth is known, of models of which only the score is looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.paper import gmm_products
from numpyro_diffusion.datasets import planar, targets
from numpyro_diffusion.density.energy import zero_with_gradient
from numpyro_diffusion.pytree import register, replace

FLOOR = 0.005


@register(("density",), ("schedule", "event_shape", "name"))
class ScoreOf(nd.Density):
    """A closed form of which only the score is known; below the noise-to-signal ratio `FLOOR` it stays what it is."""

    has_log_density = False
    is_calibrated = False
    resolution = FLOOR  # pyright: ignore[reportAssignmentType]

    def __init__(self, density: nd.Density):
        self.density, self.name = density, density.name
        self.schedule, self.event_shape = density.schedule, density.event_shape

    def log_density(self, x, t):
        known = self.schedule.time(jnp.maximum(self.schedule.noise_to_signal(t), FLOOR))
        ratio = self.schedule.alpha(known) / self.schedule.alpha(t)
        return zero_with_gradient(x, ratio * jax.grad(self.density.log_density)(ratio * x, known))

    def with_schedule(self, schedule):
        return replace(self, density=self.density.with_schedule(schedule), schedule=schedule)

    def _moments(self):
        return self.density._moments()


@dataclasses.dataclass(frozen=True)
class Problem:
    """A composition and its truth.

    Attributes:
        compose: `(load, floor)` to the density; `load` gives a factor by name, `floor` is that of a negation.
        draw: `(generator, num_samples)` to exact draws.
        log_evidence: Of the composition at t = 0.
        scale: The least standard deviation of the truth's modes, by which steps without Metropolis are chosen.
    """

    compose: Callable[[Callable, float], nd.Density]
    draw: Callable[[np.random.Generator, int], np.ndarray]
    log_evidence: float
    scale: float


def loaders(kind: str) -> Callable[[str], nd.Density]:
    """Of planar densities: trained energies and scores, closed forms, and those as scores."""
    return {
        "energy": nd.load_pretrained,
        "score": lambda name: nd.load_pretrained(name + "_score"),
        "exact energy": planar.exact,
        "exact score": lambda name: ScoreOf(planar.exact(name)),
    }[kind]


@cache
def problem(name: str, seed: int) -> Problem:
    """One of "product", "negation", "mixture", "guidance", and "GMM product", "GMM guidance" with a dimension."""
    if name in targets.NAMES:
        return _planar(name)
    if name == "guidance":
        return _guidance()
    kind, d = name.rsplit(" d = ", 1)
    return {"GMM product": _gmm_product, "GMM guidance": _gmm_guidance}[kind](int(d), seed)


def _planar(name) -> Problem:
    target = targets.target(name)

    def compose(load, floor):
        parts = [load(factor) for factor in target.factors]
        return nd.negation(*parts, targets.ALPHA, floor=floor) if name == "negation" else target.compose(*parts)

    return Problem(compose, target.draw, target.log_evidence, planar.STD)


def _guidance() -> Problem:
    """ring^2 / large_box: the ring, twice as sharp, for its modes lie well within the box and far from each other."""
    modes, std = planar.MODES["ring"], planar.STD
    area = 4 * np.prod(planar.BOXES["large_box"])

    def draw(rng, count):
        return modes[rng.integers(len(modes), size=count)] + std / np.sqrt(2) * rng.standard_normal((count, 2))

    evidence = float(np.log(area / (len(modes) * 4 * np.pi * std**2)))
    return Problem(lambda load, floor: load("ring") ** 2 / load("large_box"), draw, evidence, std / np.sqrt(2))


def _gmm_product(d, seed) -> Problem:
    p, q, means, log_w, evidence = gmm_products.problem(d, seed)
    draw = lambda rng, count: gmm_products.draw_product(rng, means, log_w, count)
    known = {"p": p, "q": q}
    return Problem(partial(_of, known, lambda p, q: p * q), draw, evidence, gmm_products.STD / np.sqrt(2))


def _gmm_guidance(d, seed) -> Problem:
    """q^2 / p, classifier-free guidance with weight 2: p has four components, q two of them, with other weights."""
    p, *_ = gmm_products.problem(d, seed)
    q = nd.exact.GaussianMixture(p.means[:2], np.tile(gmm_products.STD**2 * np.eye(d), (2, 1, 1)), [0.7, 0.3], name="q")

    def tries(rng, count):
        x = q.sample(jax.random.key(int(rng.integers(1 << 30))), count)
        return np.asarray(x), np.asarray(q.log_prob(x), dtype=np.float64) - np.asarray(p.log_prob(x))

    def draw(rng, count):
        x, log_ratio = tries(rng, 20 * count)
        kept = x[np.log(rng.random(len(x))) < log_ratio - np.log(0.7 / 0.25)]
        assert len(kept) >= count
        return kept[:count]

    evidence = float(np.log(np.mean(np.exp(tries(np.random.default_rng(seed), 1_000_000)[1]))))
    return Problem(partial(_of, {"p": p, "q": q}, lambda p, q: q**2 / p), draw, evidence, gmm_products.STD / np.sqrt(2))


def _of(known, formula, load, floor) -> nd.Density:
    return formula(*(load(known[name]) for name in ("p", "q")))
