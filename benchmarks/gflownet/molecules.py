"""Flows over molecules for sEH, SA and QED, and their compositions: shares of cells of high and low scores.

    python benchmarks/gflownet/molecules.py            # resumes, trained flows too; an hour on two cores
    python benchmarks/gflownet/molecules.py --quick    # two fragments at most
    python benchmarks/gflownet/molecules.py --only "9 fragments"    # preset `gpu`: the paper's network, size and steps

Needs rdkit (extra `molecules`) and the weights of the sEH proxy in ../shared/data, which are not part of the package.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure
from numpyro_diffusion import gflownet
from numpyro_diffusion.gflownet import molecules as mol

MODELS = Path(__file__).parent / "models"
PROXY = Path(__file__).parents[2].parent / "shared" / "data" / "seh_proxy.safetensors"
BETA = 32.0
#: By the most fragments: preset `gpu`, which only runs where it is asked for, `cpu`, and one for two fragments, where
#: everything is known.
GPU = 9
PRESETS = {
    GPU: gflownet.FlowTraining(num_steps=20_000, batch_size=64, learning_rate=5e-4),
    5: gflownet.FlowTraining(num_steps=1_000, batch_size=64, learning_rate=2e-3),
    2: gflownet.FlowTraining(num_steps=4_000, batch_size=64, learning_rate=2e-3),
}
NETWORKS = {GPU: mol.FragmentTransformer()}
NAMES = ("SEH", "SA", "QED")
#: Labels of every composition, and its shares in Table 1 of the poster of Garipov et al. (2023), in %.
POSTER = {
    ("SEH",): "0 0 0 0 62 9 24 5",
    ("SA",): "0 0 73 4 0 0 18 5",
    ("QED",): "0 40 0 26 0 21 0 13",
    ("SEH", "SA"): "1 0 16 2 6 3 54 18",
    ("SEH", "QED"): "0 11 0 4 1 48 4 32",
    ("SA", "QED"): "0 15 1 42 0 8 2 32",
    ("SEH", "SA", "QED"): "0 7 2 11 2 19 10 49",
}
CELLS = [f"{a}{b}{c}" for a in "lh" for b in "lh" for c in "lh"]
COLUMNS = [
    *CELLS, "poster", "sEH", "SA", "QED", "log sum", "log sum +-", "log sum error", "by", "ESS", "L1", "L1 cells", "distinct",
    "diversity", "seconds",
]  # fmt: skip
#: Draws or paths, by the most fragments; and how many of equal weight are compared with each other.
PATHS, DRAWN = {2: 32_000, 5: 4_000, GPU: 5_000}, 1_000
HEADER = f"""# Molecules: flows for sEH, SA and QED, and their compositions

`python benchmarks/gflownet/molecules.py`. Trees of at most 5 fragments (or 2) out of 72, beta 32, MLP 2 x 256, trajectory
balance (`PRESETS`); every molecule's reward is shared by its derivations, so that shares are those of molecules. The
poster (Garipov et al. 2023) has at most 9 fragments, a graph transformer and 20,000 steps of 64 paths, and does not
share rewards: its figures stand beside, not as a truth to be met. Truth is known for two fragments: rows "rewards" are
exact sums over all 16,201 derivations, 5,586 molecules.

