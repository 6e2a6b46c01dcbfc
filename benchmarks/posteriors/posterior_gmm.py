"""Diffusion priors in linear inverse problems whose posterior is known: ours, NUTS, and guided diffusion.

    python benchmarks/posteriors/posterior_gmm.py [--quick] [--only "d = 8"]

The problems are in `posteriors.linear_problem`, the baselines in `posteriors.guided`. Ours runs first for every problem and seed; its evaluations per
chain are the budget of all others. The first run trains priors (d = 8 and 80), some minutes each, kept in results/.cache.
"""

from __future__ import annotations

import dataclasses
import functools
import json

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_diffusion as nd
from benchmarks.posteriors.guided import dps, nuts, tds
from benchmarks.posteriors.linear_problem import (
    DRAWS,
    SCHEDULE,
    SIGMA_SCALE,
    draw_joint,
    draw_posterior,
    draw_prior,
    draw_prior_jax,
    exact_prior,
    figures,
    joint_figures,
    problem,
)
from benchmarks.table import RESULTS, arguments, measure

NAME, CACHE = "posterior_gmm", RESULTS / ".cache"
STEP_WEIGHTS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # of DPS; the best of each problem is taken
NETWORK = nd.NetworkConfig(num_blocks=3)
# On a mixture fitted to draws: without one, `nd.fit` does not find the modes of a plane in 80 dimensions within 9,000 steps of 512.
NUM_COMPONENTS, FITTED_DRAWS = 25, 50_000
TRAINING = nd.TrainingConfig(num_steps=4_000, batch_size=256)
# Steps with weights where the pilot finds that they pay, between levels that lie close, and one cheap move at each.
CLOSER = {"kernel": nd.MALA(), "level_ess": 0.995, "num_steps": 1}
COLUMNS = [
    "W2",
    "W2 / floor",
    "TV",
    "log Z error",
    "KS of sigma",
    "non-finite",
    "evaluations",
    "pilot",
    "zeta",
    "seconds",
]
HEADER = """# Posteriors under a diffusion prior, known in closed form

`python benchmarks/posteriors/posterior_gmm.py`. Mean ± standard error over seeds, another linear problem y = A x + sigma_y eps for each; the prior is a mixture of 25
Gaussians in d dimensions (Cardoso et al. 2023, arXiv:2308.07983), and the posterior a mixture too.

How to read it. W2: sliced Wasserstein distance of 1,000 samples to 20,000 exact posterior draws; over the same figure of 1,000 exact draws (mean of 10), so
that 1 is perfect and `noise floor` shows the scatter. TV: total variation of the mode weights. log Z error: of log p(y), in nats, where the method estimates it.
Unknown sigma: the noise scale is latent with a half-normal prior; W2 of (x, log sigma), standardised; KS: Kolmogorov-Smirnov distance of sigma; both against
quadrature. Evaluations: values with gradients of the prior's log density per sample; a step that differentiates through the score counts two. What sets up
or tunes a method counts only if it lies in the chain. Non-finite: share of samples lost to overflow, replaced by prior draws.

Rows. ours: `nd.AnnealedMCMC(model, num_chains=1000)`, nothing chosen by hand; `closer levels`: with `nd.MALA(), level_ess=0.995, num_steps=1`, of which weighted reverse diffusion
steps are part; `accuracy=0.05`: the default of earlier versions, without such steps, as measured then;
`trained` with a density fitted to draws of the prior (on a mixture of 25 Gaussians, itself fitted), all other rows with the exact one. NUTS: NumPyro's, at t = 0, from draws of the prior. DPS: zeta is the best of a grid for each problem by the true W2 of other runs, which
favours it. TDS: twist with variance sigma_y^2, as its paper states it; `matched` adds the covariance of A x given x_t under a Gaussian with the data's moments.
NUTS, DPS and TDS have the budget of `ours` for the same problem, `TDS, matched, closer levels` that of `ours, closer levels`.
"""


