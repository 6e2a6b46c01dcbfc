"""How much work a sampler needs until its samples are as close to the truth as exact draws: part of `speed.py`."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.paper.gmm_products import draw_product
from benchmarks.paper.gmm_products import problem as mixture_problem
from benchmarks.paper.table1 import paper_levels
from benchmarks.speed import known_problems
from benchmarks.speed.known_problems import of_density
from numpyro_diffusion.datasets import planar, targets
from numpyro_diffusion.diagnose.metrics import sliced_wasserstein2

CHAINS, SETS, WITHIN = 1000, 5, 1.3
#: What is asked of the default on the first two problems: evaluations, pilot included, and their ratio to the paper's HMC.
MOST_EVALUATIONS, MOST_RATIO = 70, 0.08
KERNELS = {"ULA": nd.ULA, "MALA": nd.MALA, "U-HMC": nd.UHMC, "HMC": nd.HMC}
#: (level_ess, num_steps) by growing effort.
EFFORTS = ((0.8, 1), (0.9, 1), (0.95, 1), (0.98, 1), (0.98, 2), (0.99, 2))
#: Steps of three leapfrogs at each of the paper's 100 levels; it takes three, ten make 2,970 gradients and one per change of level.
PAPER_STEPS = (1, 3, 10)
#: The paper's leapfrog step, and a longer one where the target is wide enough.
LEAPFROG_STEPS = {"product": (0.03,), "mixture": (0.03, 0.15)}
COLUMNS = [
    "evaluations",
    "with the pilot's",
    "seconds",
    "settings",
    "W2 / floor",
    "folded / floor",
    "log Z error",
    "asked",
    "met",
    "ladder",
]
TEXT = f"""Problems with exact densities and {CHAINS:,} chains: the product of Table 1 (ring and bar), and the product of two mixtures in ten dimensions (seed 0 of
`gmm_products.py`), and five more: {(known_problems.__doc__ or "").partition(chr(10))[2].strip()} W2: sliced 2-Wasserstein distance to exact draws, as many as chains, the mean over {SETS} sets of them and over seeds; floor: the same of exact draws. In the product W2 is ruled by how many
chains end in which of its two modes, each of half the mass; folded W2, of (|x|, |y|), leaves that out and sees the shape of the modes and what lies outside. Rows: the
least effort from which on W2, and for the product also folded W2, stays within {WITHIN} x the floor, along the ladder (settings are `level_ess` x `num_steps`; ladder: evaluations, the larger of the distances over its floor). Evaluations: gradients per chain; with the
pilot's: all that its chains took, too, spread over the run's, a value without a gradient counting a third. Default: `nd.anneal(key, density)`, `nd.AnnealedMCMC(model)`; its accuracy is 0.05 nats (of `nd.AnnealedMCMC` it was, when these rows were measured). Seconds: best over seeds, pilot included, compilation not. The paper's HMC: its 100 cosine levels, three leapfrogs of
the given length in x itself, no weights; settings are steps per level. A ratio of 0 says that it never gets there. Geometric levels: as many as the conditional ESS placed, steps
tuned as well. log Z error: root mean square over seeds, in nats."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """How it is run, its log evidence, exact draws `draw(rng) -> [CHAINS, d]`, and sets of them to compare with."""

    run: Callable
    schedule: nd.NoiseSchedule
    evidence: float
    draw: Callable[[np.random.Generator], np.ndarray]
    sets: list[np.ndarray]
    is_symmetric: bool

    @functools.cached_property
    def floors(self) -> np.ndarray:
        """Distances of exact draws."""
        return np.mean([self.distances(self.draw(np.random.default_rng([1, i]))) for i in range(20)], axis=0)

    def distances(self, samples) -> np.ndarray:
        """Mean sliced W2 to the sets, and for a symmetric density that of absolute values."""
        maps = (np.asarray, np.abs) if self.is_symmetric else (np.asarray,)
        return np.array([np.mean([sliced_wasserstein2(f(samples), f(truth)) for truth in self.sets]) for f in maps])


@functools.cache
def problem(name: str) -> Problem:
    """The problem of that name, "product", "mixture" or one of `known_problems`."""
    if name in known_problems.NAMES:
        of = known_problems.target(name)
        draw = functools.partial(of.draw, count=CHAINS)
        sets = [draw(np.random.default_rng([0, i])) for i in range(SETS)]
        return Problem(of.run, nd.VariancePreserving.cosine(), of.evidence, draw, sets, False)
    if name == "product":
        target = targets.target("product")
        density, evidence, draw = (
            target.density(planar.exact),
            target.log_evidence,
            lambda rng: target.draw(rng, CHAINS),
        )
    else:
        p, q, means, log_w, evidence = mixture_problem(10, 0)
        density, draw = p * q, functools.partial(draw_product, means=means, log_w=log_w, count=CHAINS)
    sets = [draw(np.random.default_rng([0, i])) for i in range(SETS)]
    return Problem(of_density(density), density.schedule, evidence, draw, sets, name == "product")


def rung(name: str, kernel, seeds: int, settings: str, **options) -> dict:
    """One effort: its cost, and how far its samples are from the truth."""
    of = problem(name)
    runs, seconds, ratios = [], [], []
    for seed in range(seeds):
        start = time.perf_counter()
        run, samples = of.run(jax.random.key(seed), kernel, num_chains=CHAINS, **options)
        seconds.append(time.perf_counter() - start)
        runs.append(run)
        ratios.append(of.distances(samples) / of.floors)
    pilot = float(np.mean([r.pilot_evaluations for r in runs]))
    evaluations = float(np.mean([r.evaluations_per_chain for r in runs]))
    w2, *folded = np.mean(ratios, axis=0).tolist()
    errors = [r.log_evidence - of.evidence for r in runs]
    return {
        "evaluations": evaluations, "with the pilot's": evaluations + pilot,
        "seconds": min(seconds), "settings": settings, "W2 / floor": w2, "folded / floor": folded[0] if folded else None,
        "log Z error": float(np.sqrt(np.mean(np.square(errors)))), "levels": [len(r.levels) for r in runs],
    }  # fmt: skip


def worst(rung: dict) -> float:
    """The larger of the two distances over their floors."""
    return max(rung["W2 / floor"], rung["folded / floor"] or 0.0)


def reached(ladder: Iterable[dict]) -> dict:
    """The first rung from which on all are within reach of the floor, or the last with evaluations "never"."""
    ladder = sorted(ladder, key=lambda r: r["evaluations"])
    text = "; ".join(f"{r['evaluations']:.0f}, {worst(r):.2f}" for r in ladder)
    first = len(ladder)
    while first and worst(ladder[first - 1]) <= WITHIN:
        first -= 1
    if first == len(ladder):
        return ladder[-1] | {"evaluations": "never", "with the pilot's": "never", "ladder": text}
    return ladder[first] | {"ladder": text}


def sampler_lines(name: str, sampler: str, seeds: int, efforts) -> dict[str, dict]:
    """One sampler of this package up its ladder."""
    kernel = KERNELS[sampler]()
    rungs = (rung(name, kernel, seeds, f"{ess} x {steps}", level_ess=ess, num_steps=steps) for ess, steps in efforts)
    return {f"{name}: {sampler}": reached(rungs)}


def paper_lines(name: str, seeds: int, counts) -> dict[str, dict]:
    """The default beside the paper's annealed HMC."""
    default = rung(name, None, seeds, "")
    lines, levels = {f"{name}: default": asked(default)}, paper_levels(problem(name).schedule)
    for step_size in LEAPFROG_STEPS[name]:
        rungs = (
            rung(
                name, nd.HMC(step_size, 3), seeds, f"{steps} x 3", levels=levels, num_steps=steps, frame="identity", resample_threshold=0.0,
            )
            for steps in counts
        )  # fmt: skip
        found = reached(rungs)
        never = isinstance(found["evaluations"], str)
        ratio = 0.0 if never else default["evaluations"] / found["evaluations"]
        met = "yes" if ratio <= MOST_RATIO and worst(default) <= WITHIN else "no"
        lines[f"{name}: the paper's HMC, leapfrogs of {step_size}"] = found
        lines[f"{name}: default / the paper's HMC, leapfrogs of {step_size}"] = {
            "evaluations": ratio, "with the pilot's": 0.0 if never else default["with the pilot's"] / found["evaluations"],
            "asked": f"<= {MOST_RATIO}", "met": met,
        }  # fmt: skip
    return lines


