"""Arguments of every wrong kind, odd ones that are right, and parameters that are traced."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from flax import nnx
from numpyro.infer import MCMC, NUTS
from scipy.stats import norm

import numpyro_diffusion as nd
from benchmarks.faults.ordinary.files import FEW, POINTS, P, anneal, fit
from benchmarks.faults.ordinary.inputs import KEY, Input, close, refused, require


class Own(nd.exact.GaussianMixture):
    """A user's class of densities that JAX does not know to hold arrays."""


class Lazy:
    """Looks like an array and is none."""

    shape = (2,)


def arguments() -> list[Input]:
    """Arguments of every wrong kind, and odd ones that are right."""
    q = nd.exact.GaussianMixture([[0.0, 0.5]], [np.eye(2)], name="q")
    x = np.zeros(2)
    double = float(P.log_prob(x)) + np.log(2.0)
    number, integer = r"one real number.*got", r"integer >= 1.*got"
    key = r"rng_key must be one JAX key.*got"
    return [
        refused("np.array([1., 2.]) * p", lambda: np.array([1.0, 2.0]) * P, number),
        refused("p * jnp.ones(2)", lambda: P * jnp.ones(2), number),
        refused("a series times p", lambda: pd.Series([1.0, 2.0]) * P, number),
        refused("p * a frame", lambda: P * pd.DataFrame({"a": [1.0]}), number),
        refused("p / 0", lambda: P / 0, r"divides.*positive|positive.*got 0"),
        refused("p / np.float32(0)", lambda: P / np.float32(0), r"positive"),
        refused("p * True", lambda: P * True, number),
        refused("p * 1j", lambda: P * 1j, number),
        refused("p ** q", lambda: P**q, r"exponent.*real number"),
        refused("2 ** p", lambda: 2**P, r"exponent"),
        refused("sum([p, q])", lambda: sum([P, q]), r"nd.mixture"),
        refused("p - q", lambda: P - q, r"negative"),
        refused("p * Lazy()", lambda: P * Lazy(), number),
        Input("np.float32(2) * p", lambda: close((np.float32(2) * P).log_prob(x), double)),
        Input("p * np.array(2)", lambda: close((P * np.array(2)).log_prob(x), double)),
        Input("jnp.array(2.) * p", lambda: close((jnp.array(2.0) * P).log_prob(x), double)),
        refused("num_chains=True", lambda: anneal(num_chains=True), integer),
        refused("num_chains=20.0", lambda: anneal(num_chains=20.0), integer),
        refused("num_steps='2'", lambda: anneal(num_steps="2"), integer),
        refused("chain_batch_size=0", lambda: anneal(chain_batch_size=0), integer),
        Input("num_chains=np.int16(20)", lambda: f"{anneal(num_chains=np.int16(20)).samples.shape}"),
        refused("levels=True", lambda: anneal(levels=True), r"levels"),
        refused("levels=[1, .5, .5, 0]", lambda: anneal(levels=[1, 0.5, 0.5, 0]), r"decrease"),
        refused("levels={1, 0}", lambda: anneal(levels={1.0, 0.0}), r"levels"),
        refused("level_ess=nan", lambda: anneal(level_ess=np.nan), r"level_ess.*nan"),
        refused("resample_threshold=2", lambda: anneal(resample_threshold=2), r"\[0, 1\].*2"),
        refused("a seed for a key", lambda: anneal(rng_key=0), key),
        refused("ten keys", lambda: anneal(rng_key=jax.random.split(KEY, 10)), key),
        refused("a key of floats", lambda: anneal(rng_key=np.zeros(2, np.float32)), key),
        refused("no key for AnnealedMCMC", lambda: nd.AnnealedMCMC(_model, **FEW).run(None), key),
        refused("a seed for AnnealedMCMC", lambda: nd.AnnealedMCMC(_model, **FEW).run(7), key),
        refused("a seed for fit", lambda: fit(rng_key=3), key),
        Input("a key of another kind", lambda: f"{anneal(rng_key=jax.random.key(0, impl='rbg')).log_evidence:.2f}"),
        Input("an old key for AnnealedMCMC", lambda: _posterior(jax.random.PRNGKey(3))),
        refused("metric='pilot' on images", lambda: anneal(
            density=nd.load_pretrained("cubes_16"), kernel=nd.HMC(0.1), metric="pilot"), r"metric.*frame"),
        Input("a network with dropout among its layers", _stateful),
        Input("the gradient of a mean", lambda: close(jax.grad(lambda m: _gaussian(m).log_prob(np.ones(1)))(0.3), 0.7, 1e-5)),
        Input("the gradient of a variance", lambda: close(
            jax.grad(lambda v: _gaussian(0.0, v).log_prob(np.ones(1)))(2.0), -0.25 + 1 / 8, 1e-5)),
        Input("the gradient of a box's wall", lambda: close(
            jax.grad(lambda h: nd.exact.UniformBox(jnp.zeros(1), h[None]).log_prob(np.full(1, 0.5)))(2.0), -0.5, 1e-5)),
        Input("a latent mean, by NUTS", _latent_mean),
        refused("a latent mean, annealed", lambda: nd.AnnealedMCMC(_hierarchy, **FEW).run(KEY), r"depends on another latent.*Fix"),
        refused("NaN among the data", lambda: nd.AnnealedMCMC(_model, **FEW).run(KEY, np.array([0.1, np.nan])), r"NaN.*mask"),
        Input("a discrete latent, summed out", lambda: _ran(_discrete)),
        refused("one of infinite support", lambda: nd.AnnealedMCMC(_counted, **FEW).run(KEY), r"discrete.*[Ss]um"),
        refused("an improper latent", lambda: nd.AnnealedMCMC(_improper, **FEW).run(KEY), r"proper prior"),
        refused("data of another shape", lambda: nd.AnnealedMCMC(_matrix, **FEW).run(KEY), r"shape"),
        refused("no prior at all", lambda: nd.AnnealedMCMC(_nothing, **FEW).run(KEY), r"no latent site with a diffusion prior"),
        refused("results before a run", lambda: nd.AnnealedMCMC(_model, **FEW).get_samples(), r"Call run"),
        refused("data of 1e30", lambda: fit(POINTS * 1e30), r"order one.*Standardise"),
        refused("data about 1e9", lambda: fit(POINTS.astype(float) + 1e9), r"order one|resolve"),
        refused("data of integers", lambda: fit((POINTS * 10).astype(int)), r"floating point.*Convert"),
        refused("a frame of text", lambda: fit(pd.DataFrame({"a": ["x", "y"]})), r"floating point|numbers"),
        refused("images in 0..255", lambda: fit(np.full((16, 8, 8, 1), 200.0) + np.random.default_rng(0).normal(size=(16, 8, 8, 1)),
                network=nd.UNetConfig(shape=(8, 8, 1))), r"\[-1, 1\].*127"),
        refused("anneal a function", lambda: anneal(density=lambda x, t: 0.0), r"takes a density.*nd.as_density"),
        refused("anneal a subclass that JAX does not know", lambda: anneal(density=Own([[0.0, 0.0]], [np.eye(2)])), r"Decorate"),
        refused("anneal by a class", lambda: anneal(kernel=nd.HMC), r"kernel such as nd.HMC\(\)"),
        refused("a function of a wrong shape", lambda: anneal(
            density=nd.as_density(lambda x, t: x, (2,), mean=x, covariance=np.eye(2))), r"scalar for one point.*got"),
    ]  # fmt: skip


