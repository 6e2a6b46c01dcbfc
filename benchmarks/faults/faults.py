"""What survives: runs killed at any moment, full and read-only disks, damaged files, energies that fail; ordinary use.

    python benchmarks/faults/faults.py                     # about half an hour
    python benchmarks/faults/faults.py --quick             # every fault, with few tries
    python benchmarks/faults/faults.py --only disk
    python benchmarks/faults/faults.py --only ordinary     # a quarter of an hour: what users try, kind by kind
    python benchmarks/faults/faults.py --only "ordinary, 3:"
    python benchmarks/faults/faults.py --only ordinary --fresh   # forget earlier results; else what is there stays

Every fault is made to happen: processes are killed, disks are full, files are damaged. `survived` counts the tries
after which nothing was lost: no work beyond the last checkpoint, no wrong result taken for a right one. Ordinary use
has a table of its own, in results/faults_ordinary.md: right, refused or wrong, see `ordinary/inputs.py`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

from benchmarks.faults import damaged_files, disks, failing_energies, kills, programs
from benchmarks.faults.processes import Row, counts, folder, run
from benchmarks.table import RESULTS, write

PRELOADED = [
    "jax",
    "flax.nnx",
    "optax",
    "numpyro",
    "xarray",
    "scipy.special",
    "safetensors.numpy",
    "zarr",
    "matplotlib",
]
HEADER = """# Faults

`python benchmarks/faults/faults.py`. Every fault is made to happen, in processes of their own; moments are drawn with fixed seeds.
Killed runs are run again until they end, and count as survived if every array is bit for bit that of an undisturbed run.
Damaged files are to be refused with a CheckpointError; "resealed" ones hold absurd content under a digest that matches it, and may be accepted only as what they say. Energies that fail count as survived if the
result is right all the same, or comes with a DiagnosticWarning, or a typed error is raised.
"""


def damaged(count: int, batch: int = 500) -> Row:
    """Damaged files, in processes that may crash without taking the rest along."""
    tally, wrong, slowest, growth = Counter(), [], 0.0, 0.0
    for first in tqdm(range(0, count, batch), desc="damaged files"):
        with folder() as path:
            end = run(damaged_files.damaged_files, folder=str(path), first=first, count=min(batch, count - first))
        if end.kind != "returned":
            wrong += [f"files {first} to {first + batch - 1}: {end.text}"]
            continue
        wrong += end.value.pop("wrong")
        slowest, growth = max(slowest, end.value.pop("slowest")), max(growth, end.value.pop("growth"))
        tally.update(end.value)
    for text in wrong:
        print(text, file=sys.stderr)
    kinds = Counter(re.sub(r"no\. \d+, ", "", re.sub(r"state\[\S+", "a weight", text)) for text in wrong)
    survived = tally["refused"] + tally["identical"] + tally["as it says"]
    note = (
        f"{tally['refused']} refused, {tally['identical']} the same as before, {tally['as it says']} another density that is what the "
        f"file says; {slowest:.2f} s and {growth:.0f} MB at most for one file"
    )
    return Row(count, survived, note + (f"; lost: {counts(Counter(dict(kinds.most_common(5))))}" if wrong else ""))


def energies(quick: bool) -> dict[str, Row]:
    """Runs whose energies fail: right all the same, warned of, or refused; else silent."""
    end = run(failing_energies.energies, quick=quick)
    assert end.kind == "returned", end.text
    rows = {}
    for section, verdicts in end.value.items():
        silent = [text for text in verdicts if text.startswith("SILENT")]
        for text in silent:
            print(text, file=sys.stderr)
        found = Counter(text.split(": ")[0].split(" (")[0] for text in verdicts)
        words = {
            "right": "with the right result",
            "warned": "with a warning",
            "error": "with a typed error",
            "SILENT": "silent",
        }
        note = counts(Counter({words[k]: v for k, v in found.items()}))
        rows[section] = Row(
            len(verdicts), len(verdicts) - len(silent), note + "".join(f"; {text}" for text in silent[:3])
        )
    return rows


def jobs(quick: bool) -> dict[str, Callable[[], Row | dict[str, Row]]]:
    """Fault -> function that makes it happen."""
    tries = 2 if quick else 20
    return {
        "training killed": lambda: kills.killed(programs.fit, tries),
        "annealing killed": lambda: kills.killed(programs.anneal, tries),
        "annealing killed at an operation on files": lambda: kills.killed_at_operations(4 if quick else 20),
        "training interrupted (Ctrl-C)": lambda: kills.interrupted(programs.fit, max(tries // 2, 2)),
        "annealing interrupted (Ctrl-C)": lambda: kills.interrupted(programs.anneal, max(tries // 2, 2)),
        "full disk, files": disks.full_disk_files,
        "full disk, training": lambda: disks.full_disk_runs(programs.fit),
        "full disk, annealing": lambda: disks.full_disk_runs(programs.anneal),
        "read-only disk": disks.read_only,
        "read-only disk, history": disks.read_only_history,
        "two trainings into one file": lambda: disks.two_runs(programs.fit, 1 if quick else 3),
        "two annealed runs into one file": lambda: disks.two_runs(programs.anneal, 1 if quick else 3),
        "damaged checkpoint files": lambda: damaged(300 if quick else 10_000),
        "energies": lambda: energies(quick),
    }


def table(found: dict[str, dict]) -> str:
    """Markdown."""
    lines = [HEADER.strip(), "", "| fault | tries | survived | lost | note |", "|---|---|---|---|---|"]
    for fault, row in found.items():
        note = row["note"].replace("|", "/").replace("\n", " ")
        lines.append(f"| {fault} | {row['tries']} | {row['survived']} | {row['tries'] - row['survived']} | {note} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make every fault happen, and write the table as it grows."""
    parser = argparse.ArgumentParser(description="What survives kills, full disks, damaged files and failing energies.")
    parser.add_argument("--quick", action="store_true", help="every fault, with few tries")
    parser.add_argument("--only", default="", help="faults whose name contains this text")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results of ordinary use")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    if not options.only.startswith("ordinary"):
        survival(options)
    if options.only in "ordinary" or options.only.startswith("ordinary"):
        # Imported here, for killed processes need none of it.
        from benchmarks.faults.ordinary.inputs import ordinary
        from benchmarks.faults.ordinary.kinds import KINDS

        ordinary(KINDS, options)


def survival(options: argparse.Namespace) -> None:
    """Kills, disks, files and energies."""
    path = RESULTS / f"faults{'_quick' if options.quick else ''}.json"
    found = json.loads(path.read_text()) if options.only and path.exists() else {}
    for fault, job in jobs(options.quick).items():
        if options.only not in fault:
            continue
        start = time.perf_counter()
        result = job()
        seconds = time.perf_counter() - start
        for name, row in result.items() if isinstance(result, dict) else [(fault, result)]:
            found[name] = row._asdict() | {"lost": row.tries - row.survived, "seconds": round(seconds, 1)}
        order = list(jobs(options.quick))
        found = dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))
        write(path, json.dumps(found, indent=1))
        write(path.with_suffix(".md"), table(found))
    print(table(found))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="faults_cache") as cache:
        # Compiled once: what is killed is then mostly the run itself.
        os.environ |= {
            "JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1", "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        }  # fmt: skip
        multiprocessing.set_forkserver_preload(PRELOADED)
        main()
