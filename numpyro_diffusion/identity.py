"""What a result depends on, as digests by name: how a checkpoint knows the run that it belongs to."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from typing import Any

import jax

from .errors import CheckpointError
from .program import Program, array_digest


def fingerprint(tree) -> str:
    """Digest of all arrays and programs in a pytree: types, shapes, contents; random keys too.

    Raises:
        CheckpointError: for a program that calls back into Python, which no other process can compare.
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, Program) and not leaf.is_portable:
            raise CheckpointError(
                "a checkpoint must know what a run computes, and a host callback (jax.pure_callback, io_callback, "
                "debug.print) hides that. Leave out checkpoint_path, or write the function in JAX."
            )
        digest.update((leaf.digest if isinstance(leaf, Program) else array_digest(leaf)).encode())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of this package and of JAX, which decide how a run goes on bit for bit."""
    package = sys.modules[__name__.partition(".")[0]]
    return {"version of numpyro_diffusion": package.__version__, "version of jax": jax.__version__}


def check_same(path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise CheckpointError, naming what differs, unless a file belongs to this run."""
    different = [name for name in wanted if found.get(name) != wanted[name]]
    if different:
        raise CheckpointError(
            f"{path} belongs to a run with other {', '.join(different)}. Repeat that run as it was, or choose another "
            "checkpoint_path."
        )
