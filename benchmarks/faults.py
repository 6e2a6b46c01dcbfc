"""What survives: runs killed at any moment, full and read-only disks, damaged files, energies that fail.

    python benchmarks/faults.py            # about a quarter of an hour
    python benchmarks/faults.py --quick    # every fault, with few tries
    python benchmarks/faults.py --only disk

Every fault is made to happen: processes are killed, disks are full, files are damaged. `survived` counts the tries
after which nothing was lost: no work beyond the last checkpoint, no wrong result taken for a right one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import _fault_programs as programs
import numpy as np
from _table import RESULTS, _write
from tqdm.auto import tqdm

from numpyro_diffusion import checkpoint
from numpyro_diffusion.errors import CheckpointError

PATIENCE = 120.0  # seconds without a sign of life after which a process counts as hanging
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

`python benchmarks/faults.py`. Every fault is made to happen, in processes of their own; moments are drawn with fixed seeds.
Killed runs are run again until they end, and count as survived if every array is bit for bit that of an undisturbed run.
Damaged files are to be refused with a CheckpointError; "resealed" ones hold absurd content under a digest that matches it, and may be accepted only as what they say. Energies that fail count as survived if the
result is right all the same, or comes with a DiagnosticWarning, or a typed error is raised.
"""


class End(NamedTuple):
    """How a process ended: "returned", "raised", "interrupted", "died" or "hung", with what it sent, and after how long."""

    kind: str
    value: Any
    warnings: list[tuple[str, str]]
    seconds: float

    @property
    def text(self) -> str:
        """In a few words."""
        if self.kind != "raised":
            return self.kind
        return f"{self.value['type']}: {re.sub(r'/[^ ]*/faults[^/]*/', '', self.value['text'])[:90]}"


class Row(NamedTuple):
    """A line of the table."""

    tries: int
    survived: int
    note: str


class Running:
    """A program of `_fault_programs` in a process of its own."""

    def __init__(self, program: str, /, **arguments: Any):
        context = multiprocessing.get_context("forkserver")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=programs.child, args=(theirs, program, arguments), daemon=True)
        self.process.start()
        theirs.close()
        assert self.connection.recv() == "begin"
        self.start = time.perf_counter()

    def stop(self, number: int) -> None:
        """Send a signal."""
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def end(self) -> End:
        """Wait for it."""
        kind, value, caught = "died", None, []
        with contextlib.suppress(EOFError, ConnectionResetError):
            if self.connection.poll(PATIENCE):
                kind, value, caught = self.connection.recv()
            else:
                kind = "hung"
                self.process.kill()
        self.process.join()
        return End(kind, value, caught, time.perf_counter() - self.start)


def run(program: str, stop: tuple[int, float] | None = None, /, **arguments: Any) -> End:
    """Run a program to its end, or until a signal some seconds after its beginning."""
    running = Running(program, **arguments)
    if stop is not None:
        number, seconds = stop
        if not running.connection.poll(seconds):
            running.stop(number)
    return running.end()


