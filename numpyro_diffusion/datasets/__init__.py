"""Data sets: planar densities with their compositions, overlapping discs, handwritten digits, coloured ones, cubes."""

from . import circles, coloured_digits, cubes, digits, planar, targets

__all__ = ["circles", "coloured_digits", "cubes", "digits", "planar", "targets"]
