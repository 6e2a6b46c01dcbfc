"""Random keys of every kind that JAX has, in a model's runs."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from densities import gaussian
from numpyro import handlers
from numpyro.infer import MCMC

import numpyro_diffusion as nd
from numpyro_diffusion.infer.handlers import drawn
from numpyro_diffusion.infer.model_call import typed_key

KEYS = {
    "old": jax.random.PRNGKey(3),
    "NumPy's": np.asarray(jax.random.PRNGKey(3)),
    "rbg": jax.random.key(3, impl="rbg"),
    "unsafe_rbg": jax.random.key(4, impl="unsafe_rbg"),
}


def model(y=0.3):
    x = numpyro.sample("x", nd.DiffusionPrior(gaussian()))
    numpyro.sample("y", dist.Normal(x[0], 1.0), obs=y)


def annealed(key):
    mcmc = nd.AnnealedMCMC(model, nd.HMC(0.5), num_chains=20, levels=3, metric="frame", progress_bar=False)
    mcmc.run(key)
    return mcmc.get_samples()["x"]


def by_kernel(key):
    kernel = nd.AnnealedKernel(model, nd.HMC(0.5), metric="frame")
    settings = {"num_warmup": 5, "num_samples": 2, "num_chains": 10, "chain_method": "vectorized"}
    mcmc = MCMC(kernel, **settings, progress_bar=False)
    mcmc.run(key)
    return mcmc.get_samples()["x"]


@pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
@pytest.mark.slow
@pytest.mark.parametrize("run", [annealed, by_kernel])
def test_keys_of_every_kind(run):
    found = {name: np.asarray(run(key)) for name, key in KEYS.items()}
    expected = np.asarray(run(jax.random.key(3)))
    np.testing.assert_array_equal(found["old"], expected)
    np.testing.assert_array_equal(found["NumPy's"], expected)
    for name in ("rbg", "unsafe_rbg"):
        assert np.all(np.isfinite(found[name])) and not np.array_equal(found[name], expected)


def test_keys_of_other_generators_stay_apart():
    keys = [typed_key(jax.random.key(seed, impl="rbg")) for seed in range(20)]
    assert len({bytes(np.asarray(jax.random.key_data(key))) for key in keys}) == 20
    assert {key.dtype for key in keys} == {jax.random.key(0).dtype}


def test_draws_in_the_users_vmap():
    for keys in (jax.random.split(jax.random.key(0), 3), jax.random.split(jax.random.PRNGKey(0), 3)):
        found = jax.vmap(lambda key: gaussian().sample(key, 2))(keys)
        np.testing.assert_allclose(found, jnp.stack([gaussian().sample(key, 2) for key in keys]), rtol=1e-6)


@pytest.mark.parametrize("other", [0, 1])
def test_latents_alone_are_drawn_by_the_key(other):
    """What else is random belongs to the density of the latents, which must be one."""

    def model():
        fixed = [numpyro.param("lazy", jax.random.normal), jax.random.normal(numpyro.prng_key())]
        with handlers.block():
            fixed.append(numpyro.sample("blocked", dist.Normal()))
        with handlers.seed(rng_seed=3):
            free = [numpyro.sample("seeded", dist.Normal())]
        numpyro.deterministic("fixed", jnp.stack(fixed))
        numpyro.deterministic("free", jnp.stack([*free, numpyro.sample("x", dist.Normal())]))

    def found(key):
        sites = handlers.trace(drawn(model, key)).get_trace()
        return sites["fixed"]["value"], sites["free"]["value"]

    fixed, values = found(jax.random.key(5 + other))
    np.testing.assert_array_equal(fixed, found(None)[0])
    assert not np.any(values == found(jax.random.key(7))[1])
    np.testing.assert_array_equal(values, found(jax.random.key(5 + other))[1])
