"""Generative flow networks: environments, flows as densities over terminal states, their compositions, and samples."""
