"""Likelihoods that are zero in places: how they are let in, and that chains get to where they are not."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from densities import joint_density
from infer.models import KEY, noise_level
from numpyro.infer.util import compute_log_probs
from scipy.stats import norm

import numpyro_diffusion as nd
from numpyro_diffusion.infer.mcmc import OF_ZEROS
from numpyro_diffusion.infer.zeros import ToPower, Zeros

NORMAL = nd.exact.GaussianMixture(np.zeros((1, 2)), np.eye(2)[None])
BOX = nd.exact.UniformBox([-1.0, -1.0], [1.0, 1.0])


def behind_a_wall(y):
    """A thin line at a corner of the box, zero at all of its inner side; most draws of the prior lie there."""
    x = numpyro.sample("x", nd.DiffusionPrior(BOX))
    numpyro.factor("y", jnp.where(x.sum() > 1.0, -0.5 * ((x.sum() - y) / 0.02) ** 2, -jnp.inf))


def observed(width=1.0):
    """Three observations, each of them possible on an interval about the first coordinate."""
    x = numpyro.sample("x", nd.DiffusionPrior(NORMAL))
    with numpyro.plate("obs", 3):
        numpyro.sample("y", dist.Uniform(x[0] - width, x[0] + width), obs=jnp.array([0.5, 1.2, 0.9]))


def beyond(bound):
    """A half plane."""
    x = numpyro.sample("x", nd.DiffusionPrior(NORMAL))
    numpyro.factor("beyond", jnp.where(x.sum() / jnp.sqrt(2.0) > bound, 0.0, -jnp.inf))


@pytest.mark.parametrize("power", [0.0, 0.25, 1.0])
def test_a_zero_is_a_penalty_that_ends_as_zero(power):
    def log_likelihood(x, power):
        model = noise_level(observed, t=0.0, likelihood_power=power)
        return compute_log_probs(model, (), {}, {"x": x})[0]["y"]

    found = jax.jit(log_likelihood)(jnp.array([1.8, 0.0]), power)
    # Of three observations the first is impossible.
    with np.errstate(divide="ignore"):
        expected = 2 * power * np.log(0.5) + np.log1p(-power)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    possible = jax.jit(log_likelihood)(jnp.array([0.9, 0.0]), power)
    np.testing.assert_allclose(possible, 3 * power * np.log(0.5), rtol=1e-5, atol=1e-7)


def test_the_penalty_stays_at_the_share_of_what_is_possible_until_the_finest_noise():
    power = np.array([0.0, 0.5, 0.9, 1 - 1e-3, 1 - 1e-4, 1.0])
    penalty = np.exp(Zeros(0.0, share=0.2, finest=1e-4).log_penalty(power))
    np.testing.assert_allclose(penalty, [1.0, 0.5, 0.2, 0.2 / 1.1, 0.1, 0.0], rtol=2e-3)


@pytest.mark.filterwarnings("ignore:Out-of-support")
def test_bounds_may_have_axes_that_the_value_has_not():
    uniform = dist.Uniform(jnp.array([0.0, 1.0]), jnp.array([2.0, 3.0]))
    law = ToPower(uniform, jnp.array(0.5), Zeros())
    np.testing.assert_allclose(law.log_prob(jnp.array(0.5)), [np.log(0.5), 2 * np.log(0.5)], rtol=1e-6)


def test_a_zero_is_less_than_all_that_is_not():
    joint = joint_density(KEY, behind_a_wall, (1.3,))
    assert joint.has_zeros and 0 < joint.zeros["y"].share < 0.5 and -np.inf < float(joint.zeros["y"].least) < -400
    inside, outside = jnp.array([0.8, 0.6]), jnp.array([-0.3, 0.2])
    for t in (0.05, 0.01):
        gain = [joint.log_density(x, t) - BOX.log_density(x, t) for x in (inside, outside)]
        assert 0 > gain[0] > gain[1] > -np.inf
    assert joint.log_density(outside, 0.0) == -np.inf
    # The power is that of the line's width, though the likelihood says nothing at most draws.
    ratios, powers = np.exp(np.asarray(joint.powers[0])), np.asarray(joint.powers[1])
    assert powers[np.argmin(np.abs(ratios - 0.3))] < 0.02


def test_levels_lie_closer_by_default_only():
    joint = joint_density(KEY, beyond, (1.0,))
    assert (
        nd.AnnealedMCMC(beyond)._effort(joint) | {"level_ess": None, "num_steps": None}
        == nd.AnnealedMCMC(beyond)._options
    )
    assert nd.AnnealedMCMC(beyond)._effort(joint)["level_ess"] == OF_ZEROS
    for given in ({"levels": 9}, {"accuracy": 0.1}, {"level_ess": 0.9}, {"metric": "frame"}):
        assert nd.AnnealedMCMC(beyond, **given)._effort(joint) == nd.AnnealedMCMC(beyond, **given)._options


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
@pytest.mark.parametrize("share", [0.1, 0.01])
def test_a_half_plane_is_found_from_outside(share):
    bound = norm.isf(share)
    mcmc = nd.AnnealedMCMC(beyond, progress_bar=False)
    mcmc.run(jax.random.key(0), jnp.asarray(bound))
    x = np.asarray(mcmc.get_samples()["x"])
    along, across = (x[:, 0] + x[:, 1]) / np.sqrt(2), (x[:, 0] - x[:, 1]) / np.sqrt(2)
    assert np.all(along > bound) and abs(mcmc.log_evidence - np.log(share)) < 0.5
    # E[z | z > b] = phi(b) / share, and the other direction knows nothing of it.
    assert along.mean() == pytest.approx(norm.pdf(bound) / share, abs=0.1)
    assert abs(across.mean()) < 0.5 and across.std() == pytest.approx(1, abs=0.4)
