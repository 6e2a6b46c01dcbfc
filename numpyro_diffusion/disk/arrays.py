"""Points and pictures on disk: .npy and .csv files read with suspicion, every file written entirely or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from ..errors import ParameterError, ShapeError
from .paths import check_replaceable, checked_path, open_regular, replace_file, told, what_is

NPY_MAGIC = b"\x93NUMPY"


def read_array(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an .npy file; nothing is unpickled, and no more memory is taken than the file is long.

    Of a .csv file, rows of numbers between commas with or without a line of names, an array [n, columns].

    Raises:
        ParameterError: if the file is missing, or is not a whole .npy file of numbers, or not a table of them.
        ShapeError: if it holds anything but real numbers.
    """
    path, remedy = checked_path("path", path), "Write it with numpy.save(path, array), of floats."
    if path.suffix.lower() == ".csv":
        return _read_table(path)
    with told("cannot read", path, "Check the path, and that the array fits into memory.", ParameterError):
        with open_regular(path) as file:
            # Some files of the system call themselves empty and wait when they are read.
            magic = file.read(len(NPY_MAGIC)) if os.fstat(file.fileno()).st_size else b""
        if magic != NPY_MAGIC:
            raise ParameterError(f"{path} is not an .npy file. {remedy}")
        try:
            # Mapping compares the size that the header claims with that of the file before anything is read.
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, SyntaxError) as error:
            why = f"is damaged or cut short, or holds Python objects, which are never unpickled: {error}".rstrip(".")
            raise ParameterError(f"{path} {why}. {remedy}") from error
        if mapped.dtype.kind not in "fiu":
            raise ShapeError(f"{path} must hold real numbers; got dtype {mapped.dtype}. {remedy}")
        return np.array(mapped)


def _read_table(path: Path) -> np.ndarray:
    fits = "Check the path, and that the table fits into memory."
    with told("cannot read", path, fits, ParameterError), open_regular(path) as file:
        lines = file.read().decode("utf-8-sig", errors="replace").splitlines()
    rows = [(number, line.split(",")) for number, line in enumerate(lines, 1) if line.strip()]
    if rows and not any(_is_number(cell) for cell in rows[0][1]):
        names = rows.pop(0)[1]
        if len(names) > 1 and not names[0].strip(' "'):
            raise ParameterError(
                f"the first column of {path} has no name, as the numbers of rows have none. Write the table without "
                "them, as by frame.to_csv(path, index=False), or give the column a name."
            )
    if not rows:
        raise ParameterError(f"{path} has no rows of numbers.")
    width = len(rows[0][1])
    for number, cells in rows:
        if len(cells) != width:
            raise ParameterError(f"line {number} of {path} has {len(cells)} cells, others {width}. Complete the row.")
        if wrong := [cell for cell in cells if not _is_number(cell)]:
            raise ShapeError(
                f"line {number} of {path} has {wrong[0].strip()!r} where a number must be. Leave out rows with missing "
                "values, and columns of names and texts."
            )
    return np.array([cells for _, cells in rows], dtype=np.float64)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def check_writable(path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """The path, if a file may be written there: asked before hours of work, not after.

    Raises:
        ParameterError: if the folder does not exist or cannot be written to, if the path leads to anything but a file,
            or if there is a file and `force` is not set.
    """
    path = checked_path("output", path)
    with told("cannot write", path, "Choose another place.", ParameterError):
        kind, folder = what_is(path), Path(os.path.realpath(path)).parent
        if kind == "a folder":
            raise ParameterError(f"{path} is a folder. Name a file in it.")
        if kind is None and not folder.is_dir():
            raise ParameterError(f"the folder {folder} does not exist. Create it first.")
        if kind == "a file" and not force:
            raise ParameterError(f"{path} exists already. Choose another name, or say --force to replace it.")
        check_replaceable(path)
    return path


def check_apart(**paths) -> None:
    """Raise ParameterError where two options name one file, which the one would overwrite for the other."""
    seen: dict[str, str] = {}
    for option, path in paths.items():
        if path is not None and (first := seen.setdefault(os.path.realpath(path), option)) != option:
            raise ParameterError(f"--{first} and --{option} name one file, {path}. Choose another.")


def write(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file in one step: a reader finds the previous one or the new one, whatever interrupts."""
    path = checked_path("output", path)
    with told("cannot write", path, "Check space and permissions.", ParameterError):
        replace_file(path, content)


def write_array(path: str | os.PathLike[str], array) -> None:
    """Write an array as .npy in one step."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=False)
    write(path, buffer.getvalue())
