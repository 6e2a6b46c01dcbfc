"""What a table of peers is made of: problems, methods, and a distance beside that of exact draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from numpyro_diffusion.diagnose.metrics import sliced_wasserstein2

DRAWS, REFERENCE, FLOOR_SETS = 1000, 20_000, 10


class Method(NamedTuple):
    """One line of a table: who states or ships the method, and a function of the seed that returns its figures.

    Figures are at least "distance" and "floor", the same of as many exact draws; "evaluations" where it has a cost.
    """

    who: str
    run: Callable[[int], dict]


class Problem(NamedTuple):
    """One table: what is asked, which distance is measured, who answers, and who cannot answer at all (and why)."""

    text: str
    methods: dict[str, Method]
    cannot: dict[str, str] = {}


def by_w2(x, truth, sets: Iterable, evaluations: float | None = None) -> dict:
    """Sliced W2 of samples x [n, d] to `truth` [m, d], and the mean of the same of pairs of exact draws ([n, d], [m, d]).

    Samples that are not finite are put at the truth's mean and counted as lost.
    """
    x = np.asarray(x, np.float64)
    lost = ~np.all(np.isfinite(x), axis=1)
    x = np.where(lost[:, None], truth.mean(0), x)
    floor = float(np.mean([sliced_wasserstein2(*pair) for pair in sets]))
    cost = {} if evaluations is None else {"evaluations": evaluations}
    return {"distance": sliced_wasserstein2(x, truth), "floor": floor, "lost": lost.mean()} | cost


def sets_of(draw: Callable[[int], np.ndarray], truth) -> Iterable:
    """Sets of exact draws, `draw(n)`, beside the truth."""
    return ((draw(DRAWS), truth) for _ in range(FLOOR_SETS))