@functools.cache
def trained_prior(d: int, quick: bool) -> nd.Density:
    """A calibrated energy density fitted to draws of the mixture, from the cache if there."""
    training = dataclasses.replace(TRAINING, num_steps=300) if quick else TRAINING
    path = CACHE / f"mixture{d}_{NUM_COMPONENTS}_{training.num_steps}_{training.batch_size}.safetensors"
    if path.exists():
        return nd.load(path)
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    base = nd.MixtureBase.fit(draw_prior_jax(jax.random.key(d + 1), FITTED_DRAWS, d), num_components=NUM_COMPONENTS)
    density = nd.fit(
        jax.random.key(d), functools.partial(draw_prior_jax, d=d), schedule=SCHEDULE, sigma_min=0.1, sigma_max=200.0,
        network=NETWORK, training=training, base=base, name=f"mixture{d}", checkpoint_path=path.with_suffix(".training"),
    )  # fmt: skip
    nd.save(density, path)
    return density


def model(density, A, sigma_y, y):
    """x ~ prior, y ~ N(A x, sigma_y^2)."""
    x = numpyro.sample("x", nd.DiffusionPrior(density))
    numpyro.sample("y", dist.Normal(A @ x, sigma_y).to_event(1), obs=y)


def model_unknown_sigma(density, A, y):
    """x ~ prior, sigma ~ HalfNormal, y ~ N(A x, sigma^2)."""
    x = numpyro.sample("x", nd.DiffusionPrior(density))
    sigma = numpyro.sample("sigma", dist.HalfNormal(SIGMA_SCALE))
    numpyro.sample("y", dist.Normal(A @ x, sigma).to_event(1), obs=y)


