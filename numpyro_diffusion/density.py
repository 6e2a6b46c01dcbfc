r"""Densities at every noise level, and their algebra.

A density is written for ONE point: `_log_prob(x, t)` is a scalar, in nats, and JAX's `vmap` does the rest.
Densities are pytrees: weights are leaves (traced arguments of whatever is compiled), architecture is
static and compares by value, so retraining or re-weighting does not compile anything anew.

The algebra is that of (unnormalised) densities,

.. math:: p q,\quad p / q,\quad p^a,\quad a p + b q,

so ``0.5 * p + 0.5 * q`` is a mixture and ``p + q`` has mass 2. An expression keeps each *distinct* leaf once
and is a static formula over the leaves' log densities: ``p * q / (p + q)`` evaluates p and q once each, and
leaves that share one network (other conditions) become one batched call.
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from .errors import DiagnosticWarning, ParameterError, ScheduleError, ScoreOnlyError, ShapeError
from .schedule import NoiseSchedule, VariancePreserving


class Label:
    """A name that rides along as static data without making two pytrees differ: a new name compiles nothing anew."""

    def __init__(self, text: str | None):
        self.text = text

    def __eq__(self, other):
        return isinstance(other, Label)

    def __hash__(self):
        return 0


def register_density(data: Sequence[str], static: Sequence[str]):
    """Class decorator: a pytree with the fields `data` as children and `static` as auxiliary data, in that order."""

    def decorate(cls):
        def flatten(self):
            aux = (getattr(self, f) for f in static)
            return tuple(getattr(self, f) for f in data), tuple(Label(v) if f == "name" else v for f, v in zip(static, aux))

        def flatten_with_keys(self):
            children, aux = flatten(self)
            return tuple((jax.tree_util.GetAttrKey(f), c) for f, c in zip(data, children, strict=True)), aux

        def unflatten(aux, children):
            # Not through __init__: inside transformations the children need not be arrays at all.
            self = object.__new__(cls)
            for f, value in (*zip(data, children, strict=True), *zip(static, aux, strict=True)):
                object.__setattr__(self, f, value.text if f == "name" else value)
            return self

        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
        return cls

    return decorate


class Gaussian(NamedTuple):
    """First two moments: `mean` [d] and `covariance` [d, d] of a flattened point."""

    mean: jax.Array
    covariance: jax.Array


def check_time(t) -> None:
    """Raise ParameterError unless t lies in [0, 1]; traced values pass."""
    if not isinstance(t, jax.core.Tracer):
        value = np.asarray(t)
        if not np.all((value >= 0) & (value <= 1)):
            raise ParameterError(f"t must lie in [0, 1] (0 is data, 1 is noise); got {t}.")


class Density(abc.ABC):
    """A density p(x, t) for t in [0, 1] under a noise schedule. Subclasses implement `_log_prob` for one point."""

    schedule: NoiseSchedule
    event_shape: tuple[int, ...]
    #: False for score-only models: no mixtures, Metropolis steps, weights or evidence.
    has_log_density: bool = True
    #: True if the density integrates to one at every noise level.
    is_calibrated: bool = True
    #: Leaves of one class that hold the same arrays are evaluated in one batched call.
    shares_network: bool = False
    name: str | None = None

    @abc.abstractmethod
    def _log_prob(self, x: jax.Array, t: jax.Array) -> jax.Array:
        """Log density (nats) of one point x [*event_shape] at time t."""

    @abc.abstractmethod
    def with_schedule(self, schedule: NoiseSchedule) -> Density:
        """The same density under another schedule: p'(x, t') = (alpha/alpha')^d p(x alpha/alpha', t), exact."""

    def _moments(self) -> Gaussian | None:
        """Mean and covariance of the data distribution (t = 0), or None where unknown."""
        return None

    def gaussian(self, t) -> Gaussian | None:
        """Gaussian with the density's first two moments at time t (an approximation for compositions), or None."""
        moments = self._moments()
        if moments is None:
            return None
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        eye = jnp.eye(moments.mean.size)
        return Gaussian(alpha * moments.mean, alpha**2 * moments.covariance + sigma**2 * eye)

    def log_prob(self, x, t=0.0) -> jax.Array:
        """Log density in nats.

        Args:
            x: Points [*batch, *event_shape].
            t: Noise level in [0, 1], a scalar or [*batch].

        Returns:
            Log densities [*batch].

        Raises:
            ShapeError: if the trailing axes of x are not `event_shape`.
            ParameterError: if t is outside [0, 1].
            ScoreOnlyError: if there is only a score.
        """
        self.require_log_density("log_prob")
        return self._batched(self._log_prob, x, t, ())

    def score(self, x, t=0.0) -> jax.Array:
        """Score grad_x log p(x, t) [*batch, *event_shape]; arguments and errors as in `log_prob`."""
        return self._batched(jax.grad(self._log_prob), x, t, self.event_shape)

    def potential_fn(self, t=0.0) -> Callable[[jax.Array], jax.Array]:
        """The NumPyro potential function z -> U(z) = -log p(z, t) of one point."""
        self.require_log_density("potential_fn")
        check_time(t)
        t = jnp.asarray(t, dtype=float)
        return lambda z: -self._log_prob(z, t)

    def require_log_density(self, purpose: str) -> None:
        """Raise ScoreOnlyError unless a log density is there."""
        if not self.has_log_density:
            raise ScoreOnlyError(
                f"{purpose} needs a log density, but {self!r} has only a score. Use an energy density "
                "(nd.fit(..., model='energy')), or an unadjusted sampler (nd.ULA, nd.UHMC, nd.Reverse)."
            )

    def _batched(self, fn, x, t, out_shape):
        x = as_points(x, self.event_shape)
        check_time(t)
        batch = jnp.broadcast_shapes(x.shape[: x.ndim - len(self.event_shape)], jnp.shape(t))
        if not batch:
            return fn(x, jnp.asarray(t, dtype=x.dtype))
        x = jnp.broadcast_to(x, batch + self.event_shape).reshape((-1, *self.event_shape))
        t = jnp.broadcast_to(jnp.asarray(t, dtype=x.dtype), batch).reshape(-1)
        return jax.vmap(fn)(x, t).reshape(batch + out_shape)

    # The algebra. Scalars are masses: 0.5 * p has half the mass of p.
    def __mul__(self, other):
        if isinstance(other, Density):
            return combine("product", [(self, 1.0), (other, 1.0)])
        return combine("mixture", [(self, other)])

    __rmul__ = __mul__

    def __truediv__(self, other):
        if isinstance(other, Density):
            return combine("product", [(self, 1.0), (other, -1.0)])
        return combine("mixture", [(self, 1.0 / other)])

    def __rtruediv__(self, other):
        inverse = combine("product", [(self, -1.0)])
        return inverse if isinstance(other, int | float) and other == 1 else combine("mixture", [(inverse, other)])

    def __pow__(self, exponent):
        return combine("product", [(self, exponent)])

    def __add__(self, other):
        if not isinstance(other, Density):
            raise TypeError(f"a density adds to a density, as in 0.5 * p + 0.5 * q; got {type(other).__name__}.")
        return combine("mixture", [(self, 1.0), (other, 1.0)])

    def __sub__(self, other):
        raise TypeError("a difference of densities may be negative. For 'p and not q' write p / q ** alpha.")

    def __repr__(self):
        return self.name or type(self).__name__


