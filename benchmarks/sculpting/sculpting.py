"""Compositional sculpting held against truths: total variation of cell masses, and log evidence.

    python benchmarks/sculpting/sculpting.py            # all sections, five seeds; resumes
    python benchmarks/sculpting/sculpting.py --quick    # every row once

Sections: `discs`, three overlapping discs in the plane, see `discs.py`.
"""

from __future__ import annotations

from benchmarks.sculpting import discs
from benchmarks.table import arguments, measure

if __name__ == "__main__":
    options = arguments(__doc__ or "")
    measure("sculpting_discs", options, discs.rows(options), discs.HEADER, discs.COLUMNS)
