"""Where draws of `nd.DiffusionPrior` come from: a run, a function, a bank."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.models import P, Q
from infer.test_prior import KEY, within_five_errors
from numpyro import infer

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ShapeError


def test_draws_of_a_sampler_get_the_noise_of_the_level():
    noisy = nd.DiffusionPrior(nd.as_density(P.log_density, (2,), P.schedule), 0.7, sampler=P.sample)
    within_five_errors(noisy.sample(KEY, (4000,)), P.gaussian(0.7).mean, P.gaussian(0.7).covariance)
    with pytest.raises(NotImplementedError, match="at noise level t > 0 are not known"):
        nd.DiffusionPrior(P**2, 0.7, sampler=P.sample).sample(KEY, (2,))
    with pytest.raises(ShapeError, match=r"t must be one number; got shape \(2,\)"):
        nd.DiffusionPrior(P, jnp.array([0.0, 0.5]))


def test_predictive_draws_from_a_bank():
    bank = jax.random.normal(jax.random.key(1), (500, 2))
    prior = nd.DiffusionPrior(P * Q, sampler=lambda key, n: bank[jax.random.choice(key, 500, (n,))])

    def model():
        with numpyro.plate("n", 3):
            numpyro.sample("x", prior)

    draws = infer.Predictive(model, num_samples=40)(KEY)["x"]
    assert draws.shape == (40, 3, 2)
    known = {tuple(row) for row in np.asarray(bank)}
    assert all(tuple(row) in known for row in np.asarray(draws).reshape(-1, 2))


def test_a_run_is_a_sampler_by_weight():
    # Two thirds of the weight on the first chain, the rest on the sixth.
    log_weights = jnp.full(20, -jnp.inf).at[0].set(np.log(2.0)).at[5].set(0.0)
    samples = jax.random.normal(KEY, (20, 2))
    run = nd.AnnealedRun(samples, log_weights, 0.0, 0.1, np.array([1.0, 0.0]), {}, None, P * Q, nd.HMC(), True, 1, 8)
    prior = nd.DiffusionPrior(P * Q, sampler=run)
    draws = np.asarray(prior.sample(KEY, (900,)))
    first, other = ((draws == np.asarray(samples[i])).all(1) for i in (0, 5))
    assert np.all(first | other)
    assert abs(first.mean() - 2 / 3) < 5 * np.sqrt(2 / 9 / 900)
    leaves, treedef = jax.tree.flatten(prior)
    np.testing.assert_array_equal(jax.tree.unflatten(treedef, leaves).sample(KEY, (900,)), draws)
    with pytest.raises(ShapeError, match=r"\(2,\).*\(3,\)"):
        nd.DiffusionPrior(nd.as_density(lambda x, t: -jnp.sum(x**2), (3,)), sampler=run)


def test_a_closed_form_leaves_drawing_to_a_sampler_that_is_given():
    p = nd.exact.GaussianMixture([[0.0, 0.0]], [np.eye(2)])
    prior = nd.DiffusionPrior(p, sampler=lambda key, n: jnp.full((n, 2), 5.0))
    np.testing.assert_array_equal(prior.sample(KEY, (3,)), np.full((3, 2), 5.0))
    within_five_errors(nd.DiffusionPrior(p).sample(KEY, (4000,)), np.zeros(2), np.eye(2))


def test_priors_mix_with_other_distributions():
    p = nd.DiffusionPrior(nd.exact.GaussianMixture([[0.0, 0.0]], [np.eye(2)]))
    normal = dist.MultivariateNormal(jnp.ones(2), jnp.eye(2))
    mixed = dist.MixtureGeneral(dist.Categorical(jnp.array([0.3, 0.7])), [p, normal])
    x = jnp.array([0.5, -1.0])
    expected = np.logaddexp(np.log(0.3) + p.log_prob(x), np.log(0.7) + normal.log_prob(x))
    np.testing.assert_allclose(mixed.log_prob(x), expected, rtol=1e-5)
