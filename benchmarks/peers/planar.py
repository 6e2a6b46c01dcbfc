"""Table 1 of Du et al. (2023), canvases of windows, and sculpted discs: problems of `peers.py` from their own benchmarks."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.paper import table1
from benchmarks.peers.registry import DRAWS, REFERENCE, Method, Problem, by_w2, sets_of
from benchmarks.sculpting import discs
from benchmarks.tapestry import tapestry
from numpyro_diffusion.datasets import targets

#: What the paper's HMC takes: 100 levels, three steps of three leapfrogs.
PAPER_BUDGET, PER_LEVEL = 900, 7.5


def composition(name: str) -> Problem:
    """A composition of Table 1 of the shipped, trained energies."""
    target = targets.target(name)

    def row(sample):
        def compute(seed: int) -> dict:
            draw = functools.partial(target.draw, np.random.default_rng([1, seed]))
            truth = draw(REFERENCE)
            density = table1.density_of(name, "calibrated")
            x, cost = (draw(DRAWS), None) if sample is None else sample(jax.random.key(seed), density)
            return by_w2(x, truth, sets_of(draw, truth), cost)

        return compute

    def ours(key, density, **options):
        run = nd.anneal(key, density, num_chains=DRAWS, progress_bar=False, **options)
        return run.samples, run.evaluations_per_chain + run.pilot_evaluations

    def paper(key, density, sampler, count):
        kernel, steps = table1.SAMPLERS[sampler]
        run = nd.anneal(
            key, density, kernel, num_chains=DRAWS, num_steps=steps, resample_threshold=0.0, frame="identity",
            levels=table1.paper_levels(density.schedule, count), progress_bar=False,
        )  # fmt: skip
        return run.samples, run.evaluations_per_chain

    levels = int(PAPER_BUDGET / PER_LEVEL)
    quoted = {key: value for key, value in table1.PAPER.items() if key.startswith(f"{name} energy")}
    methods = {
        "exact draws": Method("the floor itself", row(None)),
        "ours, default": Method("`nd.anneal(key, formula)`", row(ours)),
        "ours, equal evaluations": Method(
            f"{levels} levels, two HMC steps", row(functools.partial(ours, levels=levels, num_steps=2))
        ),
        "reverse diffusion": Method(
            "the paper's levels, as many as evaluations",
            row(functools.partial(paper, sampler="reverse", count=PAPER_BUDGET)),
        ),
        "annealed ULA": Method("the paper's settings", row(functools.partial(paper, sampler="ULA", count=100))),
        "annealed HMC": Method("the paper's settings", row(functools.partial(paper, sampler="HMC", count=100))),
    }
    published = "; ".join(f"{key.removeprefix(name + ' energy ')} {value}" for key, value in quoted.items())
    text = f"""The {name} of Table 1, of the shipped densities (trained: what is left of the distance is theirs). Distance: sliced W2 of {DRAWS:,} samples to {REFERENCE:,} exact draws of the truth.
{PAPER_BUDGET} evaluations for every peer. As published, of the paper's own energies (RAISE, LL, Var, ln MMD): {published or "nothing"}."""
    return Problem(text, methods)


def canvas(name: str) -> Problem:
    """A canvas of windows: error of all covariances, relative."""
    exact = functools.cache(lambda: tapestry.known(name)[1])

    @functools.cache
    def floor(seed: int) -> float:
        found = [tapestry.figures(name, exact().sample(100 + 10 * seed + i, tapestry.CHAINS)) for i in range(10)]
        return float(np.mean([f["covariance, %"] for f in found]))

    def row(run: Callable[[int], dict]):
        def compute(seed: int) -> dict:
            found = run(seed)
            return found | {"distance": found["covariance, %"], "floor": floor(seed)}

        return compute

    rows = {label.removeprefix(f"{name}: "): run for label, run in tapestry.rows_of(name)}

    def ours(seed: int) -> dict:
        run = nd.anneal(jax.random.key(seed), tapestry.known(name)[0].canvas, num_chains=tapestry.CHAINS,
                        progress_bar=False)  # fmt: skip
        x = np.asarray(run.samples, np.float64).reshape(tapestry.CHAINS, -1)
        cost = {"evaluations": run.evaluations_per_chain + run.pilot_evaluations}
        return tapestry.figures(name, x, run.log_evidence) | cost

    methods = {
        "exact draws": Method("the floor itself", row(rows["exact draws"])),
        "ours, default": Method("`nd.anneal(key, nd.tapestry(...))`", row(ours)),
        "ours, equal evaluations": Method(
            f"{tapestry.LEVELS} levels, two HMC steps of three leapfrogs", row(rows["HMC"])
        ),
        "reverse diffusion": Method("of the canvas's score", row(rows["reverse"])),
        "MultiDiffusion": Method("Bar-Tal et al. 2023, rewritten", row(rows["averaged"])),
        "tapered averages": Method("Du et al. 2023, Appendix, rewritten", row(rows["tapered"])),
    }
    text = f"""Windows of 4x4 pixels on a canvas, their product known in closed form (`{name}` of `tapestry/problems.py`). Distance: error of all covariances, relative Frobenius norm in %, of {tapestry.CHAINS:,} canvases.
{7 * tapestry.LEVELS} evaluations of every window for every peer. Averaged noise vectors belong to no density: MultiDiffusion does not aim at this product."""
    return Problem(text, methods)


def sculpted(name: str) -> Problem:
    """Three discs and labels: total variation of the masses of their regions."""
    problem = discs.PROBLEMS[name]

    @functools.cache
    def floor() -> float:
        found = [discs.figures(problem, problem.rejected(jax.random.key(100 + i), discs.CHAINS)) for i in range(10)]
        return float(np.mean([f["regions"] for f in found]))

    def row(run: Callable[[int], dict]):
        def compute(seed: int) -> dict:
            found = {key: value for key, value in run(seed).items() if key != "masses"}
            return found | {"distance": found["regions"], "floor": floor()}

        return compute

    def ours(seed: int) -> dict:
        run = nd.anneal(jax.random.key(seed), problem.density, num_chains=discs.CHAINS, progress_bar=False)
        cost = run.evaluations_per_chain + run.pilot_evaluations
        return discs.figures(problem, run.samples, run.log_weights, evaluations=cost)

    methods = {
        "exact draws": Method("the floor itself, by rejection", row(discs.of_rejection(problem))),
        "ours, default": Method("`nd.anneal(key, nd.sculpt(...))`, no classifier", row(ours)),
        "ours, joint classifier, weighted": Method(
            "scores alone, `nd.Reverse(weighted=True)`", row(discs.of_scores(problem, 1.0, weighted=True))
        ),
        "classifier guidance, scale 1": Method(
            "Garipov et al. 2023, rewritten", row(discs.of_scores(problem, 1.0, weighted=False))
        ),
        "classifier guidance, scale 10": Method(
            "the same, scaled", row(discs.of_scores(problem, 10.0, weighted=False))
        ),
    }
    text = f"""Labels {name} of three overlapping discs. Distance: total variation of the masses of the eight regions that the discs cut out, of {discs.CHAINS:,} samples. Rows with a classifier see scores alone, and
the first of each seed pays for its training in seconds; evaluations are of all discs."""
    return Problem(text, methods)
