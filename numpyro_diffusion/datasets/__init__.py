"""Data sets: planar densities of the paper and their compositions, handwritten digits, also coloured, and cubes."""

from . import coloured_digits, cubes, digits, planar, targets

__all__ = ["coloured_digits", "cubes", "digits", "planar", "targets"]
