"""What this package costs: beside the evaluations it needs, beside what one would write instead, and to start.

    python benchmarks/speed/speed.py            # about ten minutes on two cores
    python benchmarks/speed/speed.py --quick    # every section, with fewer levels, rounds and seeds
    python benchmarks/speed/speed.py --only "instead HMC"

Sections: overhead, evaluation, instead, accuracy, startup; `--only` takes what a job's name contains and keeps the other
results. Contenders of one ratio run in turns within one process.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

import numpyro_diffusion as nd
from benchmarks.speed import image_cost, startup
from benchmarks.speed import naive_samplers as naive
from benchmarks.speed import time_to_accuracy as accuracy
from benchmarks.speed.side_by_side import compared, in_turns
from benchmarks.table import RESULTS, cell, plain, write
from benchmarks.tempering.overhead import overhead as tempered_overhead
from numpyro_diffusion.annealing.level import level_at
from numpyro_diffusion.annealing.memory import default_batch_size
from numpyro_diffusion.datasets import cubes, targets

CHAINS, LEAPFROGS = 1000, 3
HEADER = f"""# Speed

`python benchmarks/speed/speed.py`, jax {jax.__version__}, blackjax {blackjax.__version__}, {{backend}}. A ratio compares the best times of contenders that ran in turns, in one process; `median` is the median of their
ratios turn by turn, so that what lies far from the ratio was disturbed. `asked` is the aim, `met` whether the ratio keeps it. The compilation cache is off, except where a row of `startup` says otherwise.
"""
RATIO_COLUMNS = ["ratio", "median", "asked", "met"]


class Section(NamedTuple):
    """A table: `name` begins the names of its jobs, each of which computes some lines (line -> column -> figure)."""

    name: str
    text: str
    columns: list[str]
    jobs: list[tuple[str, Callable[[], dict[str, dict]]]]


@functools.cache
def product() -> nd.Density:
    """The trained product of Table 1."""
    return targets.target("product").density(nd.load_pretrained)


@functools.partial(jax.jit, static_argnames=("frame", "piece", "value"))
def gradients(density, x, t, *, frame: str = "identity", piece: int | None, value: bool = True):
    """Value and gradient, or the gradient alone, at every point, in pieces as the population has them."""
    log_prob = level_at(density, t, frame).log_prob
    one = jax.value_and_grad(log_prob) if value else jax.grad(log_prob)
    return jax.vmap(one)(x) if piece is None else jax.lax.map(one, x, batch_size=piece)


def evaluation(density, *, frame: str = "identity", pieces: bool = True, value: bool = True, repeats: int = 10):
    """A contender: `repeats` evaluations at all chains."""
    x = 0.3 * jax.random.normal(jax.random.key(0), (CHAINS, 2))
    piece = default_batch_size(density, CHAINS) if pieces else None

    def call():
        for _ in range(repeats):
            jax.block_until_ready(gradients(density, x, 0.3, frame=frame, piece=piece, value=value))

    return call


def annealed(kernel, levels, num_steps: int, **options):
    """A contender: a run with given levels and step sizes, hence without a pilot."""

    def call():
        run = nd.anneal(
            jax.random.key(0), product(), kernel, num_chains=CHAINS, num_steps=num_steps, levels=levels,
            progress_bar=False, **options,
        )  # fmt: skip
        return run.samples

    return call


def some_levels(count: int) -> np.ndarray:
    """Geometric levels down to the density's resolution."""
    return product().schedule.levels(count, smallest=product().resolution)


# Section 1: overhead.
OVERHEAD_TEXT = f"""Seconds of `nd.anneal` (the trained product of Table 1, {CHAINS:,} chains, compiled, levels and step sizes given) over the gradient evaluations it needs times the time of one: per
level one for the change of level, and per step one (ULA, MALA) or {LEAPFROGS} (U-HMC, HMC). One evaluation: value and gradient of the same expression at all chains, in pieces as in the run and in the same
frame; `one vmap`: the same over evaluations of all chains in one piece. ms: of one evaluation. Tempering: four groups of replicas, beside the evaluations of all of them in one program."""
OVERHEAD_COLUMNS = [*RATIO_COLUMNS, "one vmap", "seconds", "ms", "evaluations"]


def overhead(name: str, quick: bool) -> dict[str, dict]:
    """One kernel's runs beside their evaluations."""
    kernel, steps = {
        "ULA": (nd.ULA(0.02), 6), "MALA": (nd.MALA(0.02), 6),
        "U-HMC": (nd.UHMC(0.2, LEAPFROGS), 2), "HMC": (nd.HMC(0.2, LEAPFROGS), 2),
    }[name]  # fmt: skip
    count = 4 if quick else 8
    needed = count * (1 + steps * kernel.evaluations_per_step)  # as long as a run: shorter ones have luckier moments
    contenders = {
        "run": annealed(kernel, some_levels(count), steps),
        "pieces": evaluation(product(), frame="whitened", repeats=needed),
        "one": evaluation(product(), frame="whitened", pieces=False, repeats=needed),
    }
    seconds = in_turns(contenders, 3 if quick else 15)
    pieces, one = seconds["pieces"], seconds["one"]
    figures = compared(seconds["run"], pieces, at_most=1.1) | {"one vmap": seconds["run"].min() / one.min()}
    figures |= {"seconds": seconds["run"].min(), "ms": 1e3 * pieces.min() / needed, "evaluations": needed}
    return {name: figures}


