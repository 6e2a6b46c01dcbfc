"""From a model with diffusion priors to one joint density, and what is refused."""

import densities
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from densities import joint_density, log_prob_of
from infer.models import KEY, OTHER, PRIOR, P, Q, X, Y, noise_level, plain
from numpyro.contrib.control_flow import cond, scan
from numpyro.handlers import mask
from quick import slow

import numpyro_diffusion as nd
from numpyro_diffusion.errors import DiagnosticWarning, ParameterError, ShapeError, UnsupportedModelError
from numpyro_diffusion.infer.model_call import ModelCall
from numpyro_diffusion.infer.setup import read_model

# From the model to the joint density.
G = densities.gaussian((0.2, 0.0), name="g", schedule=nd.VarianceExploding(0.0, 20.0))


def two_schedules(y):
    x, z = numpyro.sample("x", OTHER), numpyro.sample("z", nd.DiffusionPrior(G))
    numpyro.sample("y", dist.Normal(x[0] + z[0], 0.5), obs=y)


@pytest.mark.slow
def test_priors_under_different_schedules_share_one():
    joint = joint_density(KEY, two_schedules, (Y[2],), view="scaled", likelihood_power=lambda t: (1 - t) ** 2)
    x, z, t = X, X + 0.2, 0.4
    alpha, power = Q.schedule.alpha(t), 0.36
    expected = log_prob_of(Q, x, t) + log_prob_of(G.with_schedule(Q.schedule), z, t)
    expected += power * dist.Normal((x[0] + z[0]) / alpha, 0.5).log_prob(Y[2])
    assert joint.schedule == Q.schedule
    assert float(joint.log_density(joint.ravel({"x": x, "z": z}), t)) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.slow
def test_priors_under_different_schedules_are_annealed_together():
    mcmc = nd.AnnealedMCMC(two_schedules, nd.HMC(step_size=0.6), num_chains=500, levels=12, progress_bar=False)
    mcmc.run(KEY, Y[2])
    # y is Gaussian: of mean 0.5 + 0.2 and variance 0.5 + 1 + 0.25.
    exact = float(dist.Normal(0.7, np.sqrt(1.75)).log_prob(Y[2]))
    assert abs(mcmc.log_evidence - exact) < 5 * mcmc.log_evidence_error < 1
    means, variance = mcmc.get_samples()["z"].mean(0), 1 - 1 / 1.75
    independent = 1 / (mcmc.log_evidence_error**2 + 1 / 500)
    assert abs(means[0] - (0.2 + (1.2 - 0.7) / 1.75)) < 5 * np.sqrt(variance / independent)
    assert abs(means[1]) < 5 * np.sqrt(1 / independent)


NETWORK = nd.DiffusionPrior(densities.network("l2"))  # Cannot be sampled.
MASK = jnp.array([True, False, True])


def observing(location, event_dim=0):
    """A model with a prior x, and data around some function of it."""

    def model(y):
        numpyro.sample("y", dist.Normal(location(numpyro.sample("x", PRIOR)), 0.5).to_event(event_dim), obs=y)

    return model


def latent(name, make, **around):
    """A model with a further latent."""

    def other(x):
        with mask(mask=around.get("mask", True)):
            return x[0] + jnp.sum(numpyro.sample(name, make()))

    return observing(other)


def in_scan(y):
    scan(lambda c, v: (c + numpyro.sample("inner", NETWORK)[0], None), 0.0, y)


def in_cond(y):
    x = cond(y[0] > 0, lambda _: numpyro.sample("inner", PRIOR), lambda _: jnp.zeros(2), None)
    numpyro.sample("y", dist.Normal(x[0], 0.5), obs=y[0])


def in_subsampled_plate(y):
    with numpyro.plate("n", 6, subsample_size=3):
        numpyro.sample("y", dist.Normal(numpyro.sample("inner", PRIOR)[:, 0], 0.5), obs=y)


def nan_somewhere(y):
    x = numpyro.sample("x", PRIOR)
    with numpyro.plate("n", 3), mask(mask=MASK):
        numpyro.sample("y", dist.Normal(x[0], 0.5), obs=y)


def counting(y, mask_of=True):
    x = numpyro.sample("x", PRIOR)
    with numpyro.plate("n", 3), mask(mask=mask_of):
        numpyro.sample("y", dist.Poisson(jnp.exp(x[0])), obs=y)


def within_a_latent(y):
    numpyro.sample("y", dist.Uniform(-1, jnp.abs(numpyro.sample("x", PRIOR)[0])), obs=y)


def without_prior(y):
    numpyro.sample("y", dist.Normal(numpyro.sample("m", dist.Normal()), 0.5), obs=y)


