"""Compositions made in one place and used in another: under every transformation, and by every algorithm of NumPyro."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, SVI, Predictive, Trace_ELBO, autoguide, initialize_model, log_likelihood, util

from benchmarks.faults.ordinary.inputs import KEY, Input, close, refused, require

from numpyro.infer import AIES, ESS, HMC, NUTS, SA, BarkerMH, Gibbs  # isort: skip
from scipy.special import logsumexp
from scipy.stats import norm

import numpyro_diffusion as nd

P = nd.exact.GaussianMixture([[0.2]], [[[0.6]]], name="p")
Q = nd.exact.GaussianMixture([[-1.0]], [[[1.4]]], name="q")
GRID = np.linspace(-8.0, 8.0, 8001)
log = math.log

#: name -> (density, log density of one number in double precision, given log p and log q).
OPERATORS = {
    "p q": (lambda: P * Q, lambda p, q: p + q),
    "p ** 1.7": (lambda: P**1.7, lambda p, q: 1.7 * p),
    "p / q ** .3": (lambda: P / Q**0.3, lambda p, q: p - 0.3 * q),
    ".3 p + .7 q": (lambda: 0.3 * P + 0.7 * Q, lambda p, q: logsumexp([p + log(0.3), q + log(0.7)], axis=0)),
    "3 p q": (lambda: 3.0 * P * Q, lambda p, q: log(3) + p + q),
    "harmonic mean": (lambda: nd.harmonic_mean(P, Q, alpha=0.4),
                      lambda p, q: p + q - logsumexp([p + log(0.4), q + log(0.6)], axis=0)),
    "contrast": (lambda: nd.contrast(P, Q, alpha=0.4), lambda p, q: 2 * p - logsumexp([p + log(0.4), q + log(0.6)], axis=0)),
    "negation with a floor": (lambda: nd.negation(P, Q, 0.5, floor=0.1), None),
    "tempered": (lambda: nd.temper(P * Q, 2.0), lambda p, q: (p + q) / 2),
    "nested": (lambda: (P * Q + P) ** 0.5 * Q, lambda p, q: 0.5 * logsumexp([p + q, p], axis=0) + q),
}  # fmt: skip
MADE = {name: make() for name, (make, _) in OPERATORS.items()}


def truth(x, name: str):
    """Log density of an operator at numbers x; NaN where there is no closed form here."""
    formula = OPERATORS[name][1]
    p, q = norm(0.2, 0.6**0.5).logpdf(x), norm(-1.0, 1.4**0.5).logpdf(x)
    return np.full(np.shape(x), np.nan) if formula is None else formula(p, q)


@jax.custom_jvp
def _straight(x):
    return x


_straight.defjvp(lambda primals, tangents: (primals[0], tangents[0]))
PLACES = {
    "jit": lambda f: jax.jit(f),
    "vmap": lambda f: lambda x: jax.vmap(f)(jnp.stack([x, x]))[1],
    "value of a gradient": lambda f: lambda x: jax.value_and_grad(lambda y: (jnp.sum(f(y)), f(y)), has_aux=True)(x)[0][1],
    "a jvp": lambda f: lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[0],
    "linearize": lambda f: lambda x: jax.linearize(f, x)[0],
    "jacobian forwards": lambda f: lambda x: f(x) + 0 * jax.jacfwd(f)(x).sum(),
    "a Hessian": lambda f: lambda x: f(x) + 0 * jax.hessian(lambda y: f(y).sum())(x).sum(),
    "scan": lambda f: lambda x: jax.lax.scan(lambda c, _: (c, f(c)), x, None, length=2)[1][1],
    "a loop of unknown length": lambda f: lambda x: jax.lax.while_loop(
        lambda c: c[0] < 2, lambda c: (c[0] + 1, f(x)), (0, jnp.zeros(len(OPERATORS))))[1],
    "a branch": lambda f: lambda x: jax.lax.cond(x[0] > -9, f, lambda x: jnp.zeros(len(OPERATORS)), x),
    "a switch in a scan in jit": lambda f: jax.jit(lambda x: jax.lax.scan(
        lambda c, i: (c, jax.lax.switch(i, [f, f], c)), x, jnp.arange(2))[1][1]),
    "lax.map": lambda f: lambda x: jax.lax.map(f, jnp.stack([x, x]))[1],
    "checkpoint": lambda f: jax.checkpoint(f),
    "behind a custom derivative": lambda f: lambda x: jax.jit(lambda y: f(_straight(y)))(x),
    "a mesh": lambda f: jax.jit(jax.shard_map(
        f, mesh=jax.make_mesh((1,), ("i",)), in_specs=jax.P(), out_specs=jax.P(), check_vma=False)),
    "vmap of grad of jit": lambda f: lambda x: jax.vmap(
        lambda y: jax.grad(lambda z: (jax.jit(f)(z).sum(), f(z)), has_aux=True)(y)[1])(jnp.stack([x, x]))[0],
}  # fmt: skip


def in_place(place) -> str:
    """All operators, made outside and inside, as priors, in one place."""
    x = jnp.array([0.37])
    expected = np.array([truth(0.37, name) for name in OPERATORS])
    expected = np.where(np.isnan(expected), [float(d.log_prob(np.array([0.37]))) for d in MADE.values()], expected)
    for densities in (lambda: MADE.values(), lambda: [make() for make, _ in OPERATORS.values()]):
        found = place(lambda x: jnp.stack([nd.DiffusionPrior(d).log_prob(x) for d in densities()]))(x)  # noqa: B023
        close(found, expected, 1e-4)
    return f"{len(OPERATORS)} operators, made outside and inside"


def model_of(name: str, inside: bool = False):
    """x of a composition, observed with noise .5 at .3."""

    def model(y=0.3):
        x = numpyro.sample("x", nd.DiffusionPrior(OPERATORS[name][0]() if inside else MADE[name]))
        numpyro.sample("y", dist.Normal(x[0], 0.5), obs=y)

    return model


def posterior(name: str):
    """(mean, sd) by quadrature."""
    values = truth(GRID, name) + norm.logpdf(0.3, GRID, 0.5)
    share = np.exp(values - values.max())
    share /= share.sum()
    mean = share @ GRID
    return mean, np.sqrt(share @ (GRID - mean) ** 2)


def like(draws, name: str, ess=None, bias: float = 0.0) -> str:
    """Draws [chains, n] with the mean and standard deviation of the posterior, given what they are worth."""
    draws = np.asarray(draws, dtype=np.float64)
    mean, sd = posterior(name)
    ess = float(effective_sample_size(draws)) if ess is None else ess
    require(ess > 20, f"effective sample size {ess:.0f}")
    require(abs(draws.mean() - mean) < (5 / np.sqrt(ess) + bias) * sd, f"mean {draws.mean():.3f} for {mean:.3f}")
    require(abs(draws.std() / sd - 1) < 5 / np.sqrt(ess / 2) + bias, f"sd {draws.std():.3f} for {sd:.3f}")
    return f"mean {draws.mean():.3f} for {mean:.3f}, sd {draws.std():.3f} for {sd:.3f}"


def by_mcmc(kernel, name, inside=False, chains=1, warmup=200, samples=600, **settings):
    mcmc = MCMC(kernel(model_of(name, inside)), num_warmup=warmup, num_samples=samples, num_chains=chains,
                chain_method="vectorized", progress_bar=False, **settings)  # fmt: skip
    mcmc.run(KEY)
    return like(mcmc.get_samples(group_by_chain=True)["x"][..., 0], name)


def by_guide(guide, name, bias=0.25):
    made = guide(model_of(name))
    found = SVI(model_of(name), made, numpyro.optim.Adam(0.03), Trace_ELBO(num_particles=8)).run(
        KEY, 500, progress_bar=False
    )
    draws = made.sample_posterior(jax.random.key(1), found.params, sample_shape=(2000,))["x"][None, :, 0]
    return like(draws, name, 2000, bias)


def by_mode(name="p / q ** .3"):
    guide = autoguide.AutoDelta(model_of(name))
    found = SVI(model_of(name), guide, numpyro.optim.Adam(0.03), Trace_ELBO()).run(KEY, 500, progress_bar=False)
    return close(guide.median(found.params)["x"][0], posterior(name)[0], 0.02)  # a normal density's mode


def by_annealing(name, inside=False, **settings):
    mcmc = nd.AnnealedMCMC(
        model_of(name, inside), nd.HMC(0.5), num_chains=400, levels=12, progress_bar=False, **settings
    )
    mcmc.run(KEY)
    values = truth(GRID, name) + norm.logpdf(0.3, GRID, 0.5)
    log_z = logsumexp(values) + log(GRID[1] - GRID[0])
    require(abs(mcmc.log_evidence - log_z) < 5 * max(mcmc.log_evidence_error, 0.02), f"{mcmc.log_evidence} for {log_z}")
    return like(mcmc.get_samples()["x"].T, name, 130)


def by_annealed_kernel(name, inside=False):
    kernel = nd.AnnealedKernel(model_of(name, inside), nd.HMC(0.5))
    mcmc = MCMC(kernel, num_warmup=20, num_samples=40, num_chains=30, chain_method="vectorized", progress_bar=False)
    mcmc.run(KEY)
    return like(mcmc.get_samples(group_by_chain=True)["x"][..., 0], name)


def by_gibbs(name="tempered"):
    def model():
        x = numpyro.sample("x", nd.DiffusionPrior(MADE[name]))
        numpyro.sample("s", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(x[0], 0.5), obs=0.3)

    mcmc = MCMC(Gibbs([(nd.AnnealedKernel(model), ["x"]), (NUTS(model), None)]), num_warmup=100, num_samples=400,
                progress_bar=False)  # fmt: skip
    mcmc.run(KEY)
    return like(mcmc.get_samples(group_by_chain=True)["x"][..., 0], name)


def set_up(name="nested"):
    """The potential, its gradient, likelihoods and predictions at one point."""
    info = initialize_model(KEY, model_of(name))
    close(info.potential_fn({"x": jnp.array([0.37])}), -(truth(0.37, name) + norm.logpdf(0.3, 0.37, 0.5)))
    close(
        util.log_density(model_of(name), (), {}, {"x": jnp.array([0.37])})[0],
        -info.potential_fn({"x": jnp.array([0.37])}),
    )
    draws = {"x": jnp.array([[0.37], [0.5]])}
    close(log_likelihood(model_of(name), draws)["y"], norm.logpdf(0.3, [0.37, 0.5], 0.5))
    require(Predictive(model_of(name), draws)(KEY, y=None)["y"].shape == (2,), "no predictions")
    return "potential, log density, log likelihoods, predictions"


def places() -> list[Input]:
    """Compositions in every place."""
    return [Input(place, lambda f=f: in_place(f)) for place, f in PLACES.items()]


def algorithms() -> list[Input]:
    """Compositions by every algorithm; places at which they are made vary."""
    prior = lambda: Predictive(model_of("p q"), num_samples=3)(KEY, y=None)
    improper = lambda: jax.vmap(lambda x: nd.DiffusionPrior(P / Q).log_prob(x))(jnp.ones((2, 1)))
    guides = {
        name: getattr(autoguide, name)
        for name in (
            "AutoNormal",
            "AutoLaplaceApproximation",
            "AutoDiagonalNormal",
            "AutoMultivariateNormal",
            "AutoLowRankMultivariateNormal",
        )
    }
    cycle = [name for name in OPERATORS if OPERATORS[name][1] is not None]
    return [
        Input("NUTS, made outside", lambda: by_mcmc(NUTS, "p q")),
        Input("NUTS, made inside, arguments traced", lambda: by_mcmc(NUTS, "harmonic mean", True, jit_model_args=True)),
        Input("HMC", lambda: by_mcmc(HMC, "contrast")),
        Input("BarkerMH", lambda: by_mcmc(BarkerMH, "3 p q", samples=3000)),
        Input("SA", lambda: by_mcmc(SA, ".3 p + .7 q", True, warmup=2000, samples=3000)),
        Input("AIES", lambda: by_mcmc(AIES, "nested", chains=20)),
        Input("ESS of NumPyro", lambda: by_mcmc(ESS, "tempered", True, chains=20)),
        *[Input(k, lambda g=g, i=i: by_guide(g, cycle[i])) for i, (k, g) in enumerate(guides.items())],
        Input("AutoDelta", by_mode),
        *[Input(f"AnnealedMCMC, {n}", lambda n=n, i=i: by_annealing(n, i % 2 == 1)) for i, n in enumerate(cycle[:5])],
        Input("AnnealedMCMC, metric frame", lambda: by_annealing("nested", metric="frame")),
        Input("AnnealedKernel, made outside", lambda: by_annealed_kernel("p / q ** .3")),
        Input("AnnealedKernel, made inside", lambda: by_annealed_kernel("harmonic mean", True)),
        Input("Gibbs", by_gibbs),
        Input("initialize_model, log_density, log_likelihood, Predictive", set_up),
        refused("prior draws of a product", prior, r"(?i)draw|sample"),
        refused("p / q, improper, under vmap", improper, r"improper: the exponents .* sum to 0"),
    ]  # fmt: skip
