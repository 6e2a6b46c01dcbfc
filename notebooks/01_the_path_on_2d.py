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
# # The path on 2D densities
#
# A diffusion model trained as an energy is a **density at every noise level**: $\log p(x, t)$ with $t = 1$ for noise
# and $t = 0$ for data. Densities multiply, divide and add. This notebook walks the whole path once, in two dimensions
# where everything can be checked against a grid:
#
# **train → density → compose → anneal → diagnose**
#
# Notebook 02 goes deeper into the last verb.

# %%
import tempfile
import warnings
from pathlib import Path

import tqdm

warnings.simplefilter("ignore", tqdm.TqdmWarning)  # it asks for ipywidgets; there are no progress bars here

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
from jax.scipy.special import logsumexp

import numpyro_diffusion as nd
from numpyro_diffusion.datasets import planar, targets

# %% [markdown]
# ## 1. Train
#
# `nd.fit` takes an array of points, or a sampler `(rng_key, num_samples) -> points`. Here the data are three small
# Gaussians in a column. A narrow network and 3,000 steps take seconds; the densities that ship with the package have
# four times the width, twice the depth and four times the steps. With half of the steps, or larger ones, some runs
# never find three modes, and the report below says so.

# %%
column = nd.fit(
    jax.random.key(0),
    planar.sampler("left_column"),
    network=nd.NetworkConfig(width=32, num_blocks=2),
    training=nd.TrainingConfig(num_steps=3000, ema_decay=0.99),
    name="column",
    progress_bar=False,
)

# %% [markdown]
# The loss has two terms: denoising score matching, and the time score that ties the noise levels and the modes
# together. Neither goes to zero, even for the perfect density: the network predicts noise that the data do not
# determine. So the loss says whether training is stable, not whether the density is good. The calibration report
# does: `Z` is the integral of the density, one if calibrated, and each mode should hold a third of the mass. (Where
# the noise is wider than the gaps between modes, there are no modes to weigh.)

# %%
report = nd.calibration_report(column, levels=column.schedule.levels(6), modes=planar.MODES["left_column"])
print(report)
print(f"largest error of a mode's weight: {report.mode_weight_error():.3f}")

# %% [markdown]
# Within some per cent after seconds of training. Dots are exact draws at three noise levels; the shades are the
# trained density, enclosing 40, 70, 90 and 99 % of its mass.

# %%
truth = planar.exact("left_column")
fig, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
for ax, t in zip(axes, (0.3, 0.1, 0.0), strict=True):
    nd.plots.plot_samples(truth.sample(jax.random.key(1), 500, t), column, t, ax=ax, title=f"t = {t}")

# %% [markdown]
# ## 2. Densities
#
# A density has a log density and a score at every noise level, for one point or a batch. The pretrained ones are
# calibrated. Their closed forms are in `planar.exact`, so the error of a network is a plain difference.

# %%
ring, bar = nd.load_pretrained("ring"), nd.load_pretrained("bar")
points = planar.exact("ring").sample(jax.random.key(2), 5, 0.1)
print("log p(x, 0.1)", ring.log_prob(points, 0.1))
print("closed form  ", planar.exact("ring").log_prob(points, 0.1))
print("score of the last point", ring.score(points, 0.1)[-1])
print("closed form            ", planar.exact("ring").score(points, 0.1)[-1])

# %%
fig, axes = plt.subplots(1, 2, figsize=(7.4, 3.8), layout="constrained")
for ax, density in zip(axes, (ring, bar), strict=True):
    draws = planar.sampler(repr(density))(jax.random.key(3), 1000)
    nd.plots.plot_samples(draws, density, ax=ax, limits=((-1.1, 1.1), (-1.1, 1.1)), title=repr(density))

# %% [markdown]
# ## 3. Compose
#
# Composition is ordinary algebra, and an expression prints as its formula. A product is high where both densities are
# high, a mixture where either is. The harmonic mean, too, is high only where both are; it follows the lower of the
# two where the product multiplies them. The contrast is high where the first is and the second is not. Each density
# is evaluated once, however often it occurs in the formula.

