"""Networks (flax nnx) that map a preconditioned point, its log noise level and a condition to a vector."""
