r"""Canvases of which everything is known: products of windows that read Gaussian fields, or mixtures of patches.

A product of views of mixtures to the power one, and of Gaussians to any power, is a mixture of Gaussians of the canvas,

.. math:: \prod_w p_w(A_w x)^{a_w} = \sum_k e^{c_k} N(x; m_k, \Lambda_k^{-1}), \qquad
          \Lambda_k = \sum_w a_w A_w^T C_{w k_w}^{-1} A_w ,

with a term for every choice of one component a window: its integral, mean, covariance and the masses of the terms follow.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

import numpyro_diffusion as nd

SIDE = 4


class Truth(NamedTuple):
    """A product of windows as a mixture of the canvas: log masses [K], means [K, D], covariances [K, D, D]."""

    log_masses: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @property
    def log_evidence(self) -> float:
        """Log of the integral."""
        return float(np.logaddexp.reduce(self.log_masses))

    @property
    def shares(self) -> np.ndarray:
        """Of the terms [K]."""
        return np.exp(self.log_masses - self.log_evidence)

    @property
    def covariance(self) -> np.ndarray:
        """[D, D] of all."""
        centred = self.means - self.shares @ self.means
        return np.einsum("k,kij->ij", self.shares, self.covariances) + (centred.T * self.shares) @ centred

    def sample(self, seed: int, count: int) -> np.ndarray:
        """Exact draws [count, D]."""
        rng = np.random.default_rng(seed)
        which, roots = rng.choice(len(self.means), count, p=self.shares), np.linalg.cholesky(self.covariances)
        return self.means[which] + np.einsum("nij,nj->ni", roots[which], rng.normal(size=(count, self.means.shape[1])))

    def terms_of(self, x) -> np.ndarray:
        """The likeliest term [N] of each point [N, D]."""
        found = []
        for share, mean, covariance in zip(self.shares, self.means, self.covariances, strict=True):
            z = np.linalg.solve(np.linalg.cholesky(covariance), (x - mean).T)
            found.append(np.log(share) - 0.5 * np.sum(z**2, axis=0) - 0.5 * np.linalg.slogdet(covariance)[1])
        return np.argmax(found, axis=0)


def field(height: int, width: int) -> np.ndarray:
    """Covariance [D, D] of a field of variance one whose correlation falls by e over two pixels."""
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1).reshape(-1, 2)
    return np.exp(-np.linalg.norm(places[:, None] - places[None], axis=-1) / 2)


def patch(modes: int, scale: float = 1.0):
    """A density of SIDE x SIDE pixels: a field, or bright and dark fields in unequal shares."""
    level = np.array([0.0]) if modes == 1 else np.array([1.0, -1.0])
    covariances = np.stack([scale * field(SIDE, SIDE)] * modes)
    means = level[:, None] * np.ones(SIDE**2)
    shares = [1.0] if modes == 1 else [0.3, 0.7]
    name = "field" if modes == 1 else "patches"
    flat = nd.exact.GaussianMixture(means, covariances, shares, name=name)
    moments = flat._moments()
    return nd.as_density(
        lambda mixture, x, t: mixture.log_density(x.ravel(), t), (SIDE, SIDE), flat.schedule, parameters=flat,
        mean=moments.mean, covariance=moments.covariance, normalised=True, name=name,
    )  # fmt: skip


def truth(canvas) -> Truth:
    """Of a tapestry of such patches, in double precision."""
    windows = [
        (leaf.density.parameters, np.asarray(leaf.view.matrix, np.float64), float(a)) for leaf, a in canvas.terms
    ]
    counts = [len(density.means) for density, _, _ in windows]
    size = int(np.prod(canvas.event_shape))
    log_masses, means, covariances = [], [], []
    for choice in itertools.product(*map(range, counts)):
        precision, pull, constant = np.zeros((size, size)), np.zeros(size), 0.0
        for k, (density, A, a) in zip(choice, windows, strict=True):
            C = np.asarray(density.components.covariance[k], np.float64)
            m = np.asarray(density.means[k], np.float64)
            precision += a * A.T @ np.linalg.solve(C, A)
            pull += a * A.T @ np.linalg.solve(C, m)
            constant -= a * 0.5 * (np.linalg.slogdet(2 * np.pi * C)[1] + m @ np.linalg.solve(C, m))
            constant += a * float(density.log_weights[k])
        mean = np.linalg.solve(precision, pull)
        log_masses.append(constant + 0.5 * (pull @ mean - np.linalg.slogdet(precision / (2 * np.pi))[1]))
        means.append(mean)
        covariances.append(np.linalg.inv(precision))
    return Truth(np.array(log_masses), np.array(means), np.array(covariances))


class Problem(NamedTuple):
    """A tapestry, how many windows show each pixel [height, width], and pairs of neighbours across their seams."""

    canvas: nd.Density
    counts: np.ndarray
    seams: np.ndarray


def problem(density, height: int, width: int, stride: tuple[int, int], coarse: float, taper: bool) -> Problem:
    """Windows of a density at every `stride` pixels, and one of means over 2 x 2 with the weight `coarse`."""
    places = [(i, j) for i in range(0, height - SIDE + 1, stride[0]) for j in range(0, width - SIDE + 1, stride[1])]
    windows = [(density, place) for place in places]
    windows += [(density, (0, 0), 2, None, coarse)] if coarse else []
    counts = np.zeros((height, width))
    for i, j in places:
        counts[i : i + SIDE, j : j + SIDE] += 1
    number, seams = np.arange(height * width).reshape(height, width), []
    edges = {j for _, j in places} - {0} | {j + SIDE for _, j in places} - {width}
    for j in sorted(edges):
        seams += [(number[i, j - 1], number[i, j]) for i in range(height)]
    return Problem(nd.tapestry((height, width), windows, taper=taper), counts, np.array(seams))


PROBLEMS = {
    "field, 4-fold": lambda: problem(patch(1), 8, 8, (2, 2), 0.25, True),
    "field, 8-fold": lambda: problem(patch(1), 8, 8, (1, 2), 0.25, True),
    "patches, tiled": lambda: problem(patch(2, 0.3), 8, 8, (4, 4), 0.0, True),
    "patches, overlapping": lambda: problem(patch(2, 0.3), 4, 8, (4, 2), 0.0, False),
}
