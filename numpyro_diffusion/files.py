"""Points and pictures on disk: .npy files read with suspicion, every file written entirely or not at all."""

from __future__ import annotations

import contextlib
import glob
import io
import os
from pathlib import Path

import numpy as np

from . import checkpoint
from .errors import CheckpointError, ParameterError, ShapeError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

NPY_MAGIC = b"\x93NUMPY"


def read_array(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an .npy file; nothing is unpickled, and no more memory is taken than the file is long.

    Raises:
        ParameterError: if the file is missing, or is not a whole .npy file of numbers.
        ShapeError: if it holds anything but real numbers.
    """
    where, remedy = os.fspath(path), "Write it with numpy.save(path, array)."
    try:
        with open(path, "rb") as file:
            magic = file.read(len(NPY_MAGIC))
        if magic != NPY_MAGIC:
            raise ParameterError(f"{where} is not an .npy file. {remedy}")
        # Mapping compares the size that the header claims with that of the file before anything is read.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype.kind not in "fiu":
            raise ShapeError(f"{where} must hold real numbers; got dtype {array.dtype}. {remedy}")
        return np.array(array)
    except OSError as error:
        raise ParameterError(f"cannot read {where}: {error.strerror or error}. Check the path.") from error
    except (ValueError, EOFError, SyntaxError) as error:
        if isinstance(error, ParameterError | ShapeError):
            raise
        if "object" in str(error).lower():
            raise ParameterError(
                f"{where} holds Python objects, which are never unpickled. Save a float array."
            ) from error
        raise ParameterError(f"{where} is damaged or cut short: {error}. {remedy}") from error


def check_writable(path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """The path, if a file may be written there: asked before hours of work, not after.

    Raises:
        ParameterError: if the folder does not exist, or the file does and `force` is not set.
    """
    path = Path(path)
    if path.is_dir():
        raise ParameterError(f"{path} is a folder. Name a file in it.")
    if not path.parent.is_dir():
        raise ParameterError(f"the folder {path.parent} does not exist. Create it first.")
    if path.exists() and not force:
        raise ParameterError(f"{path} exists already. Choose another name, or say --force to replace it.")
    return path


def write(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file in one step: a reader finds the previous one or the new one, whatever interrupts."""
    try:
        checkpoint._replace_file(Path(path), content)
    except OSError as error:
        raise ParameterError(f"cannot write {path}: {error.strerror or error}. Check space and permissions.") from error


def write_array(path: str | os.PathLike[str], array) -> None:
    """Write an array as .npy in one step."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=False)
    write(path, buffer.getvalue())


@contextlib.contextmanager
def sole_writer(path: str | os.PathLike[str] | None):
    """While it lasts, no other run of this package writes to `path`; None asks for nothing. A kill releases it.

    Raises:
        CheckpointError: if another run writes there, or the folder cannot be written to.
    """
    if path is None or fcntl is None:
        yield
        return
    lock = Path(f"{os.fspath(path)}.lock")
    with _locked(lock, path):
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
    try:
        while True:
            file = open(lock, "w")  # noqa: SIM115
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Its last holder may have removed it between the two.
                if lock.exists() and lock.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    return file
            except BaseException:
                file.close()
                raise
            file.close()
    except BlockingIOError as error:
        raise CheckpointError(
            f"another run is writing to {os.fspath(path)}. Wait for it, stop it, or choose another path."
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"cannot write beside {os.fspath(path)}: {error.strerror or error}. Check that the folder exists and is "
            "writable, or choose another path."
        ) from error