def equal(found: End, expected: End) -> bool:
    """Whether a run ended with the arrays of another, bit for bit."""
    names = (expected.value or {}).keys() - {"operations"}
    return (
        found.kind == expected.kind == "returned"
        and found.value.keys() - {"operations"} == names
        and all(found.value[k].dtype == expected.value[k].dtype for k in names)
        and all(found.value[k].tobytes() == expected.value[k].tobytes() for k in names)
    )


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder."""
    with tempfile.TemporaryDirectory(prefix="faults") as name:
        yield Path(name)


def undisturbed(program: str, /, **arguments: Any) -> End:
    """A run that nothing happens to, compiled programs read from the cache; twice, as it must repeat itself."""
    first, second = run(program, **arguments), run(program, **arguments)
    assert equal(second, first), f"{program} does not repeat itself: {first.text}, {second.text}"
    return second


def duration(program: str) -> float:
    """Seconds of an undisturbed run that keeps its state."""
    with folder() as path:
        return run(program, folder=str(path)).seconds


def leftovers(path: Path) -> list[str]:
    """Temporary files and locks in a folder."""
    return [name for name in os.listdir(path) if name.endswith((".tmp", ".lock"))]


def readable(path: Path) -> bool:
    """Whether there is no file, or an intact one."""
    try:
        return not path.exists() or bool(checkpoint.read(path))
    except CheckpointError:
        return False


def counts(counter: Counter) -> str:
    """Outcomes and how often, for a note."""
    return "; ".join(f"{count} {what}" for what, count in counter.items() if count)


# Killed and interrupted


def histories(path: Path, i: int) -> dict:
    """Every second annealed run streams its history to disk."""
    return {"history": str(path / "history.zarr")} if i % 2 else {}


def killed(program: str, tries: int) -> Row:
    """SIGKILL at random moments, once or twice, then on to the end."""
    seen, survived = Counter(), 0
    references = [
        undisturbed(program, **({"history": "memory"} if i else {})) for i in range(1 + (program == "anneal"))
    ]
    seconds = duration(program)
    for i in tqdm(range(tries), desc=f"{program} killed"):
        rng = np.random.default_rng([1, i])
        with folder() as path:
            settings = {"folder": str(path)} | (histories(path, i) if program == "anneal" else {})
            intact = True
            for _ in range(rng.integers(1, 3)):
                end = run(program, (signal.SIGKILL, rng.uniform(0, seconds)), **settings)
                seen["kills"] += end.kind == "died"
                seen["of them after a first checkpoint"] += end.kind == "died" and (path / "run").exists()
                seen["too late"] += end.kind == "returned"
                intact &= readable(path / "run")
            final = run(program, **settings)
            fine = intact and equal(final, references[i % len(references)])
            survived += fine
            seen["temporary files left behind by kills"] += len(leftovers(path))
            if not fine:
                seen[f"lost: {final.text if intact else 'checkpoint damaged'}"] += 1
    return Row(tries, survived, counts(seen))


def killed_at_operations(tries: int) -> Row:
    """SIGKILL before the n-th operation on files, for the first n and then for others."""
    seen, survived, small = Counter(), 0, {"levels": 4}
    reference = undisturbed("anneal", history="memory", **small)
    with folder() as path:
        settings = {"folder": str(path), "history": str(path / "history.zarr")} | small
        total = int(run("anneal", **settings).value["operations"])
    first = min(tries // 2, total)
    chosen = [*range(1, first + 1), *np.linspace(first + 1, total, tries - first).astype(int)]
    for operation in tqdm(chosen, desc="killed at operations"):
        with folder() as path:
            settings = {"folder": str(path), "history": str(path / "history.zarr")} | small
            end = run("anneal", die=int(operation), **settings)
            seen["kills"] += end.kind == "died"
            intact, final = readable(path / "run"), run("anneal", **settings)
            fine = intact and equal(final, reference)
            survived += fine
            seen["temporary files left behind by kills"] += len(leftovers(path))
            if not fine:
                seen[f"lost: {final.text if intact else 'checkpoint damaged'}"] += 1
    return Row(len(chosen), survived, f"operations 1 to {first} of {total}, and others; {counts(seen)}")


def interrupted(program: str, tries: int) -> Row:
    """Ctrl-C at random moments: a partial result and a warning, or KeyboardInterrupt before there is any."""
    seen, survived, slowest = Counter(), 0, 0.0
    references = [
        undisturbed(program, **({"history": "memory"} if i else {})) for i in range(1 + (program == "anneal"))
    ]
    seconds = duration(program)
    for i in tqdm(range(tries), desc=f"{program} interrupted"):
        rng = np.random.default_rng([2, i])
        with folder() as path:
            settings = {"folder": str(path)} | (histories(path, i) if program == "anneal" else {})
            moment = rng.uniform(0, seconds)
            end = run(program, (signal.SIGINT, moment), **settings)
            slowest = max(slowest, end.seconds - moment if end.kind != "returned" or end.warnings else 0.0)
            what = ending(end, path / "run")
            seen[what] += 1
            final = run(program, **settings)
            again = equal(final, references[i % len(references)])
            if not again:
                seen[f"lost when run again: {final.text}"] += 1
            survived += again and not what.startswith("lost")
    return Row(tries, survived, f"{counts(seen)}; {slowest:.1f} s at most from the signal to the end")


def ending(end: End, path: Path) -> str:
    """What an interrupted process left."""
    warned = any(category == "DiagnosticWarning" and text.startswith("interrupted") for category, text in end.warnings)
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


def progress(path: Path) -> int:
    """Levels or steps that a checkpoint has behind it."""
    arrays, config = checkpoint.read(path)
    if config["kind"] == "training":
        return int(arrays[max(arrays)])
    return len(arrays.get("stats.0", ()))


def planned(path: Path) -> int:
    """Levels or steps that its run has in all."""
    arrays, config = checkpoint.read(path)
    return config["training"]["num_steps"] if config["kind"] == "training" else len(arrays["levels"])


def consistent(found: dict[str, np.ndarray]) -> bool:
    """Whether a partial run has as many statistics, and rows of history, as levels; a density has neither."""
    rows = {len(v) for k, v in found.items() if k == "levels" or k.startswith(("stats.", "history."))}
    return len(rows) <= 1 and all(np.all(np.isfinite(v)) for k, v in found.items() if k == "samples")


# Disks


@contextlib.contextmanager
def disk(size: int) -> Iterator[tuple[Path, Callable[[str], bool]]]:
    """A disk of `size` bytes of its own and a function that mounts it anew with other options; needs root on Linux."""
    with folder() as parent:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", parent], capture_output=True)
        if mounted.returncode:
            raise PermissionError("mounting is not permitted")
        try:
            yield parent, lambda option: not subprocess.run(["mount", "-o", f"remount,{option}", parent]).returncode
        finally:
            subprocess.run(["umount", "-l", parent], check=True)


def can_mount() -> bool:
    """Whether disks can be mounted here."""
    with contextlib.suppress(PermissionError, FileNotFoundError), disk(65536):
        return True
    return False


def fill(path: Path, leave: int) -> Path:
    """Fill a disk except for some bytes."""
    filler = path / "filler"
    filler.write_bytes(bytes(max(shutil.disk_usage(path).free - leave, 0)))
    return filler


def refused(end: End, words: str = "") -> str:
    """ "" for a CheckpointError that says so, else what came instead."""
    if end.kind == "raised" and end.value["type"] == "CheckpointError" and words in end.value["text"]:
        return ""
    return end.text


def full_disk_files() -> Row:
    """`checkpoint.write` and `nd.save` over an earlier file, without space for the new one."""
    seen, survived = Counter(), 0
    jobs = {"write": ("file", {"size": 1000}, {"size": 100_000}), "save": ("density", {"width": 8}, {"width": 64})}
    for program, (name, small, large) in jobs.items():
        with full_disk() as (path, squeeze):
            assert run(program, folder=str(path), **small).kind == "returned"
            before = (path / name).read_bytes()
            limit, _ = squeeze(path, 8192)
            end = run(program, folder=str(path), **large, **limit)
            why = refused(end, "cannot write")
            fine = not why and (path / name).read_bytes() == before and readable(path / name) and not leftovers(path)
            survived += fine
            if not fine:
                seen[f"lost, {program}: {why or 'the earlier file, or a temporary one'}"] += 1
    return Row(len(jobs), survived, f"{means()}; {counts(seen) or 'earlier files intact, no temporary ones'}")


def full_disk_runs(program: str) -> Row:
    """A run whose disk fills up: the last checkpoint is kept, and once there is space the run goes on from it."""
    seen, survived = Counter(), 0
    kinds = ({}, {"history": "history.zarr"}) if program == "anneal" else ({},)
    for extra in kinds:
        reference = undisturbed(program, **({"history": "memory"} if extra else {}))
        with full_disk() as (path, squeeze):
            settings = {"folder": str(path)} | {k: str(path / v) for k, v in extra.items()}
            size = checkpoint_size(program, extra)
            limit, free = squeeze(path, int(1.4 * size))
            end = run(program, **settings, **limit)
            why = refused(end, "cannot write")
            kept = (path / "run").exists() and readable(path / "run") and not leftovers(path)
            done = progress(path / "run") if kept else 0
            free()
            final = run(program, **settings)
            fine = not why and kept and equal(final, reference)
            survived += fine
            what = f"{'with history, ' if extra else ''}stopped after {done}"
            seen[
                f"{what}, then on to the end"
                if fine
                else f"lost, {what} ({why or 'CheckpointError'}), then {final.text}"
            ] += 1
    return Row(len(kinds), survived, f"{means()}; {counts(seen)}")


def checkpoint_size(program: str, extra: dict) -> int:
    """Bytes of a run's last checkpoint."""
    with folder() as path:
        run(program, folder=str(path), **{k: str(path / v) for k, v in extra.items()})
        return (path / "run").stat().st_size


