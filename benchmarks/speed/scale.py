"""What grows how: seconds and memory of annealed runs against chains, levels, leaves, dimension and devices.

    python benchmarks/speed/scale.py [--quick] [--only chains]

Every row is a process of its own, so that its peak memory is its own; the plot is results/scale.png.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import sys
import time

import numpyro_diffusion as nd
from benchmarks.fresh import fresh
from benchmarks.table import RESULTS, arguments, measure
from numpyro_diffusion.datasets import planar as planar_data

COLUMNS = ["run", "peak GB", "growth GB", "microseconds per evaluation", "chains together", "devices", "seconds"]
LEVELS, REPEATS = 8, 2
HEADER = f"""# Scale

`python benchmarks/speed/scale.py`. Each row a process of its own: one `nd.anneal` with given levels and step sizes ({LEVELS} levels and one MALA step each unless the row says otherwise), after a run of
the same shapes that compiles. run: its seconds. peak GB: largest resident memory of the process, growth: what the two runs added to it; Python, JAX and the compiler take the rest. Evaluations: chains x levels x
(1 + steps). Rows "chains", "levels" and "devices": the trained product ring x bar. "leaves": products of so many trained densities. "dimension": a closed-form Gaussian mixture of ten components. "U-Net":
an untrained U-Net energy of 32x32x3 (width 32), `chain_batch_size` as nd.anneal chooses it. Devices are forced host devices that share the same cores: they show what sharing out costs, not what it gains.
"""


def planar(leaves: int):
    """A product of trained planar densities."""
    names = sorted(planar_data.NAMES, key=lambda name: (name != "ring", name != "bar", name))
    product = nd.load_pretrained(names[0])
    for name in names[1:leaves]:
        product = product * nd.load_pretrained(name)
    return product


def mixture(size: int):
    """Ten components in `size` dimensions."""
    import numpy as np

    means = np.random.default_rng(0).normal(size=(10, size))
    return nd.exact.GaussianMixture(means, np.stack([0.1 * np.eye(size)] * 10))


def unet(size: int):
    """An untrained energy of images."""
    import jax
    import numpy as np

    images = np.random.default_rng(0).normal(size=(64, size, size, 3)).astype("float32")
    network = nd.UNetConfig(shape=(size, size, 3), width=32, multipliers=(1, 2, 2), normalise=False)
    training = nd.TrainingConfig(num_steps=1, batch_size=4, weighting="denoiser")
    return nd.fit(
        jax.random.key(0),
        images,
        network=network,
        training=training,
        parameterisation="inner_product",
        progress_bar=False,
    )


def run(kind: str, size: int, chains: int, levels: int, steps: int, devices: int, chain_batch_size: int | None) -> dict:
    """Figures of one run, in this process."""
    import jax
    import numpy as np

    density = {"planar": planar, "mixture": mixture, "unet": unet}[kind](size)
    times = density.schedule.levels(levels, smallest=max(density.resolution, 1e-3))
    kernel = nd.ULA(step_size=0.01) if kind == "unet" else nd.MALA(step_size=0.05)
    mesh = jax.make_mesh((devices,), ("chains",)) if devices > 1 else None
    call = functools.partial(
        nd.anneal, jax.random.key(0), density, kernel, num_chains=chains, num_steps=steps, mesh=mesh,
        chain_batch_size=chain_batch_size, resample_threshold=0.0, progress_bar=False,
    )  # fmt: skip
    before = peak()
    jax.block_until_ready(call(levels=times[[0, -1]]).samples)
    seconds = []
    for _ in range(1 if chains * levels > 10**6 or kind == "unet" else REPEATS):
        start = time.perf_counter()
        found = call(levels=times)
        assert np.isfinite(np.asarray(found.samples)).all()
        seconds.append(time.perf_counter() - start)
    evaluations = chains * levels * (1 + steps)
    return {
        "run": min(seconds), "peak GB": peak(), "growth GB": peak() - before,
        "microseconds per evaluation": 1e6 * min(seconds) / evaluations, "devices": devices,
        "chains together": chain_batch_size or "default",
    }  # fmt: skip


def peak() -> float:
    """Largest resident memory so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def row(
    seed: int, kind="planar", size=2, chains=1_000, levels=LEVELS, steps=1, devices=1, chain_batch_size=None
) -> dict:
    """The figures of a process of its own."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    call = f"""
import json
from benchmarks.speed import scale
print(json.dumps(scale.run({kind!r}, {size}, {chains}, {levels}, {steps}, {devices}, {chain_batch_size})))
"""
    return json.loads(fresh(call, XLA_FLAGS=flags).text)


def table(quick: bool):
    """(row, function of the seed)."""
    rows = []

    def add(name, **settings):
        rows.append((name, functools.partial(row, **settings)))

    for chains in (1_000, 10_000) if quick else (1_000, 10_000, 100_000, 1_000_000):
        add(f"chains = {chains:,}", chains=chains)
    for levels in (8, 32) if quick else (8, 32, 128):
        add(f"levels = {levels}", levels=levels, chains=4_000)
    for leaves in (1, 2) if quick else (1, 2, 4, 6):
        add(f"leaves = {leaves}", size=leaves)
    for size in (2, 32) if quick else (2, 8, 32, 128, 512):
        add(f"dimension = {size}", kind="mixture", size=size)
    for devices in (1, 2) if quick else (1, 2, 4, 8):
        add(f"devices = {devices}", devices=devices, chains=4_000, chain_batch_size=250)
    chains = 64 if quick else 4_096
    add(f"U-Net, {chains:,} chains", kind="unet", size=32, chains=chains, levels=2)
    return rows


def draw(found: dict) -> None:
    """results/scale.png: run time and memory growth against each quantity."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = ("chains", "levels", "leaves", "dimension", "devices")
    figure, axes = plt.subplots(2, len(names), figsize=(13, 4.5), sharey="row", layout="constrained")
    for column, name in zip(axes.T, names, strict=True):
        rows = {int(k.split("= ")[1].replace(",", "")): v[0] for k, v in found.items() if k.startswith(f"{name} =")}
        for axis, key, plot in zip(column, ("run", "growth GB"), ("loglog", "semilogx"), strict=True):
            getattr(axis, plot)(list(rows), [figures[key] for figures in rows.values()], "o-", color="C0")
            axis.set_xticks(list(rows), [f"{size:,}" for size in rows], fontsize=8)
            axis.minorticks_off()
        column[1].set_ylim(bottom=0)
        column[1].set_xlabel(name)
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("memory added, GB")
    figure.savefig(RESULTS / "scale.png", dpi=100)


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=1)
    results = measure("scale", options, table(options.quick), HEADER, COLUMNS)
    if not options.quick and not options.only:
        draw(results)
