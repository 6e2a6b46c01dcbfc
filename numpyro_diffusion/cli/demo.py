"""The demonstration: pretrained densities composed, sampled two ways and held against the truth, in a minute.

Du et al. (2023), Figures 2 and A5-A7, with a table beside the picture; then handwritten digits with their evidence.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..annealing.anneal import anneal
from ..annealing.kernels import HMC
from ..annealing.reverse import Reverse
from ..checks.text import columns
from ..datasets import digits
from ..datasets.targets import NAMES, Target, hole_fraction, target
from ..diagnose import metrics
from ..diagnose.result import AnnealedRun
from ..disk import arrays as files
from ..disk.densities import list_pretrained, load_pretrained
from ..errors import ParameterError
from . import pictures

#: What is written.
RESULTS, PICTURES = "results.json", ("compositions.png", "digits.png")
#: Log likelihoods of the paper's Table 1: energies, reverse diffusion and HMC.
PAPER = {
    ("product", "reverse"): -6.03,
    ("product", "annealed"): 2.72,
    ("mixture", "reverse"): -2.17,
    ("mixture", "annealed"): 1.30,
}
SAMPLERS = {"reverse": Reverse(), "annealed": HMC()}
COLUMNS = {
    "problem": "problem",
    "sampler": "sampler",
    "log_likelihood": "LL",
    "truth": "truth",
    "paper": "paper",
    "fraction_outside": "outside",
    "mode_weight_tv": "mode TV",
    "log_mmd2": "ln MMD2",
    "log_mmd2_floor": "(floor)",
    "log_evidence": "log Z",
    "true_log_evidence": "(truth)",
    "evaluations": "evals",
    "seconds": "seconds",
}


def compare(
    name: str, *, num_chains: int, seed: int, told: Callable[[dict], Any]
) -> tuple[list[dict], list[np.ndarray]]:
    """One planar problem: a table row and samples [num_chains, 2] per entry of `SAMPLERS`, after those of the truth.

    Each row is passed to `told` as soon as it is there.
    """
    problem, rows = target(name), []
    truth, second = problem.sample(num_chains, seed), problem.sample(num_chains, seed + 1)
    floor = metrics.report(second, problem, truth=truth)

    def add(sampler, figures, drawn):
        row = {"problem": name, "sampler": sampler} | figures
        row["hole_fraction"] = hole_fraction(drawn) if name == "negation" else None
        row |= {"truth": problem.mean_log_prob, "true_log_evidence": problem.log_evidence}
        rows.append(row | {"log_mmd2_floor": floor["log_mmd2"], "paper": PAPER.get((name, sampler))})
        told(rows[-1])

    add("truth", floor, second)
    samples = [truth]
    density = problem.density(load_pretrained)
    for label, sampler in SAMPLERS.items():
        start = time.perf_counter()
        key = jax.random.fold_in(jax.random.key(seed), NAMES.index(name))
        run = anneal(key, density, sampler, num_chains=num_chains, progress_bar=False)
        drawn = np.asarray(run.samples)
        seconds = time.perf_counter() - start
        figures = {"log_evidence": run.log_evidence, "evaluations": run.evaluations_per_chain, "seconds": seconds}
        add(label, figures | metrics.report(drawn, problem, truth=truth), drawn)
        samples.append(drawn)
    return rows, samples


def table(rows: Sequence[dict]) -> str:
    """The rows as text, one line each; what is not defined is a dash."""
    head, *body = columns(
        [list(COLUMNS.values())] + [[_cell(row.get(key), key) for key in COLUMNS] for row in rows], num_left=2
    ).split("\n")
    return "\n".join([head, "-" * len(head), *body])


def _cell(value, key) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    if isinstance(value, str | int):
        return str(value)
    return f"{value:.{ {'fraction_outside': 3, 'mode_weight_tv': 3, 'seconds': 1}.get(key, 2) }f}"


def draw_digits(*, num_chains: int, seed: int) -> AnnealedRun:
    """Annealed draws of the pretrained digits. Their density is normalised, so its log evidence should be zero.

    Levels and step sizes are about those that a pilot finds; finding them would take longer than using them.
    """
    density = load_pretrained("digits")
    # Close to each other where the classes part.
    corners, counts = (100.0, 1.1, 0.35, 0.06, 0.03), (10, 20, 80, 14)
    ends = zip(corners[:-1], corners[1:], counts, strict=True)
    parts = [np.geomspace(high, low, count, endpoint=False) for high, low, count in ends]
    ratios = np.append(np.concatenate(parts), corners[-1])
    at, sizes = np.log([0.03, 0.1, 0.3, 1.0, 100.0]), np.log([0.05, 0.115, 0.3, 0.58, 0.63])
    steps = np.exp(np.interp(np.log(ratios), at, sizes))
    levels = np.append(np.asarray(density.schedule.time(ratios)), 0.0)
    levels[0] = 1.0
    return anneal(
        jax.random.key(seed), density, HMC(np.append(steps, steps[-1])), levels=levels, num_steps=3,
        num_chains=num_chains, progress_bar=False,
    )  # fmt: skip


class Results:
    """What the demonstration has found so far, in a folder that holds it at every moment; threads may add to it."""

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.folder, self.lock, self.written = folder, threading.Lock(), []
        self.found: dict[str, Any] = {"settings": settings, "is_complete": False, "planar": []}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ParameterError(f"cannot make the folder {folder}: {error.strerror}. Choose another.") from error
        for name in (RESULTS, *PICTURES):
            files.check_writable(folder / name, force=True)
        # What an earlier call has left would stand beside the results of this one.
        for name in PICTURES:
            (folder / name).unlink(missing_ok=True)
        self.update()

    def update(self, **found) -> None:
        """Write what is new, and what the lists in `found` hold now."""
        with self.lock:
            self.found |= found
            files.write(self.folder / RESULTS, json.dumps(plain(self.found), indent=1).encode())

    def draw(self, name: str, picture: Callable[[], bytes]) -> None:
        """A picture, where there is something to draw with."""
        try:
            files.write(self.folder / name, picture())
            self.written.append(name)
        except ImportError:
            self.written.append(f"no {name} without matplotlib: pip install 'numpyro-diffusion[plots]'")


def plain(value):
    """JSON has no NaN: it becomes null."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def run(
    output: Path, *, seed: int = 0, num_chains: int = 1000, num_digits: int = 256, echo: Callable[[str], Any] = print
) -> dict[str, Any]:
    """The whole demonstration: prints its tables, writes pictures and results.json into the folder `output`.

    Rows of the table and pictures are written as they are there, so that a kill leaves those found so far.

    Args:
        output: Folder, made if missing (ParameterError if it cannot be); earlier results in it are replaced.
        seed: Seed of chains and truths.
        num_chains: Chains, and draws of the truth, per planar problem.
        num_digits: Digits drawn.
        echo: Takes what is printed.

    Returns:
        What results.json holds: "planar", the rows of the table, and "digits" where that density is there; "settings",
        and "is_complete", false where the demonstration did not end.
    """
    begin, available = time.perf_counter(), set(list_pretrained())
    results = Results(Path(output), {"seed": seed, "num_chains": num_chains, "num_digits": num_digits})
    problems = [target(name) for name in NAMES if available.issuperset(target(name).factors)]

    stopped = threading.Event()

    def told(row):
        if stopped.is_set():
            raise KeyboardInterrupt
        results.found["planar"].append(row)
        results.update()
        seconds = time.perf_counter() - begin
        echo(f"{row['problem']}, {row['sampler']}: LL {row['log_likelihood']:.2f} ({seconds:.0f} s)")

    done: list[tuple[Target, Any]] = []
    # Two at a time: most of the minute is compilation, which leaves the second core idle. Digits take longest.
    with ThreadPoolExecutor(2) as pool:
        digits_job = pool.submit(draw_digits, num_chains=num_digits, seed=seed) if "digits" in available else None
        jobs = [pool.submit(compare, problem.name, num_chains=num_chains, seed=seed, told=told) for problem in problems]
        try:
            for problem in problems:
                echo(f"{problem.name}: {problem.density(load_pretrained)!r}")
            for problem, job in zip(problems, jobs, strict=True):
                done.append((problem, job.result()[1]))
                results.draw(PICTURES[0], lambda: pictures.compositions(*zip(*done, strict=True)))
            rows = [row for job in jobs for row in job.result()[0]]
            results.update(planar=rows)
            echo(f"\n{table(rows)}\n\n{_notes(rows)}")
            if digits_job is not None:
                drawn = digits_job.result()
                names = ("log_evidence", "log_evidence_error")
                figures = {"num_chains": num_digits, "evaluations": drawn.evaluations_per_chain}
                results.update(digits={name: getattr(drawn, name) for name in names} | figures)
                echo(f"\n{_evidence_check(drawn)}")
                results.draw(PICTURES[1], lambda: pictures.digits(drawn.samples, digits.images("test")[0]))
        except BaseException:
            # What has not begun need not.
            stopped.set()
            echo("stopping when the runs under way have ended; what they have found so far is written")
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    results.update(is_complete=True)
    written = ", ".join(dict.fromkeys([RESULTS, *results.written]))
    echo(f"\n{output}: {written}, after {time.perf_counter() - begin:.0f} s")
    return results.found


def _notes(rows):
    notes = [
        "LL is the mean true log density of the draws: right is the truth's own value, more is too sharp. The paper's",
        "figures are its Table 1. (floor) is ln MMD2 between two draws of the truth; evals are gradients per chain;",
        "seconds hold compilation, with two problems at a time.",
    ]
    holes = [f"{row['sampler']} {row['hole_fraction']:.3f}" for row in rows if row["hole_fraction"] is not None]
    return "\n".join(
        [*notes, f"Share of the negation's draws in the small box: {', '.join(holes)}."] if holes else notes
    )


def _evidence_check(drawn):
    verdict = "passed" if abs(drawn.log_evidence) <= 1 else "FAILED"
    evidence = f"{drawn.log_evidence:+.2f} +- {drawn.log_evidence_error:.2f} nats"
    effort = f"{len(drawn.levels)} levels, {drawn.evaluations_per_chain} evaluations each"
    return (
        f"digits: {len(drawn.samples)} drawn, {effort}\n"
        f"evidence check {verdict}: log Z = {evidence}, where 0 is normalised and 1 allowed"
    )
