"""What is known of a formula by its leaves alone, where some of them are score-only models."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..checks.numbers import is_traced
from .abstract import AbstractDensity
from .formula import Leaf, Node
from .probability_flow import FlowLogProb


class Composed(AbstractDensity):
    """The part of an `Expression` that concerns log densities which its leaves do not have at a point."""

    formula: Node

    @abc.abstractmethod
    def leaf(self, leaf: Leaf) -> AbstractDensity: ...
    @abc.abstractmethod
    def of_leaves(self, call: Callable) -> dict[Leaf, Any]: ...
    @abc.abstractmethod
    def value(self, log_densities: dict[Leaf, Any]) -> jax.Array: ...

    @property
    def has_increments(self):
        mixed = [self.leaf(leaf) for node in self.formula.sums for leaf in node.leaves]
        return all(leaf.has_increments for leaf in self.of_formula()) and all(leaf.has_log_density for leaf in mixed)

    def of_formula(self) -> Sequence[AbstractDensity]:
        """The distinct leaves as densities."""
        return [self.leaf(leaf) for leaf in self.formula.leaves]

    @property
    def resolution(self):
        known = [leaf.resolution for leaf in self.of_formula()]
        return jnp.min(jnp.stack([jnp.asarray(r) for r in known])) if is_traced(known) else min(known)

    def increment(self, rng_key, start, end):
        def ends(density):
            # What is known up to a constant starts from zero: outside of mixtures constants drop out.
            if density.has_log_density:
                return density.log_density(*start), density.log_density(*end)
            return jnp.zeros(()), density.increment(rng_key, start, end)

        both = self.of_leaves(ends)
        first, last = ({leaf: pair[i] for leaf, pair in both.items()} for i in (0, 1))
        return self.value(last) - self.value(first)

    def _computed(self, x, t):
        if self.has_increments:
            return self.log_density(x, t)
        return sum(self.of_leaves(lambda density: density._computed(x, t)).values())

    def first_log_density(self, x):
        return self.value({leaf: self.leaf(leaf).first_log_density(x) for leaf in self.formula.leaves})

    def _flow_log_density(self, rng_key, x, t, num_probes):
        found = self.of_leaves(lambda density: density._flow_log_density(rng_key, x, t, num_probes))
        values, errors = (jnp.stack(column) for column in zip(*found.values(), strict=True))
        value, slopes = jax.value_and_grad(lambda values: self.value(dict(zip(found, values, strict=True))))(values)
        return FlowLogProb(value, jnp.sqrt(jnp.sum((slopes * errors) ** 2)))
