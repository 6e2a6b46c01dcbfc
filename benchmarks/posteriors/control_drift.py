r"""Would a control drift lower the variance of weights? What the linear solve of DriftLite could take out of a step.

    python benchmarks/posteriors/control_drift.py [--seeds 5] [--only "d = 80"]

A weighted reverse step moves a particle by its drift and noise; added to the drift, a control
:math:`\sum_i \theta_i b_i(x)`, with b_i the scores of the factors, is paid for in the weight like any drift. To first
order it changes the log weight by :math:`\theta \cdot f`, and least squares over particles finds the theta of least
variance (Ren et al. 2025, arXiv:2509.21655, whose basis this is), at no evaluation more: f is made of gradients that are
there. Half of the particles find theta, the other half try it.
"""

from __future__ import annotations

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.paper.gmm_products import problem as product_problem
from benchmarks.posteriors.linear_problem import SCHEDULE, exact_prior, problem
from benchmarks.table import arguments, measure
from numpyro_diffusion.annealing.denoising import denoising
from numpyro_diffusion.annealing.level import level_at
from numpyro_diffusion.density.abstract import gaussian_at
from numpyro_diffusion.errors import DiagnosticWarning

CHAINS, STEP = 2_000, {"early": 0.3, "middle": 0.55, "late": 0.8}
COLUMNS = ["sd", "linear", "tried", "t", "t next", "levels", "seconds"]
HEADER = """# What a control drift would take out of the variance of weights

`python benchmarks/posteriors/control_drift.py`. One weighted reverse step between neighbouring levels of the default
ladder (.95 in conditional ESS), early, in the middle and late in it, of 2,000 particles. sd: of the log weights that the
step adds, in nats. linear: share of their variance that is left after least squares on what a control by the factors'
scores changes to first order, on particles that did not fit it; tried: with that control in the drift. Mean and standard
error over seeds. 1: nothing is gained. Products are those of `gmm_products.py`, posteriors those of `posterior_gmm.py`
under the exact prior, with the likelihood of a noisy x.
"""


def product(d: int, which: int):
    p, q, *_ = product_problem(d, which)
    return (p, q), p * q


def posterior(d: int, d_y: int):
    at = problem(d, d_y, 0)
    A, y = jnp.asarray(at.A, dtype=float), jnp.asarray(at.y, dtype=float)

    def log_likelihood(x, t):
        variance = SCHEDULE.noise_to_signal(t) ** 2
        covariance = at.sigma_y**2 * jnp.eye(d_y) + variance / (1 + variance) * A @ A.T
        # E[x0 | x] of one component of the prior, a little nearer to its mean than x / alpha, is left to the levels.
        return jax.scipy.stats.multivariate_normal.logpdf(A @ x / SCHEDULE.alpha(t), y, covariance)

    likelihood = nd.as_density(log_likelihood, (d,), SCHEDULE, name="likelihood")
    return (exact_prior(d), likelihood), exact_prior(d) * likelihood


def at_level(density, seed: int, place: float):
    """Particles [N, d] of a run that ends there, the times of that level and the next, and the number of levels."""
    key = jax.random.key(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiagnosticWarning)
        pilot = nd.anneal(key, density, level_ess=0.95, num_steps=1, predictor=True, num_chains=200, progress_bar=False)
        k = max(1, min(int(place * len(pilot.levels)), len(pilot.levels) - 2))
        times = np.asarray(pilot.levels)
        run = nd.anneal(
            key, density, levels=times[: k + 1], num_steps=2, predictor=True, num_chains=CHAINS, progress_bar=False
        )
    chosen = jax.random.categorical(jax.random.fold_in(key, 1), run.log_weights, shape=(CHAINS,))
    return jnp.reshape(run.samples, (CHAINS, -1))[chosen], times[k], times[k + 1], len(times)


def figures(make, place: float, seed: int) -> dict:
    factors, density = make()
    x, t, t_next, levels = at_level(density, seed, place)
    before, after = (level_at(density, time, "whitened") for time in (t, t_next))
    gaussian = gaussian_at(density, t_next)
    root = jnp.sqrt(gaussian.variance)

    def information():
        # As the pilot learns it: the mean outer product of gradients along the Gaussian's axes.
        _, variance, axes = gaussian_at(density, t)
        score = jax.vmap(jax.grad(lambda z: density.log_density(z, t)))(x)
        g = jax.vmap(axes.coordinates)(score) * jnp.sqrt(variance)
        return g.T @ g / len(g)

    step = denoising(before, after, information())

    def log_weight(theta, x, noise):
        """The log weight of one particle's step, with a control."""
        state = before.enter(before.frame.position(x), jnp.zeros(x.size))
        scores = [jax.grad(lambda z, f=f: f.log_density(z, t))(x) for f in factors]
        pushed = sum(
            c * jnp.sqrt(step.loss) * step._along(s, root / step.ratio) for c, s in zip(theta, scores, strict=True)
        )
        drift = jnp.sqrt(step.loss) * step._along(before.frame.gradient(state.logdensity_grad), root / step.ratio)
        drift = drift if step.damping is None else step.damping @ drift
        u, gain = step._moved(noise, x, drift + pushed)
        return after.log_prob(u) - state.logdensity + gain

    noise = jax.random.normal(jax.random.key(seed + 1_000), x.shape)
    weigh = jax.jit(jax.vmap(log_weight, (None, 0, 0)))
    none = jnp.zeros(len(factors))
    plain = np.asarray(weigh(none, x, noise), np.float64)
    f = np.asarray(jax.jit(jax.vmap(jax.jacfwd(log_weight), (None, 0, 0)))(none, x, noise), np.float64)
    fit, held = slice(0, CHAINS // 2), slice(CHAINS // 2, None)
    centred = f[fit] - f[fit].mean(0)
    theta = -np.linalg.lstsq(centred, plain[fit] - plain[fit].mean(), rcond=1e-6)[0]
    tried = np.asarray(weigh(jnp.asarray(theta, dtype=float), x[held], noise[held]), np.float64)
    return {
        "sd": plain[held].std(), "linear": np.var(plain[held] + f[held] @ theta) / np.var(plain[held]),
        "tried": np.var(tried) / np.var(plain[held]), "t": t, "t next": t_next, "levels": levels,
    }  # fmt: skip


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=5)
    problems = {f"product, d = {d}": functools.partial(product, d, 0) for d in (2, 5, 10, 30)}
    # Of more data than one the likelihood of a noisy x, as it stands, leaves the pilot no chain near t = 1.
    problems |= {f"posterior, d = {d}, d_y = 1": functools.partial(posterior, d, 1) for d in (8, 80)}
    rows = [
        (f"{name}, {when}", functools.partial(figures, make, place))
        for name, make in problems.items()
        for when, place in STEP.items()
    ]
    measure("control_drift", options, rows[:1] if options.quick else rows, HEADER, COLUMNS)
