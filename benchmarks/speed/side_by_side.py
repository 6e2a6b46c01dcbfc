"""Ratios of contenders that run in turns, within one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def in_turns(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds [rounds] of each contender; each runs once before, and another one begins each round."""
    names, seconds = list(contenders), {name: [] for name in contenders}
    for name in names:
        jax.block_until_ready(contenders[name]())
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            jax.block_until_ready(contenders[name]())
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(found) for name, found in seconds.items()}


def compared(seconds, reference, *, at_most: float | None = None, at_least: float | None = None) -> dict:
    """Ratio of best times, median ratio, and the aim."""
    figures: dict[str, Any] = {"ratio": seconds.min() / reference.min(), "median": np.median(seconds / reference)}
    if at_most is not None:
        figures |= {"asked": f"<= {at_most:g}", "met": "yes" if figures["ratio"] <= at_most else "no"}
    if at_least is not None:
        figures |= {"asked": f">= {at_least:g}", "met": "yes" if figures["ratio"] >= at_least else "no"}
    return figures