COUNTS = np.array([2, -1, 0])
BAD = Y.at[1].set(jnp.nan)
partly = lambda: dist.Normal(jnp.zeros(3), 1).mask(MASK).to_event(1)
improper = lambda: dist.ImproperUniform(dist.constraints.real, (), ())
undefined = lambda: dist.Normal(jnp.nan)
REFUSED = {
    "prior in scan": (in_scan, Y, UnsupportedModelError, "'inner' has a diffusion prior inside numpyro's scan.*plate"),
    "prior in cond": (in_cond, Y, UnsupportedModelError, "'inner' has a diffusion prior inside numpyro's scan or cond"),
    "discrete": (latent("k", lambda: dist.Poisson(0.5)), Y[0], UnsupportedModelError, "'k' is discrete.*sum it out"),
    "no prior": (without_prior, Y[0], UnsupportedModelError, "no latent site with a diffusion prior.*infer.MCMC"),
    "masked": (latent("s", dist.Normal, mask=False), Y[0], UnsupportedModelError, "'s' is masked"),
    "masked in part": (latent("s", partly), Y[0], UnsupportedModelError, "'s' is masked"),
    "subsampled": (in_subsampled_plate, Y, UnsupportedModelError, "'inner' .* scaled by 2.0.*Subsample the data only"),
    "improper": (latent("s", improper), Y[0], UnsupportedModelError, "'s' cannot be drawn.*proper prior"),
    "NaN latent": (latent("s", undefined), Y[0], UnsupportedModelError, "'s' cannot be drawn"),
    "NaN data": (observing(lambda x: x[0]), BAD, ParameterError, "'y' holds 1 NaN of 3"),
    "NaN data not masked": (nan_somewhere, Y.at[0].set(jnp.nan), ParameterError, "'y' holds 1 NaN of 3"),
    "text": (observing(lambda x: x[0]), "high", ParameterError, "'y' must be numbers; got 'high'"),
    "no count": (counting, COUNTS, ParameterError, "'y' lies outside the support of its Poisson at 1 of 3 places"),
    "data shape": (observing(lambda x: x, 1), Y, ShapeError, r"'y' has shape \(3,\), its distribution \(2,\)"),
    "operator shape": (observing(lambda x: jnp.ones((3, 4)) @ x, 1), Y, ShapeError, "do not fit together"),
    "sum of shapes": (observing(lambda x: x + Y, 1), Y, ShapeError, "do not fit together"),
    "NaN everywhere": (observing(lambda x: jnp.log(-1 - x[0] ** 2)), Y[0], ParameterError, "'y' is NaN at every start"),
}


@pytest.mark.parametrize(("model", "y", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_annealed_is_refused_by_name(model, y, error, words):
    with pytest.raises(error, match=words):
        joint_density(KEY, model, (y,))


def test_what_has_density_for_some_latents_or_does_not_count_is_data():
    masked = joint_density(KEY, counting, (COUNTS, COUNTS >= 0)).log_density(X, 0.0)
    expected = log_prob_of(P, X) + dist.Poisson(jnp.exp(X[0])).log_prob(COUNTS[[0, 2]]).sum()
    assert float(masked) == pytest.approx(float(expected), rel=1e-5)
    inside = joint_density(KEY, within_a_latent, (1.5,)).log_density(jnp.array([2.0, 0.0]), 0.0)
    assert float(inside) == pytest.approx(float(log_prob_of(P, jnp.array([2.0, 0.0])) - jnp.log(3.0)), rel=1e-5)


def inside_event(y):
    numpyro.sample("y", dist.Normal(numpyro.sample("x", PRIOR)[0], 0.5).expand([3]).mask(MASK).to_event(1), obs=y)


@pytest.mark.parametrize("model", [slow(nan_somewhere), inside_event], ids=["handler", "distribution"])
def test_masked_missing_values_are_fine(model):
    joint = joint_density(KEY, model, (BAD,))
    value, gradient = jax.value_and_grad(joint.log_density)(X, 0.0)
    expected = log_prob_of(P, X) + dist.Normal(X[0], 0.5).log_prob(Y[jnp.array([0, 2])]).sum()
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("make", [noise_level, nd.AnnealedMCMC], ids=["handler", "mcmc"])
def test_unknown_views(make):
    with pytest.raises(ParameterError, match="view must be one of .* got 'blurred'"):
        make(plain, view="blurred")


def test_one_subsample_of_a_plate_is_told():
    def model(y):
        x = numpyro.sample("x", PRIOR)
        with numpyro.plate("rows", 1000, subsample_size=100):
            numpyro.sample("y", dist.Normal(x[0], 0.5), obs=numpyro.subsample(y, 0))

    call = ModelCall.of(model, (np.zeros(1000),), {})
    with pytest.warns(DiagnosticWarning, match="'rows' is subsampled: the run takes one subsample, 100 of 1000"):
        read_model(jax.random.split(KEY), call)
