"""Places on disk, looked at before they are opened: a pipe that nobody feeds would be waited for, for ever.

Every file is opened by `open_regular`, and every place that is to be written is tried before the hours of work whose
result it is for. What stands in the way is told as an OSError, whose text callers put into an error of their own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path
from typing import BinaryIO

from ..checks.text import shown
from ..errors import ParameterError

KINDS = {
    stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


def checked_path(name: str, path) -> Path:
    """The argument `name` as a Path.

    Raises:
        ParameterError: if it is neither text nor a path.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise ParameterError(f"{name} must be a path, as text or pathlib.Path; got {shown(path)}.")
    if "\0" in os.fspath(path):
        raise ParameterError(f"{name} must be a path; got {shown(os.fspath(path))}, which holds a zero character.")
    return Path(path)


def what_is(path) -> str | None:
    """What a path leads to: one of `KINDS`, "a link to nothing", or None where there is nothing.

    Raises:
        OSError: if it cannot be looked at.
    """
    try:
        return KINDS.get(stat.S_IFMT(os.stat(path).st_mode), "neither file nor folder")
    except FileNotFoundError:
        return "a link to nothing" if os.path.islink(path) else None


def open_regular(path) -> BinaryIO:
    """A regular file, opened to be read in bytes.

    Raises:
        OSError: if it is none, or cannot be opened.
    """
    if (kind := what_is(path)) not in ("a file", None):
        raise OSError(errno.EINVAL, f"it must be a regular file and is {kind}")
    # Should it have been exchanged for a pipe meanwhile, opening does not wait, and reading gives what is there.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it must be a regular file and is none")
    return file


def open_lock(path) -> BinaryIO:
    """An empty regular file to lock, made if missing.

    Raises:
        OSError: if something else stands there.
    """
    if (kind := what_is(path)) not in ("a file", None):
        raise OSError(errno.EINVAL, f"{path} must be an empty file, made for locking, and is {kind}")
    # A link is not followed: what it leads to is not ours.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    file = os.fdopen(os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666), "r+b", buffering=0)
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_size:
        file.close()
        raise OSError(errno.EEXIST, f"{path} must be an empty file, made for locking, and holds something else")
    return file


def temporary_of(path: Path) -> Path:
    """A new name beside `path`, which a write takes until it is whole."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def check_replaceable(path) -> None:
    """Nothing if a file can be written at `path`, or over the one that is there: asked before the work, not after.

    Raises:
        OSError: if it leads to anything but a regular file, or its folder takes no files.
    """
    check_target(path)
    temporary = temporary_of(Path(os.path.realpath(path)))
    try:
        # Permissions, read-only disks, full ones and names too long for the system, all in one.
        with open(temporary, "xb") as file:
            file.write(b"\0")
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def check_target(path) -> None:
    """Nothing if `path` leads to a regular file or to none: a device or a pipe is not to be replaced by a file.

    Raises:
        OSError: if it leads to something else.
    """
    kind = what_is(path)
    if kind not in ("a file", "a link to nothing", None):
        number = errno.EISDIR if kind == "a folder" else errno.EINVAL
        raise OSError(number, f"it is {kind}, where a file is to be written")


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step, whatever interrupts: a reader finds the previous one or the new one. Follows links.

    Raises:
        OSError: if it cannot be written; what stood there before is intact.
    """
    check_target(path)
    path = Path(os.path.realpath(path))
    temporary = temporary_of(path)
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    # The new name is in place; syncing the folder makes it outlive a power cut, where the system can do that.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
