"""Diffusion priors in NumPyro models: the only part of the package that knows NumPyro's inference."""
