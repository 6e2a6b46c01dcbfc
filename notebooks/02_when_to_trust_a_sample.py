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
# # When to trust a sample
#
# An annealed run always returns samples. This notebook is about what tells good ones from bad ones: the summary and
# the plots of a run, the warnings (each provoked on purpose), bounds on the evidence that hold whatever the sampler
# does, and what weights repair and what they cannot. It ends in a list of decisions.

# %%
import warnings

import tqdm

warnings.simplefilter("ignore", tqdm.TqdmWarning)  # it asks for ipywidgets; there are no progress bars here

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp

import numpyro_diffusion as nd
from numpyro_diffusion.datasets import planar

# %% [markdown]
# ## A problem with a known answer
#
# To see whether a diagnostic is right, the truth must be known. A ring of eight narrow Gaussians times one broad one
# is again a mixture of eight, with weights $\propto N(m_k; b, (v + s) I)$, and its evidence is their sum. Both
# densities are closed forms at every noise level, so any error below is the sampler's.

# %%
modes, centre, v, s = planar.MODES["ring"], np.array([-0.4, 0.2]), 0.05**2, 0.3**2
ring = nd.exact.GaussianMixture(modes, np.tile(v * np.eye(2), (8, 1, 1)), name="ring")
blob = nd.exact.GaussianMixture([centre], [s * np.eye(2)], name="blob")
target = ring * blob

log_shares = -np.sum((modes - centre) ** 2, axis=1) / (2 * (v + s)) - np.log(8 * 2 * np.pi * (v + s))
log_z = logsumexp(log_shares)
shares = np.exp(log_shares - log_z)
truth = nd.exact.GaussianMixture(
    (s * modes + v * centre) / (v + s), np.tile(v * s / (v + s) * np.eye(2), (8, 1, 1)), weights=shares, name="truth"
)
print(f"{target}: log Z = {log_z:.3f}, shares of the modes {np.round(shares, 3)}")

# %% [markdown]
# ## 1. A good run
#
# The summary is the first thing to read. *Log evidence* comes with a standard error. *ESS* (effective sample size)
# says how even the weights were: the least share between two levels shows whether each step in noise was small
# enough, the least on the way how much they had drifted apart before resampling. *Acceptance* should be near its
# target. *Findings* are what speaks against the run, also issued as warnings.

# %%
run = nd.anneal(jax.random.key(1), target, nd.HMC(), num_chains=1000, keep_history=True, progress_bar=False)
run.print_summary()

# %% [markdown]
# The same by noise level, noise on the left and data on the right. A healthy run looks like this: acceptance around
# its target, step sizes that change smoothly, conditional ESS well above a half throughout, ESS that falls from level to
# level (and is restored by resampling where it gets low). Of the increments the spread matters: what they have in common goes into
# the evidence.

# %%
fig = nd.plots.plot_annealing(run)

# %%
fig, axes = plt.subplots(1, 2, figsize=(7.4, 3.8), layout="constrained")
limits = ((-0.9, 0.7), (-0.8, 0.8))
nd.plots.plot_samples(run, ax=axes[0], limits=limits, title="annealed")
ax = nd.plots.plot_samples(truth.sample(jax.random.key(2), 1000), target, 0.0, ax=axes[1], limits=limits, title="truth")

# %% [markdown]
# ### In ArviZ
#
# `run.to_datatree()` holds the samples, their weights, and the statistics by noise level. Chains are particles, each
# with one point at the end, laid out as four islands that share next to no ancestors, with relatives side by side: ESS
# and Monte Carlo errors of `az.summary` see the copies that resampling makes, and R-hat compares the islands. Where they
# would mean nothing they are NaN; the attribute `layout` says so.

# %%
tree = run.to_datatree()
print(tree.groups)
az.summary(tree)

# %%
columns = ["noise_to_signal", "acceptance_rate", "step_size", "ess", "conditional_ess", "log_evidence"]
tree["annealing"].to_dataset().reset_coords()[columns].to_dataframe().iloc[::4].round(3)

# %% [markdown]
# ### Do it again
#
# The cheapest check there is: other keys. Nothing is compiled anew, so it takes a fraction of a second. The estimates
# of log Z should scatter as their standard error says, and around one value.