lll to hhh: share in % of the cells sEH, SA, QED low or high, the border at .5, .6, .25. "{{SEH, SA}}" is
p_SEH p_SA / (mean of the three flows), and so on: `nd.sculpt` of the three flows by those labels. Rows of flows are
independent draws, {PATHS[2]:,} for two fragments and {PATHS[5]:,} for five; of compositions as many weighted paths
(`nd.gflownet.sample`). log sum: of the composition, with its standard error; log sum error: less the exact one of the
trained flows. ESS: share of these, of flows by weights reward / flow, which says how well they are trained; of
compositions by families of paths. L1: of probabilities of derivations, to the exact composition of the trained flows
(for flows: to the rewards' exact flow). L1 cells: of the eight shares, to those of the rewards' exact composition.
distinct, diversity: of {DRAWN:,} equally weighted draws, share of distinct SMILES and mean Tanimoto distance (Morgan,
radius 2).

With two fragments 4,000 steps bring the flows within .05 to .09 of their rewards. What falls short: 1,000 steps are few for
five fragments. The ESS of flows tells that p_SA is near its reward, p_QED and p_SEH are not yet: read their rows, and those composed of them, as of the flows that there are. Path weights
are right for any flows here, since every derivation has one way to it; but where flows have little in common they have
heavy tails: a run that misses rare paths of large weight puts the log sum too low, by more than the error it prints (row
of three labels, two fragments); `run.findings()` then says that the weights collapse.
"""


@cache
def proxy() -> mol.SehProxy:
    return mol.SehProxy.load(PROXY)


def score(name: str) -> mol.rewards.Score:
    return {"SA": mol.sa, "QED": mol.qed}[name] if name != "SEH" else proxy()


@cache
def environment(size: int) -> mol.MoleculeEnvironment:
    return mol.MoleculeEnvironment(size)


def reward(name: str, size: int) -> mol.MoleculeReward:
    return mol.MoleculeReward(environment(size), score(name), BETA)


@cache
def trained(name: str, size: int, seed: int) -> gflownet.Flow:
    """The flow of a score; kept in `benchmarks/gflownet/models/`."""
    MODELS.mkdir(exist_ok=True)
    return gflownet.train(
        jax.random.fold_in(jax.random.key(seed), NAMES.index(name)), environment(size), reward(name, size), beta=BETA,
        network=NETWORKS.get(size), training=PRESETS[size], name=f"p_{name}",
        checkpoint_path=MODELS / f"{name.lower()}_{size}_{seed}.ckpt",
    )  # fmt: skip


@cache
def exact(name: str, size: int) -> gflownet.Flow:
    """The flow of a score by dynamic programming."""
    return gflownet.Flow.exact(environment(size), reward(name, size), beta=BETA, name=f"p_{name}")


def composed(flows: dict, labels: tuple[str, ...]):
    """p(x | labels): of the mean of all flows, what the labels' flows claim; one flow by itself for one label."""
    if len(labels) == 1:
        return flows[labels[0]]
    return nd.sculpt(list(flows.values()), [1 + NAMES.index(label) for label in labels])


_SCORES: dict[str, np.ndarray] = {}


def scores(smiles: list[str]) -> np.ndarray:
    """sEH, SA and QED of molecules, [N, 3]; every molecule once."""
    if new := sorted(set(smiles) - _SCORES.keys()):
        rows = np.stack([mol.scores(score(name), new) for name in NAMES], axis=1)
        _SCORES.update(zip(new, rows, strict=True))
    return np.stack([_SCORES[text] for text in smiles])


def described(smiles: list[str], weights: np.ndarray, labels: tuple[str, ...]) -> dict:
    """Shares of cells, means of scores, and how different molecules are."""
    values = scores(smiles)
    share = mol.shares(mol.cells(values), 8, np.log(np.maximum(weights, 1e-300)))
    # Evenly spaced through the weights: equal ones are drawn once at most.
    ends = np.cumsum(weights) / weights.sum()
    places = np.searchsorted(ends, (np.arange(DRAWN) + 0.5) / DRAWN)
    drawn = [smiles[i] for i in np.minimum(places, len(smiles) - 1)]
    return {
        **dict(zip(CELLS, 100 * share, strict=True)), "poster": POSTER[labels],
        **dict(zip(("sEH", "SA", "QED"), weights @ values / weights.sum(), strict=True)),
        "distinct": len(set(drawn)) / DRAWN, "diversity": mol.tanimoto_diversity(drawn),
    }  # fmt: skip


def listed(flow) -> tuple[np.ndarray, list[str]]:
    """Probabilities of all derivations, which sum to one, and their SMILES, where they can be listed."""
    log_probs = np.asarray(flow.log_probs(), np.float64)
    index = np.flatnonzero(np.isfinite(log_probs))
    states = jax.vmap(flow.environment.state_of)(jnp.asarray(index))
    weights = np.exp(log_probs[index] - log_probs[index].max())
    return weights / weights.sum(), mol.smiles_of(flow.environment, states)


def of_rewards(labels: tuple[str, ...], size: int) -> dict:
    """What the exact flows of the rewards compose to."""
    flow = composed({name: exact(name, size) for name in NAMES}, labels)
    weights, smiles = listed(flow)
    return {**described(smiles, weights, labels), "log sum": flow.log_sum()}


def of_flows(labels: tuple[str, ...], size: int, seed: int) -> dict:
    """What trained flows compose to, by sampling, beside what is known."""
    flow = composed({name: trained(name, size, seed) for name in NAMES}, labels)
    key, count = jax.random.fold_in(jax.random.key(100 + seed), len(labels)), PATHS[size]
    if len(labels) == 1:
        samples = flow.sample(key, count)
        weights, found = np.full(count, 1 / count), {"ESS": reward_ess(flow, samples, labels[0], size) / count}
    else:
        run = gflownet.sample(key, flow, num_samples=count)
        samples, weights = run.samples, np.exp(np.asarray(run.log_weights, np.float64) - float(run.log_weights.max()))
        found = {"ESS": run.particles.num_effective / count, "log sum": run.log_evidence}
        found["log sum +-"], found["by"] = run.log_evidence_error, run.proposal
    found |= described(mol.smiles_of(environment(size), samples), weights, labels)
    if environment(size).num_states is None:
        return found
    truth = composed({name: exact(name, size) for name in NAMES}, labels)
    if len(labels) == 1:
        found["L1"] = float(np.abs(listed(flow)[0] - listed(truth)[0]).sum())
    else:
        index = np.flatnonzero(np.isfinite(flow.log_probs()))
        found["L1"] = float(np.abs(run.probabilities()[index] - listed(flow)[0]).sum())
        found["log sum error"] = run.log_evidence - flow.log_sum()
    weights, smiles = listed(truth)
    wanted = mol.shares(mol.cells(scores(smiles)), 8, np.log(weights))
    found["L1 cells"] = sum(abs(found[cell] / 100 - w) for cell, w in zip(CELLS, wanted, strict=True))
    return found


def reward_ess(flow: gflownet.Flow, samples, name: str, size: int) -> float:
    """Effective number of a flow's draws under weights reward / flow."""
    values = jax.lax.map(reward(name, size), samples, batch_size=64)
    log_weights = BETA * jnp.log(values) - flow.log_prob(samples, num_paths=2)
    return float(jnp.exp(2 * jax.nn.logsumexp(log_weights) - jax.nn.logsumexp(2 * log_weights)))


def main() -> None:
    options = arguments(__doc__, seeds=1)
    rows = []
    sizes = (GPU,) if options.only.startswith(str(GPU)) else (2,) if options.quick else (2, 5)
    for size in sizes:
        for labels in POSTER:
            name = f"p_{labels[0]}" if len(labels) == 1 else "{" + ", ".join(labels) + "}"
            if environment(size).num_states is not None:
                rows.append((f"{size} fragments, {name}, rewards", lambda seed, a=labels, n=size: of_rewards(a, n)))
            rows.append((f"{size} fragments, {name}", lambda seed, a=labels, n=size: of_flows(a, n, seed)))
    measure("gflownet_molecules", options, rows, HEADER, COLUMNS)


if __name__ == "__main__":
    main()