def as_points(x, event_shape: tuple[int, ...]) -> jax.Array:
    """`x` as floating-point array [*batch, *event_shape], or a typed error with expected and got."""
    try:
        x = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"points must be a numeric array [*batch, {event_shape}]; got {type(x).__name__}.") from error
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        raise ShapeError(f"points must be real numbers; got dtype {x.dtype}. Convert with .astype(float).")
    if x.ndim < len(event_shape) or x.shape[x.ndim - len(event_shape) :] != event_shape:
        raise ShapeError(f"points must have shape [*batch, *{event_shape}]; got {x.shape}.")
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)


# A formula is static: ("leaf", i), or (kind, ((node, k), ...)) with k an index into the coefficients.
# "product" means sum_k c_k log f_k, "mixture" means log sum_k w_k f_k.


def combine(kind: str, terms: Sequence[tuple[Density, Any]]) -> Density:
    """Expression of one `kind`, flattened into its terms where they are of the same kind.

    Args:
        kind: "product" with exponents, or "mixture" with positive masses.
        terms: Pairs (density, exponent or mass).

    Raises:
        ParameterError: if there are no terms, a mass is not positive, or an exponent is not finite.
        ShapeError, ScheduleError: if event shapes or schedules differ.
        ScoreOnlyError: if a mixture has a score-only term.
    """
    if not terms:
        raise ParameterError(f"a {kind} needs at least one density; got none.")
    densities = [density for density, _ in terms]
    for density in densities:
        if not isinstance(density, Density):
            raise TypeError(f"a {kind} takes densities; got {type(density).__name__}. Wrap functions in nd.as_density.")
    first = densities[0]
    for density in densities[1:]:
        if density.event_shape != first.event_shape:
            raise ShapeError(f"a {kind} needs one event shape; got {first.event_shape} and {density.event_shape}.")
        if density.schedule != first.schedule:
            raise ScheduleError(
                f"a {kind} needs one schedule; got {first.schedule} and {density.schedule}. "
                "Convert one with density.with_schedule(...), which is exact."
            )
    leaves: list[Density] = []
    coefficients: list[Any] = []
    children: list[tuple[tuple, int]] = []
    for density, coefficient in terms:
        coefficient = _check_coefficient(kind, coefficient)
        if kind == "mixture" and len(terms) > 1:
            density.require_log_density("a mixture")
            if not density.is_calibrated:
                warnings.warn(
                    f"{density!r} is not calibrated, so its share of the mixture is arbitrary. "
                    "Train with nd.fit(..., calibrated=True), or nd.recalibrate the density.",
                    DiagnosticWarning,
                    stacklevel=3,
                )
        parts, inner, formula = _parts(density)
        position = []
        for leaf in parts:
            where = next((i for i, known in enumerate(leaves) if known is leaf), None)
            if where is None:
                where = len(leaves)
                leaves.append(leaf)
            position.append(where)
        shift = len(coefficients)
        coefficients += inner
        formula = _shifted(formula, position, shift)
        nodes = formula[1] if formula[0] == kind else ((formula, None),)
        for node, k in nodes:
            value = coefficient if k is None else coefficient * coefficients[k]
            same = next((j for other, j in children if other == node and node[0] == "leaf"), None)
            if same is not None:
                coefficients[same] = coefficients[same] + value
            else:
                children.append((node, len(coefficients)))
                coefficients.append(value)
    used = sorted(_indices((kind, tuple(children))))
    renumber = {k: i for i, k in enumerate(used)}
    formula = _renumbered((kind, tuple(children)), renumber)
    values = jnp.stack([jnp.asarray(coefficients[k], dtype=float) for k in used])
    return Expression(tuple(leaves), values, formula)


