"""Diffusion priors of unknown location and scale: densities, starts and posteriors against closed forms."""

import functools

import densities
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from densities import joint_density, log_prob_of
from infer.models import KEY, P
from numpyro.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    ExpTransform,
    LowerCholeskyAffine,
    StickBreakingTransform,
)
from numpyro.handlers import seed
from numpyro.infer import MCMC, NUTS, Gibbs
from numpyro.infer.util import potential_energy, unconstrain_fn
from scipy.special import logsumexp
from scipy.stats import norm

import numpyro_diffusion as nd
from numpyro_diffusion.errors import UnsupportedModelError

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
PRIOR = nd.DiffusionPrior(P)


def under(transform, prior=PRIOR):
    return dist.TransformedDistribution(prior, transform)


def located(y=0.3, prior=PRIOR):
    loc, scale = numpyro.sample("loc", dist.Normal(0.5, 2.0)), numpyro.sample("scale", dist.HalfNormal(1.5))
    x = numpyro.sample("x", under(AffineTransform(loc, scale), prior))
    numpyro.sample("y", dist.Normal(x[0], 0.5), obs=y)


def several():
    """A matrix that is unknown, and in a plate; transformations of transformations; more numbers than the prior has."""
    root = numpyro.sample("root", dist.LKJCholesky(2))
    with numpyro.plate("n", 3):
        loc = numpyro.sample("loc", dist.Normal().expand([2]).to_event(1))
        numpyro.sample("x", under([AffineTransform(0.0, -2.0), LowerCholeskyAffine(loc, root)]))
    inner = under(AffineTransform(0.0, 2.0)).expand([2]).to_event(1)
    numpyro.sample("z", under([AffineTransform(1.0, root[1, 1]), ExpTransform()], inner))
    numpyro.sample("shares", under(StickBreakingTransform()))


@functools.cache
def joint_of(model):
    return joint_density(KEY, model, (), likelihood_power=lambda t: (1 - t) ** 2)


@pytest.mark.slow
@pytest.mark.parametrize("model", [located, pytest.param(several, marks=pytest.mark.slow)])
def test_jacobians_are_exact(model):
    # NumPyro's unconstrained coordinates are x itself or its logarithm; between them and ours JAX differentiates.
    joint, plain = joint_of(model), seed(model, 0)
    z, first = jax.jit(joint.start)(jax.random.key(1))

    def theirs(z):
        values = joint.constrain(z)
        return unconstrain_fn(plain, (), {}, {site.name: values[site.name] for site in joint.sites})

    @jax.jit
    def expected(z):
        jacobian = jax.jacfwd(lambda z: jnp.concatenate([jnp.ravel(v) for v in theirs(z).values()]))(z)
        return -potential_energy(plain, (), {}, theirs(z)) + jnp.linalg.slogdet(jacobian)[1]

    log_density = jax.jit(joint.log_density)
    assert float(log_density(z, 0.0)) == pytest.approx(float(expected(z)), rel=1e-5)
    # Nothing but the likelihood is between the start and the density at t = 1.
    if model is not located:
        assert float(log_density(z, 1.0)) == pytest.approx(float(first), abs=1e-2)


@pytest.mark.slow
def test_density_at_any_level():
    joint = joint_of(located)
    loc, scale, z, t = 0.4, 1.3, jnp.array([0.2, -0.7]), 0.4
    point = joint.ravel({"loc": jnp.asarray(loc), "scale": jnp.log(scale), "x": z})
    mean, variance, axes = P.gaussian(0.0)
    share = variance / (variance + P.schedule.noise_to_signal(t) ** 2)
    seen = mean + axes.point(share * axes.coordinates(z / P.schedule.alpha(t) - mean))
    expected = log_prob_of(P, z, t) + norm.logpdf(loc, 0.5, 2) + norm.logpdf(scale / 1.5) + np.log(2 / 1.5 * scale)
    expected += 0.36 * norm.logpdf(0.3, loc + scale * seen[0], 0.5)
    assert float(joint.log_density(point, t)) == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.slow
def test_scores_alone_do():
    known, prior = joint_of(located), nd.DiffusionPrior(densities.ScoreOf(P))
    scored = joint_density(KEY, located, (0.3, prior), likelihood_power=lambda t: (1 - t) ** 2)
    z = known.start(jax.random.key(2))[0]
    found, expected = (jax.grad(joint.log_density)(z, 0.3) for joint in (scored, known))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


VARIANCE = 0.1
MIXTURE = nd.exact.GaussianMixture([[-1.0], [1.0]], np.full((2, 1, 1), VARIANCE), [0.3, 0.7])
DATA = np.array([-0.5, 1.2, 1.6, 0.9])


