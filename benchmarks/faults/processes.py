"""Programs in processes of their own, which may be killed, and what became of them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.faults import programs
from numpyro_diffusion.disk import checkpoint
from numpyro_diffusion.errors import CheckpointError

PATIENCE = 120.0  # seconds without a sign of life after which a process counts as hanging


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
    """A program (a function of a module) in a process of its own."""

    def __init__(self, program: Callable, /, **arguments: Any):
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


def run(program: Callable, stop: tuple[int, float] | None = None, /, **arguments: Any) -> End:
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


def undisturbed(program: Callable, /, **arguments: Any) -> End:
    """A run that nothing happens to, compiled programs read from the cache; twice, as it must repeat itself."""
    first, second = run(program, **arguments), run(program, **arguments)
    assert equal(second, first), f"{program.__name__} does not repeat itself: {first.text}, {second.text}"
    return second


def duration(program: Callable) -> float:
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
