r"""Formulas as static trees, and how they print.

A formula is ("leaf", i) or (kind, ((node, k), ...)) with k an index into the coefficients: "product" means
sum_k c_k log f_k with exponents c, "mixture" means log sum_k exp(c_k) f_k with logarithms of masses c.
"""

from __future__ import annotations

import math

import numpy as np
from jax.core import Tracer


def shifted(node, position, shift):
    """`node` with leaf i at position[i], and its coefficients moved by `shift`."""
    if node[0] == "leaf":
        return ("leaf", position[node[1]])
    return (node[0], tuple((shifted(child, position, shift), k + shift) for child, k in node[1]))


def indices(node) -> set[int]:
    """The coefficients that a formula uses."""
    return set() if node[0] == "leaf" else {k for c, k in node[1]} | {i for c, _ in node[1] for i in indices(c)}


def renumbered(node, renumber):
    """`node` with coefficient k at renumber[k]."""
    if node[0] == "leaf":
        return node
    return (node[0], tuple((renumbered(c, renumber), renumber[k]) for c, k in node[1]))


def _mass(log_mass: float) -> str:
    """exp(log_mass), with digits also where that is no float."""
    if abs(log_mass) < 700:
        return f"{math.exp(log_mass):.4g}"
    power, digits = divmod(log_mass / math.log(10), 1)
    return f"{10**digits:.4g}e{int(power):+d}"


def formula_text(node, leaves, coefficients) -> str:
    """The formula `node` over `leaves` in the notation of the algebra; "?" stands for what is being traced."""
    known = None if isinstance(coefficients, Tracer) else np.asarray(coefficients, dtype=np.float64)
    return _text(node, leaves, known)


def _text(node, leaves, known) -> str:
    if node[0] == "leaf":
        return repr(leaves[node[1]])
    if node[0] == "mixture":
        texts = []
        for child, k in node[1]:
            weight, text = "?" if known is None else _mass(known[k]), _text(child, leaves, known)
            texts.append(text if weight == "1" else f"{weight} * {text}")
        return texts[0] if len(texts) == 1 else "(" + " + ".join(texts) + ")"
    above, below = [], []
    for child, k in node[1]:
        text, power = _text(child, leaves, known), "?" if known is None else f"{known[k]:.4g}"
        if child[0] == "mixture" and len(child[1]) == 1 and power != "1":
            text = f"({text})"
        side = below if power.startswith("-") else above
        power = power.removeprefix("-")
        side.append(text if power == "1" else f"{text} ** {power}")
    text = " * ".join(above) if above else "1"
    return text if not below else f"{text} / {below[0] if len(below) == 1 else '(' + ' * '.join(below) + ')'}"
