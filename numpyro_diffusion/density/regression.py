r"""The Gaussian whose mean and spread follow a condition of numbers, for a calibrated energy to stand on.

With features phi of the condition, what is left of the data beyond the mean :math:`m(c) = W^T \phi(c)` has axes V and
variances :math:`\lambda_i e^{g_i(c)}, g(c) = G^T \phi(c)`, so that at the noise-to-signal ratio r

.. math:: \log p_0(y, r \mid c) = \log N(y; m(c), V \, \mathrm{diag}(\lambda e^{g(c)} + r^2) \, V^T) ,

normalised under every condition. Features are a one, the standardised condition, and cosines with frequencies of a
Matern kernel (Rahimi and Recht 2007, Random features for large-scale kernel machines), so that no form need be named;
ridges are chosen on the data, and few data are fitted by little more than a line.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.numbers import constant
from ..errors import ArgumentTypeError, ParameterError, ShapeError
from .axes import DenseAxes
from .gaussian import Gaussian

#: Cosines at most, and points for each of them.
NUM_COSINES, POINTS_EACH = 256, 8
#: Degrees of freedom of the frequencies, twice the smoothness of the kernel, and its length in standard deviations.
FREEDOM, LENGTH = 5, 2.0
#: Ridges tried; the last leaves nothing but the mean.
RIDGES = (*10.0 ** np.arange(-7, 2), 1e12)
#: Most that a logarithm of variances moves; rows and steps that it is fitted to at most, and the change that ends them.
MOST_SPREAD, MOST_ROWS, NUM_STEPS, LEAST_STEP = 8.0, 10_000, 30, 1e-3
#: Standard errors by which a spread that follows the condition must be better on held-out rows than one that does not.
SURE = 2.0
#: Least variance, relative to the data's largest; no float resolves less.
LEAST_VARIANCE = 1e-8


class RegressionBase(NamedTuple):
    """Gaussian whose mean and spread follow a condition of numbers. Made by `fit`, in the data's coordinates.

    Attributes:
        mean_weights: W [f, d].
        spread_weights: G [f, d].
        variance: lambda [d].
        vectors: V [d, d], in columns.
        centre, scale: Of the conditions [c], which are standardised by them.
        low, high: Least and largest conditions of the data [c]; beyond them means go on in line, and spreads stay.
        frequencies, phases: Of the cosines, [k, c] and [k]; f = 1 + c + k.
    """

    mean_weights: Any
    spread_weights: Any
    variance: Any
    vectors: Any
    centre: Any
    scale: Any
    low: Any
    high: Any
    frequencies: Any
    phases: Any

    @classmethod
    def of_arrays(cls, **arrays) -> RegressionBase:
        """Of these arrays, as files hold them; unchecked."""
        return cls(**{name: constant(array) for name, array in arrays.items()})

    @classmethod
    def fit(cls, x: Any, conditions: Any, *, random_state: int = 0) -> RegressionBase:
        """Least squares for the mean, with ridges by generalised cross-validation, and likelihood for the spread.

        Args:
            x: Points [n, *event_shape].
            conditions: Numbers [n, c]; ones and zeros among them may mark classes.
            random_state: Seed of the frequencies.

        Raises:
            ShapeError: if x or conditions have other shapes.
            ParameterError: for NaN or infinity among them.
        """
        if jnp.issubdtype(getattr(x, "dtype", float), jax.dtypes.prng_key):
            raise ArgumentTypeError("RegressionBase.fit takes points first; got a random key. Seed: random_state=.")
        x, c = np.asarray(x, np.float64), np.asarray(conditions, np.float64)
        if x.ndim < 2 or len(x) < 3:
            raise ShapeError(f"points must have shape [n, *event_shape] with n >= 3; got {x.shape}.")
        if c.ndim != 2 or len(c) != len(x) or not c.size:
            raise ShapeError(f"conditions must have shape [{len(x)}, c]; got {c.shape}. Numbers: conditions[:, None].")
        for what, values in (("points", x), ("conditions", c)):
            if not np.all(np.isfinite(values)):
                raise ParameterError(f"{what} must be finite; got NaN or infinity. Remove those rows.")
        y, scale = x.reshape(len(x), -1), np.std(c, axis=0)
        frequencies, phases = _cosines(np.clip(len(c) // POINTS_EACH, 1, NUM_COSINES), c.shape[1], random_state)
        units = {"centre": c.mean(0), "scale": np.where(scale > 0, scale, 1.0), "low": c.min(0), "high": c.max(0)}
        z = (c - units["centre"]) / units["scale"]
        phi = _features(z, z, frequencies, phases, np)
        mean_weights, share = _line_and_waves(phi, y, 1 + c.shape[1])
        left = (y - phi @ mean_weights) / share
        variance, vectors = np.linalg.eigh(np.atleast_2d(left.T @ left) / len(left))
        variance = np.maximum(variance, LEAST_VARIANCE * np.var(y, axis=0).max())
        spread_weights = _log_linear(phi, (left @ vectors) ** 2 / variance)
        return cls.of_arrays(
            mean_weights=mean_weights, spread_weights=spread_weights, variance=variance, vectors=vectors, **units,
            frequencies=frequencies, phases=phases,
        )  # fmt: skip

    def __repr__(self):
        return f"RegressionBase(of {self.size} dimensions on {self.condition_size} numbers)"

    @property
    def size(self) -> int:
        """Dimension d of the points."""
        return self.variance.size

    @property
    def condition_size(self) -> int:
        """Number of numbers c."""
        return self.centre.size

    def standard(self, condition) -> jax.Array:
        """Conditions [..., c] in standard deviations about their mean."""
        return (condition - self.centre) / self.scale

    def moments(self, condition) -> Gaussian:
        """The Gaussian given a condition [c], without noise."""
        # What lies beyond the data keeps the spread of their border: a logarithm that goes on in line would explode.
        z, near = map(self.standard, (condition, jnp.clip(condition, self.low, self.high)))
        phi, held = (_features(at, near, self.frequencies, self.phases, jnp) for at in (z, near))
        spread = jnp.clip(jnp.matmul(held, self.spread_weights, precision="highest"), -MOST_SPREAD, MOST_SPREAD)
        mean = jnp.matmul(phi, self.mean_weights, precision="highest")
        return Gaussian(mean, self.variance * jnp.exp(spread), DenseAxes(self.vectors))


def _cosines(count: int, size: int, random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies [count, size], multivariate t as those of a Matern kernel are, and phases [count].

    Every other one is of a single number alone: effects that add up are learnt from fewer data.
    """
    rng = np.random.default_rng(random_state)
    tails = np.sqrt(rng.chisquare(FREEDOM, (count, 1)) / FREEDOM)
    frequencies = rng.standard_normal((count, size)) / (tails * LENGTH)
    alone = np.arange(size) == np.arange(count)[:, None] // 2 % size
    mixed = np.arange(count)[:, None] % 2 == 1
    return frequencies * np.where(mixed, 1 / np.sqrt(size), alone), rng.uniform(0, 2 * np.pi, count)


