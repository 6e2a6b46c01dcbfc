"""Compositions of score-only models: products, guidance, negation and mixtures, sampled and weighed.

    python benchmarks/score_only/score_only.py           # five seeds; resumes
    python benchmarks/score_only/score_only.py --quick   # every row once, with fewer chains

Beside energies sampled by `nd.anneal(key, energies, nd.HMC())` stand score-only models, trained ones ("score") and
closed forms of which only the score is read ("exact score"), by samplers of ours and of others at equal evaluations.
"""

from __future__ import annotations

import json

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.peers.fkc import fkc
from benchmarks.peers.superdiff import superdiff
from benchmarks.score_only.problems import ScoreOf, loaders, problem
from benchmarks.table import RESULTS, arguments, markdown, measure, write
from numpyro_diffusion.datasets import targets
from numpyro_diffusion.diagnose.metrics import sliced_wasserstein2

REFERENCE, LEVELS, NUM_FLOORS = 20_000, 150, 10
PLANAR = ("product", "guidance", "negation", "mixture")
MIXTURES_OF_GAUSSIANS = ("GMM product d = 2", "GMM product d = 10", "GMM guidance d = 2", "GMM guidance d = 10")
LINE_INTEGRAL = {
    "HMC": (nd.HMC(), {}),
    "HMC of five nodes": (nd.HMC(num_nodes=5), {}),
    "HMC of sixteen nodes": (nd.HMC(num_nodes=16), {}),
    "MALA x 5": (nd.MALA(), {"num_steps": 5}),
}
OTHERS = ("ULA", "UHMC", "reverse", "FKC")
COLUMNS = ["W2", "W2 / floor", "W2 / energy", "log Z", "|log Z - truth|", "evaluations", "seconds"]
HEADER = """# Compositions of score-only models

`python benchmarks/score_only/score_only.py`. Mean ± standard error over seeds. product: ring * bar; guidance: ring^2 / large_box; negation: large_box /
small_box^.5, with the truth's floor (.01) for energies and weighted reverse diffusion, without for all others, which have no evidence then; mixture: two
columns of three modes; GMM product: p q of gmm_products; GMM guidance: q^2 / p of four components and two of them (another pair for each seed). Models:
energy and score are trained, exact ones closed forms, of which "exact score" shows the score only. W2: sliced, to 20,000 draws; over the mean of 10 sets
of as many exact draws; over the mean of the same problem's energies, trained where there are such, by nd.HMC(). Samplers: HMC and MALA accept
by line integrals, HMC of nine nodes unless others are named; weighted reverse is
nd.Reverse(weighted=True), of mixtures nd.Reverse(); equal density is nd.equal_density. ULA and UHMC have neither Metropolis steps nor weights, step
sizes s^2 and s of the narrowest mode's standard deviation s; FKC and SuperDiff are benchmarks/peers. These take as many evaluations of the score as
weighted reverse diffusion, in which a divergence counts d. AND of SuperDiff and equal density ask for points as likely under both, which no product is.
Rows of HMC and MALA by scores are from before levels were held within the quadrature's reach (`score_nodes.md` shows what that brings), and MALA's have three nodes.
"""


def budget(d: int) -> int:
    """Evaluations of weighted reverse diffusion: a score a level, and three with their divergences between levels."""
    return LEVELS * (1 + 3 * (1 + d))


