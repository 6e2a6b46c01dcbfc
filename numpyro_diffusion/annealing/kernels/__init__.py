"""MCMC kernels, built from BlackJAX parts. The only folder that knows BlackJAX."""

from __future__ import annotations

from typing import Any

from ...errors import ArgumentTypeError
from .base import Kernel, KernelState, StepInfo, init
from .blackjax import BlackJAX, systematic_resampling
from .hamiltonian import HMC, UHMC
from .langevin import MALA, ULA

__all__ = [
    "HMC", "MALA", "UHMC", "ULA", "BlackJAX", "Kernel", "KernelState", "StepInfo", "check_kernel", "init",
    "systematic_resampling",
]  # fmt: skip


def check_kernel[K](what: str, kernel: Any, *others: type[K]) -> Kernel | K:
    """The kernel, HMC of two leapfrogs for None, or one of `others`; else a TypeError that begins with `what`.

    Three leapfrogs of a tuned step are about half a turn in coordinates of unit covariance: at a higher price chains
    would keep their distance from the mean.
    """
    kernel = HMC(num_integration_steps=2) if kernel is None else kernel
    if not isinstance(kernel, (Kernel, *others)):
        raise ArgumentTypeError(f"{what} a kernel such as nd.HMC(); got {kernel!r}.")
    return kernel
