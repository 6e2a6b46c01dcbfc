"""Data sets: the planar densities of the paper with their compositions, and handwritten digits."""
