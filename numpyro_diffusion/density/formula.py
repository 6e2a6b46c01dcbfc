r"""Formulas as static trees: what stands where, how they are walked, and how they print.

A product means :math:`\sum_k c_k \log f_k` with exponents c, a mixture :math:`\log \sum_k e^{c_k} f_k` with logarithms
of masses c. The coefficients of a formula are one traced array beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import logsumexp

from ..checks.numbers import constant, exponent, is_traced
from .gaussian import Gaussian, gaussian_mixture, gaussian_product

Kind = Literal["product", "mixture"]


@dataclass(frozen=True)
class Leaf:
    """A density: the number of its model, that of the model's condition, and its name, in which equals may differ."""

    model: int
    condition: int
    name: str | None = field(compare=False)


class Node(NamedTuple):
    """A product or mixture of `children`, whose coefficients begin at `start`."""

    kind: Kind
    children: tuple[Formula, ...]
    start: int

    def own(self, coefficients):
        """Its own coefficients among those of the formula."""
        return coefficients[self.start : self.start + len(self.children)]

    @property
    def leaves(self) -> list[Leaf]:
        """The distinct leaves, as they come."""
        return list(dict.fromkeys(fold(self, lambda leaf: [leaf], lambda _, parts: sum(parts, []))))

    @property
    def sums(self) -> list[Node]:
        """The mixtures of more than one term, itself among them."""
        nodes = fold(self, lambda _: [], lambda node, parts: [node, *sum(parts, [])])
        return [node for node in nodes if node.kind == "mixture" and len(node.children) > 1]


Formula = Leaf | Node


def fold(formula: Formula, leaf: Callable[[Leaf], Any], node: Callable[[Node, list], Any]) -> Any:
    """The value of a formula: `leaf(leaf)`, and `node(node, values of its children)`."""
    if isinstance(formula, Leaf):
        return leaf(formula)
    return node(formula, [fold(child, leaf, node) for child in formula.children])


def as_array(coefficients: Sequence[Any]) -> jax.Array:
    """Coefficients as one array; known ones stay known, whatever is being traced."""
    if is_traced(list(coefficients)):
        return jnp.stack([jnp.asarray(c, dtype=float) for c in coefficients])
    return constant(np.array(coefficients))


def as_list(coefficients: jax.Array) -> list[Any]:
    """Coefficients as numbers of Python, or tracers."""
    return list(coefficients) if isinstance(coefficients, Tracer) else np.asarray(coefficients, np.float64).tolist()


def nest(kind: Kind, outer: Any, inner: Any) -> Any:
    """The coefficient of a term of a term of the same kind: powers multiply, and so do masses."""
    return exponent(outer * inner, "exponent of an exponent") if kind == "product" else outer + inner


def merge(kind: Kind, first: Any, second: Any) -> Any:
    """The coefficient of two equal terms: exponents add, and so do masses."""
    if kind == "product":
        return exponent(first + second)
    return jnp.logaddexp(first, second) if is_traced((first, second)) else float(np.logaddexp(first, second))


def log_value(coefficients, node: Node, parts) -> jax.Array:
    """The log density of a node, of those of its children."""
    terms = jnp.stack(parts)
    own = node.own(coefficients).astype(terms.dtype)
    return log_product(own, terms) if node.kind == "product" else log_mixture(own, terms)


def log_product(exponents, terms) -> jax.Array:
    """log prod_k f_k^c_k of log densities [k].

    A zero density stays zero (and not NaN) under any denominator: -inf wins over +inf. What has cancelled (exponent 0)
    counts as 1 even where it is zero.
    """
    # Infinities are kept apart and without gradient, because 0 * inf is NaN, in the gradient too.
    finite = jnp.isfinite(terms)
    infinite = jax.lax.stop_gradient(jnp.sign(exponents) * terms)
    infinite = jnp.where(finite | (exponents == 0), 0.0, infinite)
    total = jnp.sum(exponents * jnp.where(finite, terms, 0.0)) + jnp.sum(infinite)
    return jnp.where(jnp.any(jnp.isneginf(infinite)), -jnp.inf, total)


