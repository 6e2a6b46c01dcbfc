r"""The algebra of densities of whatever kind, and its formulas over distinct models, each evaluated once.

The algebra is that of (unnormalised) densities,

.. math:: p q,\quad p / q,\quad p^a,\quad a p + b q,

so ``0.5 * p + 0.5 * q`` is a mixture and ``p + q`` has mass 2. Terms of the same kind are flattened, and the
coefficients of equal leaves add up, so ``p * q / (p + q)`` evaluates p and q once each and the paper's Eq. 13 collects
the unconditional density's exponent 1 - c. A model under several conditions is evaluated in one batched call.

What the densities are of does not matter here: of points at noise levels (`density.Density`), or of objects that are
built step by step (`gflownet.flow.Flow`).
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from ..checks.numbers import exponent, is_traced, log_mass, real
from ..checks.text import uncalibrated_shares
from ..errors import ArgumentTypeError, DivisionByZeroError, warn
from ..pytree import replace
from .formula import Kind, Leaf, Node, as_array, as_list, fold, formula_text, log_value, merge, nest
from .leaves import are_one, place, under_all
from .operands import Operand, check_densities

NO_DIFFERENCE = "a difference of densities may be negative; got {}. For 'p and not q' write p / q ** alpha."


class Algebra(Operand):
    """A density with the operators of the algebra."""

    @staticmethod
    @abc.abstractmethod
    def formulated(models: tuple, conditions: tuple[tuple, ...], coefficients: jax.Array, formula: Node) -> Formulated:
        """The formula over densities of this kind."""

    def split(self) -> tuple[Algebra, Any]:
        """The model and the condition that it is under, or None."""
        return self, None

    def under(self, condition: Any, name: str | None) -> Algebra:
        """The model under a condition that `split` gave."""
        raise NotImplementedError

    # Scalars are masses: 0.5 * p has half the mass of p. NumPy and pandas would otherwise apply an operator to each of
    # their elements.
    __array_ufunc__ = None
    __pandas_priority__ = 5000

    def __mul__(self, other):
        if isinstance(other, Algebra):
            return combine("product", [(self, 1.0), (other, 1.0)])
        return combine("mixture", [(self, log_mass(other))])

    __rmul__ = __mul__

    def __truediv__(self, other):
        if isinstance(other, Algebra):
            return combine("product", [(self, 1.0), (other, -1.0)])
        number = real("weight", other)
        if not is_traced(number) and number == 0:
            raise DivisionByZeroError(
                f"the weight that divides a density must be positive; got {number}. For 'and not q' write "
                "p / q ** alpha."
            )
        return combine("mixture", [(self, -log_mass(number))])

    def __rtruediv__(self, other):
        log_weight, inverse = log_mass(other), self**-1.0
        is_one = not is_traced(log_weight) and log_weight == 0
        return inverse if is_one else combine("mixture", [(inverse, log_weight)])

    def __pow__(self, power):
        return combine("product", [(self, exponent(power))])

    def __add__(self, other):
        if not isinstance(other, Algebra):
            raise ArgumentTypeError(
                f"a density adds to a density, as in 0.5 * p + 0.5 * q; got {type(other).__name__}. For many, write "
                "nd.mixture(p, q, ...) instead of sum(...)."
            )
        return combine("mixture", [(self, 0.0), (other, 0.0)])

    __radd__ = __add__

    def __sub__(self, other):
        raise ArgumentTypeError(NO_DIFFERENCE.format(f"a density minus {type(other).__name__}"))

    def __rsub__(self, other):
        raise ArgumentTypeError(NO_DIFFERENCE.format(f"{type(other).__name__} minus a density"))

    def __neg__(self):
        raise ArgumentTypeError(
            f"a density is positive; got -{self!r}. For its inverse write 1 / p, for 'not p' q / p ** alpha."
        )

    def __rpow__(self, other):
        raise ArgumentTypeError(
            f"an exponent must be one real number; got {type(other).__name__} to the power of the density {self!r}. "
            "Raise a density to a number, p ** 0.5."
        )


class Formulated(Algebra):
    """A formula over distinct models. Made by the algebra or by `numpyro_diffusion.compose`, never by hand.

    What is computed is given by four attributes; `leaves`, `terms` and `nodes` show the same as densities.

    Attributes:
        models: Densities; a model stands here once, whatever its conditions.
        conditions: For each model the conditions that it is evaluated under; None for no condition.
        coefficients: Of all nodes of the formula: exponents of products, logarithms of masses of mixtures.
        formula: See `formula`; static.
    """

    models: tuple
    conditions: tuple[tuple, ...]
    coefficients: jax.Array
    formula: Node

    @property
    def leaves(self) -> tuple[Any, ...]:
        """The distinct densities of the formula: models under their conditions."""
        return tuple(map(self.leaf, self.formula.leaves))

    def leaf(self, leaf: Leaf) -> Any:
        """The density of a leaf of the formula."""
        model, condition = self.models[leaf.model], self.conditions[leaf.model][leaf.condition]
        return model if condition is None else model.under(condition, leaf.name)

    @property
    def terms(self) -> list[tuple[Any, Any]]:
        """The formula's operands, expressions or leaves, and their coefficients: exponents, or logarithms of masses."""
        parts = self._parts()
        return [(_collected(p.formula.kind, p._parts()) if isinstance(p, Formulated) else p, c) for p, c in parts]

    @property
    def nodes(self) -> list[Any]:
        """This expression and those in it, outermost first."""
        return [self, *(node for term, _ in self.terms if isinstance(term, Formulated) for node in term.nodes)]

    def _parts(self) -> list[tuple[Any, Any]]:
        parts = [self.leaf(f) if isinstance(f, Leaf) else replace(self, formula=f) for f in self.formula.children]
        return list(zip(parts, self.formula.own(as_list(self.coefficients)), strict=True))

    @property
    def is_calibrated(self):
        """A mixture of calibrated densities with total mass one; products are never normalised."""
        if self.formula.kind != "mixture" or any(isinstance(child, Node) for child in self.formula.children):
            return False
        if not all(model.is_calibrated for model in self.models):
            return False
        if isinstance(self.coefficients, Tracer):
            return True  # traced masses cannot be added up; most are shares of `nd.mixture`, which sum to one
        return bool(abs(np.logaddexp.reduce(np.asarray(self.coefficients, dtype=np.float64))) < 1e-4)

    def of_leaves(self, call: Callable) -> dict[Leaf, Any]:
        """`call(density)` for every distinct leaf; several conditions of a model in one call."""

        def under(model, *condition):
            return call(model.under(condition[0], None) if condition else model)

        values = [under_all(*pair, under) for pair in zip(self.models, self.conditions, strict=True)]
        return {leaf: values[leaf.model][leaf.condition] for leaf in self.formula.leaves}

    def value(self, log_densities: dict[Leaf, Any]) -> jax.Array:
        """The log density of one point, of those of the leaves."""
        return fold(self.formula, log_densities.__getitem__, partial(log_value, self.coefficients))

    def __repr__(self):
        return formula_text(self.formula, lambda leaf: repr(self.leaf(leaf)), self.coefficients)


