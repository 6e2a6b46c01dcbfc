"""Places on disk, looked at before they are opened: a pipe that nobody feeds would be waited for, for ever.

Every file is opened by `open_regular`, and every place that is to be written is tried before the hours of work whose
result it is for. What stands in the way is an OSError, which `told` makes an error of this package.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path
from typing import IO

from ..checks.text import shown
from ..errors import CheckpointError, ParameterError

KINDS = {
    stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


def checked_path(name: str, path) -> Path:
    """The argument `name` as a Path, with ~ for the home folder, or a ParameterError."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or "\0" in text:
        raise ParameterError(
            f"{name} must be a path, as text or pathlib.Path without a zero character; got {shown(path)}."
        )
    return Path(os.path.expanduser(path))


def what_is(path) -> str | None:
    """What a path leads to: one of `KINDS`, "a link to nothing", or None where there is nothing."""
    try:
        return KINDS.get(stat.S_IFMT(os.stat(path).st_mode), "neither file nor folder")
    except FileNotFoundError:
        return "a link to nothing" if os.path.islink(path) else None


@contextlib.contextmanager
def told(doing: str, path, remedy: str, error: type[Exception] = CheckpointError):
    """What the system refuses meanwhile, as an error of this package: "cannot write" a path, why, and what to do."""
    try:
        yield
    except (OSError, MemoryError) as cause:
        why = getattr(cause, "strerror", None) or str(cause) or "it is larger than the memory that is free"
        raise error(f"{doing} {path}: {why}. {remedy}") from cause


def open_regular(path, flags=os.O_RDONLY, mode="rb", must="it must be a regular file") -> IO[bytes]:
    """A regular file, opened in bytes; nothing else is."""
    if (kind := what_is(path)) not in ("a file", None):
        raise OSError(errno.EINVAL, f"{must} and is {kind}")
    # Should it have been exchanged for a pipe meanwhile, opening does not wait, and reading gives what is there.
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    file = os.fdopen(os.open(path, flags, 0o666), mode)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, f"{must} and is none")
    return file


def open_lock(path) -> IO[bytes]:
    """An empty regular file to lock, made if missing; refused if something else stands there."""
    must = f"{path} must be an empty file, made for locking,"
    # A link is not followed: what it leads to is not ours.
    file = open_regular(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), "r+b", must)
    if os.fstat(file.fileno()).st_size:
        file.close()
        raise OSError(errno.EEXIST, f"{must} and holds something else")
    return file


@contextlib.contextmanager
def _temporary(path: Path):
    """A new name beside `path`, which a write takes until it is whole; no file has it afterwards."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def check_replaceable(path) -> None:
    """Nothing if a file can be written at `path`, or over the one that is there: asked before the work, not after."""
    # Permissions, read-only disks, full ones and names too long for the system, all in one.
    with _temporary(_target(path)) as temporary, open(temporary, "xb") as file:
        file.write(b"\0")


def _target(path) -> Path:
    """The regular file, or none, that `path` leads to: a device or a pipe is not to be replaced by a file."""
    kind = what_is(path)
    if kind not in ("a file", "a link to nothing", None):
        number = errno.EISDIR if kind == "a folder" else errno.EINVAL
        raise OSError(number, f"it is {kind}, where a file is to be written")
    return Path(os.path.realpath(path))


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step, whatever interrupts: a reader finds the previous one or the new one. Follows links."""
    path = _target(path)
    with _temporary(path) as temporary:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    # The new name is in place; syncing the folder makes it outlive a power cut, where the system can do that.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
