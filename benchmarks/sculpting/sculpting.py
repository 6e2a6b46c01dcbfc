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
    if missing := digits.missing():
        print(f"Coloured digits are left out: {', '.join(missing)} have not been trained.")
    else:
        measure("sculpting_digits", options, digits.rows(options.quick), digits.HEADER, digits.COLUMNS)