def _collected(kind: Kind, terms: Sequence[tuple[Algebra, Any]]) -> Formulated:
    """The expression of these terms, in which each model, condition and leaf stands once.

    Of p * p / q the models are (p, q) and the coefficients (2, -1).
    """
    models, conditions, coefficients = [], [], []  # filled as the formula is built

    def leaf(density) -> Leaf:
        model, condition = density.split()
        i = place(models, model, are_one)
        conditions.extend([] for _ in range(len(models) - len(conditions)))
        return Leaf(i, place(conditions[i], condition), density.name)

    def node(kind, terms) -> Node:
        found: dict[Leaf | Node, Any] = {}
        for density, value in terms:
            is_node = isinstance(density, Formulated)
            child = node(density.formula.kind, density._parts()) if is_node else leaf(density)
            found[child] = merge(kind, found[child], value) if child in found else value
        coefficients.extend(found.values())
        return Node(kind, tuple(found), len(coefficients) - len(found))

    formula = node(kind, terms)
    return models[0].formulated(tuple(models), tuple(map(tuple, conditions)), as_array(coefficients), formula)


def combine(kind: Kind, terms: Sequence[tuple[Algebra, Any]]) -> Any:
    """Formula of one `kind`, flattened into its terms where they are of the same kind.

    Args:
        kind: "product" with exponents, or "mixture" with logarithms of masses.
        terms: Pairs (density, `numbers.exponent` or `numbers.log_mass`).

    Raises as the functions of `numpyro_diffusion.compose`; ParameterError also where exponents of one density add up to
    what floats do not hold.
    """
    is_sum = kind == "mixture" and len(terms) > 1
    check_densities(f"a {kind}", [density for density, _ in terms])
    flat: list[tuple[Any, Any]] = []
    for density, coefficient in terms:
        leaves = density.leaves if isinstance(density, Formulated) else (density,)
        if is_sum and (unknown := [repr(leaf) for leaf in leaves if leaf.has_log_density and not leaf.is_calibrated]):
            warn(uncalibrated_shares(unknown))
        if isinstance(density, Formulated) and density.formula.kind == kind:
            flat += [(part, nest(kind, coefficient, c)) for part, c in density._parts()]
        else:
            flat.append((density, coefficient))
    return _collected(kind, flat)
