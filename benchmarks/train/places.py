"""Where weights lie: in the package if they ship with it, beside the benchmarks if only these and tests need them."""

from __future__ import annotations

from pathlib import Path

import numpyro_diffusion as nd

SHIPPED = Path(nd.__file__).parent / "pretrained"
OTHERS = Path(__file__).resolve().parents[1] / "weights"
#: Endings of names that do not ship: trained as in Du et al. (2023), scores alone, other forms of energies; and scenes,
#: whose energy is not right where MCMC goes.
VARIANTS = ("_paper", "_score", "_l2", "_dae", "scenes_32")


def folder(name: str) -> Path:
    """The folder of a density of this name."""
    return OTHERS if name.endswith(VARIANTS) else SHIPPED


#: What stays in half precision: digits hardly have weights, of the coloured ones ratios of conditions are taken, and eight
#: bits would move the evidence of Table 1's product by 0.008, as they do the ring's log density by 0.02 nats.
HALF = ("digits", "coloured_16", "ring", "cubes_32")


def stored(name: str) -> str:
    """The type its weights are stored in: what ships is small where no figure changes."""
    return "int8" if folder(name) == SHIPPED and name not in HALF else "float16"
