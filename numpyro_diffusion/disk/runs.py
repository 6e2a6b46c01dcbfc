"""Long runs and their files: one writer for each, a state that is kept as it goes, and Ctrl-C that lets a step end."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import CheckpointError, check_number
from . import checkpoint
from .paths import check_replaceable, checked_path, open_lock, told

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None


class Keeper:
    """Writes a run's state to a file every so often, and reads it back.

    Where several processes run together, all call `keep` and the first alone writes.

    Args:
        path: File, or None to keep nothing; hold it by `sole_writer`.
        identity: Settings and inputs of the run, and its "kind"; a file of another run is refused.
        every_seconds: The most work a kill can lose.
    """

    def __init__(self, path: str | os.PathLike[str] | None, identity: Mapping[str, Any], every_seconds: float):
        self.path = None if path is None else checked_path("checkpoint_path", path)
        self.identity, self.saved = checkpoint.plain(identity), time.monotonic()
        self.every = check_number("checkpoint_every_seconds", every_seconds, 0.0, remedy="A minute is usual: 60.")

    def load[T](self, make: Callable[[dict[str, np.ndarray], dict[str, Any]], T]) -> T | None:
        """What `make(arrays, facts)` makes of the file's state, or None where there is no file.

        Raises:
            CheckpointError: if the file is damaged or belongs to another run, or `make` raises what is raised by
                arrays and facts of another state: KeyError, TypeError, ValueError, IndexError.
        """
        if self.path is None or not self.path.exists():
            return None

        def made(arrays, config):
            if different := [name for name, value in self.identity.items() if config.get(name) != value]:
                raise CheckpointError(
                    f"{self.path} belongs to a run with other {', '.join(different)}. Repeat that run as it was, or "
                    "choose another checkpoint_path."
                )
            return make({k: a.view(jnp.dtype(config["dtypes"][k])) for k, a in arrays.items()}, config["facts"])

        return checkpoint.load(self.path, self.identity["kind"], made, "a run", "Choose another checkpoint_path.")

    @property
    def is_due(self) -> bool:
        """Whether it is time to write, by this process's clock."""
        return self.path is not None and time.monotonic() - self.saved > self.every

    def keep(self, packed: Callable[..., tuple[Mapping, Mapping]], *state: Any, now: bool = False) -> None:
        """Write `packed(*state)`, arrays by name and facts that JSON can hold, if it is time to, or `now`."""
        if self.path is None or not (now or self.is_due):
            return
        found, facts = packed(*state)
        if jax.process_index() == 0:
            arrays = {k: np.asarray(a) for k, a in found.items()}
            # Floats as the integers of their bits: weights may be infinite.
            bits = {k: a.view(f"u{a.dtype.itemsize}") if a.dtype.kind == "f" else a for k, a in arrays.items()}
            dtypes = {k: a.dtype.name for k, a in arrays.items()}
            checkpoint.write(self.path, bits, self.identity | {"dtypes": dtypes, "facts": dict(facts)})
        self.saved = time.monotonic()


@contextlib.contextmanager
def sole_writer(path: str | os.PathLike[str] | None):
    """While it lasts, no other run of this package writes to `path`; None asks for nothing. A kill releases it.

    Of several processes that run together the first alone writes, and asks.

    Raises:
        ParameterError: if it is no path.
        CheckpointError: if another run writes there, if it leads to anything but a file, or if its folder cannot be
            written to.
    """
    if path is None or jax.process_index() != 0:
        yield
        return
    path = checked_path("checkpoint_path", path)
    lock = path.with_name(f"{path.name}.lock")
    with told("cannot write beside", path, "Check that the folder exists and is writable, or choose another path."):
        check_replaceable(path)
        held = None if fcntl is None else _locked(lock, path)
    if held is None:
        yield
        return
    with held:
        # What writes that were killed have left: nobody else is writing now.
        where = Path(os.path.realpath(path))
        for stale in where.parent.glob(f".{glob.escape(where.name)}.*.tmp"):
            with contextlib.suppress(OSError):
                stale.unlink()
        try:
            yield
        finally:
            # Removed while still held: whoever comes afterwards makes a new one.
            with contextlib.suppress(OSError):
                lock.unlink()


def _locked(lock: Path, path):
    """The open lock file, held; it is released when closed."""
    assert fcntl is not None
    while True:
        file = open_lock(lock)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed it between the two.
            if lock.exists() and lock.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        except BaseException as error:
            file.close()
            if isinstance(error, BlockingIOError):
                raise CheckpointError(
                    f"another run is writing to {path}. Wait for it, stop it, or choose another path."
                ) from error
            raise
        file.close()


class Interrupt:
    """While it lasts, the first Ctrl-C only sets `asked`; a second one raises KeyboardInterrupt as usual.

    It lets the step in hand end, whose inputs may be gone already and whose results are not there yet. Outside the main
    thread, where Python allows no handlers, and where SIGINT has one of another kind, nothing changes.
    """

    asked = False

    def __enter__(self):
        is_main = threading.current_thread() is threading.main_thread()
        self._is_ours = is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._is_ours:
            signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_):
        if self._is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
