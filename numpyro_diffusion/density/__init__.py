"""Densities at every noise level: schedules, the algebra, closed forms, users' functions, networks."""