# %%
for seed in range(20, 25):
    again = nd.anneal(jax.random.key(seed), target, nd.HMC(), num_chains=1000, progress_bar=False)
    error = nd.metrics.mode_weight_tv(again.samples, truth.means, shares)
    print(f"log Z {again.log_evidence:.3f} +- {again.log_evidence_error:.3f}, error of mode weights {error:.3f}")
print(f"truth {log_z:.3f}")

# %% [markdown]
# ## 2. The warnings, one by one
#
# ### Too few levels
#
# Straight from noise to data, nearly all starting points are improbable under the target, and a few of them carry all
# the weight. Resampling then copies these few, and the kernel has no levels left in which to spread the copies. The
# remedy is what `nd.anneal` does when it is not told the levels: place as many as the accuracy takes that is asked for, or
# so that the conditional ESS stays at `level_ess`.

# %%
leap = nd.anneal(jax.random.key(3), target, nd.HMC(), num_chains=1000, levels=[1.0, 0.0], progress_bar=False)
error = nd.metrics.mode_weight_tv(leap.samples, truth.means, shares)
print(f"error of mode weights {error:.3f}")

# %% [markdown]
# ### A step that is too large, or too small
#
# With Metropolis acceptance a step that is too large is not wrong, but nothing moves: samples are the resampled
# starting points. A step that is too small is always accepted, and nothing moves far either. Both cost as much as the
# good run, and weights alone do the work. Leave the step size out, and it is tuned at every level.

# %%
large = nd.anneal(jax.random.key(3), target, nd.HMC(step_size=2.0), num_chains=1000, progress_bar=False)
small = nd.anneal(jax.random.key(3), target, nd.HMC(step_size=0.005), num_chains=1000, progress_bar=False)

# %%
compared = {"default": run, "straight to data": leap, "steps too large": large, "steps too small": small}
fig, axes = plt.subplots(1, 4, figsize=(13, 3.7), layout="constrained")
for ax, (title, shown) in zip(axes, compared.items(), strict=True):
    nd.plots.plot_samples(shown, ax=ax, limits=limits, title=title)
    print(f"{title:17} log Z {shown.log_evidence:.3f} +- {shown.log_evidence_error:.3f}")
print(f"{'truth':17} log Z {log_z:.3f}")

# %% [markdown]
# ### An uncalibrated density in a mixture
#
# Score matching alone, as in the paper, leaves a free constant at every noise level, and one for every isolated mode.
# In a product a constant factor changes no sample. In a mixture it *is* the share. Here are two columns of three
# modes, the left one trained without calibration, the right one exact; each of the six modes should hold one sixth.
#
# The warning comes when the mixture is built. Everything else about the run looks healthy: no acceptance rate or ESS
# can notice, because the sampler samples what it was given.

# %%
left = nd.fit(
    jax.random.key(4),
    planar.sampler("left_column"),
    calibrated=False,
    network=nd.NetworkConfig(width=32, num_blocks=2),
    training=nd.TrainingConfig(num_steps=1000),
    name="uncalibrated",
    progress_bar=False,
)
six_modes = np.concatenate([planar.MODES["left_column"], planar.MODES["right_column"]])
uncalibrated = nd.anneal(
    jax.random.key(5), 0.5 * left + 0.5 * planar.exact("right_column"), nd.HMC(), num_chains=1000, progress_bar=False
)
print("shares of the modes, left then right:", nd.metrics.mode_weights(uncalibrated.samples, six_modes))

# %% [markdown]
# `nd.recalibrate` measures the normaliser at every level and takes it out. Now both columns hold about half. But
# within the left column the modes are as wrong as before: the constants of isolated modes are in the weights of the
# network, and only training with calibrated losses (the default of `nd.fit`) sets them right. That is why the warning
# stays.

# %%
recalibrated = nd.recalibrate(jax.random.key(6), left, num_chains=4000, progress_bar=False)
with warnings.catch_warnings(action="ignore"):
    mixture = 0.5 * recalibrated + 0.5 * planar.exact("right_column")
halves = nd.anneal(jax.random.key(5), mixture, nd.HMC(), num_chains=2000, progress_bar=False)
print("shares of the modes, left then right:", nd.metrics.mode_weights(halves.samples, six_modes))

