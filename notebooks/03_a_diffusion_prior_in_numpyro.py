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
# # A diffusion prior in a NumPyro model
#
# `nd.DiffusionPrior` makes a density the distribution of a latent variable, beside any other latents of a NumPyro
# model. `nd.AnnealedMCMC` samples the posterior of all of them: it anneals the prior from noise to data while the
# likelihood comes in, and its weights give the evidence. This notebook starts from an example with a known answer,
# then reconstructs an image that was measured with unknown gain and unknown noise.

# %%
import warnings

import tqdm

warnings.simplefilter("ignore", tqdm.TqdmWarning)  # it asks for ipywidgets; there are no progress bars here

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS, Predictive
from numpyro.infer.util import log_density
from scipy.special import logsumexp
from scipy.stats import norm

import numpyro_diffusion as nd
from numpyro_diffusion.datasets import digits

# %% [markdown]
# ## 1. An example with a known answer
#
# The prior has two modes in the plane, far apart, which hold 10 % and 90 %. One number is observed: a linear function
# of x with noise. Then the posterior is a mixture of two Gaussians as well, and all of it is known.

# %%
means, variance, shares = np.array([[-3.0, 1.0], [3.0, -1.0]]), 0.25, np.array([0.1, 0.9])
density = nd.exact.GaussianMixture(means, [variance * np.eye(2)] * 2, shares, name="two modes")
direction, y = jnp.array([1.0, 2.0]), -0.5


def line(prior, y=None):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(direction @ x, 1.0), obs=y)


a = np.asarray(direction)
terms = np.log(shares) + norm.logpdf(y, means @ a, np.sqrt(variance * a @ a + 1.0))
log_z, posterior_shares = logsumexp(terms), np.exp(terms - logsumexp(terms))

# %% [markdown]
# The call is that of NumPyro's `MCMC`, with one difference: `num_chains` is the size of a population. Its chains start
# in noise, and each ends with one draw.

# %%
prior = nd.DiffusionPrior(density)
mcmc = nd.AnnealedMCMC(line, nd.HMC(), num_chains=1000, progress_bar=False)
mcmc.run(jax.random.key(0), prior, jnp.asarray(y))
mcmc.print_summary()

# %%
right = float((mcmc.get_samples()["x"][:, 0] > 0).mean())
print(f"log evidence        {mcmc.log_evidence:.3f} +- {mcmc.log_evidence_error:.3f}, exact {log_z:.3f}")
print(f"share of mode right {right:.3f}, exact {posterior_shares[1]:.3f}; before the observation {shares[1]}")
assert abs(mcmc.log_evidence - log_z) < 5 * max(mcmc.log_evidence_error, 0.02)
assert abs(right - posterior_shares[1]) < 0.08

# %% [markdown]
# ### What happens on the way
#
# At noise level t the handler `nd.handlers.noise_level` takes the prior to t, raises the likelihood to a power, and
# shows the likelihood a denoised view of x. It works on any model and is all that the annealer does to it.

# %%
point = jnp.array([1.0, -0.5])
noisy = nd.handlers.noise_level(line, t=0.3, likelihood_power=0.5)
by_handler, _ = log_density(noisy, (prior, y), {}, {"x": point})

# The view is E[x_0 | x_t] of the Gaussian with the density's moments: its mean, moved by the share of what x_t differs.
noised, alpha = density.gaussian(0.3), density.schedule.alpha(0.3)
gain = alpha * density.gaussian(0.0).covariance @ jnp.linalg.inv(noised.covariance)
view = density.gaussian(0.0).mean + gain @ (point - noised.mean)
by_hand = density.log_prob(point, 0.3) + 0.5 * norm.logpdf(y, direction @ view, 1.0)
print(f"by the handler {by_handler:.4f}, by hand {by_hand:.4f}")
assert abs(by_handler - by_hand) < 1e-3

# %% [markdown]
# ### The same model in NumPyro's own samplers
#
# A `DiffusionPrior` at t = 0 is a distribution like any other, so NUTS runs the same model. But its chains stay in the
# mode in whose basin they start, and the shares tell where they started.
#
# `nd.AnnealedKernel` brings the anneal to NumPyro's `MCMC`: warm-up is the anneal, one level a step. Chains of NumPyro
# cannot be resampled, so each comes with a weight.