def _gaussian(mean, variance=1.0):
    return nd.exact.GaussianMixture(jnp.reshape(mean, (1, 1)), jnp.reshape(variance, (1, 1, 1)))


def _model(y=0.3):
    x = numpyro.sample("x", nd.DiffusionPrior(P))
    numpyro.sample("y", dist.Normal(x[0], 1.0).expand(np.shape(y)).to_event(), obs=y)


def _hierarchy():
    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    x = numpyro.sample("x", nd.DiffusionPrior(_gaussian(m)))
    numpyro.sample("y", dist.Normal(x[0], 1.0), obs=2.1)


def _discrete():
    _model()
    numpyro.sample("k", dist.Bernoulli(0.5))


def _counted():
    _model()
    numpyro.sample("k", dist.Poisson(1.0))


def _ran(model) -> str:
    mcmc = nd.AnnealedMCMC(model, **FEW)
    mcmc.run(KEY)
    require(np.isfinite(mcmc.log_evidence), f"log evidence {mcmc.log_evidence}")
    return f"log evidence {mcmc.log_evidence:.2f}"


def _improper():
    _model()
    numpyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))


def _matrix():
    x = numpyro.sample("x", nd.DiffusionPrior(P))
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=np.zeros(5))


def _nothing():
    numpyro.sample("x", dist.Normal(0.0, 1.0))


def _posterior(key) -> str:
    mcmc = nd.AnnealedMCMC(_model, nd.HMC(0.5), num_chains=200, levels=10, progress_bar=False)
    mcmc.run(key)
    truth = norm(0.2, 1.6**0.5).logpdf(0.3)
    require(abs(mcmc.log_evidence - truth) < 5 * max(mcmc.log_evidence_error, 0.03), f"{mcmc.log_evidence} for {truth}")
    return f"{mcmc.log_evidence:.3f} for {truth:.3f}"


def _latent_mean() -> str:
    mcmc = MCMC(NUTS(_hierarchy), num_warmup=200, num_samples=500, progress_bar=False)
    mcmc.run(KEY)
    return close(mcmc.get_samples()["m"].mean(), 2.1 / 3, 0.25)


def _stateful() -> str:
    """A user's network whose state holds a random key: a prior that does not depend on any latent."""

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.linear, self.dropout = nnx.Linear(1, 1, rngs=rngs), nnx.Dropout(0.5, rngs=rngs, deterministic=True)

    graph, state = nnx.split(Net(nnx.Rngs(0)))

    def fn(state, x, t):
        net = nnx.merge(graph, state)
        return norm_logpdf(x[0]) + 0.0 * net.dropout(net.linear(x))[0]

    def norm_logpdf(x):
        return jax.scipy.stats.norm.logpdf(x)

    prior = nd.as_density(fn, (1,), parameters=state, mean=[0.0], covariance=[[1.0]], normalised=True)

    def model():
        x = numpyro.sample("x", nd.DiffusionPrior(prior))
        numpyro.sample("y", dist.Normal(x[0], 1.0), obs=0.5)

    mcmc = nd.AnnealedMCMC(model, nd.HMC(0.5), num_chains=200, levels=10, progress_bar=False)
    mcmc.run(KEY)
    truth = norm(0, 2**0.5).logpdf(0.5)
    require(abs(mcmc.log_evidence - truth) < 5 * max(mcmc.log_evidence_error, 0.03), f"{mcmc.log_evidence} for {truth}")
    return f"{mcmc.log_evidence:.3f} for {truth:.3f}"