def _check_coefficient(kind, value):
    if not isinstance(value, jax.core.Tracer):
        what = "exponent" if kind == "product" else "weight"
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{what} must be a real number; got {value!r}.") from error
        if not np.isfinite(number):
            raise ParameterError(f"{what} must be finite; got {number}.")
        if kind == "mixture" and number <= 0:
            raise ParameterError(f"weight must be positive; got {number}. For 'and not q' write p / q ** alpha.")
    return jnp.asarray(value, dtype=float)


def _parts(density):
    if isinstance(density, Expression):
        return density.leaves, list(density.coefficients), density.formula
    return (density,), [], ("leaf", 0)


def _shifted(node, position, shift):
    if node[0] == "leaf":
        return ("leaf", position[node[1]])
    return (node[0], tuple((_shifted(child, position, shift), k + shift) for child, k in node[1]))


def _indices(node):
    return set() if node[0] == "leaf" else {k for c, k in node[1]} | {i for c, _ in node[1] for i in _indices(c)}


def _renumbered(node, renumber):
    if node[0] == "leaf":
        return node
    return (node[0], tuple((_renumbered(c, renumber), renumber[k]) for c, k in node[1]))


class Expression(Density):
    """A formula over distinct leaves. Made by the algebra or by `numpyro_diffusion.compose`, never by hand."""

    def __init__(self, leaves: tuple[Density, ...], coefficients: jax.Array, formula: tuple):
        self.leaves, self.coefficients, self.formula = leaves, coefficients, formula
        self.schedule, self.event_shape = leaves[0].schedule, leaves[0].event_shape
        # Leaves may hold the very same arrays (one network under several conditions). Which ones is
        # remembered as a static pattern, because identity does not survive flattening otherwise.
        arrays = [a for leaf in leaves for a in jax.tree.leaves(leaf)]
        first: dict[int, int] = {}
        self.sharing = tuple(first.setdefault(id(a), i) for i, a in enumerate(arrays))

    @property
    def has_log_density(self):
        return all(leaf.has_log_density for leaf in self.leaves)

    @property
    def is_calibrated(self):
        """A mixture of calibrated densities with total mass one; products are never normalised."""
        if self.formula[0] != "mixture" or any(node[0] != "leaf" for node, _ in self.formula[1]):
            return False
        if not all(leaf.is_calibrated for leaf in self.leaves):
            return False
        total = jnp.sum(self.coefficients)
        return isinstance(total, jax.core.Tracer) or bool(abs(float(total) - 1) < 1e-4)

    def _log_prob(self, x, t):
        values = self._leaf_log_probs(x, t)

        def evaluate(node):
            if node[0] == "leaf":
                return values[node[1]]
            terms = jnp.stack([evaluate(child) for child, _ in node[1]])
            coefficients = self.coefficients[jnp.array([k for _, k in node[1]])].astype(terms.dtype)
            if node[0] == "product":
                # A zero density stays zero (and not NaN) under any denominator: -inf wins over +inf.
                scaled = coefficients * terms
                dead = jnp.any(jnp.isneginf(terms) & (coefficients > 0))
                return jnp.where(dead, -jnp.inf, jnp.sum(jnp.where(dead, 0.0, scaled)))
            return _log_sum_exp(jnp.log(coefficients) + terms)

        return evaluate(self.formula)

    def _leaf_log_probs(self, x, t):
        values: list[Any] = [None] * len(self.leaves)
        for group in self._groups():
            if len(group) == 1:
                values[group[0]] = self.leaves[group[0]]._log_prob(x, t)
                continue
            # One network, several conditions: arrays held in common stay single, the others are stacked.
            flat = [jax.tree.flatten(self.leaves[i]) for i in group]
            columns = list(zip(*(arrays for arrays, _ in flat), strict=True))
            common = [all(a is column[0] for a in column) for column in columns]
            stacked = [c[0] if same else jnp.stack(c) for c, same in zip(columns, common, strict=True)]
            axes = [None if same else 0 for same in common]

            def call(arrays, treedef=flat[0][1]):
                return jax.tree.unflatten(treedef, arrays)._log_prob(x, t)

            batch = jax.vmap(call, in_axes=(axes,))(stacked)
            for j, i in enumerate(group):
                values[i] = batch[j]
        return values

    def _groups(self) -> list[list[int]]:
        """Leaves that can be evaluated together: same structure, and holding some arrays in common."""
        groups: dict[Any, list[int]] = {}
        for i, leaf in enumerate(self.leaves):
            arrays, treedef = jax.tree.flatten(leaf)
            shared = [a for a in arrays if jnp.size(a) > 1]
            key = (treedef, id(max(shared, key=jnp.size))) if leaf.shares_network and shared else i
            groups.setdefault(key, []).append(i)
        return list(groups.values())

    def with_schedule(self, schedule):
        leaves = tuple(leaf.with_schedule(schedule) for leaf in self.leaves)
        return Expression(leaves, self.coefficients, self.formula)

    def gaussian(self, t):
        parts = [leaf.gaussian(t) for leaf in self.leaves]

        def evaluate(node) -> Gaussian | None:
            if node[0] == "leaf":
                return parts[node[1]]
            pairs = [(evaluate(child), self.coefficients[k]) for child, k in node[1]]
            known = [(g, c) for g, c in pairs if g is not None]
            if not known:
                return None
            return (_gaussian_product if node[0] == "product" else _gaussian_mixture)(known)

        return evaluate(self.formula)

    def __repr__(self):
        return _formula_text(self.formula, self.leaves, self.coefficients)


