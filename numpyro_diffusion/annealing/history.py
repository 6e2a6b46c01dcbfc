"""What every chain did at every level: kept in memory on request, or streamed to a Zarr folder."""

from __future__ import annotations

import errno
import importlib.util
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from ..checks.text import shown
from ..disk.paths import checked_path, told, what_is
from ..errors import ParameterError, missing_library
from .advance import ChainStats

REMEDY = "Check that the folder exists, is writable and has space, or choose another one for keep_history."


class History:
    """Rows of `ChainStats`, one per level. Of several processes the first alone writes to disk.

    Args:
        where: False keeps nothing, True keeps them in memory, a path that `check_place` passed a Zarr group there.
        num_chains: Length of a row.
        num_done: Levels of an interrupted run that goes on; what a Zarr group has beyond them is dropped.
        rows: Rows of these levels, where they were kept in memory.

    Raises:
        ParameterError: if the folder belongs to something else.
        CheckpointError: if it cannot be written; so does `add`.
    """

    def __init__(self, where: bool | str | Path, num_chains: int, num_done: int = 0, rows: Iterable[ChainStats] = ()):
        self.rows, self.keeps_rows = list(rows), where is True
        self.path = None if isinstance(where, bool) or jax.process_index() > 0 else Path(where)
        self.group = None if self.path is None else _open(self.path, num_chains, num_done)

    def add(self, chains: ChainStats) -> None:
        """Keep one level."""
        if self.keeps_rows:
            self.rows.append(jax.tree.map(np.asarray, chains))
        elif self.group is not None:
            with told("cannot write", self.path, REMEDY):
                for name, values in chains._asdict().items():
                    self.group[name].append(np.asarray(values)[None])  # pyright: ignore

    def arrays(self, num_done: int):
        """Arrays [num_done, N] by name, Zarr's where they lie on disk, or None."""
        if self.group is not None:
            # An interrupt may have come between a level's row and its end.
            with told("cannot write", self.path, REMEDY):
                _cut(self.group, num_done)
            return {name: self.group[name] for name in ChainStats._fields}
        if not self.keeps_rows:
            return None
        return {k: np.stack([getattr(row, k) for row in self.rows[:num_done]]) for k in ChainStats._fields}


def check_place(where: bool | str | Path, is_new: bool) -> None:
    """Asked before the pilot: whether the history of a new run, or of one that goes on, can be kept there.

    Raises:
        MissingLibraryError: if Zarr is not installed.
        ParameterError: if a new run finds something there, or one that goes on no folder.
        CheckpointError: if a folder cannot be made there, or holds what is no file.
    """
    if isinstance(where, bool):
        return
    path = checked_path("keep_history", where)
    if importlib.util.find_spec("zarr") is None:
        raise missing_library(
            "history", f"keep_history={shown(str(path))} streams to disk by", "or keep it in memory: keep_history=True"
        )
    if jax.process_index() > 0:
        return
    with told("cannot write", path, REMEDY):
        kind = what_is(path)
        if is_new and kind is not None:
            raise ParameterError(f"{path} exists already. Choose another folder for keep_history, or remove it.")
        if kind is None:
            if not path.parent.is_dir():
                raise OSError(errno.ENOTDIR, f"the folder {path.parent} does not exist")
            with _beside(path):
                return
        if kind != "a folder":
            raise ParameterError(f"{path} holds no history of the interrupted run: it is {kind}. Start anew.")
        # Zarr opens whatever has the right name; a pipe would be waited for.
        for folder, _, names in os.walk(path):
            for name in names:
                if (kind := what_is(f"{folder}/{name}")) != "a file":
                    raise OSError(errno.EINVAL, f"{name} in it is {kind}")


def _open(path: Path, num_chains: int, num_done: int):
    import zarr  # optional, and slow to import

    with told("cannot write", path, REMEDY):
        if num_done == 0 and not path.exists():
            # Made elsewhere and moved there whole, so that a folder of that name is never half made.
            with _beside(path) as folder:
                group = zarr.open_group(f"{folder}/history", mode="w-")
                for name in ChainStats._fields:
                    # One level is one chunk: written whole, once.
                    group.create_array(name, shape=(0, num_chains), chunks=(1, num_chains), dtype="float32")
                os.rename(f"{folder}/history", path)
        try:
            group = zarr.open_group(str(path), mode="r+")
            _cut(group, num_done)
        except (FileNotFoundError, KeyError) as error:
            raise ParameterError(f"{path} holds no history of the interrupted run: {error}. Start anew.") from error
    return group


def _beside(path: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)


def _cut(group, num_done: int) -> None:
    for name in ChainStats._fields:
        rows, num_chains = group[name].shape
        if rows < num_done:
            raise ParameterError(
                f"{group.store.root} holds {rows} levels where the interrupted run had {num_done}. Start anew."
            )
        if rows > num_done:
            group[name].resize((num_done, num_chains))
