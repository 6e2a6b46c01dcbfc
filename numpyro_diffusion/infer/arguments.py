"""A model's arguments, split into what a compiled program traces and what it is compiled for."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class _Static:
    """A value that is part of a program's identity; arrays compare by content."""

    def __init__(self, value: Any):
        self.value = value

    def _key(self):
        if isinstance(self.value, np.ndarray | jax.Array):
            array = np.asarray(self.value)
            return (array.shape, array.dtype.str, array.tobytes())
        return self.value

    def __eq__(self, other):
        return isinstance(other, _Static) and bool(self._key() == other._key())

    def __hash__(self):
        try:
            return hash(self._key())
        except TypeError:
            return hash(type(self.value))


class Arguments:
    """Positional and keyword arguments of a model.

    Arrays of floating-point numbers are traced: a new data set of the same shape compiles nothing anew. All else,
    numbers, masks, indices, None, is static, so that models may branch on it and index with it.
    """

    def __init__(self, args: tuple, kwargs: dict[str, Any]):
        leaves, self.treedef = jax.tree.flatten((args, kwargs))
        floating = [
            isinstance(a, np.ndarray | jax.Array) and jnp.issubdtype(jnp.asarray(a).dtype, jnp.floating) for a in leaves
        ]
        self.traced = [jnp.asarray(a) if f else None for a, f in zip(leaves, floating, strict=True)]
        self.static = tuple(None if f else _Static(a) for a, f in zip(leaves, floating, strict=True))

    def call(self) -> tuple[tuple, dict[str, Any]]:
        """(args, kwargs) as the model takes them."""
        leaves = [a if s is None else s.value for a, s in zip(self.traced, self.static, strict=True)]
        return jax.tree.unflatten(self.treedef, leaves)


def _flatten(arguments):
    return (arguments.traced,), (arguments.treedef, arguments.static)


def _unflatten(aux, children):
    self = object.__new__(Arguments)
    (self.traced,), (self.treedef, self.static) = children, aux
    return self


jax.tree_util.register_pytree_node(Arguments, _flatten, _unflatten)
