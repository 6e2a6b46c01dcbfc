"""Flows on a 32x32 grid and what they compose to, against dynamic programming.

    python benchmarks/gflownet/grid.py             five seeds
    python benchmarks/gflownet/grid.py --quick     one seed, circles only
    python benchmarks/gflownet/grid.py --seeds 1 --only harmonic

Every seed trains five flows; seed 0 composes all pairs of them, the others those of the circles.
"""

import functools
import itertools

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure
from numpyro_diffusion import gflownet

GRID = gflownet.Hypergrid(2, 32)
REWARDS = {
    "circle1": gflownet.circle(1), "circle2": gflownet.circle(2), "circle3": gflownet.circle(3),
    # At temperature 1/2, as published.
    "shubert": lambda z: gflownet.symmetric_shubert(z) ** 2, "diagonal": gflownet.diagonal_sigmoid,
}  # fmt: skip
CIRCLES = ("circle1", "circle2", "circle3")
ALPHAS = (0.05, 0.5, 0.95)
NETWORK = gflownet.PolicyNetwork(width=128)
TRAINING = gflownet.FlowTraining(num_steps=4_000, batch_size=64, learning_rate=3e-3)
OF_CLASSIFIER = nd.TrainingConfig(num_steps=4_000, batch_size=64, learning_rate=3e-3, ema_decay=0.99)
NUM_PATHS = 100_000

HEADER = f"""
# Compositions of flows on a grid of 32 x 32

Flows are trained by trajectory balance ({TRAINING.num_steps:,} steps of {TRAINING.batch_size} paths, two layers of
{NETWORK.width}); "training" is the L1 distance of a flow's objects from its reward, by dynamic programming, and seconds
are those of training. Compositions are sampled with {NUM_PATHS:,} weighted paths:

- L1: distance of `run.probabilities()` from the exact composition of the learned flows; "of objects": of the weighted
  objects alone; "floor": of as many exact draws; "to rewards": of the first from the exact composition of the rewards.
- log sum: estimate less that of dynamic programming, in nats, and its stated error.
- routing: the policy of Routing by Reaching by itself, exact by dynamic programming; classifier: the guided policy of
  Garipov et al. (2023), trained as the flows are. Published for the harmonic mean of two circles at alpha 1/2: classifier
  .397, routing .229.
"""
COLUMNS = [
    "training", "L1", "of objects", "floor", "to rewards", "log sum", "error", "routing", "classifier", "ESS", "proposal",
    "seconds",
]  # fmt: skip


@functools.lru_cache
def exact(name: str) -> gflownet.Flow:
    """The flow of a reward itself."""
    return gflownet.Flow.exact(GRID, GRID.reward(REWARDS[name]), name=name)


@functools.lru_cache
def trained(name: str, seed: int) -> gflownet.Flow:
    key = jax.random.fold_in(jax.random.key(seed), list(REWARDS).index(name))
    return gflownet.train(
        key, GRID, GRID.reward(REWARDS[name]), network=NETWORK, training=TRAINING, name=name, progress_bar=False
    )


def shares(flow) -> tuple[np.ndarray, float]:
    """Exact probabilities [S] of a composition, and its log sum."""
    logs = np.asarray(flow.log_probs(), dtype=np.float64)
    log_sum = float(np.logaddexp.reduce(logs))
    return np.exp(logs - log_sum), log_sum


def distance(p, q) -> float:
    return float(np.sum(np.abs(p - q)))


def of_training(name: str):
    def figures(seed: int) -> dict:
        flow = trained(name, seed)
        return {"training": distance(shares(flow)[0], shares(exact(name))[0])}

    return figures


def of_composition(compose, names):
    def figures(seed: int) -> dict:
        composed = compose(*(trained(name, seed) for name in names))
        run = gflownet.sample(jax.random.key(seed), composed, num_samples=NUM_PATHS)
        truth, log_sum = shares(composed)
        index = np.asarray(jax.vmap(GRID.index)(run.samples))
        weights = np.exp(np.asarray(run.log_weights, dtype=np.float64))
        objects = np.bincount(index, weights=weights / weights.sum(), minlength=len(truth))
        draws = np.random.default_rng(seed).multinomial(NUM_PATHS, truth / truth.sum()) / NUM_PATHS
        return {
            "L1": distance(run.probabilities(), truth), "of objects": distance(objects, truth),
            "floor": distance(draws, truth), "log sum": run.log_evidence - log_sum, "error": run.log_evidence_error,
            "to rewards": distance(run.probabilities(), shares(compose(*map(exact, names)))[0]),
            "routing": distance(np.exp(np.asarray(gflownet.routing(composed).log_probs(), np.float64)), truth),
            "ESS": run.ess / NUM_PATHS, "proposal": run.proposal,
        }  # fmt: skip

    return figures


def of_classifier(names, labels, alpha: float | None):
    """The guided policy for sculpting, trained on the paths of learned flows; exact by dynamic programming."""

    def figures(seed: int) -> dict:
        flows, weights = [trained(name, seed) for name in names], None if alpha is None else [alpha, 1 - alpha]
        guided = gflownet.guided(
            jax.random.key(seed), flows, labels, weights=weights, network=NETWORK, training=OF_CLASSIFIER,
            progress_bar=False,
        )  # fmt: skip
        truth = shares(nd.sculpt(flows, labels, weights=weights))[0]
        return {"classifier": distance(shares(guided)[0], truth)}

    return figures


def of_pair(p: str, q: str):
    """(row, function of flows) of two flows."""
    for alpha in ALPHAS:
        yield f"harmonic mean {alpha}: {p}, {q}", functools.partial(nd.harmonic_mean, alpha=alpha)
        yield f"contrast {alpha}: {p}, {q}", functools.partial(nd.contrast, alpha=alpha)
    yield f"product: {p}, {q}", nd.product
    yield f"mixture: {p}, {q}", nd.mixture


def of_circles():
    """(row, function of flows) of all three circles."""
    yield "harmonic mean: circles", nd.harmonic_mean
    yield "product: circles", nd.product
    yield "mixture: circles", nd.mixture
    for labels in ([1, 2, 3], [1, 1, 1], [2, 2, 2], [3, 3, 3], [1, 1, 2]):
        yield f"sculpt {labels}: circles", lambda *flows, labels=labels: nd.sculpt(flows, labels)


def rows(all_pairs: bool):
    yield from ((f"training: {name}", of_training(name)) for name in REWARDS)
    for p, q in itertools.combinations(REWARDS if all_pairs else CIRCLES, 2):
        yield from ((row, of_composition(compose, (p, q))) for row, compose in of_pair(p, q))
    yield from ((row, of_composition(compose, CIRCLES)) for row, compose in of_circles())
    for alpha in ALPHAS:
        yield f"classifier, harmonic mean {alpha}: circle1, circle2", of_classifier(CIRCLES[:2], [1, 2], alpha)
        yield f"classifier, contrast {alpha}: circle1, circle2", of_classifier(CIRCLES[:2], [1, 1], alpha)
    yield "classifier, sculpt [1, 2, 3]: circles", of_classifier(CIRCLES, [1, 2, 3], None)


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=5)
    seeds = options.seeds
    for options.seeds in dict.fromkeys([1, seeds]):
        measure("gflownet_grid", options, rows(options.seeds == 1 and not options.quick), HEADER, COLUMNS)
