"""Compositional sculpting held against truths: total variation of cell masses, and log evidence.

    python benchmarks/sculpting/sculpting.py            # five seeds; resumes
    python benchmarks/sculpting/sculpting.py --quick    # every row once
    python benchmarks/sculpting/sculpting.py --only alpha

Three overlapping discs in the plane, see `discs.py`, then coloured digits, see `digits.py`, whose densities
`benchmarks/train/coloured_digits.py` trains: energies, and with `--model score` score models.
"""

from __future__ import annotations

from benchmarks.sculpting import digits, discs
from benchmarks.table import arguments, measure

if __name__ == "__main__":
    options = arguments(__doc__ or "")
    measure("sculpting_discs", options, discs.rows(), discs.HEADER, discs.COLUMNS)
    if rows := list(digits.rows(options.quick)):
        measure("sculpting_digits", options, rows, digits.HEADER, digits.COLUMNS)
