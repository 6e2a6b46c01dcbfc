"""Classes as pytrees: fields that are data, and fields that are static."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import jax


class Label:
    """A name that rides along as static data without making two pytrees differ: a new name compiles nothing anew."""

    def __init__(self, text: str | None):
        self.text = text

    def __eq__(self, other):
        return isinstance(other, Label)

    def __hash__(self):
        return 0


def register(data: Sequence[str], static: Sequence[str], before: Callable[[Any], Any] | None = None):
    """Class decorator: a pytree with the fields `data` as children and `static` as auxiliary data, in that order.

    `before` makes of an object what is flattened in its place.
    """

    def decorate(cls):
        def flatten(self):
            self = self if before is None else before(self)
            aux = (getattr(self, f) for f in static)
            aux = tuple(Label(value) if f == "name" else value for f, value in zip(static, aux, strict=True))
            return tuple(getattr(self, f) for f in data), aux

        def flatten_with_keys(self):
            children, aux = flatten(self)
            return tuple((jax.tree_util.GetAttrKey(f), c) for f, c in zip(data, children, strict=True)), aux

        def unflatten(aux, children):
            # Not through __init__: inside transformations the children need not be arrays at all.
            self = object.__new__(cls)
            for f, value in (*zip(data, children, strict=True), *zip(static, aux, strict=True)):
                object.__setattr__(self, f, value.text if f == "name" else value)
            return self

        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
        return cls

    return decorate


def replace[T](obj: T, **fields: Any) -> T:
    """A copy of an object with some of its fields changed, as `dataclasses.replace`, but not through `__init__`.

    Raises:
        AttributeError: for a field that the object does not have.
    """
    new = copy.copy(obj)
    for name, value in fields.items():
        getattr(obj, name)
        object.__setattr__(new, name, value)
    return new