class Case:
    """The rows of one problem size (d, d_y)."""

    def __init__(self, d: int, d_y: int, quick: bool):
        self.d, self.d_y, self.quick = d, d_y, quick
        self.title = f"d = {d}, d_y = {d_y}"

    def rows(self):
        """(row name, function of the seed), ours first: it sets the budget."""
        methods = {
            "ours": self.ours, "ours, closer levels": functools.partial(self.ours, closer=True),
            "ours, trained": functools.partial(self.ours, trained=True),
            "ours, accuracy=0.05": functools.partial(self.ours, accuracy=0.05),
            "ours, trained, accuracy=0.05": functools.partial(self.ours, trained=True, accuracy=0.05),
            "ours, 4,000 chains": functools.partial(self.ours, share=4), "NUTS": self.nuts, "DPS": self.dps,
            "TDS": self.tds, "TDS, matched": functools.partial(self.tds, matched=True),
            "TDS, matched, closer levels": functools.partial(self.tds, matched=True, of="ours, closer levels"),
            "noise floor": self.floor,
        }  # fmt: skip
        return self._named(self.title, methods)

    def joint_rows(self):
        """The same for an unknown noise scale."""
        methods = {
            "ours": self.joint,
            "ours, 4,000 chains": functools.partial(self.joint, share=4),
            "ours, trained": functools.partial(self.joint, trained=True),
            "noise floor": self.joint_floor,
        }
        return self._named(f"unknown sigma, {self.title}", methods)

    def _named(self, title, methods):
        return [(f"{title}: {name}", fn) for name, fn in methods.items()]

    def budget(self, seed: int, of: str = "ours") -> int:
        """Evaluations per sample of a row of ours on this problem, as measured."""
        path = RESULTS / f"{NAME}{'_quick' if self.quick else ''}.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        row = found.get(f"{self.title}: {of}", {})
        if str(seed) not in row:
            raise SystemExit(f"the budget of seed {seed} is that of '{self.title}: {of}'. Run that row first.")
        return round(row[str(seed)]["evaluations"])

    def _arrays(self, seed: int):
        p = problem(self.d, self.d_y, seed)
        return (jax.numpy.asarray(a, dtype=float) for a in (p.A, p.sigma_y, p.y))

    def _prior(self, trained: bool):
        return trained_prior(self.d, self.quick) if trained else exact_prior(self.d)

    def ours(self, seed: int, trained: bool = False, share: int = 1, closer: bool = False, **options) -> dict:
        """Annealed MCMC through the noise levels; of `share` times as many chains every `share`-th is kept."""
        A, sigma_y, y = self._arrays(seed)
        options |= CLOSER if closer else {}
        mcmc = nd.AnnealedMCMC(model, num_chains=share * DRAWS, progress_bar=False, **options)
        mcmc.run(jax.random.key(seed), self._prior(trained), A, sigma_y, y)
        result = figures(mcmc.get_samples()["x"][::share], self.d, self.d_y, seed, mcmc.log_evidence)
        spent = {"evaluations": share * mcmc.evaluations_per_chain, "pilot": mcmc.annealed.pilot_evaluations}
        return result | spent

    def joint(self, seed: int, trained: bool = False, share: int = 1) -> dict:
        """Annealed MCMC of x and the noise scale."""
        A, _, y = self._arrays(seed)
        mcmc = nd.AnnealedMCMC(model_unknown_sigma, num_chains=share * DRAWS, progress_bar=False)
        mcmc.run(jax.random.key(seed), self._prior(trained), A, y)
        samples = mcmc.get_samples()
        result = joint_figures(
            samples["x"][::share], samples["sigma"][::share], self.d, self.d_y, seed, mcmc.log_evidence
        )
        return result | {"evaluations": share * mcmc.evaluations_per_chain}

    def nuts(self, seed: int) -> dict:
        """NUTS at t = 0."""
        p = problem(self.d, self.d_y, seed)
        start = draw_prior(np.random.default_rng([3, seed]), p.means, p.log_weights, DRAWS)
        x, spent = nuts(exact_prior(self.d), jax.random.key(seed), p.A, p.y, p.sigma_y, start, self.budget(seed))
        return figures(x, self.d, self.d_y, seed) | {"evaluations": spent}

    def dps(self, seed: int) -> dict:
        """DPS with the best step weight, found on chains of its own."""
        p, prior, budget = problem(self.d, self.d_y, seed), exact_prior(self.d), self.budget(seed)
        tune_key, key = jax.random.split(jax.random.key(seed))
        trial = dps(prior, tune_key, p.A, p.y, np.repeat(STEP_WEIGHTS, DRAWS), DRAWS * len(STEP_WEIGHTS), budget)
        trial = np.asarray(trial).reshape(len(STEP_WEIGHTS), DRAWS, self.d)
        zeta = STEP_WEIGHTS[int(np.argmin([figures(x, self.d, self.d_y, seed)["W2"] for x in trial]))]
        x = dps(prior, key, p.A, p.y, zeta, DRAWS, budget)
        return figures(x, self.d, self.d_y, seed) | {"evaluations": 2 * (budget // 2), "zeta": zeta}

    def tds(self, seed: int, matched: bool = False, of: str = "ours") -> dict:
        """Twisted particles, resampled to equal weights at the end."""
        p, budget = problem(self.d, self.d_y, seed), self.budget(seed, of)
        x, log_z, ess = tds(
            exact_prior(self.d), jax.random.key(seed), p.A, p.y, p.sigma_y, DRAWS, budget, matched=matched
        )
        result = figures(x, self.d, self.d_y, seed, float(log_z))
        return result | {"evaluations": 2 * (budget // 2), "ESS share": float(ess)}

    def floor(self, seed: int) -> dict:
        """Exact draws."""
        x = draw_posterior(np.random.default_rng([4, seed]), problem(self.d, self.d_y, seed), DRAWS)
        return figures(x, self.d, self.d_y, seed)

    def joint_floor(self, seed: int) -> dict:
        """Exact draws of x and the noise scale."""
        x, sigma = draw_joint(np.random.default_rng([5, seed]), self.d, self.d_y, seed, DRAWS)
        return joint_figures(x, sigma, self.d, self.d_y, seed)


if __name__ == "__main__":
    options = arguments(__doc__ or "")
    sizes = [(8, 1), (8, 4)] if options.quick else [(d, d_y) for d in (8, 80) for d_y in (1, 2, 4)]
    cases = [Case(*size, options.quick) for size in sizes]
    rows = [row for case in cases for row in case.rows()]
    rows += [row for case in cases if case.d_y == 4 for row in case.joint_rows()]
    measure(NAME, options, rows, HEADER, COLUMNS)
