"""Sculpting of three overlapping discs in the plane: rows of `sculpting.py`, against rejection samples."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.score_only.problems import ScoreOf
from numpyro_diffusion.classifier import JointClassifier, sculpted, train_joint_classifier
from numpyro_diffusion.datasets import circles

DISCS = circles.densities()
ALPHAS = (0.05, 0.5, 0.95)
CHAINS, ENERGY_LEVELS, REVERSE_LEVELS, WEIGHTED_LEVELS = 2_000, 32, 100, 48
TRAINING = nd.TrainingConfig(num_steps=4_000, batch_size=256, learning_rate=3e-3, ema_decay=0.99)
NETWORK = nd.NetworkConfig(width=64, num_blocks=3)
#: Draws of every model that the classifier sees; half side and cells a side of the grid that knows the truth.
NUM_DRAWS, HALF, CELLS = 50_000, 1.6, 640

HEADER = f"""# Sculpting three overlapping discs

`python benchmarks/sculpting/sculpting.py`. Mean ± standard error over seeds. Three discs of 37 Gaussians each, in closed
form. Problems: labels of three discs; harmonic means {{1,2}} and contrasts {{1,1}} of two at alpha; a chain, in which
p(x | y_1 = 2) of three discs is observed by one who chooses between discs 1 and 2 (weights .95, .05) and answers the
first, then by one who chooses between discs 2 and 3 and answers the third. Regions: total variation of the masses of the
eight regions that the discs cut from the plane, of {CHAINS:,} samples, from the exact ones (a grid of {CELLS} x {CELLS}).

- rejection: as many exact draws, of the mixture, kept as observers answer: the floor.
- energies: nd.sculpt and nd.observe by nd.anneal over {ENERGY_LEVELS} levels, weighted; no classifier.
- scores: nothing but the scores of the discs, and a joint classifier trained in two phases ({TRAINING.num_steps:,} steps of
  {TRAINING.batch_size} each, {NUM_DRAWS:,} draws of every disc); reverse diffusion over {REVERSE_LEVELS} levels, by scale of
  guidance. Weighted: nd.Reverse(weighted=True) over {WEIGHTED_LEVELS} levels; its log Z is that of nd.sculpt, for which the
  weights of the labels are taken out.

Seconds are those of a core that others used, the first seed's with compilation, scale 1 with the classifier's training.
"""
COLUMNS = ["regions", "log Z - truth", "log Z error", "evaluations", "seconds"]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A composition: (discs by number, weights, labels) of every round of answers, the first about their mixture."""

    rounds: tuple[tuple[tuple[int, ...], tuple[float, ...], tuple[int, ...]], ...]

    @functools.cached_property
    def density(self):
        density = None
        for which, weights, labels in self.rounds:
            discs = [DISCS[i - 1] for i in which]
            if density is None:
                density = nd.sculpt(discs, labels, weights=weights)
            else:
                density = nd.observe(density, discs, labels, weights=weights)
        return density

    @functools.cached_property
    def truth(self) -> tuple[np.ndarray, float]:
        """Masses of the regions [8], and the log evidence."""
        axis = (np.arange(CELLS) + 0.5) / CELLS * 2 * HALF - HALF
        grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        logs = jax.lax.map(lambda x: self.density.log_density(x, jnp.zeros(())), jnp.asarray(grid), batch_size=4096)
        mass = np.exp(np.asarray(logs, np.float64)) * (2 * HALF / CELLS) ** 2
        return np.bincount(circles.region(grid), mass, 8) / mass.sum(), float(np.log(mass.sum()))

    def rejected(self, rng_key, count: int) -> jax.Array:
        """Exact draws [count, 2]: of the mixture, kept with the probability of all answers."""
        found = []
        while sum(map(len, found)) < count:
            rng_key, which_key, keep_key, *keys = jax.random.split(rng_key, 6)
            first, weights, _ = self.rounds[0]
            drawn = jnp.stack([DISCS[i - 1].sample(k, 20_000) for i, k in zip(first, keys, strict=False)])
            source = jax.random.choice(which_key, len(first), (20_000,), p=jnp.asarray(weights) / sum(weights))
            x = drawn[source, jnp.arange(20_000)]
            chance = 1.0
            for which, weights, labels in self.rounds:
                logs = jnp.stack([DISCS[i - 1].log_prob(x) for i in which]) + jnp.log(jnp.asarray(weights))[:, None]
                chance *= jnp.prod(jax.nn.softmax(logs, axis=0)[jnp.asarray(labels) - 1], axis=0)
            found.append(x[jax.random.uniform(keep_key, (len(x),)) < chance])
        return jnp.concatenate(found)[:count]


