"""Data sets: the planar densities of the paper with their compositions, and handwritten digits."""

from . import digits, planar, targets

__all__ = ["digits", "planar", "targets"]
