r"""Prompts: a formula over one density's conditionals, written with captions, AND, OR and NOT.

    nd.prompt(density, '"a cube" AND (0.3 "sand" OR 0.7 "grass") AND NOT "sunny"')

Every part e of a prompt has a density :math:`p_e = p \, v_e`, where :math:`v_e(x)` says how much likelier x is where e
holds; a caption c has :math:`v_c = p(x | c) / p(x) = p(c | x) / p(c)`, by Bayes' rule, and

.. math::
    \text{AND} \;\; \prod_i v_i, \qquad \text{OR} \;\; \sum_i w_i v_i, \quad \sum_i w_i = 1, \qquad
    \text{NOT}^\alpha \;\; \Big( \frac{f}{(1 - f) v + f} \Big)^\alpha, \qquad \text{power} \;\; v^s .

AND is that of captions which are independent given the picture (Du et al. 2023, Eq. 13); OR is the mixture of the
conditionals with shares w. "Not c" would be p(x) - p(c) p(x | c), which no formula over densities is. NOT divides
instead, as the paper's :math:`q^{-\alpha}` does, but by :math:`(1 - f) v + f` with a small floor f: the factor lies in
(0, 1], about 1 where c is false and :math:`f / v` where it is true. So a NOT never takes away the finite mass that a
prompt would have without it, and at strength 1 the odds of c fall by a factor of about f p(c). A power is
classifier-free guidance of scale s.

The log evidence of a run is :math:`\log E_p \, v(x)`: 0 for one caption, of an AND the logarithm of how much more often
its captions hold together than if they were independent, and hence very negative where they contradict each other; of a
NOT about that of the share where c is false. Terms of an OR that are NOTs enter by weight times that share.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks.numbers import exponent, is_traced, log_mass, log_shares, real
from ..checks.text import misread
from ..density.algebra import combine
from ..density.density import Density
from ..errors import ParameterError, TextError
from .conditions import given_of
from .grammar import And, Caption, Not, Or, fold, parse
from .operators import log_rest


def prompt(density: Density, text: str, *, floor: Any = 0.01) -> Density:
    """The density of a prompt over a density that knows captions; see the module for the formulas.

    Args:
        density: A density whose `given` takes captions, of `nd.fit(..., network=nd.UNetConfig(text=...))` say.
        text: Captions in quotes with AND, OR, NOT and parentheses; NOT before AND before OR. Weights in an OR,
            `0.3 "sand" OR 0.7 "grass"`, are shares once they sum to one; `NOT^0.5 "sunny"` weakens, and `"a cube"^2`
            exaggerates.
        floor: f of NOT, in [0, 1). 0 is the plain quotient :math:`p (p / p_e)^alpha`, which may have no finite mass at
            low noise; it is what score-only models can be asked.

    Returns:
        A composition; all captions together cost one batched call of the network.

    Raises:
        TextError: where the text does not follow the grammar or has words that the density does not know; the message
            points at the place.
        TypeError: for a density without conditions.
    """
    tree, given, floor = parse(text), given_of("a prompt", density), real("floor", floor)
    if not is_traced(floor) and not 0 <= floor < 1:
        raise ParameterError(f"floor must lie in [0, 1); got {floor}. 0.01 is usual, 0 is none.")
    has_floor, nothing = is_traced(floor) or floor > 0, given(None)

    # Each part is a density and the logarithm of a factor: constants gather in front, and powers of p collect.
    def leaf(caption: Caption):
        try:
            return given(caption.text), 0.0
        except TextError as error:
            place = caption.start + error.start
            raise misread(error.reason, text, place, max(place + 1, caption.start + error.end)) from error

    def node(node, parts):
        densities, logs = zip(*parts, strict=True)
        if isinstance(node, And):
            terms = [*((part, 1.0) for part in densities), (nothing, 1.0 - len(parts))]
            return combine("product", terms), sum(logs)
        if isinstance(node, Or):
            masses = [log + share for log, share in zip(logs, log_shares(np.array(node.weights)), strict=True)]
            return combine("mixture", list(zip(densities, masses, strict=True))), 0.0
        (part,), (log,) = densities, logs
        if isinstance(node, Not):
            alpha = exponent(node.strength)
            if not has_floor:
                return combine("product", [(nothing, 1 + alpha), (part, -alpha)]), -alpha * log
            below = combine("mixture", [(part, log_rest(floor) + log), (nothing, log_mass(floor))])
            return combine("product", [(nothing, 1 + alpha), (below, -alpha)]), alpha * log_mass(floor)
        power = exponent(node.power)
        return combine("product", [(nothing, exponent(1.0 - power)), (part, power)]), power * log

    found, log_factor = fold(tree, leaf, node)
    is_one = not is_traced(log_factor) and log_factor == 0
    return found if is_one else combine("mixture", [(found, log_factor)])