# %%
fig, axes = plt.subplots(1, 2, figsize=(7.4, 3.8), layout="constrained")
for ax, (title, shown) in zip(axes, {"uncalibrated": uncalibrated, "recalibrated": halves}.items(), strict=True):
    nd.plots.plot_samples(shown, ax=ax, contours=False, limits=((-0.8, 0.8), (-0.8, 0.8)), title=title)

# %% [markdown]
# Whether a density is calibrated, `nd.calibration_report` answers: by quadrature in one or two dimensions, by
# annealing in more. `Z` should be one at every level. For this one it is not, by orders of magnitude.

# %%
print(nd.calibration_report(left, levels=left.schedule.levels(5), modes=planar.MODES["left_column"]))

# %% [markdown]
# ### Densities that do not overlap
#
# The product of densities without common ground has no meaningful samples. The sampler finds the least bad
# compromise, with good acceptance and even weights. What gives it away is that its samples are improbable under the
# factors, and a very low evidence.

# %%
far = nd.exact.GaussianMixture([[3.0, 0.0]], [s * np.eye(2)], name="far")
disjoint = nd.anneal(jax.random.key(7), ring * far, nd.HMC(), num_chains=1000, progress_bar=False)
disjoint.print_summary()

# %% [markdown]
# ### Energies that are NaN
#
# The logarithm below is NaN on half of the plane. A chain that proposes to go there stays where it is, and the
# proposal is counted as a divergence; the run survives, and its samples are right for the half on which the density
# is defined. Some divergences are normal at low noise, next to hard walls. Many at noisy levels mean a bug in a
# density, or too large a step.

# %%
broken = nd.as_density(lambda x, t: jnp.log(x[0]), (2,), name="log x")
half = nd.anneal(jax.random.key(8), ring * broken, nd.HMC(), num_chains=500, progress_bar=False)
print(f"{half.stats['divergences'].sum()} divergences; smallest x[0] of the samples: {half.samples[:, 0].min():.3f}")

# %% [markdown]
# ## 3. Bounds on the evidence
#
# Diagnostics notice some failures; bounds hold without noticing anything. They are *stochastic* bounds: true in
# expectation, each with a standard error. Look at the error first: an estimate that hangs on a few large weights has
# a large one.
#
# - `nd.ais_bound`: annealed importance sampling. Its weights average to $Z$, so its log evidence is low in
#   expectation.
# - `nd.bdmc`: also from above, by annealing backwards from *exact* draws of the target. Between the two is the truth.
# - `nd.raise_bound`: backwards from test points, from below on their mean log likelihood *under the annealed sampler
#   itself*. It needs neither the normaliser nor exact draws of the model.
#
# With few levels the bounds are far apart; at the levels that the default places they meet, with fewer of them than
# 24 geometric ones. In expectation the gap also bounds the Kullback-Leibler divergence of a draw from the target.

# %%
exact_draws = truth.sample(jax.random.key(9), 1000)
with warnings.catch_warnings(action="ignore"):  # few levels on purpose
    bounds = {
        f"{levels} levels" if levels else "default": nd.bdmc(
            jax.random.key(10), target, exact_draws, nd.HMC(), levels=levels, progress_bar=False
        )
        for levels in (6, 12, 24, None)
    }
for name, bound in bounds.items():
    print(f"{name:10} {bound}")
print(f"the default placed {len(bounds['default'].levels)} levels")
ax = nd.plots.plot_bounds(bounds, truth=log_z)

# %%
likelihoods = {
    f"{levels} levels" if levels else "default": nd.raise_bound(
        jax.random.key(11), target, exact_draws, nd.HMC(), levels=levels, progress_bar=False
    )
    for levels in (6, 12, 24, None)
}
ax = nd.plots.plot_bounds(likelihoods, truth=float(truth.log_prob(exact_draws).mean()))
title = ax.set_title("mean log likelihood of draws of the truth", fontsize=10, pad=26)

# %% [markdown]
# Exact draws of a composition are rarely at hand. Then use `nd.bdmc` on a problem of the same kind whose answer is
# known, as here, to see how many levels such problems need, and `nd.ais_bound` and `nd.raise_bound` on your own.