# Section 2: one evaluation.
EVALUATION_TEXT = f"""Seconds of one value and gradient over those of the reference that the row names. Eq. 13: five conditions on 16x16 cubes against one network call with six times the images. Planar rows: the
trained ring p and bar q at {CHAINS:,} points."""
EVALUATION_COLUMNS = [*RATIO_COLUMNS, "ms"]


def planar(title: str, density, reference, at_most: float, quick: bool, **options) -> dict[str, dict]:
    """One expression beside another."""
    contenders = {"this": evaluation(density), "reference": evaluation(reference, **options)}
    seconds = in_turns(contenders, 5 if quick else 20)
    return {
        title: compared(seconds["this"], seconds["reference"], at_most=at_most) | {"ms": 100 * seconds["this"].min()}
    }


def conditions(quick: bool) -> dict[str, dict]:
    """Eq. 13 beside one large call, and value and gradient of cubes beside the gradient."""
    batch, count = 8 if quick else 32, 5
    cube = nd.load_pretrained("cubes_16")
    places = cubes.positions(jax.random.key(2), count)
    x = image_cost.points()[0][:batch]
    many, labels = jnp.repeat(x, count + 1, axis=0), jnp.tile(places[:1], (batch * (count + 1), 1))
    composed = nd.compose_conditions(cube, places)
    call = jax.jit(image_cost.batched(image_cost.value_and_gradient))
    gradient = jax.jit(image_cost.batched(lambda p, z: jax.grad(p.log_density)(z, 0.3)))
    whole = jax.jit(lambda p, x: jax.vmap(lambda z: image_cost.value_and_gradient(p, z))(x))
    contenders = {
        "Eq. 13": lambda: whole(composed, x), "one call": lambda: call(cube, many, labels),
        "gradient": lambda: gradient(cube, many, labels),
    }  # fmt: skip
    seconds = in_turns(contenders, 3 if quick else 10)
    rows = {"Eq. 13, five conditions / one call of six": ("Eq. 13", "one call", 1.15)}
    rows["cubes: value and gradient / gradient"] = ("one call", "gradient", 1.1)
    return {
        title: compared(seconds[a], seconds[b], at_most=most) | {"ms": 1e3 * seconds[a].min()}
        for title, (a, b, most) in rows.items()
    }


def evaluation_jobs(quick: bool):
    """The jobs of section 2."""
    p, q = nd.load_pretrained("ring"), nd.load_pretrained("bar")
    planars = {
        "p * q / (p + q) / p * q": (p * q / (p + q), p * q, {}),
        "nd.harmonic_mean(p, q) / p * q": (nd.harmonic_mean(p, q), p * q, {}),
        "p ** 2 / (p + q) / p * q": (p**2 / (p + q), p * q, {}),
        "p * q: value and gradient / gradient": (p * q, p * q, {"value": False}),
    }
    jobs = [
        (f"evaluation {title}", functools.partial(planar, title, this, reference, 1.1, quick, **options))
        for title, (this, reference, options) in planars.items()
    ]
    return [("evaluation Eq. 13", functools.partial(conditions, quick)), *jobs]


# Section 3: what one would write instead.
INSTEAD_TEXT = f"""Annealed samplers on the same trained product, chains ({CHAINS:,}), levels, steps and step sizes, in x itself; ratio: the other's seconds over ours, larger is better for us. Ours (`nd.anneal`) also
weighs and resamples. Naive: as the paper's public code computes, MALA with energy and gradient at both ends of every step, HMC with a gradient at both ends of every leapfrog and two energies, in plain JAX, jitted per
level (what is written twice the compiler may compute once). BlackJAX: the loop of its documentation, one compilation per level because the weights are closed over. PyTorch: eager, value and gradient kept
from step to step. "Compilation included": the first run of each. Over the evaluations: seconds over those of the evaluations that the run needs, as in section `overhead`."""
INSTEAD_COLUMNS = [*RATIO_COLUMNS, "ms per step", "over the evaluations", "seconds"]


def shared_plan(leapfrogs: int, quick: bool) -> naive.Plan:
    """Levels, and step sizes that follow the scale of the noised product."""
    levels, schedule = some_levels(3 if quick else 26), product().schedule
    alpha, sigma = np.asarray(schedule.alpha(levels)), np.asarray(schedule.sigma(levels))
    scale = np.sqrt((sigma**2 + (0.03 * alpha) ** 2) / 2)
    return naive.Plan(levels, 0.5 * scale if leapfrogs else 0.2 * scale**2, 2 if leapfrogs else 6, leapfrogs)


