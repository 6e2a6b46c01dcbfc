r"""Metropolis ratios of densities that are known by their scores: line integrals in place of log densities.

.. math:: \log p(x') - \log p(x) \approx \sum_k w_k \, s(x + u_k (x' - x)) \cdot (x' - x)

Any path between both ends of a step serves, if the score s is a gradient: the line is the shortest, and Gauss and
Lobatto's quadrature reuses the scores at its ends. It is antisymmetric in x and x', so steps are reversible. The points
of a leapfrog trajectory would cost no scores, but at the steps that tuning finds they see as little of the density as
the leapfrog does: the trapezoidal rule through them is off by .3 to .5 nats where that is off by as much, and accepts
nearly everything, as do polynomials; five nodes of the line are off by .03 to .2, which shows in the weights of modes,
nine by a third of that.

A chain's `logdensity` is then known up to a constant, which every level finds anew (`level.Level.gain`).

Source: Sjoberg et al. (2023), arXiv:2307.14012.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from blackjax.mcmc import trajectory

from ...density.path import line_integral
from ...errors import check_integer


def check_nodes(num_nodes: Any) -> int | None:
    """A number of nodes from 2 to 20, or None; ParameterError for anything else."""
    remedy = "More of them are more exact; leave it out for a usual number."
    return None if num_nodes is None else check_integer("num_nodes", num_nodes, 2, 20, remedy)


def gained(logdensity_fn: Callable, start, end, num_nodes: int) -> jax.Array:
    """log p(end) - log p(start) of two states with `position` and `logdensity_grad`, along the line between them."""
    ends = start.logdensity_grad, end.logdensity_grad
    return line_integral(jax.grad(logdensity_fn), start.position, end.position, ends, num_nodes)


def by_score(integrator: Callable, num_steps: int, logdensity_fn: Callable, num_nodes: int) -> Callable:
    """An integrator of BlackJAX that takes `num_steps` steps at once, and knows what `logdensity` gains by them."""
    integrate = trajectory.static_integration(integrator)

    def one_step(state, step_size):
        end = integrate(state, step_size, num_steps)
        return end._replace(logdensity=state.logdensity + gained(logdensity_fn, state, end, num_nodes))

    return one_step