def log_mixture(log_masses, terms) -> jax.Array:
    """log sum_k m_k f_k of log densities [k]; its gradient is 0, not NaN, where all are zero or one is infinite."""
    terms = log_masses + terms
    zero, infinite = jnp.all(jnp.isneginf(terms)), jnp.any(jnp.isposinf(terms))
    fixed = jnp.where(infinite, jnp.inf, -jnp.inf)
    return jnp.where(zero | infinite, fixed, logsumexp(jnp.where(zero | infinite, 0.0, terms)))


def gaussian_of(coefficients, node: Node, parts) -> tuple[Gaussian | None, Any]:
    """The Gaussian that a node is like, and the sign of its power, of those of its children; None where unknown.

    The sign is -1 where the node is like an inverse: in 1 / (1 / p + 1 / q) neither p nor q is lost.
    """
    known = [(g, sign, c) for (g, sign), c in zip(parts, node.own(coefficients), strict=True) if g is not None]
    if not known:
        return None, 1.0
    signs, own = (jnp.stack([jnp.asarray(part[i]) for part in known]) for i in (1, 2))
    gaussians = [g for g, _, _ in known]
    if node.kind == "product":
        powers = signs * own
        sign = jnp.where(jnp.all(powers <= 0), -1.0, 1.0)
        return gaussian_product(list(zip(gaussians, sign * powers, strict=True))), sign
    # A sum is ruled by its largest terms: by densities if there are any. If all are inverses, 1 / sum_k w_k / q_k is
    # the smallest q_k where they differ, and is taken for prod_k q_k^w_k.
    sign = jnp.where(jnp.all(signs < 0), -1.0, 1.0)
    weights = jax.nn.softmax(jnp.where(signs == sign, own, -jnp.inf))
    pairs = list(zip(gaussians, weights, strict=True))
    both = gaussian_mixture(pairs), gaussian_product(pairs)
    return jax.tree.map(partial(jnp.where, sign > 0), *both), sign


def total_exponents(formula: Node, coefficients) -> dict[Leaf, jax.Array]:
    """The exponent that each leaf has in all, where the terms of mixtures are alike: there shares are exponents."""

    def exponents(node: Node, parts) -> dict[Leaf, jax.Array]:
        own = jnp.asarray(node.own(coefficients))
        own = own if node.kind == "product" else jax.nn.softmax(own)
        found: dict[Leaf, jax.Array] = {}
        for factor, part in zip(own, parts, strict=True):
            for leaf, value in part.items():
                found[leaf] = found.get(leaf, 0.0) + factor * value
        return found

    return fold(formula, lambda leaf: {leaf: jnp.ones(())}, exponents)


def _mass(log_mass: float) -> str:
    """exp(log_mass), with digits also where that is no float."""
    if abs(log_mass) < 700:
        return f"{math.exp(log_mass):.4g}"
    power, digits = divmod(log_mass / math.log(10), 1)
    return f"{10**digits:.4g}e{int(power):+d}"


def formula_text(formula: Formula, name: Callable[[Leaf], str], coefficients) -> str:
    """The formula in the notation of the algebra; "?" stands for what is being traced."""
    known = None if isinstance(coefficients, Tracer) else np.asarray(coefficients, dtype=np.float64)

    def written_out(node: Node, texts) -> str:
        written = _mass if node.kind == "mixture" else "{:.4g}".format
        numbers = ["?"] * len(texts) if known is None else [written(c) for c in node.own(known)]
        if node.kind == "mixture":
            parts = [text if n == "1" else f"{n} * {text}" for n, text in zip(numbers, texts, strict=True)]
            return parts[0] if len(parts) == 1 else "(" + " + ".join(parts) + ")"
        above, below = [], []
        for child, power, part in zip(node.children, numbers, texts, strict=True):
            if isinstance(child, Node) and child.kind == "mixture" and len(child.children) == 1 and power != "1":
                part = f"({part})"
            side = below if power.startswith("-") else above
            power = power.removeprefix("-")
            side.append(part if power == "1" else f"{part} ** {power}")
        top = " * ".join(above) if above else "1"
        return top if not below else f"{top} / {below[0] if len(below) == 1 else '(' + ' * '.join(below) + ')'}"

    return fold(formula, name, written_out)
