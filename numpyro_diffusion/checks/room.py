"""Room for the programs of a run: on Linux a process has 65,530 memory maps, and compiled programs take them.

JAX on a CPU takes three maps for every kernel of a program and keeps programs for good: a posterior takes some 4,000,
and a loop over models of different shapes, in a notebook or a benchmark, ends with the process.
"""

from __future__ import annotations

import gc
from pathlib import Path

import jax

#: The maps of this process, a line each; and how many it may have.
MAPS, LIMIT = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
#: Share of them above which programs are dropped, and how much more than the last time left before they are again:
#: what others hold stays.
FULL, MORE = 0.5, 0.1
_left = 0


def make_room(full: float = FULL) -> bool:
    """Drop all compiled programs, JAX's and the user's, if a share of the memory maps is taken; whether that was so.

    What is called again compiles again. Elsewhere than on Linux there is nothing to count.
    """
    global _left
    try:
        taken, most = _taken(), int(LIMIT.read_text())
    except (OSError, ValueError):
        return False
    if taken <= max(full * most, _left + MORE * most):
        return False
    jax.clear_caches()
    gc.collect()
    _left = _taken()
    return True


def _taken() -> int:
    return MAPS.read_bytes().count(b"\n")
