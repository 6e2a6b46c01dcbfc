"""Captions composed by AND, OR and NOT: do the pictures show what was asked for, by sampler and at equal evaluations?

    python benchmarks/scenes/scenes.py [--seeds 5] [--only "three, HMC"] [--quick]

Takes the density captioned_scenes_32 that benchmarks/train/scenes.py trains, and its judge. With --quick there
are few rows, and without those files a tiny density is trained for a minute, of which nothing is to be expected.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.peers.superdiff import of_images
from benchmarks.table import arguments, measure
from benchmarks.train.scenes import PRESETS, train
from numpyro_diffusion.classifier import judged_labels, load_classifier
from numpyro_diffusion.datasets import captioned_scenes
from numpyro_diffusion.datasets.captioned_scenes import COLOURS, GROUNDS, SHAPES, SKIES, fulfils

FOLDER = Path(nd.__file__).parent / "pretrained"
NAME = "captioned_scenes_32"
LEVELS = 40
#: Evaluations of MCMC per level, one for the change of level and one for the predictor.
PER_LEVEL = 8
#: Prompts of a cell and seed, and images of each: with five seeds 200 images a cell.
PROMPTS, IMAGES = 4, 10
HEADER = """# Captioned scenes, composed

`python benchmarks/scenes/scenes.py`. Share of pictures in which the judge sees what the prompt asks for (its own accuracy: {accuracy}), {prompts} random prompts of {images} pictures per seed.
One density p(x | caption), composed as in `nd.prompt` with a floor of .01, at {levels} levels, with a reverse step before each and {mcmc} further evaluations of value and gradient per level; "reverse" has the one step per level only,
"reverse, equal" as many levels as the others have evaluations. "classifier-free" is Liu et al. (2022): reverse diffusion along sums of guidance directions, -1 for NOT, as many levels; it has no OR. "SuperDiff" is the AND of Skreta et al. (2024), at as many evaluations of all captions. Step sizes are tuned per level by a pilot, which is not counted.
"first" is, of the pictures that show either term of an OR, the share that shows the first; "asked" what it should be. "HMC beside the model" weighs its reverse steps by what the prompt has beside the density without a caption (`predictor=density`), at two further evaluations of that per level.
"evidence": the area under the curve by which its log evidence tells prompts that can be fulfilled from those that contradict themselves. "seconds" are those of all pictures of a cell and seed, compilation and pilots included. Most rows were computed on one H200, by 6 to 14 jobs side by side, which their seconds show; those of one solid on two CPU cores.
"""
COLUMNS = ["right", "first", "asked", "evidence", "evaluations", "acceptance", "seconds"]


class Prompt(NamedTuple):
    """A prompt, and of an OR its first term and the share that it should have."""

    text: str
    first: str | None = None
    asked: float | None = None


def _solid(rng) -> str:
    return f"a {rng.choice(COLOURS)} {rng.choice(SHAPES)}"


def _or(first: str, second: str, share: float, rest: str = "") -> Prompt:
    return Prompt(f'({share:g} "{first}" OR {1 - share:g} "{second}"){rest}', f'"{first}"', share)


def one(rng) -> Prompt:
    return Prompt(f'"{rng.choice([_solid(rng), rng.choice(GROUNDS), rng.choice(SKIES)])}"')


def solid(rng) -> Prompt:
    return Prompt(f'"{_solid(rng)}"')


def two(rng) -> Prompt:
    return Prompt(f'"{_solid(rng)}" AND "{rng.choice([*GROUNDS, *SKIES])}"')


def three(rng) -> Prompt:
    return Prompt(f'"{_solid(rng)}" AND "{rng.choice(GROUNDS)}" AND "{rng.choice(SKIES)}"')


def negated(rng) -> Prompt:
    return Prompt(f'"{_solid(rng)}" AND NOT "{rng.choice([*GROUNDS, *SKIES])}"')


def either(rng) -> Prompt:
    return _or(*rng.choice(GROUNDS, 2, replace=False), 0.5)


def weighted(rng) -> Prompt:
    return _or(*rng.choice(GROUNDS, 2, replace=False), 0.25)


def nested(rng) -> Prompt:
    first, second = rng.choice(GROUNDS, 2, replace=False)
    return _or(first, second, 0.5, f' AND "{_solid(rng)}" AND NOT "{rng.choice(SKIES)}"')


CELLS: dict[str, Callable[[Any], Prompt]] = {
    "three": three, "NOT": negated, "OR": either, "nested": nested, "weighted OR": weighted, "two": two, "one": one,
    "one solid": solid,
}  # fmt: skip
#: As rows are computed: what is asked first comes first, since a table takes hours.
SAMPLERS: dict[str, Any] = {
    "HMC": (functools.partial(nd.HMC, num_integration_steps=3, persistence=0.9), 2),
    "HMC beside the model": (functools.partial(nd.HMC, num_integration_steps=3, persistence=0.9), 2),
    "reverse, equal": None,
    "SuperDiff": None,
    "MALA": (nd.MALA, 6),
    "classifier-free": None,
    "reverse": None,
    "ULA": (nd.ULA, 6),
    "U-HMC": (functools.partial(nd.UHMC, num_integration_steps=3, persistence=0.9), 2),
}


class Setting(NamedTuple):
    """What all rows share."""

    density: Any
    judge: Any
    levels: int
    images: int
    prompts: int

    def sample(self, target, sampler: str, rng_key):
        """A run of one of `SAMPLERS`."""
        shared = {"num_chains": self.images, "progress_bar": False}
        times = lambda count: target.schedule.levels(count, smallest=target.resolution)
        if SAMPLERS[sampler] is None:
            count = self.levels if sampler == "reverse" else self.levels * PER_LEVEL
            return nd.anneal(rng_key, target, nd.Reverse(), levels=times(count), **shared)
        kernel, steps = SAMPLERS[sampler]
        return nd.anneal(
            rng_key, target, kernel(), num_steps=steps, levels=times(self.levels),
            predictor=self.density if "beside" in sampler else True, num_pilot_chains=8, **shared,
        )  # fmt: skip

    def labels(self, images):
        """What is seen in pictures: by the judge, or at random where there is none."""
        if self.judge is None:
            _, labels = captioned_scenes.labelled(16)(jax.random.key(0), len(images))
            return captioned_scenes.Labels(*map(np.asarray, labels))
        return judged_labels(self.judge, images)


def cell(setting: Setting, name: str, sampler: str, seed: int) -> dict:
    """Figures of one cell: prompts depend on the cell and the seed alone."""
    # classifier-free: the quotient as it is, p^2 / q; everything else with a floor.
    floor, rng = 0.0 if sampler == "classifier-free" else 0.01, np.random.default_rng([seed, list(CELLS).index(name)])
    found: dict[str, list] = {"right": [], "first": [], "acceptance": []}
    asked, evaluations = None, 0
    for i in range(setting.prompts):
        prompt = CELLS[name](rng)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), list(CELLS).index(name)), i)
        if sampler == "SuperDiff":
            evaluations = setting.levels * PER_LEVEL
            captions = [setting.density.given(caption) for caption in prompt.text.strip('"').split('" AND "')]
            images, rate = of_images(key, captions, setting.images, evaluations), None
        else:
            run = setting.sample(nd.prompt(setting.density, prompt.text, floor=floor), sampler, key)
            images, evaluations = run.samples, run.evaluations_per_chain
            rate = np.mean(run.stats["acceptance_rate"]) if run.has_acceptance else None
        labels = setting.labels(images)
        right = fulfils(prompt.text, labels)
        found["right"].append(right)
        if prompt.first is not None:
            asked = prompt.asked
            found["first"].append(fulfils(prompt.first, labels)[right])
        if rate is not None:
            found["acceptance"].append(rate)
    means = {key: float(np.mean(np.concatenate(values))) if len(np.concatenate(values)) else np.nan
             for key, values in found.items() if values and key != "acceptance"}  # fmt: skip
    rates = {"acceptance": float(np.mean(found["acceptance"]))} if found["acceptance"] else {}
    return means | rates | {"evaluations": evaluations} | ({} if asked is None else {"asked": asked})


def evidence(setting: Setting, seed: int) -> dict:
    """How well log evidence tells prompts that can be fulfilled from those that cannot."""
    rng, logs = np.random.default_rng([seed, 99]), {True: [], False: []}
    for i in range(2 * setting.prompts):
        grounds, skies = rng.choice(GROUNDS, 2, replace=False), rng.choice(SKIES, 2, replace=False)
        can_be = i % 2 == 0
        texts = (
            f'"{grounds[0]}" AND "{skies[0]}"' if can_be else f'"{grounds[0]}" AND "{grounds[1]}"',
            f'"{_solid(rng)}" AND "{skies[0]}"' if can_be else f'"{skies[0]}" AND "{skies[1]}"',
        )
        target, key = (
            nd.prompt(setting.density, str(rng.choice(texts))),
            jax.random.fold_in(jax.random.key(seed + 1_000), i),
        )
        run = setting.sample(target, "HMC beside the model", key)
        logs[can_be].append(run.log_evidence)
    pairs = np.subtract.outer(np.nan_to_num(logs[True], nan=-1e9), np.nan_to_num(logs[False], nan=-1e9))
    return {"evidence": float(np.mean((pairs > 0) + 0.5 * (pairs == 0))), "satisfiable": float(np.mean(logs[True])),
            "contradictory": float(np.mean(logs[False]))}  # fmt: skip


def setting_of(options) -> tuple[Setting, str]:
    """What all rows share, and how well the judge judges."""
    if NAME not in nd.list_pretrained():
        if not options.quick:
            raise SystemExit(f"there is no {NAME}: run benchmarks/train/scenes.py first, or give --quick.")
        density, _ = train(PRESETS["tiny"], num_steps=30)
        return Setting(density, None, 3, 2, 1), "none, labels are drawn at random"
    judge = load_classifier(FOLDER / "classifiers" / f"{NAME}.safetensors")
    # Typical figures of the judge itself, on rendered pictures.
    x, labels = captioned_scenes.labelled(32)(jax.random.key(10_003), 1_000)
    same = jax.tree.map(lambda a, b: np.asarray(a) == np.asarray(b), labels, judged_labels(judge, x))
    accuracy = np.mean(np.all([np.reshape(part, (len(x), -1)).all(1) for part in same], axis=0))
    small = options.quick
    shape = Setting(nd.load_pretrained(NAME), judge, LEVELS, 2 if small else IMAGES, 1 if small else PROMPTS)
    return shape, f"{accuracy:.3f} of rendered pictures are right in every attribute"


if __name__ == "__main__":
    options = arguments("Captioned scenes, composed.")
    setting, accuracy = setting_of(options)
    rows = []
    for sampler, name in itertools.product(SAMPLERS, CELLS):
        if options.quick and not (name in ("NOT", "nested") and sampler in ("reverse", "HMC")):
            continue
        if name in {"classifier-free": ("one", "two", "three", "NOT"), "SuperDiff": ("two", "three")}.get(
            sampler, CELLS
        ):
            rows.append((f"{name}, {sampler}", functools.partial(cell, setting, name, sampler)))
    rows.append(("log evidence, HMC beside the model", functools.partial(evidence, setting)))
    header = HEADER.format(
        accuracy=accuracy, prompts=setting.prompts, images=setting.images, levels=setting.levels, mcmc=PER_LEVEL - 1
    )
    measure("scenes", options, rows, header, COLUMNS)
