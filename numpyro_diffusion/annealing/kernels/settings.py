"""Settings of kernels: what may stand there, and how they print."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.core import Tracer

from ...checks.numbers import real_array
from ...errors import ParameterError, check_number


def check_step_size(step_size):
    """The step size as an array [] or [K], None, or what is being traced; ParameterError unless positive and finite."""
    if step_size is None or isinstance(step_size, Tracer):
        return step_size
    try:
        value = real_array(step_size)
    except (TypeError, ValueError):
        value = np.zeros(0)
    if value.ndim > 1 or not value.size or not np.all(np.isfinite(value) & (value > 0)):
        raise ParameterError(
            f"step_size must be positive, a number or one per level, or None to tune; got {step_size!r}."
        )
    return value


def check_persistence(persistence):
    """The share of momentum that is kept, as it is; ParameterError unless it lies in [0, 1) or is being traced."""
    if not isinstance(persistence, Tracer):
        check_number("persistence", persistence, 0.0, 1.0, "0 refreshes the momentum fully.", ends="[)")
    return persistence


def settings_text(name: str, settings: dict[str, Any]) -> str:
    """A constructor's call in one line: arrays by shape, functions by name, no persistence where there is none."""
    shown = {k: v for k, v in settings.items() if k != "persistence" or isinstance(v, Tracer) or np.any(v != 0)}
    if shown.get("num_nodes", 0) is None:
        del shown["num_nodes"]
    parts = [_short(v) if k == "algorithm" else f"{k}={_short(v)}" for k, v in shown.items()]
    return f"{name}({', '.join(parts)})"


def _short(value) -> str:
    if value is None:
        return "tuned"
    if isinstance(value, Tracer):
        return "traced"
    if isinstance(value, bool | str):
        return repr(value)
    if callable(value):
        # BlackJAX's algorithms are objects without a name, whose functions lie in the module that has one.
        home = getattr(getattr(value, "build_kernel", None), "__module__", None) or type(value).__name__
        return getattr(value, "__name__", None) or home.split(".")[-1]
    try:
        return f"array{list(np.shape(value))}" if np.ndim(value) else f"{float(value):.4g}"
    except (TypeError, ValueError):
        return type(value).__name__