def instead(name: str, quick: bool) -> dict[str, dict]:
    """One sampler beside others' ways to run it."""
    plan = shared_plan(LEAPFROGS if name == "HMC" else 0, quick)
    kernel = nd.HMC(plan.step_sizes, LEAPFROGS) if name == "HMC" else nd.MALA(plan.step_sizes)
    ours = annealed(kernel, plan.levels, plan.num_steps, frame="identity")
    x, key = jnp.sqrt(0.5) * jax.random.normal(jax.random.key(1), (CHAINS, 2)), jax.random.key(2)
    jax.clear_caches()
    start = time.perf_counter()
    jax.block_until_ready(ours())
    first = time.perf_counter() - start
    loop = naive.BlackJAXLoop(product(), x, plan)
    contenders = {
        "ours": ours, "evaluations": evaluation(product()),
        "naive": lambda: naive.run_naive(product(), x, key, plan), "BlackJAX": lambda: loop.run(x, key),
    }  # fmt: skip
    if naive.torch is not None:
        in_torch = naive.TorchProduct(product())
        contenders["PyTorch"] = lambda: in_torch.run(x, plan)
    seconds = in_turns(contenders, 3 if quick else 7)
    needed = len(plan.levels) * (1 + plan.num_steps * kernel.evaluations_per_step)
    bound = seconds.pop("evaluations").min() * needed / 10
    asked = {
        "ours": {},
        "naive": {"at_least": 1.2 if plan.leapfrogs else 2.0},
        "BlackJAX": {"at_least": 1.0},
        "PyTorch": {},
    }
    lines = {}
    for other, found in seconds.items():
        lines[f"{name}: {other}"] = compared(found, seconds["ours"], **asked[other]) | {
            "ms per step": 1e3 * found.min() / plan.total, "over the evaluations": found.min() / bound,
            "seconds": found.min(),
        }  # fmt: skip
    with_compilation = loop.compile_seconds + seconds["BlackJAX"].min()
    lines[f"{name}: ours, compilation included"] = {"seconds": first}
    lines[f"{name}: BlackJAX, compilation included"] = {"ratio": with_compilation / first, "seconds": with_compilation}
    return lines if naive.torch is not None else lines | {f"{name}: PyTorch": {"ratio": "not installed"}}


def sections(quick: bool) -> list[Section]:
    """All tables."""
    overheads = [(f"overhead {name}", functools.partial(overhead, name, quick)) for name in accuracy.KERNELS]
    overheads.append(("overhead tempering", lambda: tempered_overhead(product(), some_levels(8), quick)))
    instead_jobs = [(f"instead {name}", functools.partial(instead, name, quick)) for name in ("MALA", "HMC")]
    return [
        Section("overhead", OVERHEAD_TEXT, OVERHEAD_COLUMNS, overheads),
        Section("evaluation", EVALUATION_TEXT, EVALUATION_COLUMNS, evaluation_jobs(quick)),
        Section("instead", INSTEAD_TEXT, INSTEAD_COLUMNS, instead_jobs),
        Section("accuracy", accuracy.TEXT, accuracy.COLUMNS, list(accuracy.jobs(quick))),
        Section("startup", startup.TEXT, startup.COLUMNS, startup.JOBS),
    ]


def _shown(value) -> str:
    return f"{value:,}" if isinstance(value, int) else cell([value])


def table(section: Section, lines: dict[str, dict]) -> str:
    """A section in Markdown."""
    columns = section.columns
    text = [f"## {section.name.capitalize()}", "", section.text, ""]
    text += ["| row | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    text += [
        f"| {row} | " + " | ".join(_shown(figures.get(c)) for c in columns) + " |" for row, figures in lines.items()
    ]
    return "\n".join(text) + "\n"


def main(quick: bool, only: str) -> None:
    """Run the jobs whose names contain `only`, and write results/speed.json and .md as they come."""
    # Compilation is timed below: nothing may come from a cache.
    jax.config.update("jax_enable_compilation_cache", False)
    warnings.simplefilter("ignore")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"speed{'_quick' if quick else ''}.json"
    found = json.loads(path.read_text()) if only and path.exists() else {}
    header = HEADER.format(
        backend=f"{os.cpu_count()} CPU cores" if jax.default_backend() == "cpu" else jax.default_backend()
    )
    text = header
    for section in sections(quick):
        begin = time.perf_counter()
        jobs = [(name, job) for name, job in section.jobs if only in name]
        lines = found.setdefault(section.name, {})
        for _, job in tqdm(jobs, desc=section.name, disable=not jobs):
            for row, figures in job().items():
                lines[row] = {k: v if v is None or isinstance(v, int) else plain(v) for k, v in figures.items()}
            write(path, json.dumps(found, indent=1))
        text = "\n".join([header, *(table(s, found[s.name]) for s in sections(quick) if found.get(s.name))])
        write(path.with_suffix(".md"), text)
        if jobs:
            print(f"{section.name}: {time.perf_counter() - begin:.0f} s", flush=True)
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer levels, rounds and seeds")
    parser.add_argument("--only", default="", help="run jobs whose name contains this text, keep other results")
    options = parser.parse_args()
    main(options.quick, options.only)
