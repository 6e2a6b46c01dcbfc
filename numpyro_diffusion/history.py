"""What every chain did at every level: kept in memory on request, or streamed to a Zarr folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from .errors import ParameterError
from .population import ChainStats


class History:
    """Rows of `ChainStats`, one per level.

    Args:
        where: False keeps nothing, True keeps them in memory, a path streams them to a Zarr group there.
        num_chains: Length of a row.
        num_done: Levels of an interrupted run that goes on, None for a new one; what a Zarr group has beyond them is
            dropped.
        rows: Rows of these levels, where they were kept in memory.

    Raises:
        ParameterError: if Zarr is asked for and not installed, or the folder exists and belongs to something else.
    """

    def __init__(
        self, where: bool | str | Path, num_chains: int, num_done: int | None = None, rows: Iterable[ChainStats] = ()
    ):
        self.rows = list(rows)
        self.keeps_rows, self.group = where is True, None
        if not isinstance(where, bool):
            self.group = _open(Path(where), num_chains, num_done)

    def add(self, chains: ChainStats) -> None:
        """Keep one level."""
        if self.keeps_rows:
            self.rows.append(jax.tree.map(np.asarray, chains))
        elif self.group is not None and jax.process_index() == 0:
            for name, values in chains._asdict().items():
                self.group[name].append(np.asarray(values)[None])  # pyright: ignore

    def arrays(self):
        """Arrays [K, N] by name, Zarr's where they lie on disk, or None."""
        if self.group is not None:
            return {name: self.group[name] for name in ChainStats._fields}
        if not self.rows:
            return None
        return {k: np.stack([getattr(row, k) for row in self.rows]) for k in ChainStats._fields}


def _open(path: Path, num_chains: int, num_done: int | None):
    try:
        import zarr
    except ImportError as error:
        raise ParameterError(
            f"keep_history={str(path)!r} streams to Zarr, which is not installed. pip install zarr, or keep it in "
            "memory with keep_history=True."
        ) from error
    if jax.process_index() > 0:
        return None
    if num_done is None and path.exists():
        raise ParameterError(f"{path} exists already. Choose another folder for keep_history, or remove it.")
    num_done = num_done or 0
    if num_done == 0 and not path.exists():
        group = zarr.open_group(str(path), mode="w-")
        for name in ChainStats._fields:
            # One level is one chunk: written whole, once.
            group.create_array(name, shape=(0, num_chains), chunks=(1, num_chains), dtype="float32")
        return group
    try:
        group = zarr.open_group(str(path), mode="r+")
        for name in ChainStats._fields:
            rows = group[name].shape[0]  # pyright: ignore
            if rows < num_done:
                raise ParameterError(
                    f"{path} holds {rows} levels where the interrupted run had {num_done}. Start anew."
                )
            group[name].resize((num_done, num_chains))  # pyright: ignore
    except (FileNotFoundError, KeyError) as error:
        raise ParameterError(f"{path} holds no history of the interrupted run: {error}. Start anew.") from error
    return group
