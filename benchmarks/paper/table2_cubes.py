"""Table 2 of Du et al. (2023): one to five cubes at requested places, from one density composed with itself.

    python benchmarks/paper/table2_cubes.py [--size 16] [--images 100] [--only "energy HMC"] [--counts 1 5] [--quick]
    python benchmarks/paper/table2_cubes.py --sweep      (Figure 5: accuracy against MCMC steps)

Cells resume: a second call computes what is missing.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import time
from pathlib import Path

import jax
import numpy as np
from tqdm.auto import tqdm

import numpyro_diffusion as nd
from benchmarks.table import RESULTS, write
from numpyro_diffusion.classifier import Classifier, all_present, load_classifier
from numpyro_diffusion.datasets import cubes

CLASSIFIERS = Path(nd.__file__).parent / "pretrained" / "classifiers"
LEVELS = 40
#: Evaluations of MCMC per level, one for the change of level and one for the predictor.
PER_LEVEL = 8
CHAINS, SETS = 5, 4
SAMPLERS = {
    "reverse": None,
    "reverse, equal evaluations": None,
    "ULA": (nd.ULA, 6),
    "MALA": (nd.MALA, 6),
    "U-HMC": (functools.partial(nd.UHMC, num_integration_steps=3, persistence=0.9), 2),
    "HMC": (functools.partial(nd.HMC, num_integration_steps=3, persistence=0.9), 2),
}
HEADER = """# Composed cubes (Table 2 of Du et al. 2023)

`python benchmarks/paper/table2_cubes.py --size {size}`. Accuracy in %, ± the binomial standard error: share of images in which the classifier sees a cube at every requested place
with more than half confidence (its own held-out accuracy: {accuracy}). Places are those of a rendered scene with that many cubes. One density p(x | a cube at y), composed by Eq. 13,
p(x) prod_i p(x | y_i) / p(x), sampled at {levels} levels with a reverse step before each and {mcmc} further evaluations of value and gradient per level; "reverse" has the one step per level
only. Step sizes are tuned per level to the kernel's acceptance on other places; score models, which have no acceptance, take those of the energy model.
"""

SWEEP_HEADER = """# Accuracy against MCMC steps (Figure 5 of Du et al. 2023)

`python benchmarks/paper/table2_cubes.py --size {size} --sweep`. As in table2_cubes_{size}.md, at {levels} levels with a reverse step before each, but with so many steps of three leapfrogs at every level; step sizes are
tuned for each number of steps. Accuracy in %, ± the binomial standard error.
"""


@functools.cache
def judge(size: int) -> Classifier:
    """The classifier that scores."""
    return load_classifier(CLASSIFIERS / f"cubes_{size}.safetensors")


@functools.cache
def density(model: str, size: int):
    """A trained density of cubes."""
    return nd.load_pretrained(f"cubes_{size}" + ("_score" if model == "score" else ""))


def levels(model: str, size: int, count: int = LEVELS) -> np.ndarray:
    """Geometric levels from noise to the density's resolution."""
    found = density(model, size)
    return found.schedule.levels(count, smallest=found.resolution)


@functools.cache
def step_sizes(sampler: str, size: int, count: int, steps: int):
    """Tuned on places of its own, with the energy model; kept, since score models and later batches take the same."""
    path = RESULTS / ".cache" / f"steps_cubes_{size}_{sampler}_{count}_{steps}.json"
    if path.exists():
        return tuple(json.loads(path.read_text()))
    kernel, _ = SAMPLERS[sampler]
    target = nd.compose_conditions(density("energy", size), cubes.positions(jax.random.key(77), count))
    run = nd.anneal(
        jax.random.key(78), target, kernel(), num_chains=2, num_steps=steps, levels=levels("energy", size),
        predictor=True, num_pilot_chains=8, progress_bar=False,
    )  # fmt: skip
    found = [float(step) for step in run.stats["step_size"]]
    # These programs do not serve again, and each holds memory maps, of which a process may have 65,530.
    jax.clear_caches()
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps(found))
    return tuple(found)


def sample(model: str, sampler: str, size: int, places, rng_key, steps: int | None = None):
    """A run on one set of places."""
    target = nd.compose_conditions(density(model, size), places)
    if sampler.startswith("reverse"):
        count = LEVELS if sampler == "reverse" else LEVELS * PER_LEVEL
        times = levels(model, size, count)
        return nd.anneal(rng_key, target, nd.Reverse(), num_chains=CHAINS, levels=times, progress_bar=False)
    kernel, default = SAMPLERS[sampler]
    steps = steps or default
    tuned = np.asarray(step_sizes(sampler, size, len(places), steps))
    return nd.anneal(
        rng_key, target, kernel(step_size=tuned), num_chains=CHAINS, num_steps=steps,
        levels=levels(model, size), predictor=True, progress_bar=False,
    )  # fmt: skip


def batch(model: str, sampler: str, size: int, count: int, number: int, steps: int | None = None) -> dict:
    """Figures of SETS x CHAINS images; the places depend on the count and the batch's number only."""
    correct, acceptance, evaluations = 0, [], 0
    start = time.perf_counter()
    for i in range(SETS):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(count), number), i)
        place_key, run_key = jax.random.split(key)
        places = cubes.positions(place_key, count)
        run = sample(model, sampler, size, places, run_key, steps)
        correct += int(np.sum(all_present(judge(size), run.samples, places)))
        evaluations = run.evaluations_per_chain
        if run.stats:
            acceptance.append(float(np.mean(run.stats["acceptance_rate"])))
    return {
        "correct": correct, "images": SETS * CHAINS, "evaluations": evaluations,
        "acceptance": float(np.mean(acceptance)) if acceptance else None, "seconds": time.perf_counter() - start,
    }  # fmt: skip