# %%
nuts = MCMC(NUTS(line), num_warmup=200, num_samples=200, num_chains=8, chain_method="vectorized", progress_bar=False)
nuts.run(jax.random.key(1), prior, y)
by_chain = np.asarray(nuts.get_samples(group_by_chain=True)["x"][..., 0] > 0).mean(1)
print("NUTS: share of draws in the right mode, chain by chain:", by_chain)

kernel = nd.AnnealedKernel(line)
annealed = MCMC(kernel, num_warmup=60, num_samples=20, num_chains=256, chain_method="vectorized", progress_bar=False)
annealed.run(jax.random.key(2), prior, y, extra_fields=("log_weight",))
log_weight = np.asarray(annealed.get_extra_fields(group_by_chain=True)["log_weight"][:, 0])
weight = np.exp(log_weight - logsumexp(log_weight))
in_right = np.asarray(annealed.get_samples(group_by_chain=True)["x"][..., 0] > 0).mean(1)

# %%
kernel_share, error = weight @ in_right, np.sqrt(np.sum(weight**2 * (in_right - weight @ in_right) ** 2))
kernel_log_z = logsumexp(log_weight) - np.log(len(weight))
print(f"{'':24}{'right mode':>11}{'log evidence':>14}")
print(f"{'exact':24}{posterior_shares[1]:11.3f}{log_z:14.3f}")
print(f"{'AnnealedMCMC':24}{right:11.3f}{mcmc.log_evidence:14.3f}")
print(f"{'AnnealedKernel, weighted':24}{kernel_share:11.3f}{kernel_log_z:14.3f}")
print(f"{'NUTS':24}{by_chain.mean():11.3f}{'none':>14}")
assert np.all((by_chain == 0) | (by_chain == 1)), "every NUTS chain stays in one mode"
assert abs(by_chain.mean() - posterior_shares[1]) > 0.1
assert abs(kernel_share - posterior_shares[1]) < 5 * max(error, 0.02)
assert abs(kernel_log_z - log_z) < 0.4

# %% [markdown]
# ## 2. A digit, measured with unknown gain and unknown noise
#
# The prior is the density of 8x8 handwritten digits that ships with the package. The image below was not in its
# training data. It is measured as
#
# $$ y = g A x + \sigma \varepsilon, \qquad g \sim \mathrm{LogNormal}(0, 0.2), \quad \sigma \sim \mathrm{HalfNormal}(0.3) $$
#
# in two ways. *Inpainting*: the lower half is missing. *Super-resolution*: only means of 2x2 blocks are seen, each of
# them twice. Gain and noise scale are latent variables like any other. Both ways give 32 numbers, so the second run
# compiles nothing.

# %%
prior = nd.load_pretrained("digits")
scans, labels = digits.images("test")
chosen, gain, sigma = 34, 0.8, 0.1
rng = np.random.default_rng(0)
truth = scans[chosen] + digits.STEP * (rng.uniform(size=64) - 0.5) + 0.03 * rng.standard_normal(64)

blocks = np.eye(64).reshape(64, 4, 2, 4, 2).mean((2, 4)).reshape(64, 16).T
operators = {"inpainting": np.eye(64)[:32], "super-resolution": np.concatenate([blocks, blocks])}
data = {name: gain * A @ truth + sigma * rng.standard_normal(32) for name, A in operators.items()}


