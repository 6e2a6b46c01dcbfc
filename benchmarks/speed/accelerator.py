"""U-Net energies on an accelerator: how much of the device they use, in which precision, and how many chains fit.

    python benchmarks/speed/accelerator.py [--quick] [--size 64]

Runs on whatever JAX's default device is; on a CPU take --quick. The network is the `gpu` preset of `train/cubes.py`.
"""

from __future__ import annotations

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.table import arguments, best_seconds, measure
from benchmarks.train.cubes import PRESETS, SIGMA_MAX, SIGMA_MIN
from numpyro_diffusion.annealing import advance as onward
from numpyro_diffusion.annealing import population as populations
from numpyro_diffusion.annealing.memory import bytes_per_chain, chains_that_fit, free_bytes
from numpyro_diffusion.annealing.plan import PlannedLevel
from numpyro_diffusion.annealing.settings import Settings
from numpyro_diffusion.datasets import cubes
from numpyro_diffusion.train.losses import loss

COLUMNS = [
    "ms", "teraflop", "teraflop per second", "utilisation %", "MiB per chain", "estimated MiB per chain", "chains", "seconds",
]  # fmt: skip
HEADER = """# Use of an accelerator

`python benchmarks/speed/accelerator.py`, on {device}. Images {size}x{size}, the U-Net of the `{preset}` preset. Utilisation: model floating-point operations (XLA's count of the program as written, before it is optimised;
recomputation is not counted as use) per second over those of a 4096x4096 matrix product in the same precision on the same device in the same run. Rows: a training step (batch {batch}: loss, gradient, nothing else), one value and gradient of the energy, an
annealing level of HMC (two steps of three leapfrogs, seven evaluations) for {chains} chains, and the largest population that the memory estimate lets advance at once. MiB per chain: temporaries of the compiled program over the chains.
"""
#: On a CPU, the network of the gpu preset takes minutes to compile.
PRESET = "cpu" if "--quick" in sys.argv else "gpu"
LEAPFROGS = nd.HMC(num_integration_steps=3, persistence=0.9)


@functools.cache
def matmul_rate(dtype: str, size: int) -> float:
    """Floating-point operations per second of a square matrix product."""
    a = jnp.ones((size, size), dtype)
    return 2 * size**3 / best_seconds(jax.jit(jnp.matmul).lower(a, a).compile(), a, a)


def figures(function, args, dtype: str, chains: int, matrix: int) -> dict:
    """Time, operations and memory of a jitted function."""
    lowered = function.lower(*args)
    compiled = lowered.compile()
    seconds, count = best_seconds(compiled, *args), (lowered.cost_analysis() or compiled.cost_analysis())["flops"]
    memory = compiled.memory_analysis()
    return {
        "ms": 1e3 * seconds, "teraflop": count / 1e12, "teraflop per second": count / seconds / 1e12,
        "utilisation %": 100 * count / seconds / matmul_rate(dtype, matrix),
        "MiB per chain": memory.temp_size_in_bytes / chains / 2**20,
    }  # fmt: skip


@functools.cache
def energy(dtype: str, size: int):
    """An energy of cubes after one training step: random weights, real moments."""
    network = nd.UNetConfig(
        shape=(size, size, 3), num_positions=1, **PRESETS[PRESET].network | {"compute_dtype": dtype}
    )
    training = nd.TrainingConfig(num_steps=1, batch_size=8, weighting="denoiser")
    return nd.fit(
        jax.random.key(0), cubes.sampler(size), network=network, training=training, parameterisation="inner_product",
        sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, progress_bar=False,
    )  # fmt: skip


def training_step(seed: int, dtype: str, size: int, batch: int, matrix: int) -> dict:
    """Loss and gradient in the weights."""
    density = energy(dtype, size)
    x, condition = cubes.sampler(size)(jax.random.key(seed), batch)
    y = x.reshape(batch, -1) - density.mean
    condition = jnp.concatenate([condition, jnp.ones((batch, 1))], axis=-1)

    @jax.jit
    def step(state, key):
        return jax.value_and_grad(lambda s: loss(density._replace(state=s), key, y, condition, 0.1, "denoiser"))(state)

    return figures(step, (density.state, jax.random.key(1)), dtype, batch, matrix)


def evaluation(seed: int, dtype: str, size: int, chains: int, matrix: int) -> dict:
    """Value and gradient of the energy at every chain."""
    density = energy(dtype, size)
    x = jax.random.normal(jax.random.key(seed), (chains, *density.event_shape))
    step = jax.jit(jax.vmap(jax.value_and_grad(lambda p: density.log_density(p, jnp.asarray(0.5)))))
    found = figures(step, (x,), dtype, chains, matrix)
    return found | {"estimated MiB per chain": bytes_per_chain(density) / 2**20}


def level(seed: int, dtype: str, size: int, chains: int, matrix: int) -> dict:
    """One level of annealed HMC."""
    density, key = energy(dtype, size), jax.random.key(seed)
    population = populations.start(density, key, num_chains=chains, frame_kind="whitened")
    kernel, settings = LEAPFROGS.without_step_size(), Settings(num_steps=2, weighted=False)
    step = jax.jit(lambda *args: onward.advance(density, kernel, *args, settings))
    found = figures(step, (population, key, PlannedLevel(0.8, 0.1), 0.0), dtype, chains, matrix)
    # XLA counts the body of a loop once: what the level takes is seven evaluations.
    count = 7 * evaluation(seed, dtype, size, chains, matrix)["teraflop"]
    rate = count / (found["ms"] / 1e3)
    share = 100 * rate * 1e12 / matmul_rate(dtype, matrix)
    return found | {"teraflop": count, "teraflop per second": rate, "utilisation %": share}


def largest(seed: int, dtype: str, size: int) -> dict:
    """How many chains advance at once."""
    density = energy(dtype, size)
    return {"chains": chains_that_fit(density, 10**6), "free GiB": (free_bytes() or np.nan) / 2**30}


if __name__ == "__main__":
    size = int(sys.argv.pop(sys.argv.index("--size") + 1)) if "--size" in sys.argv else 64
    sys.argv = [a for a in sys.argv if a != "--size"]
    options = arguments(__doc__ or "", seeds=1)
    if options.quick:
        size = min(size, 16)
    batch, chains, matrix = (8, 8, 512) if options.quick else (128, 256, 4096)
    rows = []
    for dtype in ("float32", "bfloat16"):
        shared = {"dtype": dtype, "size": size}
        rows += [
            (f"{dtype}: training step", functools.partial(training_step, batch=batch, matrix=matrix, **shared)),
            (f"{dtype}: value and gradient", functools.partial(evaluation, chains=chains, matrix=matrix, **shared)),
            (f"{dtype}: level of HMC", functools.partial(level, chains=chains, matrix=matrix, **shared)),
            (f"{dtype}: largest population", functools.partial(largest, **shared)),
        ]
    header = HEADER.format(device=jax.devices()[0].device_kind, size=size, batch=batch, chains=chains, preset=PRESET)
    measure("accelerator", options, rows, header, COLUMNS)
