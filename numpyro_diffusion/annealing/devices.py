"""Chains over the devices of a mesh: which arrays every device holds, and of which it has a share.

Positions, momenta and gradients are shared out by chain. Weights and ancestors, a number per chain, are held by every
device, which therefore sums them in the same order however many there are, and resamples alike. Between levels devices
exchange these numbers and the chains that resampling moves; within a level they exchange nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ..errors import ArgumentTypeError, ParameterError


def checked_mesh(mesh, num_chains: int) -> Mesh | None:
    """The mesh with automatic axes; TypeError if it is none, ParameterError if it cannot share chains equally."""
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh):
        raise ArgumentTypeError(
            f"mesh must be a jax.sharding.Mesh, such as jax.make_mesh((4,), ('chains',)); got {mesh!r}."
        )
    if num_chains % mesh.size:
        below = num_chains - num_chains % mesh.size
        raise ParameterError(
            f"num_chains must divide among the devices of the mesh; got {num_chains} chains for {mesh.size} devices. "
            f"Take {below or mesh.size} or {below + mesh.size}."
        )
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))


def map_chains(fn, shared, *arrays, chain_batch_size: int | None = None, mesh: Mesh | None = None):
    """fn(shared, *values of one chain) for every chain, in pieces of `chain_batch_size`.

    Each device of a mesh has its share of the chains, and all of the pytree `shared`.
    """

    def share(shared, *arrays):
        if chain_batch_size is None or chain_batch_size >= len(jax.tree.leaves(arrays[0])[0]):
            return jax.vmap(partial(fn, shared))(*arrays)
        return jax.lax.map(lambda args: fn(shared, *args), arrays, batch_size=chain_batch_size)

    if mesh is None:
        return share(shared, *arrays)
    chains = PartitionSpec(mesh.axis_names)
    specs = (PartitionSpec(), *(chains for _ in arrays))
    return jax.shard_map(share, mesh=mesh, in_specs=specs, out_specs=chains, check_vma=False)(shared, *arrays)


def chain_keys(rng_key, num_chains: int):
    """One key per chain, that depends on the chain's number only."""
    return jax.vmap(partial(jax.random.fold_in, rng_key))(jnp.arange(num_chains))


def everywhere(tree, mesh: Mesh | None):
    """The arrays, held by every device. All processes must pass the same values."""
    if mesh is None:
        return tree
    whole = NamedSharding(mesh, PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, whole)

    def put(leaf):
        # Devices of other processes take values from the host only.
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = jax.device_put(np.asarray(jax.random.key_data(leaf)), whole)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return jax.device_put(np.asarray(leaf), whole)

    return jax.tree.map(put, tree)


def replicated(tree, mesh: Mesh | None) -> Any:
    """Within a compiled function: the arrays, held by every device."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


def gathered(tree, mesh: Mesh | None):
    """The arrays, whole in every process: shares of other processes' devices are fetched."""
    return tree if mesh is None or jax.process_count() == 1 else _replicated(tree, mesh)


_replicated = jax.jit(replicated, static_argnums=1)


def first_says(answer: bool, mesh: Mesh | None) -> bool:
    """The answer of the first of a mesh's processes: they gather arrays together, or none does."""
    if mesh is None or not mesh.is_multi_process:
        return answer
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(answer)))