def markdown(found: dict, size: int, header: str) -> str:
    """The paper's layout: samplers by number of cubes."""
    accuracy = json.loads((CLASSIFIERS / f"cubes_{size}.json").read_text())["figures"]["held_out_accuracy"]
    lines = [header.format(size=size, accuracy=accuracy, levels=LEVELS, mcmc=PER_LEVEL - 1)]
    lines += [
        "| | 1 | 2 | 3 | 4 | 5 | evaluations per image | seconds per image, 5 cubes | acceptance |",
        "|---" * 9 + "|",
    ]
    for row in dict.fromkeys(key.split("|")[0] for key in found):
        cells, last = [], {}
        for count in range(1, 6):
            batches = list(found.get(f"{row}|{count}", {}).values())
            images = sum(b["images"] for b in batches)
            if not images:
                cells.append("")
                continue
            share, last = sum(b["correct"] for b in batches) / images, batches[-1]
            cells.append(f"{100 * share:.0f} ± {100 * math.sqrt(share * (1 - share) / images):.0f} ({images})")
        # Score models have no log density to accept by.
        rate = "" if row.startswith("score") or last.get("acceptance") is None else f"{last['acceptance']:.2f}"
        seconds = f"{last['seconds'] / last['images']:.1f}" if cells[-1] else ""
        lines.append(f"| {row} | " + " | ".join(cells) + f" | {last['evaluations']} | {seconds} | {rate} |")
    return "\n".join(lines) + "\n\nIn parentheses: images per cell.\n"


def compute(todo, path, size: int, header: str) -> dict:
    """Compute the (row, count, number, function) that are missing, writing after each; all that there is."""
    found = json.loads(path.read_text()) if path.exists() else {}
    todo = [item for item in todo if str(item[2]) not in found.get(f"{item[0]}|{item[1]}", {})]
    for row, count, number, function in tqdm(todo, desc=path.stem):
        figures = function()
        # Another process may have added rows meanwhile.
        found = json.loads(path.read_text()) if path.exists() else {}
        found.setdefault(f"{row}|{count}", {})[str(number)] = figures
        write(path, json.dumps(found, indent=1))
        write(path.with_suffix(".md"), markdown(found, size, header))
    text = markdown(found, size, header)
    write(path.with_suffix(".md"), text)
    print(text)
    return found


def draw(found: dict, path: Path) -> None:
    """Accuracy against MCMC steps per level, a panel for each number of cubes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines: dict[tuple[str, str], list] = {}
    for key, batches in found.items():
        row, count = key.split("|")
        sampler, steps = row.removeprefix("energy ").split(", steps = ")
        images = sum(b["images"] for b in batches.values())
        share = sum(b["correct"] for b in batches.values()) / images
        error = math.sqrt(share * (1 - share) / images)
        lines.setdefault((count, sampler), []).append((int(steps), 100 * share, 100 * error))
    figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True, layout="constrained")
    for axis, count in zip(axes, ("1", "3", "5"), strict=True):
        for name in ("U-HMC", "HMC"):
            steps, share, error = zip(*sorted(lines.get((count, name), [(1, np.nan, 0.0)])), strict=True)
            axis.errorbar(steps, share, error, marker="o", capsize=3, label=name)
        axis.set(xlabel="steps per level", xscale="log", title=f"{count} cube{'s' if count != '1' else ''}")
        axis.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
        axis.minorticks_off()
    axes[0].set(ylabel="all cubes there, %", ylim=(0, 105))
    axes[0].legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--only", default="", help="rows whose name contains this text")
    parser.add_argument("--counts", type=int, nargs="+", choices=range(1, 6), default=range(1, 6), help="cubes")
    parser.add_argument("--sweep", action="store_true", help="accuracy against MCMC steps per level")
    parser.add_argument("--quick", action="store_true", help="one batch of two cells")
    options = parser.parse_args()
    numbers = range(1 if options.quick else math.ceil(options.images / (SETS * CHAINS)))
    ending = "_quick" if options.quick else ""
    items = []
    if options.sweep:
        for number in numbers:
            for steps in (1, 2, 4, 8):
                for sampler in ("U-HMC", "HMC"):
                    for count in (1, 3, 5):
                        call = functools.partial(batch, "energy", sampler, options.size, count, number, steps)
                        items.append((f"energy {sampler}, steps = {steps}", count, number, call))
        path = RESULTS / f"figure5_cubes_{options.size}{ending}.json"
    else:
        rows = [("energy", s) for s in SAMPLERS] + [("score", s) for s in SAMPLERS if s not in ("MALA", "HMC")]
        if options.quick:
            rows = rows[:1]
        for number in numbers:
            for model, sampler in rows:
                for count in (1,) if options.quick else options.counts:
                    call = functools.partial(batch, model, sampler, options.size, count, number)
                    items.append((f"{model} {sampler}", count, number, call))
        path = RESULTS / f"table2_cubes_{options.size}{ending}.json"
    items = [item for item in items if options.only in item[0]]
    results = compute(items, path, options.size, SWEEP_HEADER if options.sweep else HEADER)
    if options.sweep and results:
        draw(results, path.with_suffix(".png"))