def population(y):
    loc, scale = numpyro.sample("loc", dist.Normal()), numpyro.sample("scale", dist.HalfNormal())
    with numpyro.plate("n", len(y)):
        x = numpyro.sample("x", under(AffineTransform(loc, scale), nd.DiffusionPrior(MIXTURE)))
        numpyro.sample("y", dist.Normal(x[:, 0], 0.3), obs=y)


def by_quadrature():
    """Log evidence, posterior means and standard deviations of loc and scale."""
    loc, scale = np.meshgrid(np.linspace(-4, 4, 201), np.linspace(1e-3, 5, 400), indexing="ij")
    log_p = norm.logpdf(loc) + np.log(2) + norm.logpdf(scale)
    for y in DATA:
        spread = np.sqrt(VARIANCE * scale**2 + 0.09)
        log_p += logsumexp(
            [np.log(w) + norm.logpdf(y, loc + scale * m, spread) for w, m in ((0.3, -1.0), (0.7, 1.0))], 0
        )
    p = np.exp(log_p)
    means = [np.sum(p * v) / p.sum() for v in (loc, scale)]
    spreads = [np.sqrt(np.sum(p * (v - m) ** 2) / p.sum()) for v, m in zip((loc, scale), means, strict=True)]
    return np.log(p.sum() * (loc[1, 0] - loc[0, 0]) * (scale[0, 1] - scale[0, 0])), means, spreads


@pytest.mark.slow
def test_posterior_and_evidence_of_an_unknown_location_and_scale():
    mcmc = nd.AnnealedMCMC(population, num_chains=600, num_warmup=25, progress_bar=False)
    mcmc.run(jax.random.key(0), DATA)
    evidence, means, spreads = by_quadrature()
    assert abs(mcmc.log_evidence - evidence) < 5 * mcmc.log_evidence_error < 1.5
    samples = mcmc.get_samples()
    for name, mean, spread in zip(("loc", "scale"), means, spreads, strict=True):
        assert abs(samples[name].mean() - mean) < 5 * spread / np.sqrt(600 / 6)
    # The samples are x, not what stands for it: near the data, that have a noise of 0.3.
    assert np.all(np.abs(np.median(samples["x"][..., 0], axis=0) - DATA) < 0.6)


@pytest.mark.slow
def test_nuts_and_our_kernel_agree_with_quadrature():
    _, means, spreads = by_quadrature()
    ours = MCMC(nd.AnnealedKernel(population), num_warmup=40, num_samples=200, num_chains=16, chain_method="vectorized")
    nuts = MCMC(NUTS(population), num_warmup=1000, num_samples=4000)
    for mcmc in (ours, nuts):
        mcmc.run(jax.random.key(0), DATA)
        draws = mcmc.get_samples(group_by_chain=True)
        for name, mean, spread in zip(("loc", "scale"), means, spreads, strict=True):
            size = numpyro.diagnostics.effective_sample_size(np.asarray(draws[name]))
            assert size > 50 and abs(draws[name].mean() - mean) < 5 * spread / np.sqrt(size)


def folded():
    numpyro.sample("x", under(AbsTransform()))


def of_a_latent_density():
    mean = numpyro.sample("mean", dist.Normal().expand([1, 2]).to_event(2))
    numpyro.sample("x", nd.DiffusionPrior(nd.exact.GaussianMixture(mean, np.eye(2)[None])))


REFUSED = {
    "folded": (folded, "'x' puts a diffusion prior through AbsTransform, which is no bijection"),
    "latent density": (of_a_latent_density, "density of site 'x' depends on another latent.*TransformedDistribution"),
}


@pytest.mark.parametrize(("model", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_other_transformations_are_refused_by_name(model, words):
    with pytest.raises(UnsupportedModelError, match=words):
        joint_density(KEY, model, ())


def shared():
    loc, noise = numpyro.sample("loc", dist.Normal()), numpyro.sample("noise", dist.HalfNormal())
    x = numpyro.sample("x", under(AffineTransform(loc, 2.0)))
    numpyro.sample("y", dist.Normal(x[0], noise), obs=0.3)


def begun(sites):
    """Unconstrained and constrained values at the start of a Gibbs kernel with a block of these sites."""
    gibbs = Gibbs([(nd.AnnealedKernel(shared), sites), (NUTS(shared), None)])
    z = gibbs.init(jax.random.key(0), 5, None, (), {}).z
    return z, gibbs.get_constrain_fn((), {})(z)


@pytest.mark.slow
def test_a_gibbs_block_follows_a_location_within_it():
    z, values = begun(["x", "loc"])
    np.testing.assert_allclose(values["x"], z["loc"] + 2 * z["x"], rtol=1e-5)


def test_a_gibbs_block_cannot_follow_a_location_in_another():
    with pytest.raises(UnsupportedModelError, match="'x', or what transforms its prior, depends on .* one block"):
        begun(["x"])
