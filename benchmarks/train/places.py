"""Where weights lie: in the package if they ship with it, beside the benchmarks if only these and tests need them."""

from __future__ import annotations

from pathlib import Path

import numpyro_diffusion as nd

SHIPPED = Path(nd.__file__).parent / "pretrained"
OTHERS = Path(__file__).resolve().parents[1] / "weights"
#: Endings of names that do not ship: trained as in Du et al. (2023), scores alone, other forms of energies.
VARIANTS = ("_paper", "_score", "_l2", "_dae")


def folder(name: str) -> Path:
    """The folder of a density of this name."""
    return OTHERS if name.endswith(VARIANTS) else SHIPPED


#: Shipped in half precision all the same: digits hardly have weights, and eight bits would move the evidence of Table 1's
#: product by 0.008, as the ring's log density moves by 0.02 nats (results/compact.md).
IN_HALF = ("digits", "ring")


def stored(name: str) -> str:
    """The type its weights are stored in: what ships is small where no figure changes."""
    return "int8" if folder(name) == SHIPPED and name not in IN_HALF else "float16"
