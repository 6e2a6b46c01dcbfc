# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Composing generative flow networks
#
# A generative flow network builds an object step by step and ends in x with a probability proportional to a reward. As a
# density over objects it composes like any other. On a grid everything is known by dynamic programming, so that one can
# see what each way of sampling a composition makes of it: the routing policy, a trained classifier, and weighted paths.

# %%
import warnings

import tqdm

warnings.simplefilter("ignore", tqdm.TqdmWarning)  # it asks for ipywidgets; there are no progress bars here

import jax
import matplotlib.pyplot as plt
import numpy as np

import numpyro_diffusion as nd
from numpyro_diffusion import gflownet

GRID = gflownet.Hypergrid(dim=2, side=16)


def shares(flow):
    """Exact probabilities of all cells."""
    logs = np.asarray(flow.log_probs(), dtype=np.float64)
    return np.exp(logs - np.logaddexp.reduce(logs))


def show(maps):
    figure, axes = plt.subplots(1, len(maps), figsize=(2.4 * len(maps), 2.6), layout="constrained")
    for ax, (title, values) in zip(axes, maps.items(), strict=True):
        ax.imshow(values.reshape(GRID.side, GRID.side).T, origin="lower", cmap="Blues", vmin=0)
        ax.set(title=title, xticks=[], yticks=[])
    plt.show()


# %% [markdown]
# ## Training
#
# Three flows by trajectory balance, and how far they are from their rewards. A flow's log Z is that of its reward.

# %%
network, training = gflownet.PolicyNetwork(width=64), gflownet.FlowTraining(num_steps=1500, learning_rate=5e-3)
flows, exact = [], []
for k in (1, 2, 3):
    reward = GRID.reward(gflownet.circle(k))
    flows.append(
        gflownet.train(
            jax.random.key(k), GRID, reward, network=network, training=training, name=f"circle{k}", progress_bar=False
        )
    )
    exact.append(gflownet.Flow.exact(GRID, reward))
    error = np.sum(np.abs(shares(flows[-1]) - shares(exact[-1])))
    print(f"{flows[-1]!r}: L1 {error:.3f}, log Z {float(flows[-1].log_z):.3f}, exact {float(exact[-1].log_z):.3f}")
show({repr(flow): shares(flow) for flow in flows})

# %% [markdown]
# ## Both, and one without the other
#
# Formulas print as those of diffusion models. The routing policy needs no training but is right for mixtures alone; the
# classifier has to be trained for its composition. Weighted paths are right for what is written.

# %%
p, q, r = flows
for composed, labels in [(nd.harmonic_mean(p, q), [1, 2]), (nd.contrast(p, q, alpha=0.5), [1, 1])]:
    run = gflownet.sample(jax.random.key(0), composed, num_samples=50_000)
    of_classifier = nd.TrainingConfig(num_steps=1500, batch_size=64, learning_rate=5e-3, ema_decay=0.99)
    guided = gflownet.guided(
        jax.random.key(0), [p, q], labels, network=network, training=of_classifier, progress_bar=False
    )
    maps = {
        "exact": shares(composed),
        "routing": shares(gflownet.routing(composed)),
        "classifier": shares(guided),
        "weighted paths": run.probabilities(),
    }
    print(composed)
    for name, values in list(maps.items())[1:]:
        print(f"  {name}: L1 {np.sum(np.abs(values - maps['exact'])):.3f}")
    print(f"  log sum {run.log_evidence:.4f} +- {run.log_evidence_error:.4f}, exact {composed.log_sum():.4f}")
    show(maps)

# %% [markdown]
# ## Three at once
#
# What three observers agree on, each of whom names one of the flows: `nd.sculpt`.

# %%
three = {f"labels {labels}": nd.sculpt(flows, labels) for labels in ([1, 2, 3], [1, 1, 1], [1, 1, 2])}
runs = {name: gflownet.sample(jax.random.key(1), flow, num_samples=50_000) for name, flow in three.items()}
show({name: run.probabilities() for name, run in runs.items()})
for name, run in runs.items():
    print(f"{name}: L1 {np.sum(np.abs(run.probabilities() - shares(three[name]))):.3f}")
runs["labels [1, 2, 3]"].print_summary()

# %% [markdown]
# ## From below and above
#
# Paths forwards bound the log of the sum from below, paths back from exact draws from above.

# %%
gflownet.bdmc(jax.random.key(2), three["labels [1, 2, 3]"]).print_summary()

# %% [markdown]
# ## Exercises
#
# 1. Sculpt with labels `[1, 1]`. Where is the mass, and what does the routing policy make of it?
# 2. Train for a tenth of the steps. Which of the three ways of sampling suffers most?
# 3. Write an environment of your own (`gflownet.Environment`), a lattice of other moves, and compose two rewards on
#    it.
