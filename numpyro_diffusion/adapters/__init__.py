"""Trained networks from elsewhere as densities."""
