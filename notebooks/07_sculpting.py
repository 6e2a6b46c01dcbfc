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
# # Sculpting
#
# Draw x from a mixture of models, and let observers say which model it came from. Bayes' rule turns their answers into a
# new density (Garipov et al. 2023),
#
# $$p(x \mid y_1, \dots, y_k) = \Big( \sum_i w_i p_i \Big) \prod_j \frac{p_{y_j}}{\sum_i w_i p_i} .$$
#
# With calibrated densities this is a formula that can be sampled as it stands, without a classifier. First in the plane,
# where the truth is known, then with coloured digits.

# %%
import warnings

import tqdm

warnings.simplefilter("ignore", tqdm.TqdmWarning)  # it asks for ipywidgets; there are no progress bars here

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import numpyro_diffusion as nd
from numpyro_diffusion.classifier import predict, pretrained_classifier
from numpyro_diffusion.datasets import circles, coloured_digits

discs = circles.densities()

# %% [markdown]
# ## 1. Answers about three discs
#
# Two observers who name different discs leave what both discs share; two who name the same leave what is this disc's alone.

# %%
axis = np.linspace(-1.25, 1.25, 160)
plane = jnp.asarray(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2))
cell = (axis[1] - axis[0]) ** 2


def heights(density):
    return np.exp(np.asarray(jax.vmap(lambda x: density.log_density(x, 0.0))(plane), np.float64))


answers = [(1,), (1, 2), (1, 1), (1, 2, 3), (2, 2, 3)]
figure, axes = plt.subplots(1, len(answers), figsize=(12, 2.7), layout="constrained")
for ax, labels in zip(axes, answers, strict=True):
    values = heights(nd.sculpt(discs, labels))
    ax.imshow(values.reshape(160, 160), origin="lower", cmap="Blues")
    ax.set(
        title=f"answers {', '.join(map(str, labels))}\nlog evidence {np.log(values.sum() * cell):.3f}",
        xticks=[],
        yticks=[],
    )

# %% [markdown]
# ## 2. Sampled, with evidence
#
# Annealed HMC draws from the formula. The log evidence is that of the answers, and the discs cut the plane into regions
# whose masses can be compared with sums over the grid.

# %%
for labels in ([1, 2], [1, 1]):
    density = nd.sculpt(discs, labels)
    run = nd.anneal(jax.random.key(0), density, nd.HMC(), num_chains=1000, progress_bar=False)
    exact, weights = heights(density), np.exp(np.asarray(run.log_weights, np.float64))
    masses = np.bincount(circles.region(run.samples), weights / weights.sum(), 8)
    truth = np.bincount(circles.region(plane), exact / exact.sum(), 8)
    off = 0.5 * np.abs(masses - truth).sum()
    print(
        f"{labels}: log evidence {run.log_evidence:.3f} ± {run.log_evidence_error:.3f}, exact {np.log(exact.sum() * cell):.3f}; regions differ by {off:.3f}"
    )
    assert abs(run.log_evidence - np.log(exact.sum() * cell)) < 5 * run.log_evidence_error + 0.02 and off < 0.08

# %% [markdown]
# ## 3. Chains of observations, and two densities
#
# `nd.observe` adds an answer to any density. With two densities the operators have names: the harmonic mean is high where
# both are, the contrast where the first is and the second is not.

# %%
first, second, _ = discs
step = nd.observe(nd.sculpt([first, second], [1]), [first, second], 2)
formulas = {
    "observed in turn": step,
    "sculpted at once": nd.sculpt([first, second], [1, 2]),
    "harmonic mean": nd.harmonic_mean(first, second),
    "contrast": nd.contrast(first, second),
}
figure, axes = plt.subplots(1, len(formulas), figsize=(10, 2.6), layout="constrained")
for ax, (name, density) in zip(axes, formulas.items(), strict=True):
    ax.imshow(heights(density).reshape(160, 160), origin="lower", cmap="Blues")
    ax.set(title=name, xticks=[], yticks=[])
np.testing.assert_allclose(
    heights(formulas["observed in turn"]), heights(formulas["sculpted at once"]), rtol=1e-3, atol=1e-8
)

# %% [markdown]
# ## 4. Coloured digits
#
# Three models of 16x16 pictures: m1 draws green 0 to 3, m2 red and green 0 and 1, m3 red and green 0 and 2. They are three
# conditions of one network, so that their ratios can be learnt: data of one model under the condition of another are part
# of the loss (`TrainingConfig(contrastive_weight=)`). Pictures have no weights of annealing: in 768 dimensions those collapse.
# The mixture of the models as the predictor leaves those of the answers, which say what m1 alone has too much of at large noise.

# %%
network = nd.load_pretrained("coloured_16")
models = [network.given(row) for row in np.eye(3)]
judge = pretrained_classifier("coloured_digits_16")
levels = network.schedule.levels(30, smallest=network.resolution)
how = {
    "num_chains": 32,
    "levels": levels,
    "num_steps": 2,
    "predictor": nd.mixture(*models),
    "num_pilot_chains": 8,
    "progress_bar": False,
}
kernel = nd.HMC(num_integration_steps=3, persistence=0.9)
questions = {"m1 and m2": [1, 2], "m1 alone": [1, 1], "m2 and m3": [2, 3]}

figure, axes = plt.subplots(1, len(questions), figsize=(11, 2.4), layout="constrained")
for ax, (name, labels) in zip(axes, questions.items(), strict=True):
    run = nd.anneal(jax.random.key(1), nd.sculpt(models, labels), kernel, **how)
    nd.plots.image_grid(run.samples, columns=8, ax=ax, title=name)
    exact, log_evidence = coloured_digits.shares(labels)
    weights = np.exp(run.log_weights - np.max(run.log_weights))
    seen = np.bincount(np.asarray(predict(judge, run.samples)).argmax(1), weights / weights.sum(), minlength=8)
    shown = {f"{colour} {digit}": (round(float(e), 2), round(float(s), 2))
             for (digit, colour), e, s in zip(coloured_digits.CELLS, exact, seen, strict=True) if e > 0.005 or s > 0}  # fmt: skip
    print(name, "- cell: (asked, seen)", shown, f"log evidence {run.log_evidence:.2f}, exact {log_evidence:.2f}")

# %% [markdown]
# Thirty-two pictures have shares that scatter by .09. Beyond that, some may lie in cells that have no mass, where the network tells
# its models apart too weakly ([limits](../docs/limits.md)). `benchmarks/sculpting/sculpting.py` draws more, with every pair and
# triple of answers, beside the route by a classifier and its published scales of guidance.
#
# ## Exercises
#
# 1. Give the first disc a weight of .95 in `nd.sculpt(discs, [1, 2], weights=...)`. Which side of the overlap grows, and why?
# 2. Sculpt `[1, 1, 1, 1]`. How does log evidence fall with each answer, and what does the effective sample size of a run do?
# 3. Compose `nd.sculpt(models, [1, 2])` with a NumPyro likelihood of its left half by `nd.DiffusionPrior`, and inpaint a zero.
