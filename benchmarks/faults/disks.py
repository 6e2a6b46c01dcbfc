"""Disks that are full or cannot be written, and two runs that write one file."""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.faults import programs
from benchmarks.faults.processes import (
    End,
    Row,
    Running,
    counts,
    equal,
    folder,
    leftovers,
    progress,
    readable,
    run,
    undisturbed,
)  # fmt: skip


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


@functools.cache
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
    jobs = {
        programs.write: ("file", {"size": 1000}, {"size": 100_000}),
        programs.save: ("density", {"width": 8}, {"width": 64}),
    }
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
                seen[f"lost, {program.__name__}: {why or 'the earlier file, or a temporary one'}"] += 1
    return Row(len(jobs), survived, f"{means()}; {counts(seen) or 'earlier files intact, no temporary ones'}")


def full_disk_runs(program: Callable) -> Row:
    """A run whose disk fills up: the last checkpoint is kept, and once there is space the run goes on from it."""
    seen, survived = Counter(), 0
    kinds = ({}, {"history": "history.zarr"}) if program is programs.anneal else ({},)
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


def checkpoint_size(program: Callable, extra: dict) -> int:
    """Bytes of a run's last checkpoint."""
    with folder() as path:
        run(program, folder=str(path), **{k: str(path / v) for k, v in extra.items()})
        return (path / "run").stat().st_size


@contextlib.contextmanager
def full_disk() -> Iterator[tuple[Path, Callable]]:
    """A folder, and a function that leaves so many bytes there: (settings of programs, function that makes space)."""
    if not can_mount():
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
    return "a disk of 4 MB" if can_mount() else "a limit on file sizes (mounting is not permitted)"


def read_only() -> Row:
    """Everything that writes, in a folder where nothing can be written; results that are there can be read."""
    seen, survived = Counter(), 0
    jobs = {
        programs.write: {"size": 10}, programs.save: {"width": 8}, programs.fit: {"num_steps": 200},
        programs.anneal: {"levels": 4},
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        if can_mount():
            path, remount = stack.enter_context(disk(2**20))
            assert run(programs.save, folder=str(path), width=8).kind == "returned"
            assert remount("ro")
        else:
            path = Path("/proc")
        for program, settings in jobs.items():
            end = run(program, folder=str(path), **settings)
            why = refused(end, "cannot write")
            survived += not why
            if why:
                seen[f"lost, {program.__name__}: {why}"] += 1
        kept = not can_mount() or readable(path / "density") and not leftovers(path)
    where = "a disk mounted read-only" if can_mount() else "/proc (mounting is not permitted)"
    return Row(len(jobs) + 1, survived + kept, f"{where}; {counts(seen) or 'CheckpointError each time'}")


def read_only_history() -> Row:
    """History to a folder where nothing can be written."""
    with contextlib.ExitStack() as stack, folder() as own:
        path = Path("/proc")
        if can_mount():
            path, remount = stack.enter_context(disk(2**20))
            assert remount("ro")
        end = run(programs.anneal, folder=str(own), history=str(path / "history.zarr"), levels=4)
    typed = end.kind == "raised" and end.value["typed"]
    return Row(1, int(typed), end.text)


def two_runs(program: Callable, tries: int) -> Row:
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
