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
# # Composing cubes
#
# One U-Net energy knows p(image | a cube at y) for a single place y. Asked for five places at once, it is composed with
# itself (Du et al. 2023, Eq. 13),
#
# $$p(x) \prod_i \frac{p(x \mid y_i)}{p(x)},$$
#
# and what is sampled at noise level t is the product *of the noised densities*, which is not the noised product. Reverse
# diffusion follows its score all the same and ends elsewhere; MCMC at every level does not. How much that matters depends
# on how many places are asked for, as the last picture shows. The images are small, 16x16, so that all of this runs on a
# laptop's processor.

# %%
import json
import warnings
from pathlib import Path

import tqdm

warnings.simplefilter("ignore", tqdm.TqdmWarning)  # it asks for ipywidgets; there are no progress bars here

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import numpyro_diffusion as nd
from numpyro_diffusion.classifier.judge import all_present
from numpyro_diffusion.cli import cubes as demo_cubes
from numpyro_diffusion.datasets import cubes

density = nd.load_pretrained("cubes_16")
judge = demo_cubes.pretrained_judge(16)


def show(ax, image, places=()):
    size = len(image)
    ax.imshow(np.clip((np.asarray(image) + 1) / 2, 0, 1), interpolation="nearest", extent=(0, size, size, 0))
    if len(places):
        ax.scatter(*(size * np.asarray(places)).T, s=150, facecolors="none", edgecolors="white", linewidths=0.8)
    ax.set(xticks=[], yticks=[])


# %% [markdown]
# ## 1. The data
#
# A renderer in JAX casts rays against boxes: up to five cubes with shadows, and the camera moves a little. A classifier
# p(a cube at y | image), trained on it, will judge what the samplers draw.

# %%
x, labels = cubes.labelled(16)(jax.random.key(0), 8)
figure, axes = plt.subplots(1, 8, figsize=(12, 1.8), layout="constrained")
for ax, image, places, mask in zip(axes, x, labels.positions, labels.mask, strict=True):
    show(ax, image, places[mask])
right = all_present(judge, x, labels.positions, labels.mask)
print("the judge agrees with", int(right.sum()), "of 8")

# %% [markdown]
# ## 2. One place
#
# `given` conditions the density. In 768 dimensions importance weights collapse, so images are drawn by plain annealed
# MCMC with a reverse step before each level (`predictor=True`).

# %%
place = jnp.array([0.5, 0.6])
levels = density.schedule.levels(40, smallest=density.resolution)
kernel = nd.HMC(num_integration_steps=3, persistence=0.9)
run = nd.anneal(
    jax.random.key(1),
    density.given(place),
    kernel,
    num_chains=8,
    num_steps=2,
    levels=levels,
    predictor=True,
    num_pilot_chains=8,
    progress_bar=False,
)
figure, axes = plt.subplots(1, 8, figsize=(12, 1.8), layout="constrained")
for ax, image in zip(axes, run.samples, strict=True):
    show(ax, image, [place])
print(f"{np.mean(all_present(judge, run.samples, place[None])):.0%} have a cube there")

# %% [markdown]
# ## 3. Four places, reverse diffusion and HMC
#
# The composition is an expression like any other; its five terms cost one batched network call. Eight images of each
# sampler show what they look like, not which sampler is better: at four places both are right nearly every time.

# %%
places = cubes.positions(jax.random.key(2), 4)
print(nd.compose_conditions(density, places))
runs = dict(demo_cubes.draw(density, places, jax.random.key(3), num_images=8))
figure, axes = plt.subplots(2, 8, figsize=(12, 3.6), layout="constrained")
for row, (name, result) in zip(axes, runs.items(), strict=True):
    for ax, image in zip(row, result.samples, strict=True):
        show(ax, image, places)
    row[0].set_title(name, loc="left", fontsize=9)
    print(
        f"{name}: {np.mean(all_present(judge, result.samples, places)):.0%} right, "
        f"{result.evaluations_per_chain} evaluations per image"
    )