THREE, EQUAL = (1, 2, 3), (1.0, 1.0, 1.0)
PROBLEMS = {
    **{
        f"{{{','.join(map(str, labels))}}}": Problem(((THREE, EQUAL, labels),))
        for labels in ((1, 2), (1, 1), (1, 2, 3))
    },
    **{f"harmonic mean, alpha {a}": Problem((((1, 2), (a, 1 - a), (1, 2)),)) for a in ALPHAS},
    **{f"contrast, alpha {a}": Problem((((1, 2), (a, 1 - a), (1, 1)),)) for a in ALPHAS},
    "chain": Problem(((THREE, EQUAL, (2,)), ((1, 2), (0.95, 0.05), (1,)), ((2, 3), (1.0, 1.0), (2,)))),
}  # fmt: skip
SCALES, WEIGHTED = (1.0, 10.0, 20.0, 75.0), ("{1,2}", "{1,1}")


@functools.lru_cache
def classifier(which: tuple[int, ...], weights: tuple[float, ...], num_labels: int, seed: int) -> JointClassifier:
    key, *keys = jax.random.split(jax.random.key(1_000 + seed), 1 + len(which))
    draws = [DISCS[i - 1].sample(k, NUM_DRAWS) for i, k in zip(which, keys, strict=True)]
    return train_joint_classifier(
        key, draws, num_labels, weights=weights, network=NETWORK, training=TRAINING, progress_bar=False
    )


def figures(problem: Problem, samples, log_weights=None, log_z=np.nan, error=np.nan, evaluations=np.nan) -> dict:
    masses, log_evidence = problem.truth
    x = np.asarray(samples)
    weights = np.ones(len(x)) if log_weights is None else np.exp(np.asarray(log_weights, np.float64))
    # What ran away is in no region: its mass is missing, not shared out.
    weights = np.where(np.all(np.isfinite(x), axis=1), weights, 0.0) / weights.sum()
    found = np.bincount(circles.region(np.nan_to_num(x, nan=9.0)), weights, 8)
    return {
        "regions": 0.5 * np.abs(found - masses).sum(), "log Z - truth": log_z - log_evidence, "log Z error": error,
        "evaluations": evaluations, "lost": 1 - found.sum(), "masses": [round(float(m), 5) for m in found],
    }  # fmt: skip


def of_rejection(problem: Problem):
    return lambda seed: figures(problem, problem.rejected(jax.random.key(seed), CHAINS))


def of_energies(problem: Problem):
    def compute(seed: int) -> dict:
        run = nd.anneal(
            jax.random.key(seed), problem.density, num_chains=CHAINS, levels=ENERGY_LEVELS, progress_bar=False
        )
        return figures(
            problem, run.samples, run.log_weights, run.log_evidence, run.log_evidence_error, run.evaluations_per_chain
        )

    return compute


def of_scores(problem: Problem, scale: float, weighted: bool):
    ((which, weights, labels),) = problem.rounds

    def compute(seed: int) -> dict:
        claims = classifier(which, weights, 3, seed)
        density = sculpted([ScoreOf(DISCS[i - 1]) for i in which], claims, labels, scale=scale)
        kernel, levels = (nd.Reverse(weighted=True), WEIGHTED_LEVELS) if weighted else (nd.Reverse(), REVERSE_LEVELS)
        levels = density.schedule.levels(levels, smallest=density.leaves[0].resolution)
        run = nd.anneal(jax.random.key(seed), density, kernel, num_chains=CHAINS, levels=levels, progress_bar=False)
        if not weighted:
            return figures(problem, run.samples, evaluations=run.evaluations_per_chain)
        # log P(labels) counts the weight of every label.
        log_z = run.log_evidence - sum(np.log(weights[label - 1] / sum(weights)) for label in labels)
        return figures(problem, run.samples, run.log_weights, log_z, run.log_evidence_error, run.evaluations_per_chain)

    return compute


def rows():
    """(name, function of the seed) of every row."""
    for name, problem in PROBLEMS.items():
        yield f"{name}: rejection", of_rejection(problem)
        yield f"{name}: energies", of_energies(problem)
        if problem.rounds[0][0] != THREE or len(problem.rounds) > 1:
            continue  # the classifier is that of three discs
        for scale in SCALES:
            yield f"{name}: scores and classifier, scale {scale:g}", of_scores(problem, scale, weighted=False)
        if name in WEIGHTED:
            yield f"{name}: scores and classifier, scale 1, weighted", of_scores(problem, 1.0, weighted=True)