def _flatten_expression(expression):
    arrays = [a for leaf in expression.leaves for a in jax.tree.leaves(leaf)]
    treedefs = tuple(jax.tree.structure(leaf) for leaf in expression.leaves)
    distinct = tuple(arrays[i] for i in sorted(set(expression.sharing)))
    return (distinct, expression.coefficients), (treedefs, expression.sharing, expression.formula)


def _unflatten_expression(aux, children):
    treedefs, sharing, formula = aux
    distinct, coefficients = children
    slot = {i: j for j, i in enumerate(sorted(set(sharing)))}
    arrays, leaves, start = [distinct[slot[i]] for i in sharing], [], 0
    for treedef in treedefs:
        leaves.append(jax.tree.unflatten(treedef, arrays[start : start + treedef.num_leaves]))
        start += treedef.num_leaves
    self = object.__new__(Expression)
    self.leaves, self.coefficients, self.formula, self.sharing = tuple(leaves), coefficients, formula, sharing
    self.schedule, self.event_shape = leaves[0].schedule, leaves[0].event_shape
    return self


jax.tree_util.register_pytree_node(Expression, _flatten_expression, _unflatten_expression)


def _log_sum_exp(terms):
    """logsumexp whose gradient is 0, not NaN, where every term is -inf."""
    dead = jnp.all(jnp.isneginf(terms))
    return jnp.where(dead, -jnp.inf, logsumexp(jnp.where(dead, 0.0, terms)))


