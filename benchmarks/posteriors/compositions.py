r"""Random compositions of Gaussian mixtures with known truth, easy and hard ones, for `verdict.py`.

Products of mixtures, and powers with whole exponents, are mixtures: of components a of one and b of another

.. math:: w = w_a w_b N(m_a; m_b, C_a + C_b), \quad C = (C_a^{-1} + C_b^{-1})^{-1}, \quad m = C (C_a^{-1} m_a + C_b^{-1} m_b).

Real exponents of single Gaussians add up in precisions. What is left, quotients and guidance of mixtures in the plane,
is summed over a fine grid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

import numpyro_diffusion as nd

NUM_COMPONENTS = 3
GRID, HALF_WIDTH = 801, 16.0


class Mixture(NamedTuple):
    """Log weights [K], which need not be normalised, means [K, d] and covariances [K, d, d]."""

    log_weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @property
    def evidence(self) -> float:
        """Log of the integral."""
        return float(np.logaddexp.reduce(self.log_weights))

    def density(self, name: str) -> nd.Density:
        """As a density; its weights must sum to one."""
        return nd.exact.GaussianMixture(self.means, self.covariances, np.exp(self.log_weights), name=name)

    def log_prob(self, x):
        """Log density at x [n, d]."""
        root = np.linalg.cholesky(self.covariances)
        z = np.linalg.solve(root, np.moveaxis(x[:, None] - self.means, 0, -1))
        log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(-1)
        log_p = -0.5 * (z**2).sum(1) - log_det[:, None] - x.shape[1] / 2 * np.log(2 * np.pi)
        return logsumexp(self.log_weights[:, None] + log_p, axis=0)

    def times(self, other: Mixture) -> Mixture:
        """The product, whose log weights sum to its integral; components of no weight are left out."""
        a, b = (
            np.repeat(np.arange(len(self.means)), len(other.means)),
            np.tile(np.arange(len(other.means)), len(self.means)),
        )
        gap, joint = self.means[a] - other.means[b], self.covariances[a] + other.covariances[b]
        quadratic = np.einsum("ki,ki->k", gap, np.linalg.solve(joint, gap[..., None])[..., 0])
        log_w = self.log_weights[a] + other.log_weights[b] - 0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * joint)[1])
        p, q = (np.linalg.inv(m.covariances) for m in (self, other))
        covariances = np.linalg.inv(p[a] + q[b])
        pull = np.einsum("kij,kj->ki", p, self.means)[a] + np.einsum("kij,kj->ki", q, other.means)[b]
        kept = log_w > log_w.max() - 30
        return Mixture(log_w[kept], np.einsum("kij,kj->ki", covariances, pull)[kept], covariances[kept])

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Exact draws [count, d]."""
        k = rng.choice(len(self.means), count, p=np.exp(self.log_weights - logsumexp(self.log_weights)))
        z = rng.standard_normal((count, self.means.shape[1]))
        return self.means[k] + np.einsum("nij,nj->ni", np.linalg.cholesky(self.covariances)[k], z)


@dataclasses.dataclass(frozen=True)
class Composition:
    """A density, how it is to be annealed, its log evidence, and exact draws `draw(rng, count)`."""

    density: nd.Density
    kernel: Any
    options: dict[str, Any]
    evidence: float
    draw: Callable[[np.random.Generator, int], np.ndarray]


def random_mixture(rng: np.random.Generator, d: int, spread: float, count: int = NUM_COMPONENTS) -> Mixture:
    """Components of sizes about 0.5 whose means lie `spread` apart."""
    root = 0.35 * rng.standard_normal((count, d, d)) / np.sqrt(d)
    sizes = np.exp(rng.uniform(np.log(0.3), np.log(0.8), (count, 1, 1)))
    covariances = sizes**2 * np.eye(d) + root @ np.swapaxes(root, 1, 2)
    weights = rng.dirichlet(np.full(count, 3.0))
    return Mixture(np.log(weights), spread * rng.standard_normal((count, d)), covariances)


def _evident(mixture: Mixture) -> dict[str, Any]:
    return {"evidence": mixture.evidence, "draw": mixture.draw}


def on_grid(log_prob: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """Truth of a density in the plane: its evidence, and `draw`."""
    axis = np.linspace(-HALF_WIDTH, HALF_WIDTH, GRID)
    x, width = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2), axis[1] - axis[0]
    log_p = log_prob(x)
    share = np.exp(log_p - logsumexp(log_p))

    def draw(rng, count):
        return x[rng.choice(len(x), count, p=share)] + width * rng.uniform(-0.5, 0.5, (count, 2))

    return {"evidence": float(np.logaddexp.reduce(log_p)) + 2 * np.log(width), "draw": draw}


def _effort(rng: np.random.Generator) -> tuple[Any, dict[str, Any]]:
    """Kernel and options that may be wrong."""
    kind = rng.choice(["few levels", "far apart", "long steps", "short steps"])
    if kind == "few levels":
        return None, {"levels": int(rng.integers(2, 5)), "num_steps": 1}
    if kind == "far apart":
        return None, {"level_ess": float(np.exp(rng.uniform(np.log(1e-3), np.log(0.1)))), "num_steps": 1}
    if kind == "long steps":
        return nd.HMC(float(rng.uniform(3.0, 10.0)), 2), {}
    return nd.HMC(float(np.exp(rng.uniform(np.log(1e-4), np.log(3e-2)))), 2), {}


def formula(kind: str, d: int, seed: int, *, is_hard: bool) -> Composition:
    """A random composition of a kind in `KINDS`, to be annealed by the defaults."""
    density, truth = KINDS[kind](np.random.default_rng([list(KINDS).index(kind), d, seed]), d, is_hard)
    return Composition(density, None, {}, **truth)