@contextlib.contextmanager
def full_disk() -> Iterator[tuple[Path, Callable]]:
    """A folder, and a function that leaves so many bytes there: (settings of programs, function that makes space)."""
    if not MOUNTS:
        with folder() as path:
            yield path, lambda path, leave: ({"file_limit": leave}, lambda: None)
        return
    with disk(4 * 2**20) as (path, _):

        def squeeze(path, leave):
            filler = fill(path, leave)
            return {}, filler.unlink

        yield path, squeeze


def means() -> str:
    """What stands for a full disk."""
    return "a disk of 4 MB" if MOUNTS else "a limit on file sizes (mounting is not permitted)"


def read_only() -> Row:
    """Everything that writes, in a folder where nothing can be written; results that are there can be read."""
    seen, survived = Counter(), 0
    jobs = {
        "write": {"size": 10}, "save": {"width": 8}, "fit": {"num_steps": 200}, "anneal": {"levels": 4},
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        if MOUNTS:
            path, remount = stack.enter_context(disk(2**20))
            assert run("save", folder=str(path), width=8).kind == "returned"
            assert remount("ro")
        else:
            path = Path("/proc")
        for program, settings in jobs.items():
            end = run(program, folder=str(path), **settings)
            why = refused(end, "cannot write")
            survived += not why
            if why:
                seen[f"lost, {program}: {why}"] += 1
        kept = not MOUNTS or readable(path / "density") and not leftovers(path)
    where = "a disk mounted read-only" if MOUNTS else "/proc (mounting is not permitted)"
    return Row(len(jobs) + 1, survived + kept, f"{where}; {counts(seen) or 'CheckpointError each time'}")


def read_only_history() -> Row:
    """History to a folder where nothing can be written."""
    with contextlib.ExitStack() as stack, folder() as own:
        path = Path("/proc")
        if MOUNTS:
            path, remount = stack.enter_context(disk(2**20))
            assert remount("ro")
        end = run("anneal", folder=str(own), history=str(path / "history.zarr"), levels=4)
    typed = end.kind == "raised" and end.value["typed"]
    return Row(1, int(typed), end.text)


def two_runs(program: str, tries: int) -> Row:
    """A second run into the file of a first one."""
    seen, survived, reference = Counter(), 0, undisturbed(program)
    for _ in range(tries):
        with folder() as path:
            first = Running(program, folder=str(path))
            while not (path / "run").exists() and first.process.is_alive():
                time.sleep(0.01)
            second = run(program, folder=str(path))
            why = refused(second, "another run is writing")
            fine = not why and equal(first.end(), reference) and not leftovers(path)
            survived += fine
            if not fine:
                seen[f"lost: {why or 'the first run'}"] += 1
    return Row(tries, survived, counts(seen) or "the second is refused, the first ends undisturbed")


# Files and energies


def damaged(count: int, batch: int = 500) -> Row:
    """Damaged files, in processes that may crash without taking the rest along."""
    tally, wrong, slowest, growth = Counter(), [], 0.0, 0.0
    for first in tqdm(range(0, count, batch), desc="damaged files"):
        with folder() as path:
            end = run("damaged_files", folder=str(path), first=first, count=min(batch, count - first))
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
    end = run("energies", quick=quick)
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
        "training killed": lambda: killed("fit", tries),
        "annealing killed": lambda: killed("anneal", tries),
        "annealing killed at an operation on files": lambda: killed_at_operations(4 if quick else 20),
        "training interrupted (Ctrl-C)": lambda: interrupted("fit", max(tries // 2, 2)),
        "annealing interrupted (Ctrl-C)": lambda: interrupted("anneal", max(tries // 2, 2)),
        "full disk, files": full_disk_files,
        "full disk, training": lambda: full_disk_runs("fit"),
        "full disk, annealing": lambda: full_disk_runs("anneal"),
        "read-only disk": read_only,
        "read-only disk, history": read_only_history,
        "two trainings into one file": lambda: two_runs("fit", 1 if quick else 3),
        "two annealed runs into one file": lambda: two_runs("anneal", 1 if quick else 3),
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
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
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
        _write(path, json.dumps(found, indent=1))
        _write(path.with_suffix(".md"), table(found))
    print(table(found))


if __name__ == "__main__":
    MOUNTS = can_mount()
    with tempfile.TemporaryDirectory(prefix="faults_cache") as cache:
        # Compiled once: what is killed is then mostly the run itself.
        os.environ |= {
            "JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1", "PYTHONPATH": str(Path(__file__).parent),
        }  # fmt: skip
        multiprocessing.set_forkserver_preload(PRELOADED)
        main()
