"""Data sets: the planar densities of the paper with their compositions, handwritten digits, cubes, captioned scenes."""

from . import captioned_scenes, cubes, digits, planar, targets

__all__ = ["captioned_scenes", "cubes", "digits", "planar", "targets"]
