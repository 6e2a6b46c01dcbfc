"""Data sets: the planar densities of the paper with their compositions, handwritten digits, and cubes."""

from . import cubes, digits, planar, targets

__all__ = ["cubes", "digits", "planar", "targets"]