# %%
product = ring * bar
mixture = 0.5 * column + 0.5 * planar.exact("right_column")
print(product, mixture, sep="\n")
print(nd.harmonic_mean(ring, bar))
print(nd.contrast(ring, bar, alpha=0.2))

# %% [markdown]
# ## 4. Anneal
#
# `nd.anneal` starts chains in noise, where the density is close to a Gaussian, and follows it down the noise levels
# with MCMC. Nothing is tuned by hand: a pilot run places the levels and finds a step size for each. Importance
# weights correct for the change from level to level, and chains are resampled when the weights become uneven.

# %%
runs = {
    "product": nd.anneal(jax.random.key(4), product, nd.HMC(), num_chains=1000, progress_bar=False),
    "mixture": nd.anneal(jax.random.key(5), mixture, nd.HMC(), num_chains=4000, progress_bar=False),
}
runs["product"].print_summary()

# %% [markdown]
# Closed forms are densities like any other, and quicker: here the ring with a Gaussian on its right. The harmonic
# mean keeps the modes that lie in the Gaussian, the contrast the others.

# %%
blob = nd.exact.GaussianMixture([[0.35, 0.0]], [0.2**2 * np.eye(2)], name="blob")
closed = planar.exact("ring")
others = {
    name: nd.anneal(jax.random.key(9), density, nd.HMC(), num_chains=500, progress_bar=False)
    for name, density in {
        "harmonic mean": nd.harmonic_mean(closed, blob),
        "contrast": nd.contrast(closed, blob, alpha=0.05),
    }.items()
}
limits = ((-0.75, 0.75), (-0.75, 0.75))
fig, axes = plt.subplots(1, 4, figsize=(13, 3.7), layout="constrained")
for ax, (name, run) in zip(axes, (runs | others).items(), strict=True):
    nd.plots.plot_samples(run, ax=ax, limits=limits, title=name)

# %% [markdown]
# ### Reverse diffusion is not enough
#
# Reverse diffusion follows the score of the composition at each noise level. It samples the composition at $t = 0$
# only if the levels in between are what diffusing that composition would give. For mixtures they are: noise is added
# to each part. For products they are not: $p(x, t) \, q(x, t)$ is not the diffused product. Here some samples of the
# product end up between the modes, where it is practically zero; those of the mixture are where they belong.

# %%
reverse = {
    name: nd.anneal(jax.random.key(6), density, nd.Reverse(), num_chains=len(runs[name].samples), progress_bar=False)
    for name, density in {"product": product, "mixture": mixture}.items()
}
fig, axes = plt.subplots(1, 2, figsize=(7.4, 3.8), layout="constrained")
for ax, (name, run) in zip(axes, reverse.items(), strict=True):
    nd.plots.plot_samples(run, ax=ax, limits=limits, title=f"{name}, reverse diffusion")

# %% [markdown]
# The truth of both compositions is known in closed form. The first row of each is as many exact draws, to show what
# chance alone does. The mode weight error is the total variation between the shares of the modes; resampling copies
# chains, so those of annealed chains scatter like those of about a third as many exact draws. The mixture has the
# small network's error on top. A log likelihood above the truth's own means samples that are too sharp: with 100
# steps reverse diffusion is, a little, and 400 steps would take most of that away.

# %%
print(f"{'':20}{'log likelihood':>15}{'truth':>8}{'mode weight error':>19}{'outside':>9}")
for name in runs:
    target = targets.target(name)
    rows = {
        "exact draws": target.sample(len(runs[name].samples), seed=1),
        "reverse": reverse[name].samples,
        "annealed": runs[name].samples,
    }
    for row, samples in rows.items():
        m = nd.metrics.report(samples, target)
        print(
            f"{name + ', ' + row:20}{m['log_likelihood']:15.2f}{target.mean_log_prob:8.2f}"
            f"{m['mode_weight_tv']:19.3f}{m['fraction_outside']:9.3f}"
        )