# %% [markdown]
# ## 4. Unadjusted kernels
#
# ULA and U-HMC accept every proposal, which saves nothing here. Their stationary distribution is not the target's: ULA with step $\epsilon$ widens a
# Gaussian by $(1 - \epsilon / 2)^{-1/2}$.
#
# Annealed importance weights need not assume that a kernel leaves the target invariant. Each move that was accepted
# unseen is weighed by its Metropolis ratio,
#
# $$ \log w \mathrel{+}= \log \frac{\gamma(x') \, F(x' \to x)}{\gamma(x) \, F(x \to x')}, $$
#
# which makes the weight the ratio of the probabilities of the whole path backwards and forwards. Its mean is $Z$ for
# any $F$. So weighted samples are right, and so are resampled ones, which is what `nd.anneal` returns by default. The
# price is variance: the larger the bias that the weights have to take out, the fewer samples are left. Below, the
# target is a Gaussian of standard deviation 0.3 with log Z = 0, and resampling is off to see the weights.

# %%
print(f"{'step':>6}{'sd expected':>13}{'sd, no weights':>16}{'sd, weighted':>14}{'ESS':>7}{'log Z':>17}")
for step_size in (0.05, 0.2, 0.5, 1.0):
    ula = nd.anneal(
        jax.random.key(12),
        blob,
        nd.ULA(step_size=step_size),
        num_chains=4000,
        num_steps=10,
        levels=5,
        resample_threshold=0.0,
        progress_bar=False,
    )
    x, weights = np.asarray(ula.samples), np.exp(ula.log_weights - ula.log_weights.max())
    plain, weighted = (np.sqrt(np.cov(x.T, aweights=w).diagonal().mean()) for w in (np.ones(len(x)), weights))
    print(
        f"{step_size:6.2f}{0.3 / np.sqrt(1 - step_size / 2):13.3f}{plain:16.3f}{weighted:14.3f}"
        f"{ula.ess:7.0f}{ula.log_evidence:9.3f} +- {ula.log_evidence_error:.3f}"
    )

# %% [markdown]
# Plain reverse diffusion has no weights, no evidence and no bounds, and its bias stays. `run.print_summary()` says so.
# Score-only models have weights by integrals of their score, and with them an evidence, but no bounds.

# %% [markdown]
# ## 5. Decisions
#
# In this order:
#
# 1. **Are the densities calibrated?** `nd.calibration_report(density)` for each trained one. If not: shares of a
#    mixture, harmonic means, contrasts and evidences are arbitrary, and so are the weights of isolated modes, in
#    products too. Train with `nd.fit(...)`, calibrated by default.
# 2. **Any warning?** `run.print_summary()`. Do what it says before looking at samples:
#
#    | warning | meaning | remedy |
#    |---|---|---|
#    | factors do not overlap | the product asks for the impossible | temper the factors, or a mixture |
#    | samples or log evidence not finite | the density is NaN, zero or infinite there | check `density.log_prob` |
#    | weights collapse | too far from one level to the next | `level_ess` closer to 1, more chains |
#    | few founding chains survive | uneven weights all along; modes may be lost | the same, more `num_steps` |
#    | acceptance off target, or below 0.3 | chains hardly move | leave `step_size` out, or one per level |
#    | acceptance above 0.98 | steps too small to explore | leave `step_size` out |
#    | proposals at noisy levels diverge | a bug in a density, or far too large a step | check for NaN; smaller steps |
#    | not calibrated, in a mixture | shares are arbitrary | calibrated training, see above |
#
# 3. **Does `nd.plots.plot_annealing(run)` look smooth?** A dip of the conditional ESS or a jump of the increments at
#    one level asks for more levels there.
# 4. **Do other keys agree?** Log evidence within its errors, mode weights within Monte Carlo error. If not, more
#    `num_steps` and `num_chains`.
# 5. **Is it important?** Then bound it. Gap of `nd.bdmc` below a tenth of a nat on a like problem with known answer:
#    trust the settings. `nd.raise_bound` on held-out points within its error of their normalised log density: the
#    sampler covers them. A lower bound that still rises when the levels double: it is not there yet.
# 6. **Is the evidence itself plausible?** No sampler notices a density that is itself wrong. Compare
#    `run.log_evidence` of a single trained density with zero, and its samples with data.

# %% [markdown]
# ## Exercises
#
# 1. Make the good run bad in a way of your own, and see whether a finding names it.
# 2. Repeat the good run with ten keys. How often does the true log evidence lie within two of the errors that were
#    printed?
# 3. Bound the evidence of the mixture by `nd.bdmc` with half of the levels, then with twice as many. Which bound
#    moves?