# %% [markdown]
# ## 4. Acceptance by level
#
# Step sizes were tuned on a few pilot chains to an acceptance of 70 %, at every level, in coordinates in which the
# density's Gaussian part is round. Acceptance far from that, at any level, would mean that the chains stand still there
# or that the pilot was too short.

# %%
stats = runs["HMC"].stats
ratio = density.schedule.noise_to_signal(runs["HMC"].levels)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.semilogx(ratio, stats["acceptance_rate"], ".-")
left.axhline(0.7, color="grey", linewidth=0.8)
left.set(xlabel="noise-to-signal ratio", ylabel="acceptance", ylim=(0, 1.02))
right.loglog(ratio, stats["step_size"], ".-")
right.set(xlabel="noise-to-signal ratio", ylabel="tuned leapfrog step")

# %% [markdown]
# ## 5. How many cubes, and how many steps?
#
# That takes more images than a notebook draws. `benchmarks/paper/table2_cubes.py` keeps the counts of 100 images a point on the
# left, of 20 a point on the right. Bars are Wilson's intervals at one standard error, which have a length also where every
# image is right.
#
# *Left*: the more cubes are asked for, the more often reverse diffusion leaves one out. HMC does so less often at five, ULA
# lies between them, and up to three cubes nobody is ahead. *Right*: of HMC alone, from one step per level to eight. One step
# is enough here: with more the share does not rise, and the bars of so few images are as long as any change. Whether cubes
# are there does not show what further steps do for the rest of the image.


# %%
def shares(name, rows, counts):
    """Shares of images with all cubes in % [len(rows), len(counts)], and how far Wilson's intervals reach [..., 2]."""
    kept = json.loads(Path(f"../benchmarks/results/{name}.json").read_text())
    cells = [[kept[f"{row}|{count}"].values() for count in counts] for row in rows]
    images = np.array([[sum(batch["images"] for batch in cell) for cell in row] for row in cells])
    share = np.array([[sum(batch["correct"] for batch in cell) for cell in row] for row in cells]) / images
    middle, half = share + 0.5 / images, np.sqrt(share * (1 - share) / images + 0.25 / images**2)
    ends = np.stack([middle - half, middle + half], axis=-1) / (1 + 1 / images)[..., None]
    return 100 * share, 100 * np.abs(ends - share[..., None])


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
counts, samplers = [1, 2, 3, 4, 5], {"energy reverse": "reverse diffusion", "energy ULA": "ULA", "energy HMC": "HMC"}
share, error = shares("table2_cubes_16", samplers, counts)
for i, label in enumerate(samplers.values()):
    left.errorbar(np.array(counts) + 0.06 * (i - 1), share[i], error[i].T, fmt="o-", capsize=3, label=label)
left.set(
    xlabel="cubes asked for", ylabel="all cubes there, %", ylim=(60, 102), xticks=counts, title="100 images a point"
)
left.legend(loc="lower left", frameon=False)
assert share[0, -1] + 2 * error[0, -1, 1] < share[2, -1], "at five cubes HMC is ahead of reverse diffusion"

steps = [1, 2, 4, 8]
for i, count in enumerate((1, 3, 5)):
    sweep, bars = shares("figure5_cubes_16", [f"energy HMC, steps = {n}" for n in steps], [count])
    right.errorbar(
        np.array(steps) * 1.04 ** (i - 1),
        sweep[:, 0],
        bars[:, 0].T,
        fmt="o-",
        capsize=3,
        label=f"{count} cube{'s' * (count > 1)}",
    )
right.set(xlabel="HMC steps per level", xscale="log", title="HMC, 20 images a point")
right.set_xticks(steps, [str(n) for n in steps])
right.minorticks_off()
right.legend(loc="lower left", frameon=False)

# %% [markdown]
# ## Exercises
#
# 1. Ask for two cubes at one place, `[place, place]`. What does eq. 13 say, and what is drawn?
# 2. Draw four places by `nd.MALA()` at as many evaluations. Does the acceptance by level look alike?
# 3. Compose by `nd.classifier_free_guided(density, place, 3.0)`. What do large scales do to the colours?
