"""Runs that are killed, or interrupted by Ctrl-C."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from benchmarks.faults import programs
from benchmarks.faults.processes import (
    End,
    Row,
    counts,
    duration,
    equal,
    folder,
    leftovers,
    planned,
    progress,
    readable,
    run,
    undisturbed,
)  # fmt: skip
from numpyro_diffusion.errors import InterruptWarning


def histories(path: Path, i: int) -> dict:
    """Every second annealed run streams its history to disk."""
    return {"history": str(path / "history.zarr")} if i % 2 else {}


def trials(program: Callable, tries: int, seed: int, what: str) -> Iterator[tuple]:
    """For each try: random numbers, seconds of an undisturbed run, a folder, settings, and what the run ends with."""
    is_anneal = program is programs.anneal
    references = [undisturbed(program, **({"history": "memory"} if i else {})) for i in range(1 + is_anneal)]
    seconds = duration(program)
    for i in tqdm(range(tries), desc=f"{program.__name__} {what}"):
        with folder() as path:
            settings = {"folder": str(path)} | (histories(path, i) if is_anneal else {})
            yield np.random.default_rng([seed, i]), seconds, path, settings, references[i % len(references)]


def killed(program: Callable, tries: int) -> Row:
    """SIGKILL at random moments, once or twice, then on to the end."""
    seen, survived = Counter(), 0
    for rng, seconds, path, settings, reference in trials(program, tries, 1, "killed"):
        intact = True
        for _ in range(rng.integers(1, 3)):
            end = run(program, (signal.SIGKILL, rng.uniform(0, seconds)), **settings)
            seen["kills"] += end.kind == "died"
            seen["of them after a first checkpoint"] += end.kind == "died" and (path / "run").exists()
            seen["too late"] += end.kind == "returned"
            intact &= readable(path / "run")
        final = run(program, **settings)
        fine = intact and equal(final, reference)
        survived += fine
        seen["temporary files left behind by kills"] += len(leftovers(path))
        if not fine:
            seen[f"lost: {final.text if intact else 'checkpoint damaged'}"] += 1
    return Row(tries, survived, counts(seen))


def killed_at_operations(tries: int) -> Row:
    """SIGKILL before the n-th operation on files, for the first n and then for others."""
    seen, survived, small = Counter(), 0, {"levels": 4}
    reference = undisturbed(programs.anneal, history="memory", **small)
    with folder() as path:
        settings = {"folder": str(path), "history": str(path / "history.zarr")} | small
        total = int(run(programs.anneal, **settings).value["operations"])
    first = min(tries // 2, total)
    chosen = [*range(1, first + 1), *np.linspace(first + 1, total, tries - first).astype(int)]
    for operation in tqdm(chosen, desc="killed at operations"):
        with folder() as path:
            settings = {"folder": str(path), "history": str(path / "history.zarr")} | small
            end = run(programs.anneal, die=int(operation), **settings)
            seen["kills"] += end.kind == "died"
            intact, final = readable(path / "run"), run(programs.anneal, **settings)
            fine = intact and equal(final, reference)
            survived += fine
            seen["temporary files left behind by kills"] += len(leftovers(path))
            if not fine:
                seen[f"lost: {final.text if intact else 'checkpoint damaged'}"] += 1
    return Row(len(chosen), survived, f"operations 1 to {first} of {total}, and others; {counts(seen)}")


def interrupted(program: Callable, tries: int) -> Row:
    """Ctrl-C at random moments: a partial result and a warning, or KeyboardInterrupt before there is any."""
    seen, survived, slowest = Counter(), 0, 0.0
    for rng, seconds, path, settings, reference in trials(program, tries, 2, "interrupted"):
        moment = rng.uniform(0, seconds)
        end = run(program, (signal.SIGINT, moment), **settings)
        slowest = max(slowest, end.seconds - moment if end.kind != "returned" or end.warnings else 0.0)
        what = ending(end, path / "run")
        seen[what] += 1
        final = run(program, **settings)
        again = equal(final, reference)
        if not again:
            seen[f"lost when run again: {final.text}"] += 1
        survived += again and not what.startswith("lost")
    return Row(tries, survived, f"{counts(seen)}; {slowest:.1f} s at most from the signal to the end")


def ending(end: End, path: Path) -> str:
    """What an interrupted process left."""
    warned = any(category == InterruptWarning.__name__ for category, _ in end.warnings)
    begun = path.exists() and progress(path) > 0
    if end.kind == "returned" and warned:
        return "partial results" if consistent(end.value) else "lost: a partial result whose arrays differ in length"
    if end.kind == "returned":
        return "at the end already"
    if end.kind in ("interrupted", "died") and not begun:
        return "before there was any"
    if end.kind == "raised":
        return f"lost: {end.text}"
    done, total = progress(path), planned(path)
    return "after its end, the whole result kept" if done == total else f"lost: {end.text} after {done} of {total}"


def consistent(found: dict[str, np.ndarray]) -> bool:
    """Whether a partial run has as many statistics, and rows of history, as levels; a density has neither."""
    rows = {len(v) for k, v in found.items() if k == "levels" or k.startswith(("stats.", "history."))}
    return len(rows) <= 1 and all(np.all(np.isfinite(v)) for k, v in found.items() if k == "samples")
