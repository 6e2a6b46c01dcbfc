"""Discrete latents, summed out: against models that sum by hand, and what is refused."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from densities import joint_density
from infer.models import KEY, PRIOR
from numpyro.distributions.transforms import AffineTransform
from numpyro.infer import Predictive
from scipy.special import expit, logsumexp
from scipy.stats import norm

import numpyro_diffusion as nd
from numpyro_diffusion.errors import MissingLibraryError, UnsupportedModelError
from numpyro_diffusion.infer import enumeration

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
needs_funsor = pytest.mark.skipif(importlib.util.find_spec("funsor") is None, reason="funsor is an extra")
Y = np.array([-0.5, 3.6, 0.9, 2.8])


def outliers(y):
    """Points near x, or near 3 if they are outliers; a common shift is there or not."""
    x = numpyro.sample("x", PRIOR)
    share = numpyro.sample("share", dist.Beta(2.0, 2.0))
    is_shifted = numpyro.sample("is_shifted", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
    numpyro.deterministic("odds", share / (1 - share))
    rank = numpyro.sample("rank", dist.Categorical(jnp.ones(3) / 3), infer={"enumerate": "parallel"})
    numpyro.deterministic("is_middle", rank == 1)  # the same at both ends of the support
    with numpyro.plate("n", len(y)):
        is_outlier = numpyro.sample("is_outlier", dist.Bernoulli(share), infer={"enumerate": "parallel"})
        loc = numpyro.deterministic("loc", jnp.where(is_outlier, 3.0, x[0]))
        numpyro.sample("y", dist.Normal(loc + 0.5 * is_shifted, 0.4), obs=y)


def by_hand(x, logit):
    """Log likelihood of all data."""
    share = expit(logit)

    def given(shift):
        parts = norm.logpdf(Y, 3 + shift, 0.4) + np.log(share), norm.logpdf(Y, x[0] + shift, 0.4) + np.log1p(-share)
        return np.logaddexp(*parts).sum()

    return logsumexp([np.log(0.7) + given(0.0), np.log(0.3) + given(0.5)])


@pytest.mark.slow
@needs_funsor
def test_discrete_latents_are_summed_out():
    joint = joint_density(KEY, outliers, (Y,))
    assert {site.name for site in joint.sites} == {"x", "share"}
    x, logit = np.array([0.3, -0.2]), 0.4
    point = joint.ravel({"x": jnp.asarray(x), "share": jnp.asarray(logit)})
    prior = dist.Beta(2.0, 2.0).log_prob(expit(logit)) + np.log(expit(logit) * expit(-logit))
    expected = PRIOR.log_prob(x) + prior + by_hand(x, logit)
    assert float(joint.log_density(point, 0.0)) == pytest.approx(float(expected), rel=1e-5)
    # At t = 1 the data count nothing, whatever the discrete sites.
    assert float(joint.log_density(point, 1.0)) == pytest.approx(float(joint.start_log_prob(point)), abs=1e-2)
    assert joint.constrain(point).keys() == {"x", "share", "odds"}


@pytest.mark.slow
@needs_funsor
def test_draws_of_discrete_latents_come_from_numpyro():
    mcmc = nd.AnnealedMCMC(outliers, num_chains=64, num_warmup=12, progress_bar=False)
    mcmc.run(jax.random.key(0), Y)
    found = Predictive(outliers, mcmc.get_samples(), infer_discrete=True)(jax.random.key(1), Y)
    assert found["is_outlier"].shape == (64, 4)
    # 3.6 and 2.8 are far from what x can be, -0.5 from 3.
    share = np.asarray(found["is_outlier"]).mean(axis=0)
    assert share[0] == 0 and np.all(share[[1, 3]] > 0.9)
    tree = mcmc.to_datatree()
    assert set(tree["posterior"].data_vars) == {"x", "share", "odds"} and "log_likelihood" not in tree


def counted(y=0.3):
    x, count = numpyro.sample("x", PRIOR), numpyro.sample("count", dist.Poisson(3.0))
    numpyro.sample("y", dist.Normal(x[0] + count), obs=y)


def in_sequence(y=0.3):
    x = numpyro.sample("x", PRIOR)
    k = numpyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "sequential"})
    numpyro.sample("y", dist.Normal(x[0] + k), obs=y)


def of_a_component(y=0.3):
    k = numpyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
    x = numpyro.sample("x", dist.TransformedDistribution(PRIOR, AffineTransform(1.0 * k, 1.0)))
    numpyro.sample("y", dist.Normal(x[0]), obs=y)


REFUSED = {
    "without a finite support": (counted, "'count' is discrete and without a finite support.*sum it out.*Gibbs"),
    "in sequence": (in_sequence, "'k' is discrete and marked otherwise.*'parallel'"),
    "support": pytest.param(
        of_a_component, "'x', or what transforms its prior, depends on a discrete latent", marks=needs_funsor
    ),
}


@pytest.mark.parametrize(("model", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_summed_is_refused(model, words):
    with pytest.raises(UnsupportedModelError, match=words):
        joint_density(KEY, model, ())


def test_funsor_is_asked_for(monkeypatch):
    monkeypatch.setattr(enumeration.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingLibraryError, match=r"'is_.*' is discrete.*pip install 'numpyro-diffusion\[enumerate\]'"):
        joint_density(KEY, outliers, (Y,))
