"""What the demonstration has found, on disk as soon as it is found."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..disk import arrays as files
from ..errors import ParameterError

RESULTS, PICTURES = "results.json", ("compositions.png", "digits.png")


class Results:
    """What the demonstration has found so far, in a folder that holds it at every moment; threads may add to it."""

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.folder, self.lock, self.written = folder, threading.Lock(), []
        self.found: dict[str, Any] = {"settings": settings, "is_complete": False, "planar": []}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ParameterError(f"cannot make the folder {folder}: {error.strerror}. Choose another.") from error
        for name in (RESULTS, *PICTURES):
            files.check_writable(folder / name, force=True)
        # What an earlier call has left would stand beside the results of this one.
        for name in PICTURES:
            (folder / name).unlink(missing_ok=True)
        self._write()

    def _write(self):
        files.write(self.folder / RESULTS, json.dumps(plain(self.found), indent=1).encode())

    def add(self, row: dict) -> None:
        """A row of the table."""
        with self.lock:
            self.found["planar"].append(row)
            self._write()

    def update(self, **found) -> None:
        """Anything else."""
        with self.lock:
            self.found |= found
            self._write()

    def draw(self, name: str, picture: Callable[[], bytes]) -> None:
        """A picture, where there is something to draw with."""
        try:
            files.write(self.folder / name, picture())
            self.written.append(name)
        except ImportError:
            self.written.append(f"no {name} without matplotlib: pip install 'numpyro-diffusion[plots]'")


def plain(value):
    """JSON has no NaN: it becomes null."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
