"""What images cost: an evaluation of energy and score, and an image by each sampler, in seconds and memory.

    python benchmarks/speed/image_cost.py [--quick]

All ratios are of times taken side by side in this run.
"""

from __future__ import annotations

import functools
import time

import jax
import jax.numpy as jnp

import numpyro_diffusion as nd
from benchmarks.paper.table2_cubes import LEVELS, PER_LEVEL, SAMPLERS, density, levels
from benchmarks.table import arguments, best_seconds, measure
from numpyro_diffusion.datasets import cubes

SIZE, BATCH = 16, 32
COLUMNS = ["ms", "times its reference", "MiB per image", "evaluations", "seconds"]
HEADER = f"""# Cost of images ({SIZE}x{SIZE}, the `cpu` preset)

`python benchmarks/speed/image_cost.py`. Evaluations: milliseconds per image in batches of {BATCH}, the best of five, beside the reference named in the row, and the memory that the compiled program takes for temporaries. Images: milliseconds per
image of a batch of {BATCH} with one requested place, {LEVELS} levels and {PER_LEVEL} evaluations each (reverse: one), tuning and compilation left out, beside evaluations x the time of one.
"""


def timed(function, *args, repeats: int = 5) -> tuple[float, float]:
    """(best seconds of a call, MiB of temporaries)."""
    compiled = jax.jit(function).lower(*args).compile()
    memory = compiled.memory_analysis()
    seconds = best_seconds(compiled, *args, repeats=repeats)
    return seconds, 0.0 if memory is None else memory.temp_size_in_bytes / 2**20


@functools.cache
def points():
    """Noised images and their places."""
    x, condition = cubes.sampler(SIZE)(jax.random.key(0), BATCH)
    return x + 0.3 * jax.random.normal(jax.random.key(1), x.shape), condition


def batched(one):
    """The function mapped over densities' points, the density traced."""
    return lambda p, x, c: jax.vmap(lambda z, q: one(p.given(q), z))(x, c)


def value_and_gradient(p, z):
    """What a kernel needs of one point."""
    return jax.value_and_grad(p.log_density)(z, 0.3)


FUNCTIONS = {
    "energy": (lambda p, z: p.log_density(z, 0.3), "energy"),
    "energy and gradient": (value_and_gradient, "energy"),
    "gradient alone": (lambda p, z: jax.grad(p.log_density)(z, 0.3), "energy"),
    "score": (lambda p, z: jax.grad(p.log_density)(z, 0.3), "score"),
}


@functools.cache
def evaluation(name: str) -> tuple[float, float]:
    """(milliseconds, MiB) per image."""
    one, model = FUNCTIONS[name]
    seconds, memory = timed(batched(one), density(model, SIZE), *points())
    return 1e3 * seconds / BATCH, memory / BATCH


def evaluation_row(_: int, name: str, reference: str) -> dict:
    """One evaluation beside another."""
    milliseconds, memory = evaluation(name)
    return {"ms": milliseconds, "times its reference": milliseconds / evaluation(reference)[0], "MiB per image": memory}


def loop_row(_: int) -> dict:
    """Eight evaluations inside a loop of the compiled program."""

    def walk(p, x, c):
        def step(_, z):
            return z + 1e-4 * batched(value_and_gradient)(p, z, c)[1]

        return jax.lax.fori_loop(0, 8, step, x)

    seconds, memory = timed(walk, density("energy", SIZE), *points(), repeats=3)
    milliseconds = 1e3 * seconds / BATCH / 8
    reference = evaluation("energy and gradient")[0]
    return {"ms": milliseconds, "times its reference": milliseconds / reference, "MiB per image": memory / BATCH}


def composed_row(_: int, count: int) -> dict:
    """Eq. 13 with `count` places, beside one call of a batch (count + 1) times as large."""
    places = cubes.positions(jax.random.key(2), count)
    composed = nd.compose_conditions(density("energy", SIZE), places)
    x, _ = points()
    one, _ = timed(lambda p, x: jax.vmap(lambda z: value_and_gradient(p, z))(x), composed, x)
    large = jnp.repeat(x, count + 1, axis=0)
    conditions = jnp.tile(places[:1], (len(large), 1))
    reference, _ = timed(batched(value_and_gradient), density("energy", SIZE), large, conditions)
    return {"ms": 1e3 * one / BATCH, "times its reference": one / reference}


def sampler_row(_: int, sampler: str, model: str) -> dict:
    """Whole images, beside the time of the evaluations that they need."""
    target = density(model, SIZE).given(points()[1][0])
    settings = {"num_chains": BATCH, "progress_bar": False}
    if SAMPLERS[sampler] is None:
        count = LEVELS if sampler == "reverse" else LEVELS * PER_LEVEL
        kernel, settings = nd.Reverse(), settings | {"levels": levels(model, SIZE, count)}
    else:
        make, steps = SAMPLERS[sampler]
        kernel = make(step_size=0.1)
        settings |= {"levels": levels(model, SIZE), "num_steps": steps, "predictor": True}
    seconds = []
    for seed in range(2):  # the first compiles
        start = time.perf_counter()
        run = nd.anneal(jax.random.key(seed), target, kernel, **settings)
        jax.block_until_ready(run.samples)
        seconds.append(time.perf_counter() - start)
    milliseconds = 1e3 * seconds[-1] / BATCH
    reference = run.evaluations_per_chain * evaluation("energy and gradient" if model == "energy" else "score")[0]
    return {
        "ms": milliseconds, "times its reference": milliseconds / reference, "evaluations": run.evaluations_per_chain,
    }  # fmt: skip


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=1)
    rows = [
        ("energy / score", functools.partial(evaluation_row, name="energy", reference="score")),
        (
            "energy and gradient / score",
            functools.partial(evaluation_row, name="energy and gradient", reference="score"),
        ),
        (
            "energy and gradient / gradient alone",
            functools.partial(evaluation_row, name="energy and gradient", reference="gradient alone"),
        ),
        ("energy and gradient in a loop / outside", loop_row),
        ("five places / one call of six times the batch", functools.partial(composed_row, count=5)),
    ]
    if not options.quick:
        rows += [
            (f"energy {s} / its evaluations", functools.partial(sampler_row, sampler=s, model="energy"))
            for s in SAMPLERS
        ]
        rows += [
            (f"score {s} / its evaluations", functools.partial(sampler_row, sampler=s, model="score"))
            for s in ("reverse", "U-HMC")
        ]
    measure("image_cost", options, rows, HEADER, COLUMNS)
