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
# diffusion follows its score all the same and ends elsewhere; MCMC at every level does not. The images are small,
# 16x16, so that all of this runs on a laptop's processor.

# %%
import warnings

import tqdm

warnings.simplefilter("ignore", tqdm.TqdmWarning)  # it asks for ipywidgets; there are no progress bars here

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import numpyro_diffusion as nd
from numpyro_diffusion import demo_cubes
from numpyro_diffusion.datasets import cubes
from numpyro_diffusion.judge import all_present

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
# The composition is an expression like any other; its five terms cost one batched network call.

# %%
places = cubes.positions(jax.random.key(2), 4)
composed = nd.compose_conditions(density, places)
runs = demo_cubes.draw(density, places, jax.random.key(3), num_images=8)
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
# ## 5. How many steps?
#
# More MCMC at each level brings the chains closer to the composition (the paper's Figure 5; with more images in
# `benchmarks/table2_cubes.py --sweep`). Twelve images a point are few: the error bars are binomial.

# %%
counts, shares = [0, 1, 2, 4], [float(np.mean(all_present(judge, runs["reverse"].samples, places)))]
tuned = np.asarray(stats["step_size"])
for steps in counts[1:]:
    result = nd.anneal(
        jax.random.key(10 + steps),
        composed,
        nd.HMC(step_size=tuned, num_integration_steps=3, persistence=0.9),
        num_chains=12,
        num_steps=steps,
        levels=levels,
        predictor=True,
        progress_bar=False,
    )
    shares.append(float(np.mean(all_present(judge, result.samples, places))))
shares = np.asarray(shares)
error = np.sqrt(shares * (1 - shares) / np.array([8, 12, 12, 12]))
plt.figure(figsize=(4.5, 3), layout="constrained")
plt.errorbar(counts, 100 * shares, 100 * error, fmt="o-", capsize=3)
plt.gca().set(xlabel="HMC steps per level (0: reverse diffusion)", ylabel="all four cubes right, %", ylim=(-5, 105))
