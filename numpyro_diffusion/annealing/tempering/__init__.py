"""Replica exchange over noise levels: many draws from few chains, as an alternative to annealed populations."""
