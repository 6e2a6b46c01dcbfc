"""Normalisers and mode weights of the pretrained planar densities, calibrated against uncalibrated.

    python benchmarks/posteriors/calibration.py [--quick]

Z(t) by quadrature at each level (sixteen; six with --quick), for the shipped weights. The uncalibrated energies of the paper have no
normaliser: what is shown for them is max Z / min Z over the levels, and the weights of their isolated modes.
"""

from __future__ import annotations

import numpy as np

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure
from numpyro_diffusion.datasets import planar

COLUMNS = [
    "largest abs(Z - 1)",
    "log10 max Z / min Z",
    "mode weight error",
    "least mode",
    "greatest mode",
    "levels",
    "seconds",
]
HEADER = """# Calibration of the pretrained planar densities

`python benchmarks/posteriors/calibration.py`. Z by quadrature; mode weights at levels whose noise is below an eighth of the least distance between modes (above, neighbours leak into each other); their error is the largest deviation from the truth
(1/8 for the ring, 1/3 for the columns). Training seed and settings stand in each density's card.
"""


def row(name: str, quick: bool):
    """Function of the (unused) seed that measures one density."""

    def compute(seed: int) -> dict:
        density = nd.load_pretrained(name)
        base = name.removesuffix("_paper")
        levels = density.schedule.levels(6 if quick else 16, smallest=0.004)
        report = nd.calibration_report(density, levels=levels, modes=planar.MODES.get(base))
        figures = {"log10 max Z / min Z": np.ptp(report.log_z) / np.log(10), "levels": len(levels)}
        if density.is_calibrated:
            figures["largest abs(Z - 1)"] = report.drift
        if report.mode_weights is not None:
            figures |= {
                "mode weight error": report.mode_weight_error(),
                "least mode": np.nanmin(report.mode_weights),
                "greatest mode": np.nanmax(report.mode_weights),
            }
        return figures

    return compute


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=1)
    rows = [(name + suffix, row(name + suffix, options.quick)) for name in planar.NAMES for suffix in ("", "_paper")]
    measure("calibration", options, rows, HEADER, COLUMNS)
