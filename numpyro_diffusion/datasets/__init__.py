"""Data sets: planar densities and compositions, discs, handwritten digits, coloured ones, cubes, captioned scenes."""

from . import captioned_scenes, circles, coloured_digits, cubes, digits, planar, targets

__all__ = ["captioned_scenes", "circles", "coloured_digits", "cubes", "digits", "planar", "targets"]