# %% [markdown]
# ### Evidence
#
# The weights also give the evidence, the integral of the composed density: for a product, how much two densities have
# in common. In two dimensions a grid gives it as well. The annealed estimate should agree with the grid, which
# integrates the same trained densities, within about two of its errors, and the grid with the closed form as far as
# training was good.

# %%
x1, x2 = np.linspace(-0.3, 0.3, 121), np.linspace(-0.9, 0.9, 361)  # steps of 0.005; the product is zero beyond
grid = jnp.stack(jnp.meshgrid(x1, x2), axis=-1)
run = runs["product"]
print(f"annealed     {run.log_evidence:.3f} +- {run.log_evidence_error:.3f} nats")
print(f"quadrature   {logsumexp(product.log_prob(grid)) + 2 * np.log(0.005):.3f}")
print(f"closed form  {targets.target('product').log_evidence:.3f}")

# %% [markdown]
# ## 5. Save and load
#
# One file holds the weights (safetensors) and the architecture (JSON). Nothing is unpickled, and a damaged file is
# refused.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "column.safetensors"
    nd.save(column, path, card={"script": "notebooks/01_the_path_on_2d.py", "seed": 0})
    again = nd.load(path)
    print(f"{path.name}, {path.stat().st_size / 1000:.0f} kB, holds {again}")
    print("same log density:", bool(jnp.all(again.log_prob(grid, 0.1) == column.log_prob(grid, 0.1))))
    path.write_bytes(path.read_bytes()[:-100])
    try:
        nd.load(path)
    except nd.errors.CheckpointError as error:
        print(str(error).replace(folder, "..."))

# %% [markdown]
# ## 6. A density is a NumPyro potential
#
# `density.potential_fn(t)` is $U(z) = -\log p(z, t)$, for composed densities too, and runs in NumPyro's own samplers.
# At $t = 0.3$ the product has a single broad mode, so NUTS needs no annealing. Stopping the annealed run at the same
# level must give the same distribution.

# %%
mcmc = numpyro.infer.MCMC(
    numpyro.infer.NUTS(potential_fn=product.potential_fn(0.3)),
    num_warmup=300,
    num_samples=250,
    num_chains=4,
    chain_method="vectorized",
    progress_bar=False,
)
mcmc.run(jax.random.key(8), init_params=jnp.zeros((4, 2)))
stopped = nd.anneal(
    jax.random.key(7), product, nd.HMC(), num_chains=1000, levels=np.linspace(1, 0.3, 12), progress_bar=False
)
print("NUTS    ", az.summary(az.from_numpyro(mcmc), kind="stats", round_to=2), sep="\n")
print("annealed", az.summary(stopped.to_datatree(), kind="stats", round_to=2), sep="\n")

# %%
fig, axes = plt.subplots(1, 2, figsize=(7.4, 3.8), layout="constrained")
for ax, (name, samples) in zip(axes, (("NUTS", mcmc.get_samples()), ("annealed", stopped.samples)), strict=True):
    nd.plots.plot_samples(samples, product, 0.3, ax=ax, limits=((-1.8, 1.8), (-1.8, 1.8)), title=f"{name}, t = 0.3")

# %% [markdown]
# ## 7. Diagnose
#
# Nothing above ended in a warning. Had a run gone wrong, by too few levels, too large a step or densities that do not
# overlap, it would have said so. What each warning means, and how to bound what no warning can see, is notebook 02.

# %% [markdown]
# ## Exercises
#
# 1. Anneal the square of a density, `product ** 2`. Where do the samples go, and what is its log evidence by the
#    grid?
# 2. Anneal with `levels=8` and look at the findings. At which number of levels do they end, and what has become of
#    the error?
# 3. Train with `calibrated=False` and draw the mixture of section 3 again. Which shares do its parts have now?
