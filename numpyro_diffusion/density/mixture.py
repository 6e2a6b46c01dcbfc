r"""The Gaussian mixture that a calibrated energy may stand on instead of one Gaussian.

Noise leaves a mixture a mixture, so at noise-to-signal ratio r and condition c its log density is known:

.. math::
    \log p_0(y, r \mid c) = \log \sum_k w_k(c) N(y; m_k, C_k + r^2 I),

normalised at every r. What a network then adds is the difference between the data and this mixture, which a few
thousand points can teach; a network over one Gaussian must learn the classes first, and learns the points instead.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.numbers import check_held, constant, finite_array, float_range, floats, is_traced, positive, real_array
from ..errors import ArgumentTypeError, ParameterError, ShapeError, check_integer
from .axes import DenseAxes
from .gaussian import Gaussian, known_gaussians, mixture_log_prob, mixture_moments


class MixtureBase(NamedTuple):
    """Gaussian mixture with weights that depend on a class. Made by `fit` or `of`, in the data's coordinates.

    Attributes:
        components: K Gaussians, stacked: `means` [K, d], and of the covariances `eigenvalues` [K, d] and
            `eigenvectors` [K, d, d] in columns.
        weights: [c + 1, K], each row sums to one: row j given class j, the last row without a condition.
    """

    components: Gaussian
    weights: jax.Array

    means = property(lambda self: self.components.mean, doc="[K, d].")
    eigenvalues = property(lambda self: self.components.variance, doc="[K, d] of the covariances.")
    eigenvectors = property(lambda self: self.components.axes.vectors, doc="[K, d, d] of the covariances, in columns.")

    @classmethod
    def of_arrays(cls, means, eigenvalues, eigenvectors, weights) -> MixtureBase:
        """The mixture of these arrays, as files hold them; unchecked."""
        means, eigenvalues, eigenvectors, weights = map(constant, (means, eigenvalues, eigenvectors, weights))
        return cls(Gaussian(means, eigenvalues, DenseAxes(eigenvectors)), weights)

    @classmethod
    def of(cls, means, covariances, weights) -> MixtureBase:
        """The mixture with these moments.

        Args:
            means: [K, d].
            covariances: [K, d, d], positive definite.
            weights: [c + 1, K], not negative, each row with a positive sum; [1, K] where there are no classes.

        Raises:
            ShapeError: if shapes do not fit together.
            ParameterError: for a weight or covariance out of range.
        """
        if is_traced((means, covariances, weights)):
            raise ShapeError("means, covariances and weights must be known; got a traced array.")
        means, covariances = finite_array("means", means, 2), finite_array("covariances", covariances, 3)
        weights = finite_array("weights", weights, 2)
        if covariances.shape != (*means.shape, means.shape[-1]):
            raise ShapeError(f"need means [K, d] and covariances [K, d, d]; got {means.shape} and {covariances.shape}.")
        if weights.shape[1] != len(means) or len(weights) < 1:
            raise ShapeError(f"weights must have shape [c + 1, {len(means)}], one row a class; got {weights.shape}.")
        if np.any(weights < 0) or not np.all(weights.sum(1) > 0):
            raise ParameterError(f"weights must be >= 0 with a positive sum in every row; got {weights}.")
        symmetric = (covariances + covariances.transpose(0, 2, 1)) / 2
        return cls(known_gaussians(means, symmetric), constant(_shares(weights)))

    @classmethod
    def fit(
        cls,
        x: Any,
        conditions: Any = None,
        *,
        num_components: int = 1,
        shrinkage: float = 20.0,
        added_variance: float = 0.0,
        num_folds: int = 0,
        random_state: int = 0,
    ) -> MixtureBase:
        r"""Fit components to every class, their covariances shrunk towards the class' and towards that of all classes.

        With n points, scatter S about its mean in a component, and W_class, W the covariances within components of
        its class and of all, a component's covariance is

        .. math:: C = (S + a W_{class} + a W) / (n + 2 a) + v I ,

        the posterior mean under inverse Wishart priors worth a points each. Along its short axes such a C is too
        narrow for points it has not seen: the axes were chosen for that. With `num_folds` the eigenvalue of rank i
        (before v) is multiplied by

        .. math:: q_i = \sum_{x, k} p_{k}(x) (u_{ki}^T (x - m_k))^2 \Big/ \sum_{x, k} p_{k}(x) \lambda_{ki} ,

        variances of points held out from the fit of m, lambda and u, over those fitted, with p the points'
        responsibilities: all folds and components together, so that few points a component suffice.

        Args:
            x: Points [n, *event_shape].
            conditions: One-hot classes [n, c], or None for one class.
            num_components: Components per class, found by k-means and EM with one covariance (scikit-learn).
            shrinkage: a above, in points; choose it on held-out points.
            added_variance: v above: variance of noise that the data carry but `x` does not, such as dequantisation.
            num_folds: Parts of every class held out in turn to correct the eigenvalues, at least 2 (5 is usual; as
                many more fits); 0 leaves them.
            random_state: Seed of scikit-learn and of the parts.

        Raises:
            ShapeError: if x or conditions have other shapes, or conditions are not one-hot.
            ParameterError: for settings out of range, or a class with fewer points than components.

        References:
            Bartz (2016), Cross-validation based Nonlinear Shrinkage. arXiv:1611.00798; here pooled over components.
        """
        if jnp.issubdtype(getattr(x, "dtype", float), jax.dtypes.prng_key):
            raise ArgumentTypeError("MixtureBase.fit takes points first; got a random key. Its seed is random_state=.")
        x = np.asarray(x, dtype=np.float64)
        if x.ndim < 2 or len(x) < 2:
            raise ShapeError(f"points must have shape [n, *event_shape] with n >= 2; got {x.shape}.")
        x = x.reshape(len(x), -1)
        classes = np.ones((len(x), 1)) if conditions is None else np.asarray(conditions, dtype=np.float64)
        if classes.ndim != 2 or len(classes) != len(x) or not np.all((classes == 0) | (classes == 1)):
            raise ShapeError(f"conditions must be one-hot [{len(x)}, c]; got shape {classes.shape}.")
        if not np.all(classes.sum(1) == 1):
            raise ShapeError("conditions must be one-hot; got rows with none or several ones.")
        check_integer("num_components", num_components)
        if not (np.isfinite(shrinkage) and shrinkage >= 0 and np.isfinite(added_variance) and added_variance >= 0):
            raise ParameterError(f"shrinkage and added_variance must be >= 0; got {shrinkage}, {added_variance}.")
        if not np.all(np.isfinite(x)):
            raise ParameterError("points must be finite; got NaN or infinity. Remove those rows.")
        if not isinstance(num_folds, int) or num_folds < 0 or num_folds == 1:
            raise ParameterError(f"num_folds must be 0 or an integer >= 2; got {num_folds!r}. 5 is usual.")
        fewest = int(classes.sum(0).min())
        held_out = -(-fewest // num_folds) if num_folds else 0
        if fewest - held_out < num_components:
            raise ParameterError(
                f"every class needs at least num_components = {num_components} points"
                f"{' outside every fold' if num_folds else ''}; one has {fewest - held_out}. "
                "Lower num_components or drop the class."
            )
        settings = num_components, shrinkage, random_state
        label, count, means, values, vectors = _components(x, classes, *settings)
        if num_folds:
            values = values * _held_out_ratios(x, classes, num_folds, added_variance, *settings)
        # The least eigenvalue allowed is what the single Gaussian allows, too.
        values = values + added_variance
        values = np.maximum(values, 1e-8 * values.max())
        covariances = np.einsum("kij,kj,klj->kil", vectors, values, vectors)
        given = np.where(label == np.arange(classes.shape[1])[:, None], count, 0.0)
        weights = np.concatenate([given, count[None]]) if conditions is not None else count[None]
        return cls.of(means, covariances, weights)

    def __repr__(self):
        count, size = self.means.shape
        return f"MixtureBase({count} components in {size} dimensions, {self.condition_size} classes)"

    def widened(self, factor: float) -> MixtureBase:
        r"""The mixture with all covariances multiplied by a factor.

        A network beside a base learns what is wrong with the base on the training points, which the base has seen: it
        narrows what the base leaves too wide *there*. Held-out points then find the density too narrow. A factor above
        one afterwards, chosen on held-out points, undoes that. ParameterError if it is not positive.
        """
        value = positive("factor", factor, "1 leaves the mixture as it is.")
        if not is_traced((value, self.eigenvalues)):
            check_held("eigenvalues of widened covariances", value * real_array(self.eigenvalues), are_scales=True)
        return self._replace(components=self.components._replace(variance=self.eigenvalues * factor))

    @property
    def size(self) -> int:
        """Dimension d of the points."""
        return self.means.shape[-1]

    @property
    def condition_size(self) -> int:
        """Number of classes c, 0 if there are none."""
        return self.weights.shape[0] - 1

    def weights_given(self, condition=None) -> jax.Array:
        """Component weights [K] given a condition [c + 1], whose last entry says whether there is one."""
        if condition is None or not self.condition_size:
            return self.weights[-1]
        weights = condition[:-1] @ self.weights[:-1] + (1 - condition[-1]) * self.weights[-1]
        return weights / jnp.sum(weights)

    def log_prob(self, y, r, condition=None, class_log_z=None) -> jax.Array:
        """log p_0(y, r | condition) of one point y = x / alpha [d], at the cost of K d^2 multiplications.

        `class_log_z` [c] are log normalisers that what stands on the base gives the classes: their components weigh
        less by that much, so that classes keep their shares in the density without a condition, too.
        """
        weights = self.weights_given(condition)
        log_weights = jnp.where(weights > 0, jnp.log(jnp.where(weights > 0, weights, 1.0)), -jnp.inf)
        if class_log_z is not None:
            log_weights = log_weights - class_log_z[jnp.argmax(self.weights[:-1], axis=0)]
        return mixture_log_prob(self.components.noised(1.0, r), log_weights, y)

    def moments(self, condition=None) -> Gaussian:
        """The Gaussian with its moments, without noise, given a condition as in `weights_given`."""
        return mixture_moments(self.means, self.components.covariance, self.weights_given(condition))


def _shares(weights: np.ndarray) -> np.ndarray:
    """Weights [c + 1, K] with rows that sum to one."""
    shares = weights / weights.max(1, keepdims=True)
    shares = shares / shares.sum(1, keepdims=True)
    tiny, _ = float_range()
    if (lost := (weights > 0) & (shares < tiny)).any():
        raise ParameterError(
            f"weights must be 0 or at least {tiny:.2g} of their row's sum, which is what {floats()} holds; got "
            f"{weights[lost][0]:.6g}. Set it to 0, or leave the component out."
        )
    return shares


def _components(x, classes, num_components: int, shrinkage: float, random_state: int):
    """Classes [K], counts [K], means [K, d], and eigenvalues [K, d] and -vectors of the shrunk covariances."""
    parts = []
    for j in range(classes.shape[1]):
        points = x[classes[:, j] == 1]
        for share in _soft_assignments(points, num_components, random_state).T:
            mean = share @ points / share.sum()
            centred = points - mean
            parts.append((j, share.sum(), mean, (share[:, None] * centred).T @ centred))
    label, count, means, scatter = (np.array(column) for column in zip(*parts, strict=True))
    within = scatter.sum(0) / len(x)
    by_class = np.stack([scatter[label == j].sum(0) / count[label == j].sum() for j in range(classes.shape[1])])
    covariances = (scatter + shrinkage * (by_class[label] + within)) / (count + 2 * shrinkage)[:, None, None]
    return label, count, means, *np.linalg.eigh(covariances)


def _held_out_ratios(x, classes, num_folds: int, added_variance: float, *settings) -> np.ndarray:
    """Ratios q [d] of `MixtureBase.fit`: held-out variance over fitted eigenvalue, by rank."""
    fold, rng = np.empty(len(x), dtype=int), np.random.default_rng(settings[-1])
    for one in classes.T:
        index = rng.permutation(np.flatnonzero(one))
        fold[index] = np.arange(len(index)) % num_folds
    found, fitted = np.zeros((2, x.shape[1]))
    for f in range(num_folds):
        label, count, means, values, vectors = _components(x[fold != f], classes[fold != f], *settings)
        values = np.maximum(values, 1e-8 * values.max())
        for j, one in enumerate(classes.T):
            own, points = label == j, x[(fold == f) & (one == 1)]
            squares = np.einsum("nkj,kji->nki", points[:, None] - means[own], vectors[own]) ** 2
            variance = values[own] + added_variance
            terms = np.log(count[own]) - 0.5 * np.sum(squares / variance + np.log(variance), axis=-1)
            share = np.exp(terms - np.logaddexp.reduce(terms, axis=1, keepdims=True))
            found += np.einsum("nk,nki->i", share, squares)
            fitted += share.sum(0) @ values[own]
    return found / fitted


def _soft_assignments(points, num_components: int, random_state: int) -> np.ndarray:
    """Responsibilities [n, K] of components that share one covariance: few points cannot tell several apart."""
    if num_components == 1:
        return np.ones((len(points), 1))
    from sklearn.mixture import GaussianMixture  # slow to import, and needed here only

    # As if every direction carried a hundredth of the spread more: k-means must not part points by their noise.
    ridge = 0.01 * float(np.mean(np.var(points, axis=0))) + 1e-12
    tied = {"covariance_type": "tied", "reg_covar": ridge, "n_init": 3, "random_state": random_state}
    share = GaussianMixture(num_components, **tied).fit(points).predict_proba(points)
    return share[:, share.sum(0) > 1e-3]
