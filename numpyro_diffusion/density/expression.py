r"""Formulas over densities: each distinct leaf once, evaluated together where leaves share a network.

A formula (see `formula`) is static, its coefficients are traced: exponents of products, logarithms of the masses of
mixtures. Terms of the same kind are flattened, and the coefficients of equal leaves add up, so ``p * q / (p + q)``
evaluates p and q once each and the paper's Eq. 13 collects the unconditional density's exponent 1 - c.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import logsumexp

from ..checks.numbers import kept, listed, merged, nested
from ..checks.text import uncalibrated_shares
from ..errors import ArgumentTypeError, ParameterError, ScheduleError, ShapeError, warn
from .density import Density
from .formula import formula_text, indices, renumbered, shifted
from .gaussian import Gaussian, gaussian_mixture, gaussian_product

#: Most leaves of one network that are evaluated in one call.
TOGETHER = 64


def combine(kind: str, terms: Sequence[tuple[Density, Any]]) -> Density:
    """Expression of one `kind`, flattened into its terms where they are of the same kind.

    Args:
        kind: "product" with exponents, or "mixture" with logarithms of masses.
        terms: Pairs (density, `scalars.exponent` or `scalars.log_mass`).

    Raises:
        ParameterError: if there are no terms, or exponents together leave what floats hold.
        ShapeError, ScheduleError: if event shapes or schedules differ.
        ScoreOnlyError: if a mixture has a score-only term.
    """
    densities = [density for density, _ in terms]
    _check_alike(kind, densities)
    if kind == "mixture" and len(terms) > 1:
        _check_shares(densities)
    leaves: list[Density] = []
    coefficients: list[Any] = []
    children: list[tuple[tuple, int]] = []
    for density, coefficient in terms:
        parts, inner, formula = _parts(density)
        position = []
        for leaf in parts:
            where = next((i for i, known in enumerate(leaves) if known is leaf), None)
            if where is None:
                where = len(leaves)
                leaves.append(leaf)
            position.append(where)
        formula = shifted(formula, position, len(coefficients))
        coefficients += inner
        nodes = formula[1] if formula[0] == kind else ((formula, None),)
        for node, k in nodes:
            value = coefficient if k is None else nested(kind, coefficient, coefficients[k])
            same = next((j for other, j in children if other == node and node[0] == "leaf"), None)
            if same is not None:
                coefficients[same] = merged(kind, coefficients[same], value)
            else:
                children.append((node, len(coefficients)))
                coefficients.append(value)
    used = sorted(indices((kind, tuple(children))))
    formula = renumbered((kind, tuple(children)), {k: i for i, k in enumerate(used)})
    return Expression(tuple(leaves), kept([coefficients[k] for k in used]), formula)


def _check_alike(kind: str, densities: Sequence[Any]) -> None:
    if not densities:
        raise ParameterError(f"a {kind} needs at least one density; got none.")
    for density in densities:
        if not isinstance(density, Density):
            raise ArgumentTypeError(
                f"a {kind} takes densities; got {type(density).__name__}. Wrap functions in nd.as_density."
            )
    first = densities[0]
    for density in densities[1:]:
        if density.event_shape != first.event_shape:
            raise ShapeError(
                f"a {kind} needs one event shape; got {first.event_shape} and {density.event_shape}. "
                "Compose densities of the same kind of points."
            )
        if density.schedule != first.schedule:
            raise ScheduleError(
                f"a {kind} needs one schedule; got {first.schedule} and {density.schedule}. "
                "Convert one with density.with_schedule(...), which is exact."
            )


def _check_shares(densities: Sequence[Density]) -> None:
    """Raise where a term of a sum has no log density; warn where its share is arbitrary."""
    for density in densities:
        density.require_log_density("a mixture")
        unknown = [repr(leaf) for leaf in _parts(density)[0] if not leaf.is_calibrated]
        if unknown:
            warn(uncalibrated_shares(unknown))


def _parts(density):
    if isinstance(density, Expression):
        return density.leaves, listed(density.coefficients), density.formula
    return (density,), [], ("leaf", 0)


class Expression(Density):
    """A formula over distinct leaves. Made by the algebra or by `numpyro_diffusion.compose`, never by hand."""

    def __init__(self, leaves: tuple[Density, ...], coefficients: jax.Array, formula: tuple):
        self.leaves, self.coefficients, self.formula = leaves, coefficients, formula
        self.schedule, self.event_shape = leaves[0].schedule, leaves[0].event_shape
        self.sharing: tuple[int, ...] = ()

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
        if isinstance(self.coefficients, Tracer):
            return True
        return bool(abs(np.logaddexp.reduce(np.asarray(self.coefficients, dtype=np.float64))) < 1e-4)

    def log_density(self, x, t):
        values = self._leaf_log_probs(x, t)

        def evaluate(node):
            if node[0] == "leaf":
                return values[node[1]]
            terms = jnp.stack([evaluate(child) for child, _ in node[1]])
            coefficients = self.coefficients[jnp.array([k for _, k in node[1]])].astype(terms.dtype)
            if node[0] == "product":
                # A zero density stays zero (and not NaN) under any denominator: -inf wins over +inf. What has cancelled
                # (exponent 0) counts as 1 even where it is zero. Infinities are kept apart and without gradient,
                # because 0 * inf is NaN, in the gradient too.
                finite = jnp.isfinite(terms)
                infinite = jax.lax.stop_gradient(jnp.sign(coefficients) * terms)
                infinite = jnp.where(finite | (coefficients == 0), 0.0, infinite)
                total = jnp.sum(coefficients * jnp.where(finite, terms, 0.0)) + jnp.sum(infinite)
                return jnp.where(jnp.any(jnp.isneginf(infinite)), -jnp.inf, total)
            return _log_sum_exp(coefficients + terms)

        return evaluate(self.formula)

    def _leaf_log_probs(self, x, t):
        values: list[Any] = [None] * len(self.leaves)
        for group in self._groups():
            if len(group) == 1:
                values[group[0]] = self.leaves[group[0]].log_density(x, t)
                continue
            # One network, several conditions: arrays held in common stay single, the others are stacked.
            flat = [jax.tree.flatten(self.leaves[i]) for i in group]
            columns = list(zip(*(arrays for arrays, _ in flat), strict=True))
            common = [all(a is column[0] for a in column) for column in columns]
            stacked = [c[0] if same else jnp.stack(c) for c, same in zip(columns, common, strict=True)]
            axes = [None if same else 0 for same in common]

            def call(arrays, treedef=flat[0][1]):
                return jax.tree.unflatten(treedef, arrays).log_density(x, t)

            if len(group) <= TOGETHER:
                batch = jax.vmap(call, in_axes=(axes,))(stacked)
            else:
                batch = _in_pieces(call, stacked, common)
            for j, i in enumerate(group):
                values[i] = batch[j]
        return values

    def _groups(self) -> list[list[int]]:
        """Leaves that can be evaluated together: same structure, and holding some arrays in common."""
        groups: dict[Any, list[int]] = {}
        for i, leaf in enumerate(self.leaves):
            key: Any = i
            if leaf.shares_network:
                arrays, treedef = jax.tree.flatten(leaf)
                shared = [a for a in arrays if jnp.size(a) > 1]
                key = (treedef, id(max(shared, key=jnp.size))) if shared else i
            groups.setdefault(key, []).append(i)
        return list(groups.values())

    @property
    def resolution(self):
        return min(leaf.resolution for leaf in self.leaves)

    def with_schedule(self, schedule):
        leaves = tuple(leaf.with_schedule(schedule) for leaf in self.leaves)
        return Expression(leaves, self.coefficients, self.formula)

    def gaussian(self, t):
        parts = [leaf.gaussian(t) for leaf in self.leaves]

        def evaluate(node) -> tuple[Gaussian | None, Any]:
            # A Gaussian, and -1 where the node is like its inverse: in 1 / (1 / p + 1 / q) neither p nor q is lost.
            if node[0] == "leaf":
                return parts[node[1]], 1.0
            triples = [(*evaluate(child), self.coefficients[k]) for child, k in node[1]]
            known = [(g, sign, c) for g, sign, c in triples if g is not None]
            if not known:
                return None, 1.0
            signs, coefficients = (jnp.stack([jnp.asarray(part[i]) for part in known]) for i in (1, 2))
            gaussians = [g for g, _, _ in known]
            if node[0] == "product":
                powers = signs * coefficients
                sign = jnp.where(jnp.all(powers <= 0), -1.0, 1.0)
                return gaussian_product(list(zip(gaussians, sign * powers, strict=True))), sign
            # A sum is ruled by its largest term: by the densities if there are any, else by the smallest of what
            # it holds the inverses of, for which the geometric mean stands.
            sign = jnp.where(jnp.all(signs < 0), -1.0, 1.0)
            weights = jax.nn.softmax(jnp.where(signs == sign, coefficients, -jnp.inf))
            pairs = list(zip(gaussians, weights, strict=True))
            both = gaussian_mixture(pairs), gaussian_product(pairs)
            return jax.tree.map(partial(jnp.where, sign > 0), *both), sign

        return evaluate(self.formula)[0]

    def __repr__(self):
        return formula_text(self.formula, self.leaves, self.coefficients)


def _sharing(expression, arrays) -> tuple[int, ...]:
    """For every array of the leaves the first place where it stands.

    Leaves may hold the very same arrays (one network under several conditions). Which ones is a static pattern, because
    identity does not survive flattening otherwise. A pattern that still holds stays: mapped over, leaves may hold equal
    numbers or nothing for a moment. A user's function may hold other arrays than it did, and then there is a new one.
    """
    known = expression.sharing
    if len(known) == len(arrays) and all(a is arrays[i] for a, i in zip(arrays, known, strict=True)):
        return known
    first: dict[int, int] = {}
    return tuple(first.setdefault(id(a), i) if _is_array(a) else i for i, a in enumerate(arrays))


def _is_array(value) -> bool:
    return isinstance(value, jax.Array | np.ndarray)


def _flatten_expression(expression):
    flat = [jax.tree.flatten(leaf) for leaf in expression.leaves]
    arrays = [a for part, _ in flat for a in part]
    sharing = _sharing(expression, arrays)
    distinct = tuple(arrays[i] for i in sorted(set(sharing)))
    return (distinct, expression.coefficients), (tuple(treedef for _, treedef in flat), sharing, expression.formula)


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


def _in_pieces(call, stacked, common):
    """`call` for every row of the arrays that are not common, in pieces; only one piece is in memory at once."""

    def one(own):
        own = iter(own)
        return call([a if same else next(own) for a, same in zip(stacked, common, strict=True)])

    # Recomputed where the gradient needs it: else the loop would keep what every piece computes on its way.
    rows = [a for a, same in zip(stacked, common, strict=True) if not same]
    return jax.lax.map(jax.checkpoint(one), rows, batch_size=TOGETHER)


def _log_sum_exp(terms):
    """logsumexp whose gradient is 0, not NaN, where every term is -inf or one is +inf."""
    zero, infinite = jnp.all(jnp.isneginf(terms)), jnp.any(jnp.isposinf(terms))
    fixed = jnp.where(infinite, jnp.inf, -jnp.inf)
    return jnp.where(zero | infinite, fixed, logsumexp(jnp.where(zero | infinite, 0.0, terms)))
