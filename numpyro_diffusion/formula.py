"""How an expression prints: as the formula that makes it."""

from __future__ import annotations

from jax.core import Tracer


def _number(value) -> str:
    return "?" if isinstance(value, Tracer) else f"{float(value):.4g}"


def formula_text(node, leaves, coefficients) -> str:
    """The formula `node` over `leaves` in the notation of the algebra."""
    if node[0] == "leaf":
        return repr(leaves[node[1]])
    if node[0] == "mixture":
        texts = []
        for child, k in node[1]:
            weight, text = _number(coefficients[k]), formula_text(child, leaves, coefficients)
            texts.append(text if weight == "1" else f"{weight} * {text}")
        return texts[0] if len(texts) == 1 else "(" + " + ".join(texts) + ")"
    above, below = [], []
    for child, k in node[1]:
        text, power = formula_text(child, leaves, coefficients), _number(coefficients[k])
        if child[0] == "mixture" and len(child[1]) == 1 and power != "1":
            text = f"({text})"
        side = below if power.startswith("-") else above
        power = power.removeprefix("-")
        side.append(text if power == "1" else f"{text} ** {power}")
    text = " * ".join(above) if above else "1"
    return text if not below else f"{text} / {below[0] if len(below) == 1 else '(' + ' * '.join(below) + ')'}"
