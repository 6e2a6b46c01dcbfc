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
# # Model comparison by evidence
#
# The evidence of a model is the probability that it gave to the data before seeing them, $p(y) = \int p(y \mid x) \,
# p(x) \, dx$. Ratios of evidences are Bayes factors. Every run of `nd.AnnealedMCMC` estimates its own, with an error.
# Here it decides between priors, between numbers of sources, and between classes of a half-hidden digit, against
# closed forms where there are any. The last section is about when to trust it.

# %%
import itertools
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
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_normal

import numpyro_diffusion as nd
from numpyro_diffusion.datasets import digits, planar

# %% [markdown]
# ## 1. Which prior explains the observation?
#
# Two priors in the plane, each of eight Gaussians: on a ring, and in a column. One point x is drawn from one of them
# and measured five times with noise. The observations below move from the centre, where only the column has mass,
# past the ring, into the empty space beyond.

# %%
eye, variance, noise, num_shots = np.eye(2), 0.1**2, 0.3, 5
column = np.stack([np.zeros(8), np.linspace(-0.7, 0.7, 8)], axis=1)
centres = {"ring": planar.MODES["ring"], "column": column}
priors = {name: nd.exact.GaussianMixture(c, [variance * eye] * 8, name=name) for name, c in centres.items()}
positions = np.linspace(0, 0.9, 7)
rng = np.random.default_rng(1)
errors = noise * rng.standard_normal((num_shots, 2))
observations = [np.array([r, 0.0]) + errors - errors.mean(0) for r in positions]


def shots(prior, y=None):
    x = numpyro.sample("x", prior)
    with numpyro.plate("shots", num_shots):
        numpyro.sample("y", dist.Normal(x, noise).to_event(1), obs=y)


def evidence(seed, prior, y):
    mcmc = nd.AnnealedMCMC(shots, nd.HMC(), num_chains=500, progress_bar=False)
    mcmc.run(jax.random.key(seed), nd.DiffusionPrior(prior), jnp.asarray(y, dtype=float))
    return mcmc


def exact_evidence(means, y):
    """Five measurements of one x are a Gaussian in ten dimensions for each component of the prior."""
    covariance = np.kron(np.ones((num_shots, num_shots)), variance * eye) + noise**2 * np.eye(2 * num_shots)
    return logsumexp(
        [multivariate_normal(np.tile(m, num_shots), covariance).logpdf(y.ravel()) for m in means]
    ) - np.log(8)


# %% [markdown]
# Data and densities are arguments of the compiled program: the first of these fourteen runs takes seconds, the others
# a fraction of one.

# %%
runs = {(name, i): evidence(i, priors[name], y) for i, y in enumerate(observations) for name in priors}
rows = []
print(f"{'position':>8}{'ring':>15}{'exact':>8}{'column':>15}{'exact':>8}{'log Bayes factor':>19}{'exact':>8}")
for i, (r, y) in enumerate(zip(positions, observations, strict=True)):
    found = [runs[name, i] for name in priors]
    exact = [exact_evidence(centres[name], y) for name in priors]
    z, error = [m.log_evidence for m in found], [m.log_evidence_error for m in found]
    rows.append((z[0] - z[1], np.hypot(*error), exact[0] - exact[1]))
    print(
        f"{r:8.2f}{z[0]:7.2f} +- {error[0]:.2f}{exact[0]:8.2f}{z[1]:8.2f} +- {error[1]:.2f}{exact[1]:8.2f}"
        f"{rows[-1][0]:11.2f} +- {rows[-1][1]:.2f}{rows[-1][2]:8.2f}"
    )
factor, factor_error, factor_exact = np.array(rows).T
assert np.all(np.abs(factor - factor_exact) < 5 * np.maximum(factor_error, 0.03))

# %%
fig, ax = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
ax.axhline(0, color="0.8", linewidth=1)
ax.plot(positions, factor_exact, color="black", linewidth=1, label="exact")
ax.errorbar(positions, factor, 2 * factor_error, fmt="o", markersize=4, label="AnnealedMCMC, 2 errors")
ax.set_xlabel("position of the observation")
ax.set_ylabel("log Bayes factor, ring against column")
ax.legend(frameon=False)
ax.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# ### Leave-one-out asks another question
#
# `az.loo` asks how well four measurements predict the fifth. Take a vague prior, thirty times wider than a mode of the
# ring (with eight components, for the program's sake). Once four measurements have said where x is, it predicts the
# fifth nearly as well as the ring. The evidence counts what each prior predicted before any measurement.

# %%
vague = nd.exact.GaussianMixture(centres["ring"], [3.0**2 * eye] * 8, name="vague")
trees = {"ring": runs["ring", 3].to_datatree(), "vague": evidence(10, vague, observations[3]).to_datatree()}
by_evidence = trees["ring"].attrs["log_evidence"] - trees["vague"].attrs["log_evidence"]
with warnings.catch_warnings(action="ignore"):  # five observations are few for the approximation's taste
    by_loo = float(az.loo(trees["ring"], var_name="y").elpd - az.loo(trees["vague"], var_name="y").elpd)
    table = az.compare(trees, var_name="y", round_to=2)