def composition(kind: str, d: int, seed: int) -> Composition:
    """A random composition: a bit more than half of them hard and annealed wrongly, others one of the two, or neither."""
    rng = np.random.default_rng([len(KINDS), list(KINDS).index(kind), d, seed])
    hard_formula, hard_effort = [(True, True), (True, False), (False, True), (False, False)][
        rng.choice(4, p=(0.6, 0.15, 0.1, 0.15))
    ]
    of = formula(kind, d, seed, is_hard=hard_formula)
    kernel, options = _effort(rng) if hard_effort else (None, {})
    return dataclasses.replace(of, kernel=kernel, options=options)


def _product(rng, d, hard, count=2):
    spread = (rng.uniform(3.0, 12.0) if hard else rng.uniform(0.3, 1.0)) / np.sqrt(d)
    mixtures = [random_mixture(rng, d, spread) for _ in range(count)]
    density, whole = mixtures[0].density("p"), mixtures[0]
    for name, m in zip("qr", mixtures[1:], strict=False):
        density, whole = density * m.density(name), whole.times(m)
    return density, _evident(whole)


def _product_of_three(rng, d, hard):
    return _product(rng, d, hard, 3)


def _power(rng, d, hard):
    exponent = int(rng.integers(4, 7) if hard else rng.integers(2, 4))
    mixture = random_mixture(rng, d, (rng.uniform(3.0, 10.0) if hard else rng.uniform(0.5, 1.5)) / np.sqrt(d))
    whole = mixture
    for _ in range(exponent - 1):
        whole = whole.times(mixture)
    return mixture.density("p") ** float(exponent), _evident(whole)


def _gaussians(rng, d, hard):
    """Three Gaussians with real exponents, one of them negative; hard ones are barely proper, or far apart."""
    spread = rng.uniform(6.0, 30.0) if hard else rng.uniform(0.3, 1.5)
    parts = [random_mixture(rng, d, spread / np.sqrt(d), 1) for _ in range(3)]
    p, q, r = (np.linalg.inv(m.covariances[0]) for m in parts)
    a, b = np.exp(rng.uniform(-1.5 if hard else -0.5, 2.0 if hard else 0.7, 2))
    # The largest exponent of the denominator that leaves a Gaussian, also at large noise.
    most = min(1 / np.max(np.real(np.linalg.eigvals(np.linalg.solve(a * p + b * q, r)))), a + b)
    c = most * (rng.uniform(0.9, 0.995) if hard else rng.uniform(0.1, 0.5))
    exponents, precisions = np.array([a, b, -c]), np.stack([p, q, r])
    means = np.stack([m.means[0] for m in parts])
    precision = np.einsum("k,kij->ij", exponents, precisions)
    mean = np.linalg.solve(precision, np.einsum("k,kij,kj->i", exponents, precisions, means))
    evidence = 0.5 * (
        exponents @ np.linalg.slogdet(precisions / (2 * np.pi))[1] - np.linalg.slogdet(precision / (2 * np.pi))[1]
    )
    gap = means - mean
    evidence += -0.5 * np.einsum("k,ki,kij,kj->", exponents, gap, precisions, gap)
    whole = Mixture(np.array([evidence]), mean[None], np.linalg.inv(precision)[None])
    densities = [m.density(name) for m, name in zip(parts, "pqr", strict=True)]
    return nd.product(*densities, exponents=exponents), _evident(whole)


def _mixture(rng, d, hard):
    spread = (rng.uniform(4.0, 14.0) if hard else rng.uniform(0.3, 1.0)) / np.sqrt(d)
    p, q = (random_mixture(rng, d, spread) for _ in range(2))
    both = (np.concatenate(pair) for pair in zip(p._replace(log_weights=p.log_weights + np.log(0.3)),
                                                 q._replace(log_weights=q.log_weights + np.log(0.7)), strict=True))  # fmt: skip
    return 0.3 * p.density("p") + 0.7 * q.density("q"), _evident(Mixture(*both))


def _wide(rng, spread):
    """A mixture wider than others: what may stand in a denominator."""
    found = random_mixture(rng, 2, spread)
    return found._replace(covariances=4 * found.covariances)


def _quotient(rng, d, hard):
    p, q = (
        random_mixture(rng, d, rng.uniform(2.0, 4.0) if hard else 0.7),
        _wide(rng, rng.uniform(2.0, 5.0) if hard else 0.7),
    )
    alpha = rng.uniform(0.7, 0.97) if hard else rng.uniform(0.2, 0.6)
    return p.density("p") / q.density("q") ** alpha, on_grid(lambda x: p.log_prob(x) - alpha * q.log_prob(x))


def _guidance(rng, d, hard):
    """Classifier-free guidance: away from the wide, towards the narrow."""
    q, scale = _wide(rng, 0.7), rng.uniform(5.0, 12.0) if hard else rng.uniform(1.0, 2.5)
    p = random_mixture(rng, d, rng.uniform(2.0, 4.0) if hard else 0.7)
    return nd.product(p.density("p"), q.density("q"), exponents=[scale, 1 - scale]), on_grid(
        lambda x: scale * p.log_prob(x) + (1 - scale) * q.log_prob(x)
    )


KINDS = {
    "product": _product, "product of three": _product_of_three, "power": _power, "Gaussians": _gaussians,
    "mixture": _mixture, "quotient": _quotient, "guidance": _guidance,
}  # fmt: skip
#: (kind, d) of the rows.
ROWS = [
    ("product", 2), ("product", 10), ("product of three", 5), ("power", 5), ("Gaussians", 10), ("mixture", 5),
    ("quotient", 2), ("guidance", 2),
]  # fmt: skip
