"""Networks (flax nnx) that map a preconditioned point, its log noise level and a condition to a vector."""

from .mlp import ResidualMLP

__all__ = ["ResidualMLP"]