print(f"ring against vague: log evidence {by_evidence:.2f}, loo {by_loo:.2f}")
assert abs(by_loo) < by_evidence / 2
table[["rank", "elpd", "elpd_diff", "dse"]]

# %% [markdown]
# ## 2. How many sources?
#
# Each source is a draw from a prior with three modes, and only the noisy sum of k of them is observed. How many were
# there? The model below always draws three and switches them on and off: a draw that is not used integrates to one and
# leaves the evidence alone. So all k share one compiled program. The truth is a sum over the $3^k$ choices of modes.

# %%
angles = 2 * np.pi * np.arange(3) / 3
triangle = np.stack([np.cos(angles), np.sin(angles)], axis=1) + np.array([0.3, 0.0])
triangle_shares = np.array([0.5, 0.3, 0.2])
source = nd.exact.GaussianMixture(triangle, [0.2**2 * eye] * 3, triangle_shares, name="source")
switches = {k: np.arange(3) < k for k in (1, 2, 3)}


def total(prior, on, y=None):
    with numpyro.plate("sources", 3):
        x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(on @ x, 0.3).to_event(1), obs=y)


def exact_total(k, y):
    terms = []
    for modes in itertools.product(range(3), repeat=k):
        normal = multivariate_normal(triangle[list(modes)].sum(0), (k * 0.2**2 + 0.3**2) * eye)
        terms.append(np.log(triangle_shares[list(modes)]).sum() + normal.logpdf(y))
    return logsumexp(terms)


# %%
sums = {
    k: source.sample(jax.random.key(20 + k), k).sum(0) + 0.3 * jax.random.normal(jax.random.key(30 + k), (2,))
    for k in switches
}
print(f"{'true k':>6}{'observed sum':>18}{'log p(y | k), k = 1, 2, 3':>48}{'p(k | y)':>22}{'exact':>22}")
for k, y in sums.items():
    log_z, log_z_error = [], []
    for other, on in switches.items():
        mcmc = nd.AnnealedMCMC(total, nd.HMC(), num_chains=500, progress_bar=False)
        mcmc.run(jax.random.key(40 + 3 * k + other), nd.DiffusionPrior(source), jnp.asarray(on, dtype=float), y)
        log_z.append(mcmc.log_evidence)
        log_z_error.append(mcmc.log_evidence_error)
    log_z_exact = [exact_total(other, np.asarray(y)) for other in switches]
    cells = [f"{z:.2f} +- {e:.2f}" for z, e in zip(log_z, log_z_error, strict=True)]
    print(
        f"{k:6}{'({:.2f}, {:.2f})'.format(*y):>18}"
        + "".join(f"{cell:>16}" for cell in cells)
        + "".join(f"{str(np.round(softmax(z), 2)):>22}" for z in (log_z, log_z_exact))
    )
    assert np.all(np.abs(np.subtract(log_z, log_z_exact)) < 5 * np.maximum(log_z_error, 0.03))

# %% [markdown]
# A larger k is not favoured for being more flexible: it spreads its probability over more places, and pays for those
# where y is not.

# %% [markdown]
# ## 3. Which class is a half-hidden digit?
#
# The upper half of a held-out 8x8 digit, measured with unknown gain and unknown noise, as in notebook 03 but with four
# times the noise. The shipped density is conditional on the class, and `prior.given(one_hot)` is a prior for each. With
# equal probabilities before, $p(c \mid y) \propto p(y \mid c)$. Gain, noise and all 64 pixels are integrated out. Three
# candidates share one compiled program.

# %%
prior = nd.load_pretrained("digits")
scans, labels = digits.images("test")
rng = np.random.default_rng(0)
truth = scans[34] + digits.STEP * (rng.uniform(size=64) - 0.5) + 0.03 * rng.standard_normal(64)
A = np.eye(64)[:32]
y = 0.8 * A @ truth + 0.4 * rng.standard_normal(32)


def measured(prior, A, y=None):
    x = numpyro.sample("x", prior)
    gain = numpyro.sample("gain", dist.LogNormal(0.0, 0.2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(0.3))
    with numpyro.plate("measurements", 32):
        numpyro.sample("y", dist.Normal(gain * (A @ x), sigma), obs=y)


# %%
completed = {}
for c in (2, 3, 9):
    mcmc = nd.AnnealedMCMC(measured, nd.HMC(), num_chains=150, level_ess=0.95, progress_bar=False)
    given = nd.DiffusionPrior(prior.given(digits.one_hot(c)))
    mcmc.run(jax.random.key(50 + c), given, jnp.asarray(A, dtype=float), jnp.asarray(y, dtype=float))
    completed[c] = mcmc

# %% [markdown]
# The error of a probability follows from those of the log evidences, here by drawing them many times.

# %%
log_z = np.array([m.log_evidence for m in completed.values()])
log_z_error = np.array([m.log_evidence_error for m in completed.values()])
probability = softmax(log_z)
scatter = softmax(log_z + log_z_error * rng.standard_normal((4000, 3)), axis=1).std(0)
for c, z, e, p, s in zip(completed, log_z, log_z_error, probability, scatter, strict=True):
    print(f"class {c}: log evidence {z:6.2f} +- {e:.2f}, p(class | y) = {p:.3f} +- {s:.3f}")
label = int(labels[34])
print(f"the label is {label}")
assert log_z[list(completed).index(label)] > log_z.max() - 3

# %%
pictures = {"truth": truth, "data": np.concatenate([y, np.full(32, np.nan)])}
pictures |= {
    f"{c}: {p:.2f}": np.asarray(m.get_samples()["x"]).mean(0)
    for (c, m), p in zip(completed.items(), probability, strict=True)
}
fig, axes = plt.subplots(1, len(pictures), figsize=(10, 2), layout="constrained")
for ax, (title, image) in zip(axes, pictures.items(), strict=True):
    ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=-1, vmax=1)
    ax.set_title(title, fontsize=9)
    ax.set_axis_off()

