"""What it takes to start: import, the first run, and a second process, each in a process of its own; part of `speed.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpyro_diffusion as nd

CHAINS = 1000
TEXT = f"""Each in a fresh process. Import: `import numpyro_diffusion` after `import jax, numpyro`, best of three. First run: `nd.anneal(key, ring * bar, nd.HMC(), num_chains={CHAINS})` of the
trained densities, pilot included, with JAX's persistent compilation cache empty, then warm (every program is kept; the best of three processes). `seconds`: of the whole process, Python and imports included, which
is what the aim is compared with; `run`: of `nd.anneal` alone; `compiling`: XLA's share of it, and `programs` that it built or read back. Traces: how often JAX traced `population.advance` in that run."""
COLUMNS = ["seconds", "asked", "met", "run", "compiling", "programs", "levels"]
IMPORT = "import jax, numpyro, time; start = time.perf_counter(); import numpyro_diffusion; print(time.perf_counter() - start)"
FIRST_RUN = f"""
import json, time
import jax
compiling, traced = [], []
def listen(event, seconds, fun_name="", **_):
    if event == "/jax/core/compile/backend_compile_duration":
        compiling.append(seconds)
    elif event == "/jax/core/compile/jaxpr_trace_duration":
        traced.append(fun_name)
jax.monitoring.register_event_duration_secs_listener(listen)
import numpyro_diffusion as nd
start = time.perf_counter()
density = nd.load_pretrained("ring") * nd.load_pretrained("bar")
run = nd.anneal(jax.random.key(0), density, nd.HMC(), num_chains={CHAINS}, progress_bar=False)
jax.block_until_ready(run.samples)
figures = {{"run": time.perf_counter() - start, "compiling": sum(compiling), "programs": len(compiling)}}
print(json.dumps(figures | {{"traces": traced.count("advance"), "levels": len(run.levels)}}))
"""


def fresh(script: str, folder: str, **environment: str) -> tuple[str, float]:
    """(last line of output, seconds) of a script in a process of its own that imports this very package."""
    roots = [str(Path(nd.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(roots)} | environment
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], env=environment, cwd=folder, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"a fresh process failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[-1], seconds


def within(seconds: float, limit: float) -> dict:
    """Seconds and their aim."""
    return {"seconds": seconds, "asked": f"< {limit:g}", "met": "yes" if seconds < limit else "no"}


def import_line() -> dict[str, dict]:
    """What the package adds to the import of JAX and NumPyro."""
    with tempfile.TemporaryDirectory() as folder:
        return {"import": within(min(float(fresh(IMPORT, folder)[0]) for _ in range(3)), 2)}


def first_runs() -> dict[str, dict]:
    """The first run without and with a warm compilation cache, and its traces."""
    lines = {}
    with tempfile.TemporaryDirectory() as folder:
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        for name, limit in (("first run, empty cache", 15), ("second process, warm cache", 5)):
            tries = 1 if name.startswith("first") else 3
            text, seconds = min((fresh(FIRST_RUN, folder, **cache) for _ in range(tries)), key=lambda found: found[1])
            figures = json.loads(text)
            traces = figures.pop("traces")
            lines[name] = within(seconds, limit) | figures
            lines[f"traces of population.advance, {name}"] = {
                "programs": traces,
                "asked": "1",
                "met": "yes" if traces == 1 else "no",
            }
    return lines


#: (name, function that computes some lines).
JOBS = [("startup import", import_line), ("startup runs", first_runs)]