def _gaussian_product(parts):
    """Precisions add; those of denominators are subtracted up to 3/4 of what there is in any direction."""
    precision = [(jnp.linalg.inv(g.covariance), g.mean, c) for g, c in parts]
    plus = sum(jnp.maximum(c, 0.0) * p for p, _, c in precision)
    minus = sum(jnp.maximum(-c, 0.0) * p for p, _, c in precision)
    d = plus.shape[0]
    root = jnp.linalg.cholesky(plus + 1e-12 * jnp.eye(d))
    inner = jax.scipy.linalg.solve_triangular(root, minus, lower=True)
    inner = jax.scipy.linalg.solve_triangular(root, inner.T, lower=True)
    value, vector = jnp.linalg.eigh((inner + inner.T) / 2)
    # Softly below 3/4: the frame must move continuously with t.
    kept = jnp.where(value < 0.5, value, 0.5 + 0.25 * jnp.tanh((value - 0.5) / 0.25))
    scaled = root @ vector
    total = (scaled * (1 - kept)) @ scaled.T
    covariance = jnp.linalg.inv(total)
    # Where a denominator was cut, its pull on the mean is cut as well: only numerators place the mean.
    mean = jnp.linalg.solve(plus, sum(jnp.maximum(c, 0.0) * p @ m for p, m, c in precision))
    exact = covariance @ sum(c * p @ m for p, m, c in precision)
    mean = jnp.where(jnp.max(value) < 0.5, exact, mean)
    return Gaussian(mean, (covariance + covariance.T) / 2)


def _gaussian_mixture(parts):
    weights = jnp.stack([c for _, c in parts])
    weights = weights / jnp.sum(weights)
    mean = sum(w * g.mean for w, (g, _) in zip(weights, parts, strict=True))
    covariance = sum(
        w * (g.covariance + jnp.outer(g.mean - mean, g.mean - mean)) for w, (g, _) in zip(weights, parts, strict=True)
    )
    return Gaussian(mean, covariance)


def _number(value) -> str:
    return "?" if isinstance(value, jax.core.Tracer) else f"{float(value):.4g}"


def _formula_text(node, leaves, coefficients) -> str:
    if node[0] == "leaf":
        return repr(leaves[node[1]])
    if node[0] == "mixture":
        texts = []
        for child, k in node[1]:
            weight, text = _number(coefficients[k]), _formula_text(child, leaves, coefficients)
            texts.append(text if weight == "1" else f"{weight} * {text}")
        return texts[0] if len(texts) == 1 else "(" + " + ".join(texts) + ")"
    above, below = [], []
    for child, k in node[1]:
        text, power = _formula_text(child, leaves, coefficients), _number(coefficients[k])
        if child[0] == "mixture" and len(child[1]) == 1 and power != "1":
            text = f"({text})"
        side = below if power.startswith("-") else above
        power = power.removeprefix("-")
        side.append(text if power == "1" else f"{text} ** {power}")
    text = " * ".join(above) if above else "1"
    return text if not below else f"{text} / {below[0] if len(below) == 1 else '(' + ' * '.join(below) + ')'}"