def asked(default: dict) -> dict:
    """The default's line, with what is asked of it."""
    met = worst(default) <= WITHIN and default["with the pilot's"] <= MOST_EVALUATIONS
    return default | {"asked": f"<= {MOST_EVALUATIONS} within {WITHIN}", "met": "yes" if met else "no"}


def known_lines(name: str, seeds: int) -> dict[str, dict]:
    """The default on one of the five."""
    default = rung(name, None, seeds, "")
    return {
        f"{name}: default": default | {"asked": f"within {WITHIN}", "met": "yes" if worst(default) <= WITHIN else "no"}
    }


def level_lines(name: str, seeds: int, efforts) -> dict[str, dict]:
    """Levels placed by conditional ESS beside as many geometric ones."""
    lines = {}
    for ess, steps in efforts:
        placed = rung(name, nd.HMC(), seeds, f"{ess} x {steps}", level_ess=ess, num_steps=steps)
        count = round(np.mean(placed["levels"]))
        fixed = rung(name, nd.HMC(), seeds, f"{count} levels x {steps}", levels=count, num_steps=steps)
        lines |= {
            f"{name}: placed levels, {ess} x {steps}": placed,
            f"{name}: geometric levels, {count} x {steps}": fixed,
        }
    return lines


def jobs(quick: bool):
    """(name, function that computes some lines)."""
    efforts = ((0.8, 2), (0.98, 2)) if quick else EFFORTS
    counts, pairs = ((3,), ((0.98, 2),)) if quick else (PAPER_STEPS, ((0.9, 1), (0.98, 2)))
    for name in ("product",) if quick else ("product", "mixture"):
        # Mode weights make W2 of the product scatter more.
        seeds = 2 if quick else 20 if name == "product" else 10
        for sampler in KERNELS:
            yield f"accuracy {name} {sampler}", functools.partial(sampler_lines, name, sampler, seeds, efforts)
        yield f"accuracy {name} paper", functools.partial(paper_lines, name, seeds, counts)
        yield f"accuracy {name} levels", functools.partial(level_lines, name, seeds, pairs)
    for name in known_problems.NAMES[: 1 if quick else None]:
        yield f"accuracy {name}", functools.partial(known_lines, name, 2 if quick else 20)
