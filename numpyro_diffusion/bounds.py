"""Bounds on log evidence and log likelihood: AIS, RAISE, BDMC."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass
class Bound:
    """A stochastic bound in nats.

    Attributes:
        kind: "ais", "raise" or "bdmc".
        lower, lower_error: Lower bound in expectation, and its standard error.
        upper, upper_error: Upper bound in expectation ("bdmc"), else NaN.
        log_weights: "ais" {"forward": [N]}, "bdmc" {"forward": [N], "reverse": [N]}, "raise" {"points": [n, repeats]}.
        levels: [K] decreasing times.
    """

    kind: str
    lower: float
    lower_error: float
    upper: float
    upper_error: float
    log_weights: dict[str, np.ndarray]
    levels: np.ndarray
