r"""How often intervals hold the truth: coverage by nominal level.

Over simulations whose truth is known, a central interval of level c should hold it in a share c of them. With the
posterior distribution function u of the truth (its rank, see `sbc_result`) it does where :math:`|2 u - 1| \le c`; an
estimate with a standard error e does where it is off by at most z(c) e. The bands around c are binomial, for each level
by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from ..checks.numbers import array_of
from ..checks.text import columns
from ..errors import ParameterError, ShapeError, check_number
from .sbc_result import SBCResult

REAL = "real numbers. Leave out runs that have none, masked ones too."
LEVELS = tuple(np.linspace(0.05, 0.95, 19).round(2))


class Coverage(NamedTuple):
    """Coverage by nominal level.

    Attributes:
        levels: [L] nominal levels.
        covered: By quantity, the share [L] of simulations whose interval holds the truth; of a quantity with several
            numbers their mean.
        lower, upper: [L] limits of a share in 95 % of all repetitions, if intervals are right; for one number per
            simulation. Numbers of one simulation are not independent.
        count: Simulations.
    """

    levels: np.ndarray
    covered: dict[str, np.ndarray]
    lower: np.ndarray
    upper: np.ndarray
    count: int

    def print_summary(self) -> None:
        """Print coverage at a few levels, with the limits of chance."""
        at = [int(np.argmin(np.abs(self.levels - level))) for level in (0.5, 0.8, 0.9, 0.95)]
        rows = [("nominal", *(f"{self.levels[i]:.2f}" for i in at))]
        rows += [(name, *(f"{share[i]:.2f}" for i in at)) for name, share in self.covered.items()]
        rows.append(("by chance", *(f"{self.lower[i]:.2f}-{self.upper[i]:.2f}" for i in at)))
        print(columns(rows, least=8), f"{self.count} simulations", sep="\n")


def coverage(estimates, errors=None, truth=None, *, levels: Sequence[float] = LEVELS) -> Coverage:
    """Share of simulations whose intervals hold the truth, by nominal level.

    Args:
        estimates: Result of `nd.sbc`, for central intervals of all its quantities; or estimates [S] of as many runs.
        errors, truth: Standard errors [S] of estimates, not negative, and what they estimate, a finite number or [S] of
            them. An infinite error covers everything.
        levels: Nominal levels in (0, 1), or one.

    Raises:
        ShapeError: if estimates, errors and truth do not fit together.
        ParameterError: for levels outside (0, 1), errors and truth beside the result of `nd.sbc`, negative or NaN
            errors, NaN estimates, and a truth that is not finite.
    """
    from scipy.stats import binom  # slow to import

    nominal = np.array([check_number("levels", u, 0.0, 1.0, ends="()") for u in np.atleast_1d(levels)], dtype=float)
    if isinstance(estimates, SBCResult):
        if errors is not None or truth is not None:
            raise ParameterError("the result of nd.sbc holds the truth itself. Leave errors and truth out.")
        off = {name: np.abs(2 * ranks - 1) for name, ranks in estimates.ranks.items()}
        count = estimates.num_simulations
    else:
        off = {"estimate": _nominal(estimates, errors, truth)}
        count = len(off["estimate"])
    covered = {k: np.array([np.mean(u <= level) for level in nominal]) for k, u in off.items()}
    lower, upper = (binom.ppf(p, count, nominal) / count for p in (0.025, 0.975))
    return Coverage(nominal, covered, lower, upper, count)


def _nominal(estimates, errors, truth) -> np.ndarray:
    """Least nominal level at which each interval holds the truth."""
    if errors is None or truth is None:
        raise ParameterError("estimates need errors and the truth: nd.coverage(estimates, errors, truth).")
    values, spread = (array_of(name, a, REAL) for name, a in {"estimates": estimates, "errors": errors}.items())
    if values.ndim != 1 or values.shape != spread.shape or np.shape(truth) not in ((), values.shape) or not values.size:
        raise ShapeError(
            f"estimates and errors must be [S], the truth [S] or a number; got shapes {values.shape}, {spread.shape} "
            f"and {np.shape(truth)}."
        )
    truth = array_of("truth", truth, REAL)
    _check("estimates", values, np.isnan(values), "must not be NaN", "Leave runs without an estimate out, and say so.")
    remedy = "Where no error is known give infinity, which covers everything."
    _check("errors", spread, ~(spread >= 0), "must be standard errors, >= 0 or infinite", remedy)
    _check("truth", truth, ~np.isfinite(truth), "must be finite", "Leave simulations of unknown truth out.")
    off = np.abs(values - truth)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(off == 0, 0.0, off / spread)
    # An infinite estimate covers nothing, whatever its error.
    return np.where(np.isinf(values), 1.0, 2 * ndtr(share) - 1)


def _check(name, values, refused, rule, remedy) -> None:
    """Raise for the first of the values that is refused."""
    if np.any(refused):
        where = int(np.argmax(refused))
        at = f" in simulation {where}" if values.ndim else ""
        raise ParameterError(f"{name} {rule}; got {np.ravel(values)[where]}{at}. {remedy}")
