"""Scripts in fresh processes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpyro_diffusion as nd

#: Where a fresh process finds this very package, and these benchmarks.
ROOTS = [str(Path(nd.__file__).parents[1]), str(Path(__file__).resolve().parents[1])]


class Process(NamedTuple):
    """A finished process: last line of output, seconds by the clock, seconds of processor time."""

    text: str
    seconds: float
    processor: float


def fresh(script: str, **environment: str) -> Process:
    """A script in a process of its own. Raises RuntimeError if it fails."""
    # Bytecode is kept, as that of installed packages is.
    environment = {"PYTHONDONTWRITEBYTECODE": ""} | environment
    path = os.pathsep.join([*ROOTS, *filter(None, [os.environ.get("PYTHONPATH")])])
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], env=os.environ | {"PYTHONPATH": path} | environment,
        cwd=ROOTS[0], capture_output=True, text=True,
    )  # fmt: skip
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"a fresh process failed:\n{done.stderr[-2000:]}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Process(done.stdout.strip().splitlines()[-1], seconds, processor)
