"""Priors, and models of them, that the tests of inference share."""

import densities
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import numpyro_diffusion as nd

KEY = jax.random.key(0)
P, Q = densities.mixture("p"), densities.gaussian((0.5, 0.1), ((0.5, 0.1), (0.1, 0.4)), name="q")
PRIOR, OTHER = nd.DiffusionPrior(P), nd.DiffusionPrior(Q)
X = jnp.array([0.3, -0.6])
Y = jnp.array([0.4, -0.1, 1.2])
noise_level = nd.handlers.noise_level


def classifier():
    """A factor log p(label | x, t), which is no density in x."""
    return nd.as_density(lambda x, t: jax.nn.log_sigmoid((1 - t) * x[0]), (2,), name="c")


def plain():
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(x.sum(), 0.5).expand([3]).to_event(1), obs=Y)