def _features(z, near, frequencies, phases, xp):
    """phi [f] of a standardised condition z [c], or of n of them, whose cosines are those of `near`; NumPy or JAX."""
    waves = np.sqrt(2 / len(phases)) * xp.cos(near @ frequencies.T + phases)
    return xp.concatenate([xp.ones_like(z[..., :1]), z, waves], axis=-1)


def _line_and_waves(phi, y, lines: int):
    """W [f, d]: a line by the first features, then by cosines what it leaves, so that it is the line that goes on.

    And the share [d] of what is left at other rows that is left at these.
    """
    straight, start, share = _least_squares(phi[:, 1:lines], y)
    waves, rise, of_that = _least_squares(phi[:, lines:], y - start - phi[:, 1:lines] @ straight)
    return np.concatenate([[start + rise], straight, waves]), share * of_that


def _least_squares(phi, y):
    """Weights [f, d], constants [d], and the share [d] of the error at other rows that is left at these.

    A column's ridge is that of the least generalised cross-validation score.
    """
    n, centre, mean = len(y), phi.mean(0), y.mean(0)
    values, vectors = np.linalg.eigh((phi - centre).T @ (phi - centre) / n)
    values = np.maximum(values, 0)[:, None]
    along = vectors.T @ ((phi - centre).T @ (y - mean)) / n
    best, least, share = np.zeros_like(along), np.full(y.shape[1], np.inf), np.ones(y.shape[1])
    for ridge in RIDGES:
        weights, kept = along / (values + ridge), max(1 - (1 + np.sum(values / (values + ridge))) / n, 1e-3)
        score = (np.var(y, axis=0) + np.sum((values * weights - 2 * along) * weights, axis=0)) / kept**2
        best, share = np.where(score < least, weights, best), np.where(score < least, kept, share)
        least = np.minimum(score, least)
    weights = vectors @ best
    return weights, mean - centre @ weights, share


def _log_linear(phi, ratio):
    """G [f, d] of log variances, where ratio [n, d] is exp(g) times a chi-square; ridges by held-out likelihood."""
    index = np.linspace(0, len(phi) - 1, min(len(phi), MOST_ROWS)).astype(int)
    phi, ratio = phi[index], ratio[index]
    held = np.arange(len(ratio)) % 5 == 0
    best, least = np.full(ratio.shape[1], RIDGES[-1]), np.zeros(ratio.shape[1])
    for ridge in RIDGES[:-1]:
        g = np.clip(phi[held] @ _scored(phi[~held], ratio[~held], ridge), -MOST_SPREAD, MOST_SPREAD)
        change = g + ratio[held] * (np.exp(-g) - 1)
        score = np.mean(change, axis=0)
        is_better = (score < least) & (score < -SURE * np.std(change, axis=0) / np.sqrt(len(change)))
        best, least = np.where(is_better, ridge, best), np.where(is_better, score, least)
    return _scored(phi, ratio, best)


def _scored(phi, ratio, ridges):
    """G by Fisher scoring of the mean of g + ratio exp(-g), plus ridges |G|^2, where g = phi G."""
    values, vectors = np.linalg.eigh(phi.T @ phi / len(phi))
    metric = np.maximum(values, 0)[:, None] + ridges
    weights = np.zeros((phi.shape[1], ratio.shape[1]))
    for _ in range(NUM_STEPS):
        g = np.clip(phi @ weights, -MOST_SPREAD, MOST_SPREAD)
        slope = phi.T @ (1 - ratio * np.exp(-g)) / len(phi) + ridges * weights
        step = vectors @ ((vectors.T @ slope) / metric)
        moved = np.abs(phi @ step).max(axis=0)
        weights -= step / np.maximum(1.0, moved)
        if moved.max() < LEAST_STEP:
            break
    return weights
