"""Nested dicts, lists and tuples of weights as JSON, so that a file can give them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.core
import jax
import jax.numpy as jnp
import numpy as np

from ..checks.text import shown
from ..errors import ParameterError


def structure_of(tree: Any) -> dict | None:
    """The structure of a pytree of dicts, lists, tuples, arrays and None; None for other pytrees."""
    if tree is None:
        return {"none": None}
    if isinstance(tree, dict | flax.core.FrozenDict):
        parts = {key: structure_of(value) for key, value in tree.items()}
        fine = all(isinstance(key, str) for key in parts) and None not in parts.values()
        return {"dict": parts} if fine else None
    if type(tree) in (list, tuple):
        parts = [structure_of(value) for value in tree]
        return None if None in parts else {type(tree).__name__: parts}
    return {"array": jnp.asarray(tree).dtype.name} if jax.tree_util.all_leaves([tree]) else None


def rebuilt(structure: Any, arrays: Mapping[str, np.ndarray], name: str = "state") -> Any:
    """The pytree of a structure, from arrays named by `contents.named_leaves`."""
    if structure is None:
        raise ParameterError("its weights are no nested dicts, lists and tuples: give parameters= of their form")
    match structure:
        case {"none": None}:
            return None
        case {"array": str(dtype)}:
            return arrays[name].astype(jnp.dtype(dtype))
        case {"dict": dict(parts)}:
            return {key: rebuilt(part, arrays, f"{name}[{key!r}]") for key, part in parts.items()}
        case {"list": list(parts)} | {"tuple": list(parts)}:
            values = [rebuilt(part, arrays, f"{name}[{i}]") for i, part in enumerate(parts)]
            return values if "list" in structure else tuple(values)
    raise ParameterError(f"{shown(structure)} is no structure of weights")