class FunctionDensity(Density):
    """A user's log density as a leaf; made by `as_density`."""

    def __init__(self, fn, event_shape, schedule, parameters, normalised, name, moments):
        self.fn, self.event_shape, self.schedule, self.parameters = fn, event_shape, schedule, parameters
        self.is_calibrated, self.name, self.moments, self.origin = normalised, name, moments, None

    def _log_prob(self, x, t):
        if self.origin is None:
            return self._call(x, t)
        # Known under `origin`: p'(x, t') = (alpha/alpha')^d p(x alpha/alpha', t).
        there = self.origin.time(self.schedule.noise_to_signal(t))
        log_ratio = jnp.log(self.origin.alpha(there)) - jnp.log(self.schedule.alpha(t))
        jacobian = x.size * log_ratio if self.is_calibrated or self.moments is not None else 0.0
        return self._call(x * jnp.exp(log_ratio), there) + jacobian

    def _call(self, x, t):
        value = self.fn(x, t) if self.parameters is None else self.fn(self.parameters, x, t)
        if jnp.shape(value) != ():
            raise ShapeError(f"the function of nd.as_density must return a scalar for one point; got {value.shape}.")
        return value

    def _moments(self):
        return self.moments

    def with_schedule(self, schedule):
        origin = self.origin or self.schedule
        (low, high), (new_low, new_high) = origin.noise_range, schedule.noise_range
        if new_low < low - 1e-6 or new_high > high * (1 + 1e-4):
            raise ScheduleError(
                f"{self!r} is known for noise-to-signal ratios in [{low:.4g}, {high:.4g}], but {schedule} "
                f"asks for [{new_low:.4g}, {new_high:.4g}]. Choose a schedule within that range."
            )
        new = jax.tree.map(lambda a: a, self)
        new.schedule, new.origin = schedule, None if schedule == origin else origin
        return new


register_density(
    ("parameters", "moments"), ("fn", "event_shape", "schedule", "is_calibrated", "name", "origin")
)(FunctionDensity)


def as_density(
    fn: Callable,
    event_shape: tuple[int, ...],
    schedule: NoiseSchedule | None = None,
    *,
    parameters: Any = None,
    mean=None,
    covariance=None,
    normalised: bool = False,
    name: str | None = None,
) -> Density:
    """Any function as a density or a factor, for instance a noise-conditional classifier log p(y | x, t).

    Args:
        fn: `(x [*event_shape], t) -> log density` in nats, or `(parameters, x, t) -> ...` when parameters are given.
        event_shape: Shape of one point.
        schedule: Noise schedule under which t is meant; variance preserving cosine by default.
        parameters: Pytree of arrays passed to `fn` as a traced argument. Weights that `fn` closes over would
            become constants of the compiled program instead.
        mean, covariance: Moments of the data distribution ([d], [d, d]) if `fn` is a density of its own. They
            set the annealing frame. A factor has none.
        normalised: Whether `fn` integrates to one at every noise level.
        name: Name for formulas; the function's own by default.

    Raises:
        TypeError: if `fn` is not callable.
        ShapeError: if only one moment is given or its shape is wrong.
    """
    if not callable(fn):
        raise TypeError(f"nd.as_density takes a function (x, t) -> log density; got {type(fn).__name__}.")
    event_shape = tuple(int(n) for n in event_shape)
    size = int(np.prod(event_shape, initial=1))
    moments = None
    if (mean is None) != (covariance is None):
        raise ShapeError("give both mean and covariance, or neither.")
    if mean is not None:
        moments = Gaussian(jnp.asarray(mean, dtype=float), jnp.asarray(covariance, dtype=float))
        if moments.mean.shape != (size,) or moments.covariance.shape != (size, size):
            raise ShapeError(
                f"mean and covariance must have shapes [{size}] and [{size}, {size}]; "
                f"got {moments.mean.shape} and {moments.covariance.shape}."
            )
    name = name or getattr(fn, "__name__", "f")
    return FunctionDensity(
        fn, event_shape, schedule or VariancePreserving.cosine(), parameters, normalised, name, moments
    )
