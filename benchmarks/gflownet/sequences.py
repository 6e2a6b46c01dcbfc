"""Flows over all words of eight letters of four, 65,536 objects, against dynamic programming.

python benchmarks/gflownet/sequences.py [--quick] [--seeds 3]
"""

import functools

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure
from numpyro_diffusion import gflownet

WORDS = gflownet.Sequences(8, 4)
MOTIFS = {"p": "ACGTAC", "q": "GTACCA", "r": "TTGACG"}
NETWORK = gflownet.PolicyNetwork(width=128)
TRAINING = gflownet.FlowTraining(num_steps=10_000, batch_size=128, learning_rate=3e-3)
NUM_PATHS = 100_000

HEADER = f"""
# Compositions of flows over words

Words of eight letters of four, 65,536 objects, that grow at either end; the rewards of p, q and r are exp(1.5 m), m the
most letters of a motif ({", ".join(f"{k} {v}" for k, v in MOTIFS.items())}) that the word has in one place. Flows are
trained by trajectory balance ({TRAINING.num_steps:,} steps of {TRAINING.batch_size} paths, two layers of
{NETWORK.width}); "training" is the L1 distance from the reward, by dynamic programming. Compositions of the learned flows
are sampled with {NUM_PATHS:,} weighted paths. L1: distance of `run.probabilities()` from the exact composition of the
learned flows; "floor": of as many exact draws, which is large because there are nearly as many objects as draws. "of
cells" and its floor and routing: the same of the 7^3 cells of words with so many letters of each motif. "to rewards": L1
of the cells from those of the exact composition of the rewards. Log sum: estimate less that of dynamic programming, in
nats, and its stated error. Routing: the policy of Routing by Reaching by itself, exact.
"""
COLUMNS = [
    "training", "of cells", "floor of cells", "routing of cells", "to rewards", "L1", "floor", "routing", "log sum",
    "error", "ESS", "proposal", "seconds",
]  # fmt: skip
COMPOSITIONS = {
    "mixture": nd.mixture, "product": nd.product, "harmonic mean": nd.harmonic_mean,
    **{f"contrast {alpha}": lambda p, q, r, a=alpha: nd.contrast(p, q, alpha=a) for alpha in (0.05, 0.5, 0.95)},
    **{f"harmonic mean {a}": lambda p, q, r, a=a: nd.harmonic_mean(p, q, alpha=a) for a in (0.05, 0.5, 0.95)},
    "sculpt [1, 2, 3]": lambda *flows: nd.sculpt(flows, [1, 2, 3]),
    "sculpt [1, 1, 2]": lambda *flows: nd.sculpt(flows, [1, 1, 2]),
}  # fmt: skip


@functools.lru_cache
def exact(name: str) -> gflownet.Flow:
    return gflownet.Flow.exact(WORDS, gflownet.motif_reward(MOTIFS[name]), name=name)


@functools.lru_cache
def trained(name: str, seed: int) -> gflownet.Flow:
    key = jax.random.fold_in(jax.random.key(seed), list(MOTIFS).index(name))
    reward = gflownet.motif_reward(MOTIFS[name])
    return gflownet.train(key, WORDS, reward, network=NETWORK, training=TRAINING, name=name, progress_bar=False)


def shares(flow) -> tuple[np.ndarray, float]:
    """Exact probabilities [S] of a composition, and its log sum."""
    logs = np.asarray(flow.log_probs(), dtype=np.float64)
    log_sum = float(np.logaddexp.reduce(logs))
    return np.exp(logs - log_sum), log_sum


def distance(p, q) -> float:
    return float(np.sum(np.abs(p - q)))


@functools.lru_cache
def cells() -> np.ndarray:
    """Of every state the number of its cell [S]: how many letters of each motif it has in one place."""
    states = gflownet.every_state(WORDS)
    matches = [
        np.rint(np.log(np.asarray(jax.vmap(gflownet.motif_reward(motif, sharpness=1.0))(states)))).astype(int)
        for motif in MOTIFS.values()
    ]
    return np.ravel_multi_index(matches, (7, 7, 7))


def of_cells(p, q) -> float:
    """L1 distance of the masses of cells."""
    return distance(*(np.bincount(cells(), weights=masses, minlength=343) for masses in (p, q)))


def of_training(name: str):
    return lambda seed: {"training": distance(shares(trained(name, seed))[0], shares(exact(name))[0])}


def of_composition(compose):
    def figures(seed: int) -> dict:
        composed = compose(*(trained(name, seed) for name in MOTIFS))
        run = gflownet.sample(jax.random.key(seed), composed, num_samples=NUM_PATHS)
        truth, log_sum = shares(composed)
        found, routed = run.probabilities(), shares(gflownet.routing(composed))[0]
        draws = np.random.default_rng(seed).multinomial(NUM_PATHS, truth / truth.sum()) / NUM_PATHS
        return {
            "L1": distance(found, truth), "floor": distance(draws, truth), "routing": distance(routed, truth),
            "of cells": of_cells(found, truth), "floor of cells": of_cells(draws, truth),
            "routing of cells": of_cells(routed, truth), "log sum": run.log_evidence - log_sum,
            "error": run.log_evidence_error, "ESS": run.ess / NUM_PATHS, "proposal": run.proposal,
            "to rewards": of_cells(found, shares(compose(*map(exact, MOTIFS)))[0]),
        }  # fmt: skip

    return figures


def rows():
    yield from ((f"training: {name}", of_training(name)) for name in MOTIFS)
    yield from ((name, of_composition(compose)) for name, compose in COMPOSITIONS.items())


if __name__ == "__main__":
    measure("gflownet_sequences", arguments(__doc__ or "", seeds=3), rows(), HEADER, COLUMNS)