# %% [markdown]
# The posterior means: each class explains the data by images of its own kind. The evidence weighs how well they
# fit, and how rare they are in the class.

# %% [markdown]
# ## 4. When to trust an evidence
#
# **Does it repeat within its error?** Another key costs little, since nothing is compiled anew. The scatter of the
# estimates should be of the size of the stated error. It falls with the square root of `num_chains`.

# %%
z = []
for seed in range(60, 72):
    again = evidence(seed, priors["ring"], observations[2])
    z.append((again.log_evidence, again.log_evidence_error))
values, stated = np.array(z).T
exact = exact_evidence(centres["ring"], observations[2])
print(f"exact {exact:.3f}, mean of 12 runs {values.mean():.3f}")
print(f"scatter {values.std(ddof=1):.3f}, error stated {stated.mean():.3f}")
assert abs(values.mean() - exact) < 5 * max(values.std(ddof=1), stated.mean()) / np.sqrt(12)
assert 1 / 3 < values.std(ddof=1) / stated.mean() < 3

# %% [markdown]
# The error is estimated from the chains of one run. Where they have missed a mode it knows nothing of it. For a result
# that matters, look at the findings of `mcmc.annealed.print_summary()`, and see whether `level_ess` closer to 1, more
# `num_steps`, or more chains change it.
#
# **Is the prior normalised?** Closed forms are, and calibrated densities are up to the error that
# `nd.calibration_report` tells. A product is not: its evidence contains the integral of the prior itself, which would
# count against or for the model. Subtract the log evidence of the prior alone, `nd.anneal(rng_key, prior).log_evidence`
# (notebook 01 shows one). Below, ring times a Gaussian, whose integral is a sum. The result is compared with that of the
# same prior written as the normalised mixture that it is.

# %%
blob = nd.exact.GaussianMixture([[0.5, 0.0]], [0.2**2 * eye], name="blob")
overlap = multivariate_normal([0.5, 0.0], (variance + 0.2**2) * eye)
log_integral = logsumexp(overlap.logpdf(centres["ring"])) - np.log(8)
raw = evidence(80, priors["ring"] * blob, observations[4])

narrow = 1 / (1 / variance + 1 / 0.2**2)
product_means = narrow * (centres["ring"] / variance + np.array([0.5, 0.0]) / 0.2**2)
product_shares = softmax(overlap.logpdf(centres["ring"]))
written_out = nd.exact.GaussianMixture(product_means, [narrow * eye] * 8, product_shares, name="written out")
normalised = evidence(82, written_out, observations[4])

corrected, error = raw.log_evidence - log_integral, np.hypot(raw.log_evidence_error, normalised.log_evidence_error)
print(f"product as it is       {raw.log_evidence:.3f} +- {raw.log_evidence_error:.3f}")
print(f"the prior's integral   {log_integral:.3f}, exactly")
print(f"difference             {corrected:.3f}")
print(f"the normalised mixture {normalised.log_evidence:.3f} +- {normalised.log_evidence_error:.3f}")
assert abs(corrected - normalised.log_evidence) < 5 * max(error, 0.03)
assert abs(raw.log_evidence - normalised.log_evidence) > 5 * error

# %% [markdown]
# A composition whose exponents sum to zero or less has no finite integral at all, and no evidence. It is refused.

# %%
try:
    nd.DiffusionPrior(priors["ring"] / blob)
except nd.errors.ParameterError as refusal:
    print(refusal)
else:
    raise AssertionError("an improper prior was accepted")

# %% [markdown]
# **Are the priors of nuisances proper and meant?** Evidences depend on the prior of every latent, here also on those of
# gain and noise. What all models share cancels for the most part; what only one has does not.
#
# **Is the density itself good?** The evidence compares trained densities as they are. A class that was learnt badly
# loses because of it. `nd.calibration_report(density)` checks the normaliser, held-out log likelihoods the fit.

# %% [markdown]
# ## Exercises
#
# 1. Halve the noise of the first example. By how much do the log evidences part?
# 2. Add a third source to section 2. Does the evidence choose it, and by how much does its prior matter?
# 3. Compare two classes of digits by evidences of runs with another key: is the difference within the errors
#    printed?
