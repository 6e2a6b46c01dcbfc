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
# # Text and tapestries
#
# One density p(x | caption) of small rendered scenes, composed with itself: several captions that must hold at once, one
# that must not, one of two; then several windows of one larger canvas. All of them are densities, sampled by annealed HMC.

# %%
import warnings

import tqdm

warnings.simplefilter("ignore", tqdm.TqdmWarning)  # it asks for ipywidgets; there are no progress bars here

import jax
import matplotlib.pyplot as plt
import numpy as np

import numpyro_diffusion as nd
from numpyro_diffusion.cli.scenes import share_right
from numpyro_diffusion.datasets import captioned_scenes

density = nd.load_pretrained("captioned_scenes_32")
d = density.given
levels = density.schedule.levels(30, smallest=density.resolution)
how = {"levels": levels, "num_steps": 2, "predictor": True, "num_pilot_chains": 8, "progress_bar": False}
kernel = nd.HMC(num_integration_steps=3, persistence=0.9)

# %% [markdown]
# ## 1. The data
#
# Pictures are rendered anew for every batch, each with a caption that is true of it and mostly says only a part.

# %%
x, tokens = captioned_scenes.sampler(32)(jax.random.key(4), 6)
figure, axes = plt.subplots(1, 6, figsize=(12, 2.4), layout="constrained")
for ax, image, row in zip(axes, x, tokens, strict=True):
    nd.plots.image_grid(np.asarray(image)[None], ax=ax)
    ax.set_title(captioned_scenes.TEXT.decode(row), fontsize=7)

# %% [markdown]
# ## 2. Captions as densities
#
# `given` takes a caption. The paper's formula for "a cube, on sand or grass, not sunny" can be written as it is printed; the
# grammar of `nd.prompt` says the same with the density of no caption in its place, so that its log evidence has a meaning.
#
# **What to expect.** The density in a clone of the repository was trained for six and a half minutes on a GPU. It knows grounds,
# skies and colours; shapes of solids it mixes up, cubes and cylinders most of all ([captions](../docs/scenes.md)), so that a prompt for
# a cube is right in every second picture or so.

# %%
alpha = 0.3
formula = d("a cube") * (0.5 * d("sand") + 0.5 * d("grass")) / d("sunny") ** alpha
prompts = ['"a red cube"', '"a red cube" AND "snow"', '"snow" AND NOT "night"', '"sand" OR "water"']
targets = {"the formula": formula} | {text: nd.prompt(density, text) for text in prompts}
figure, axes = plt.subplots(len(targets), 1, figsize=(9, 1.5 * len(targets)), layout="constrained")
for ax, (name, target) in zip(axes, targets.items(), strict=True):
    run = nd.anneal(jax.random.key(0), target, kernel, num_chains=8, **how)
    nd.plots.image_grid(run.samples, columns=8, ax=ax, title=name)
    if name in prompts:
        print(f"{name}: {share_right(name, run.samples):.0%} of 8 are right, as the judge sees them")

# %% [markdown]
# ## 3. Mistakes are pointed at

# %%
for text in ('"a cube" AND ("sand" OR "grass"', '"a pyramid" AND "sand"'):
    try:
        nd.prompt(density, text)
    except nd.errors.TextError as error:
        print(error, end="\n\n")

# %% [markdown]
# ## 4. A tapestry
#
# Windows of one canvas, each with a caption of its own, as one density over the whole canvas: the product of what the windows
# say, with exponents that make up for their overlap.

# %%
windows = [
    (density, (0, 0), 1, "a red ball on snow", 1.0),
    (density, (0, 16), 1, None, 1.0),
    (density, (0, 32), 1, "a blue cube on snow", 1.0),
]
canvas = nd.tapestry((32, 64, 3), windows)
run = nd.anneal(jax.random.key(1), canvas, kernel, num_chains=4, **how)
nd.plots.image_grid(run.samples, columns=2, title="red ball | blue cube, on snow")

# %% [markdown]
# ## Exercises
#
# 1. Give the OR shares of .9 and .1, `'0.9 "sand" OR 0.1 "water"'`, and count.
# 2. Ask for `'"sand" AND "snow"'`. What does `run.log_evidence` say, and what does `run.print_summary()`?
# 3. Inpaint: a NumPyro model with `nd.DiffusionPrior(d("a cube"))` and a likelihood of the upper half of a rendered scene,
#    run by `nd.AnnealedMCMC`; draw `nd.plots.posterior_images` of its samples.