def measured(prior, A, y=None):
    x = numpyro.sample("x", prior)
    gain = numpyro.sample("gain", dist.LogNormal(0.0, 0.2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(0.3))
    with numpyro.plate("measurements", 32):
        numpyro.sample("y", dist.Normal(gain * (A @ x), sigma), obs=y)


# %%
def reconstruct(seed, density, A, y):
    mcmc = nd.AnnealedMCMC(measured, nd.HMC(), num_chains=150, level_ess=0.95, progress_bar=False)
    mcmc.run(jax.random.key(seed), nd.DiffusionPrior(density), jnp.asarray(A, dtype=float), jnp.asarray(y, dtype=float))
    return mcmc


runs = {name: reconstruct(3, prior, operators[name], data[name]) for name in operators}
for name, run in runs.items():
    acceptance = np.asarray(run.annealed.stats["acceptance_rate"])
    print(
        f"{name}: {len(run.annealed.levels)} levels, {run.evaluations_per_chain} evaluations per chain, acceptance "
        f"{acceptance.min():.2f} to {acceptance.max():.2f}, log evidence {run.log_evidence:.1f} +- {run.log_evidence_error:.1f}"
    )

# %% [markdown]
# The pictures: mean and draws of the posterior, and the width of the pixels' central 80 % intervals. In inpainting it
# is narrow where there are data and wide where the draws differ.

# %%
pictures = {
    "inpainting": np.concatenate([data["inpainting"], np.full(32, np.nan)]).reshape(8, 8),
    "super-resolution": data["super-resolution"].reshape(2, 4, 4).mean(0),
}


def show(runs, pictures):
    titles = ["truth", "data", "mean", "width of 80 %", "draw", "draw", "draw"]
    fig, axes = plt.subplots(len(runs), 7, figsize=(11, 1.75 * len(runs)), layout="constrained", squeeze=False)
    for row, (name, run) in zip(axes, runs.items(), strict=True):
        x = np.asarray(run.get_samples()["x"])
        width = np.ptp(np.percentile(x, [10, 90], axis=0), axis=0)
        images = [truth, pictures[name], x.mean(0), width, *x[[0, 50, 100]]]
        for ax, title, image in zip(row, titles, images, strict=True):
            low, high = (0, 1.6) if title.startswith("width") else (-1, 1)
            ax.imshow(image.reshape(-1, image.shape[-1] if image.ndim == 2 else 8), cmap="gray_r", vmin=low, vmax=high)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.set_title(title, fontsize=9)
        row[0].set_ylabel(name, fontsize=9)


show(runs, pictures)

# %% [markdown]
# In numbers. Coverage is the share of pixels inside their 80 % intervals (in inpainting, of those not measured). The
# pixels of one image are too dependent for it to be 80 %: that holds on average over images. The mean training image
# is what one would guess without data.

# %%
average = digits.images("train")[0].mean(0)
for name, run in runs.items():
    draws = {site: np.asarray(values) for site, values in run.get_samples().items()}
    where = slice(32, 64) if name == "inpainting" else slice(0, 64)
    x, true = draws["x"][:, where], truth[where]
    low, high = np.percentile(x, [10, 90], axis=0)
    coverage, rmse = np.mean((low < true) & (true < high)), np.sqrt(np.mean((x.mean(0) - true) ** 2))
    guess = np.sqrt(np.mean((average[where] - true) ** 2))
    print(
        f"{name:17} RMSE {rmse:.2f} (guess {guess:.2f}), coverage {coverage:.2f}, "
        + ", ".join(f"{k} {draws[k].mean():.2f} +- {draws[k].std():.2f}" for k in ("gain", "sigma"))
    )
    assert rmse < guess and coverage > 0.5
    assert all(abs(draws[k].mean() - v) < 4 * draws[k].std() for k, v in {"gain": gain, "sigma": sigma}.items())
print(f"{'truth':17} gain {gain}, sigma {sigma}")

# %% [markdown]
# ## 3. Does the model fit? A posterior predictive check
#
# `Predictive` draws data anew from each posterior draw. The discrepancy is the largest residual in units of the noise;
# its p-value is the share of draws in which new data have a larger one than the actual data. Then the same for data in
# which one sensor is broken and gives 4. The model knows no broken sensors, and the check says so. (A model that does not
# fit is also hard to sample: mind the error of the log evidence.)

# %%
A = operators["inpainting"]
broken = data["inpainting"].copy()
broken[17] = 4.0
checks = {
    "as measured": (runs["inpainting"], data["inpainting"]),
    "one broken": (reconstruct(4, prior, A, broken), broken),
}
p_values = {}
for name, (run, y) in checks.items():
    draws = run.get_samples()
    new = Predictive(measured, draws)(jax.random.key(5), nd.DiffusionPrior(prior), jnp.asarray(A, dtype=float))["y"]
    centre = np.asarray(draws["gain"][:, None] * draws["x"] @ A.T)
    largest = {
        k: np.max(np.abs(np.asarray(v) - centre) / np.asarray(draws["sigma"])[:, None], axis=1)
        for k, v in {"actual": y, "new": new}.items()
    }
    p_values[name] = np.mean(largest["new"] >= largest["actual"])
    print(
        f"{name:12} p = {p_values[name]:.3f}, sigma {draws['sigma'].mean():.2f}, "
        f"log evidence {run.log_evidence:.1f} +- {run.log_evidence_error:.1f}"
    )
assert p_values["as measured"] > 0.05 > p_values["one broken"]

# %% [markdown]
# ## 4. A prior that knows the class
#
# The density is conditional on the class too. `prior.given(one_hot)` is a density like any other, and since densities
# are arguments of the compiled program, nothing is compiled for it. Told the class, the data are more probable. How
# much narrower the hidden half becomes depends on how much of the class the data had told already.
#
# If all classes were equally probable before, $p(c \mid y) = p(y \mid c) / (10 \, p(y))$, so the difference of the log
# evidences is at most log 10, up to the errors of the estimates and of the trained densities.

# %%
label = int(labels[chosen])
runs["told the class"] = reconstruct(6, prior.given(digits.one_hot(label)), A, data["inpainting"])
widths = {}
for name in ("inpainting", "told the class"):
    x = np.asarray(runs[name].get_samples()["x"])[:, 32:]
    widths[name] = np.ptp(np.percentile(x, [10, 90], axis=0), axis=0).mean()
    print(
        f"{name:15} mean width of hidden pixels {widths[name]:.2f}, log evidence "
        f"{runs[name].log_evidence:.2f} +- {runs[name].log_evidence_error:.2f}"
    )
difference = runs["told the class"].log_evidence - runs["inpainting"].log_evidence
error = np.hypot(runs["told the class"].log_evidence_error, runs["inpainting"].log_evidence_error)
print(
    f"difference {difference:.2f} +- {error:.2f}, log 10 = {np.log(10):.2f}: p(class {label} | y) = {np.exp(difference) / 10:.2f}"
)
assert difference < np.log(10) + 4 * error
show({"told the class": runs["told the class"]}, {"told the class": pictures["inpainting"]})

# %% [markdown]
# Composed densities are priors as well: products, guided densities (`nd.guided`), classifier-free guidance
# (`nd.DiffusionPrior(nd.classifier_free_guided(prior, one_hot, scale))`). Notebook 04 has an example, and says what the
# evidence means then.

# %% [markdown]
# ## 5. In ArviZ
#
# `to_datatree` holds the draws, their statistics, the data, the log likelihood of every observation, and the statistics
# by noise level; a predictive sample joins as a group. Chains are islands of particles that share next to no ancestors:
# ESS and Monte Carlo errors see the copies that resampling made, and R-hat compares the islands.

# %%
run = runs["super-resolution"]
new = Predictive(measured, run.get_samples())(
    jax.random.key(8), nd.DiffusionPrior(prior), jnp.asarray(operators["super-resolution"], dtype=float)
)
tree = run.to_datatree(posterior_predictive={"y": new["y"]})
print({name: list(group.data_vars)[:4] for name, group in tree.children.items()})
print({k: v for k, v in tree.attrs.items() if k.startswith("log_evidence")})
az.summary(tree, var_names=["gain", "sigma"])

# %% [markdown]
# `az.loo` estimates how well each measurement is predicted by the others. With 64 unknown pixels behind 32 numbers,
# single measurements are influential, and the Pareto shapes k say for how many of them the estimate is not to be
# trusted. The evidence needs no such approximation; comparing models by it is notebook 04.

# %%
with warnings.catch_warnings(action="ignore"):  # that some k are large is printed below
    loo = az.loo(tree, var_name="y", pointwise=True)
bad = int((np.asarray(loo.pareto_k) > loo.good_k).sum())
print(f"elpd_loo {loo.elpd:.1f} +- {loo.se:.1f}; k above {loo.good_k:.2f} at {bad} of {loo.n_data_points} measurements")
assert np.isfinite(loo.elpd)

# %% [markdown]
# ## Exercises
#
# 1. Hide another part of the digit. Which pixels have the widest intervals? Draw `nd.plots.posterior_images`.
# 2. Put a wrong model in place of the right one, a gain of one, and let the posterior predictive check find it.
# 3. Give the noise scale a prior ten times wider. What happens to log evidence, and what to the digit?