def sampled(key, density: nd.Density, sampler: str, num_chains: int, scale: float) -> tuple:
    """(samples, log evidence or NaN, evaluations per chain)."""
    count = budget(density.event_shape[0])
    if sampler == "FKC":
        return *fkc(key, density, num_chains, count), count
    if sampler.startswith("SuperDiff"):
        return superdiff(key, density, num_chains, count, is_or=sampler.endswith("OR")), np.nan, count
    options = {"num_chains": num_chains, "progress_bar": False}
    free = options | {"resample_threshold": 0.0, "frame": "identity", "levels": 100}
    if sampler in LINE_INTEGRAL:
        kernel, steps = LINE_INTEGRAL[sampler]
        run = nd.anneal(key, density, kernel, **steps, **options)
    elif sampler == "ULA":
        run = nd.anneal(key, density, nd.ULA(scale**2), num_steps=count // 100, **free)
    elif sampler == "UHMC":
        run = nd.anneal(key, density, nd.UHMC(scale, 3), num_steps=count // 300, **free)
    elif sampler == "reverse":
        run = nd.anneal(key, density, nd.Reverse(), levels=count, **options)
    elif sampler == "equal density":
        run = nd.anneal(key, nd.equal_density(*density.leaves), nd.Reverse(), levels=LEVELS, **options)
    else:
        finer = 4 if "finer" in sampler else 1
        run = nd.anneal(key, density, nd.Reverse(weighted=True), levels=LEVELS * finer, **options)
    if sampler in ("ULA", "UHMC"):
        return run.samples, np.nan, count  # less the line integrals, by which nothing is accepted or weighed
    has_evidence = sampler in LINE_INTEGRAL or sampler.startswith("weighted")
    return run.samples, run.log_evidence if has_evidence else np.nan, run.evaluations_per_chain


def row(name: str, kind: str, sampler: str, quick: bool):
    """Function of the seed that computes one row's figures."""

    def compute(seed: int) -> dict:
        asked, chains = problem(name, seed), 500 if quick else 2000
        if name in PLANAR:
            load = loaders(kind)
        else:
            load = ScoreOf if kind == "exact score" else lambda density: density
        floored = kind.endswith("energy") or sampler.startswith("weighted")
        density = asked.compose(load, targets.FLOOR if floored else 0.0)
        x, log_z, evaluations = sampled(jax.random.key(seed), density, sampler, chains, asked.scale)
        if name == "negation" and not floored:
            log_z = np.nan
        rng = np.random.default_rng(10_000 + seed)
        truth, x = asked.draw(rng, REFERENCE), np.asarray(x)
        floor = np.mean([sliced_wasserstein2(asked.draw(rng, chains), truth) for _ in range(NUM_FLOORS)])
        lost = ~np.all(np.isfinite(x), axis=1)
        w2 = np.nan if lost.any() else sliced_wasserstein2(x, truth)
        return {
            "W2": w2, "W2 / floor": w2 / floor, "log Z": log_z, "|log Z - truth|": abs(log_z - asked.log_evidence),
            "log Z - truth": log_z - asked.log_evidence, "evaluations": evaluations, "lost": lost.mean(),
        }  # fmt: skip

    return compute


def names():
    """(problem, kind of model, sampler) of every row, what is to be shown first."""
    for name in PLANAR:
        yield name, "energy", "HMC"
        for kind in ("score", "exact score"):
            if name != "mixture":
                yield name, kind, "HMC"
            yield name, kind, "weighted reverse"
    for name in MIXTURES_OF_GAUSSIANS:
        yield name, "exact energy", "HMC"
        yield from ((name, "exact score", sampler) for sampler in ("HMC", "weighted reverse"))
    for name in (*PLANAR, *MIXTURES_OF_GAUSSIANS):
        kind = "score" if name in PLANAR else "exact score"
        samplers = (
            ("SuperDiff OR",)
            if name == "mixture"
            else ("HMC of five nodes", "HMC of sixteen nodes", "MALA x 5", *OTHERS)
        )
        yield from ((name, kind, sampler) for sampler in samplers)
        if name in ("guidance", "negation"):
            yield name, kind, "weighted reverse, four times finer"
        if "product" in name:
            yield from ((name, kind, sampler) for sampler in ("SuperDiff AND", "equal density"))
    yield from ((name, "exact energy", "HMC") for name in PLANAR)


def compare(table: str) -> None:
    """Write what is relative to the energies, which all seeds decide."""
    path = RESULTS / f"{table}.json"
    found = json.loads(path.read_text())
    for title, by_seed in found.items():
        name = title.split(",")[0]
        base = found.get(f"{name}, {'energy' if name in PLANAR else 'exact energy'}, HMC", {})
        usual = [figures["W2"] for figures in base.values()]
        for figures in by_seed.values():
            if usual and figures["W2"] is not None:
                figures["W2 / energy"] = figures["W2"] / float(np.mean(usual))
    write(path, json.dumps(found, indent=1))
    write(path.with_suffix(".md"), markdown(found, HEADER, COLUMNS))


if __name__ == "__main__":
    options = arguments(__doc__ or "")
    rows = [(", ".join(parts), row(*parts, options.quick)) for parts in names()]
    measure("score_only", options, rows, HEADER, COLUMNS)
    compare(f"score_only{'_quick' if options.quick else ''}")
