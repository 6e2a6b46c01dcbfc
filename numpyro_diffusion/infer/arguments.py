"""What users of `numpyro.infer.MCMC` pass, in the terms of an anneal; what has no meaning there is refused by name."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh
from numpyro.infer.mcmc import MCMCKernel

from ..annealing.devices import checked_mesh
from ..annealing.kernels import Kernel, check_kernel
from ..errors import ArgumentTypeError, ParameterError, check_integer
from .kernel import AnnealedKernel
from .model_call import name_of
from .setup import check_model

#: Arguments that an `AnnealedKernel` has been given already.
OF_KERNEL = ("num_steps", "level_ess", "metric", "view", "likelihood_power")
CHAIN_METHODS = ("vectorized", "parallel", "sequential")


def model_and_kernel(model, kernel, settings: dict[str, Any], defaults: dict[str, Any]) -> tuple[Any, Kernel, dict]:
    """The model, the moves and the settings of `OF_KERNEL`: those given, or those of an `AnnealedKernel`.

    Raises:
        ArgumentTypeError: for a kernel of NumPyro's, or a kernel in the model's place; the message has the right call.
        ParameterError: for what is given beside an `AnnealedKernel` that has it.
    """
    if isinstance(model, AnnealedKernel):
        changed = [name for name in OF_KERNEL if settings[name] != defaults[name]]
        if kernel is not None or changed:
            name = changed[0] if changed else "kernel"
            raise ParameterError(
                f"{name} is the AnnealedKernel's own: nd.AnnealedKernel({name_of(model.model)}, {name}=...). Give it "
                "there, or give the model instead of a kernel."
            )
        return model.model, model.kernel, {name: getattr(model, name) for name in OF_KERNEL}
    if isinstance(model, MCMCKernel):
        held = getattr(model, "model", None)
        raise ArgumentTypeError(
            f"{type(model).__name__} moves chains at t = 0 alone, and AnnealedMCMC anneals the model itself: write "
            f"nd.AnnealedMCMC({'model' if held is None else name_of(held)}, nd.HMC(), ...)."
        )
    if isinstance(model, Kernel):
        other = "model" if kernel is None else name_of(kernel)
        raise ArgumentTypeError(f"the model comes first: write nd.AnnealedMCMC({other}, {model!r}, ...).")
    check_model(model)
    return model, check_kernel("kernel must be", kernel), settings


def checked_levels(num_warmup, levels) -> Any:
    """The levels that are asked for, under either name."""
    if num_warmup is None:
        return levels
    if levels is not None:
        raise ParameterError("num_warmup is the number of levels: give one of num_warmup and levels, not both.")
    return check_integer("num_warmup", num_warmup, 2, remedy="It is the number of levels; left out, a pilot finds it.")


def checked_draws(num_samples, thinning) -> tuple[int, int]:
    """`num_samples` and `thinning`, of which at least one draw must be left."""
    num_samples = check_integer("num_samples", num_samples, remedy="It counts draws per chain.")
    remedy = "Every thinning-th of num_samples is kept, one at least."
    return num_samples, check_integer("thinning", thinning, 1, num_samples, remedy)


def spread(chain_method, num_chains: int, mesh: Mesh | None, chain_batch_size) -> tuple[Mesh | None, Any]:
    """Mesh and batch size that do what NumPyro means by a chain method; what is given itself comes first.

    Raises:
        ParameterError: for another method, a function among them: resampling makes one population of all chains.
    """
    if chain_method not in CHAIN_METHODS:
        raise ParameterError(
            f"chain_method must be one of {CHAIN_METHODS}; got {chain_method!r}. Chains are resampled as one "
            "population, so no transformation can map over them: share them among devices by mesh=..., or bound "
            "memory by chain_batch_size=..."
        )
    if chain_method == "parallel" and mesh is None and num_chains % jax.local_device_count() == 0:
        mesh = jax.make_mesh((jax.local_device_count(),), ("chains",)) if jax.local_device_count() > 1 else None
    if chain_method == "sequential" and chain_batch_size is None:
        chain_batch_size = 1
    return checked_mesh(mesh, num_chains), chain_batch_size
