"""What it takes to start: import, the first run, and a second process, beside a yardstick; part of `speed.py`.

Seconds say how fast a machine is, and how busy. The aims are therefore ratios to a plain program of the same kind that
is timed in the same minutes (it imports the libraries this package stands on and compiles gradients of perceptrons), and
both in seconds of processor time, which other processes hardly change.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from benchmarks.fresh import fresh

CHAINS, DEPTHS, COLD_ROUNDS, WARM_ROUNDS = 1000, 8, 3, 5
#: What is asked, over the yardstick's. Where 15 and 5 seconds were asked, the runs took 11.8 and 5.0 s, and are 5.9 and 4.3
#: times the yardstick. The import's yardstick is `import jax, numpyro`.
ASKED = {"import": 1.0, "first run, empty cache": 7.5, "second process, warm cache": 5.0}
TEXT = f"""Each in a fresh process, in turns with its yardstick, best of {COLD_ROUNDS} (empty cache) or {WARM_ROUNDS} times; `ratio`, in seconds of processor time, is what the aim is
compared with, as seconds are the machine's. Import: what `import numpyro_diffusion` adds after `import jax, numpyro`, beside what these two take. First run: `nd.anneal(key, ring * bar, nd.HMC(), num_chains={CHAINS})` of the trained densities, pilot included, with
JAX's persistent compilation cache empty, then warm (every program is kept). Its yardstick, with caches alike: a process that imports jax, flax and numpyro, and compiles and runs {DEPTHS} gradients of perceptrons of
1 to {DEPTHS} layers. `processor` and `yardstick`: processor time of the whole process, Python and imports included; `seconds`: by the clock; `run`: of `nd.anneal` alone; `compiling`: XLA's share of it, and `programs` that it built or read back. Traces:
how often JAX traced `population.advance` in that run."""
COLUMNS = ["ratio", "asked", "met", "processor", "yardstick", "seconds", "run", "compiling", "programs", "levels"]
IMPORT = """
import time
start = time.process_time()
import jax, numpyro
middle = time.process_time()
import numpyro_diffusion
print(middle - start, time.process_time() - middle)
"""
YARDSTICK = f"""
import jax, jax.numpy as jnp, numpyro.infer
from flax import nnx
def loss(layers, x):
    for weight, bias in layers:
        x = jax.nn.silu(x @ weight + bias)
    return jnp.sum(x**2)
for depth in range(1, {DEPTHS} + 1):
    keys = jax.random.split(jax.random.key(depth), depth)
    layers = [(0.1 * jax.random.normal(key, (128, 128)), jnp.zeros(128)) for key in keys]
    jax.block_until_ready(jax.jit(jax.value_and_grad(loss))(layers, jnp.ones((64, 128))))
print("done")
"""
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


def beside(name: str, processor: float, yardstick: float) -> dict:
    """Processor time, that of the yardstick, and the aim of their ratio."""
    ratio, most = processor / yardstick, ASKED[name]
    figures = {"ratio": ratio, "asked": f"<= {most:g}", "met": "yes" if ratio <= most else "no"}
    return figures | {"processor": processor, "yardstick": yardstick}


def import_line() -> dict[str, dict]:
    """What the package adds to the import of JAX and NumPyro."""
    found = [map(float, fresh(IMPORT).text.split()) for _ in range(WARM_ROUNDS)]
    theirs, ours = map(min, zip(*found, strict=True))
    return {"import": beside("import", ours, theirs)}


def first_runs() -> dict[str, dict]:
    """The first run without and with a warm compilation cache, and its traces."""
    lines, cache = {}, ""
    with tempfile.TemporaryDirectory() as folder:
        for name, rounds in (("first run, empty cache", COLD_ROUNDS), ("second process, warm cache", WARM_ROUNDS)):
            runs, yardsticks = [], []
            for i in range(rounds):
                # The warm processes read what the last of the cold ones has written.
                cache = str(Path(folder) / f"cache {i}") if name.startswith("first") else cache
                settings = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
                yardsticks.append(fresh(YARDSTICK, **settings).processor)
                runs.append(fresh(FIRST_RUN, **settings))
            best = min(runs, key=lambda found: found.processor)
            figures = json.loads(best.text) | {"seconds": min(found.seconds for found in runs)}
            traces = figures.pop("traces")
            lines[name] = beside(name, best.processor, min(yardsticks)) | figures
            lines[f"traces of population.advance, {name}"] = {
                "programs": traces, "asked": "1", "met": "yes" if traces == 1 else "no",
            }  # fmt: skip
    return lines


#: (name, function that computes some lines).
JOBS = [("startup import", import_line), ("startup runs", first_runs)]
