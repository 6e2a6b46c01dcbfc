"""Two versions of the package side by side: what a rebuilding must not slow down.

    python benchmarks/versions.py --against 110a881           # some ten minutes on two cores
    python benchmarks/versions.py --against 110a881 --quick   # fewer turns

Each version runs in a process of its own, and the two take turns at every job. `ratio` compares the best times, `median`
is the median of the ratios turn by turn. The first run and its programs are those of a fresh process without a cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ROOT = next(folder for folder in (ROOT, *ROOT.parents) if (folder / "pyproject.toml").is_file())
JOBS = ("anneal, HMC", "anneal, MALA", "anneal, 64-d", "p q / (p + q)", "Eq. 13", "AnnealedMCMC")
CALLS = 5


def jobs() -> dict:
    """Functions by name, compiled already."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import numpyro_diffusion as nd

    key, quiet = jax.random.key(0), {"levels": 40, "progress_bar": False}
    ring, bar, cubes = (nd.load_pretrained(name) for name in ("ring", "bar", "cubes_16"))
    draw = np.random.default_rng(0)
    wide = nd.exact.GaussianMixture(draw.normal(size=(3, 64)), np.stack([0.1 * np.eye(64)] * 3))
    product, ratio = ring * bar, ring * bar / (ring + bar)
    eq13 = nd.compose_conditions(cubes, draw.uniform(0.2, 0.8, (5, 2)))
    points, images = draw.normal(size=(4096, 2)), draw.normal(size=(4, *cubes.event_shape))
    score = jax.jit(lambda density, x: density.score(x, 0.3))

    def model(y):
        x = numpyro.sample("x", nd.DiffusionPrior(ring))
        numpyro.sample("y", dist.Normal(jnp.sum(x), 0.2), obs=y)

    mcmc = nd.AnnealedMCMC(model, nd.HMC(0.3), num_chains=500, metric="frame", **quiet)
    return {
        "anneal, HMC": lambda: nd.anneal(key, product, nd.HMC(0.5), num_chains=1000, **quiet).samples,
        "anneal, MALA": lambda: nd.anneal(key, product, nd.MALA(0.2), num_chains=1000, **quiet).samples,
        "anneal, 64-d": lambda: nd.anneal(key, wide, nd.HMC(0.2), num_chains=1000, **quiet).samples,
        "p q / (p + q)": lambda: [score(ratio, jnp.asarray(points, float)) for _ in range(CALLS)],
        "Eq. 13": lambda: score(eq13, jnp.asarray(images, float)),
        "AnnealedMCMC": lambda: mcmc.run(key, 0.3),
    }


def answer() -> None:
    """A worker: reads names of jobs, and writes the seconds that each took."""
    import warnings

    import jax

    warnings.simplefilter("ignore")
    made = jobs()
    for line in sys.stdin:
        job = made[line.strip()]
        began = time.perf_counter()
        jax.block_until_ready(job())
        print(time.perf_counter() - began, flush=True)


def first() -> None:
    """A fresh process: seconds and programs of a first run."""
    began = time.perf_counter()
    import jax

    compiled = []

    def listen(name, seconds, **_):
        if name.endswith("backend_compile_duration"):
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    import numpyro_diffusion as nd

    density = nd.load_pretrained("ring") * nd.load_pretrained("bar")
    nd.anneal(jax.random.key(0), density, nd.HMC(), num_chains=500, progress_bar=False)
    print(json.dumps({"seconds": time.perf_counter() - began, "programs": len(compiled)}))


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder), "JAX_ENABLE_COMPILATION_CACHE": "false"}


def in_turns(folders: dict[str, Path], turns: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by job and version, after one turn that does not count."""
    command = [sys.executable, __file__, "--as", "worker"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = {k: subprocess.Popen(command, env=environment(f), cwd=f, **pipes) for k, f in folders.items()}
    found: dict[str, dict[str, list[float]]] = {job: {k: [] for k in folders} for job in JOBS}
    for job in JOBS:
        for turn in range(turns + 1):
            for name, worker in workers.items():
                assert worker.stdin is not None and worker.stdout is not None
                worker.stdin.write(f"{job}\n")
                worker.stdin.flush()
                seconds = float(worker.stdout.readline())
                if turn:
                    found[job][name].append(seconds)
    for worker in workers.values():
        worker.communicate()
    return found


def first_runs(folders: dict[str, Path], turns: int) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {name: [] for name in folders}
    for _ in range(turns):
        for name, folder in folders.items():
            command = [sys.executable, "-W", "ignore", __file__, "--as", "first"]
            ended = subprocess.run(
                command, env=environment(folder), cwd=folder, capture_output=True, check=True, text=True
            )
            found[name].append(json.loads(ended.stdout.splitlines()[-1]))
    return found


def line(name: str, before: list[float], after: list[float]) -> str:
    median = statistics.median(b / a for a, b in zip(before, after, strict=True))
    return f"{name:<16}{min(before):>10.3f}{min(after):>10.3f}{min(after) / min(before):>8.3f}{median:>8.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="COMMIT", help="the earlier version")
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    parser.add_argument("--as", dest="role", choices=("worker", "first"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        return answer() if arguments.role == "worker" else first()
    if not arguments.against:
        parser.error("--against COMMIT is needed")
    turns, starts = (3, 1) if arguments.quick else (15, 3)
    with tempfile.TemporaryDirectory() as folder:
        with tempfile.TemporaryFile() as archive:
            subprocess.run(["git", "archive", arguments.against], cwd=ROOT, stdout=archive, check=True)
            archive.seek(0)
            with tarfile.open(fileobj=archive) as files:
                files.extractall(folder, filter="data")
        folders = {arguments.against: Path(folder), "here": ROOT}
        print(f"{'seconds':<16}{arguments.against[:8]:>10}{'here':>10}{'ratio':>8}{'median':>8}")
        for job, times in in_turns(folders, turns).items():
            print(line(job, *times.values()), flush=True)
        runs = first_runs(folders, starts)
        print(line("first run", *([run["seconds"] for run in each] for each in runs.values())))
        programs = [[run["programs"] for run in each][0] for each in runs.values()]
        print(f"{'programs':<16}{programs[0]:>10}{programs[1]:>10}")


if __name__ == "__main__":
    main()
