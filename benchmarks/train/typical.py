"""Record what data look like to the energies that ship with the package: quantiles of their log densities by level.

    python benchmarks/train/typical.py                # all of them
    python benchmarks/train/typical.py ring cubes_16  # some

`nd.fit` does this itself; here it is done for weights trained before. They stay as they are, bit for bit and in their
types, and the card gains a line. Data are those each was trained on, drawn anew with a fixed seed.
"""

from __future__ import annotations

import argparse
import json

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.train.places import folder
from numpyro_diffusion.datasets import cubes, digits, planar
from numpyro_diffusion.density.typical import QUANTILES, typical_log_probs
from numpyro_diffusion.disk import checkpoint

SEED, NUM_POINTS = 100, 4096


def data(name: str):
    """Points and conditions (or None) of the data set that a shipped density was trained on."""
    key = jax.random.key(SEED)
    if name == "digits":
        return digits.labelled_sampler(key, NUM_POINTS)
    if name.startswith("cubes"):
        return cubes.sampler(int(name.split("_")[1]))(key, NUM_POINTS)
    return planar.sampler(name.removesuffix("_paper"))(key, NUM_POINTS), None


def card_line(density) -> dict:
    """What the card says: quantiles (nats) at the least noise, in units y = x / alpha."""
    table = np.asarray(density.typical, dtype=float)
    shift = float(density.log_z[1, 0])
    kinds = ("without a condition", "given its condition")[: len(table)]
    quantiles = {
        kind: [round(float(v) - shift, 2) for v in rows[1:, 0]] for kind, rows in zip(kinds, table, strict=True)
    }
    return {"noise-to-signal ratio": round(float(np.exp(table[0, 0, 0])), 6), "quantiles": list(QUANTILES)} | quantiles


def measure(name: str) -> None:
    """Add the field to one shipped file, and the line to its card in the file and beside it."""
    path = folder(name) / f"{name}.safetensors"
    density = nd.load(path)
    if not isinstance(density, nd.EnergyDensity):
        return
    x, conditions = data(name)
    density.typical = typical_log_probs(density, x, conditions, jax.random.key(SEED + 1))
    if density.typical is None:
        raise SystemExit(f"{name} has log densities that are not finite at its own data.")
    arrays, config = checkpoint.read(path, kind="density")
    line = {"log density of noised data": card_line(density)}
    config["card"] = config["card"] | line
    checkpoint.write(path, arrays | {"typical": np.asarray(density.typical)}, config)
    card = nd.pretrained_card(name) | line
    (folder(name) / f"{name}.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(name, json.dumps(line), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=nd.list_pretrained(), help="densities; all of them if none")
    for name in parser.parse_args().names:
        measure(name)
