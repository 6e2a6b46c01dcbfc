"""Exact densities of traced parameters: their values, and gradients against closed forms in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from densities import moments_of
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoLaplaceApproximation, AutoNormal
from quick import quick_among
from scipy.special import logsumexp

import numpyro_diffusion as nd
from numpyro_diffusion.errors import DiffusionError, ParameterError, ShapeError

KEY = jax.random.key(0)
MEANS = np.array([[0.0, 1.0], [1.0, -0.5], [-1.0, 0.2]])
# Equal eigenvalues, distinct ones, and nearly equal ones: derivatives of eigenvectors are infinite or huge.
COVARIANCES = np.array([np.eye(2), [[1.0, 0.3], [0.3, 0.5]], [[0.7, 1e-7], [1e-7, 0.7]]])
WEIGHTS = np.array([0.3, 0.5, 0.2])
X, T = np.array([0.4, -0.3]), 0.3
SCHEDULE = nd.VariancePreserving.cosine()


def value(means, covariances, weights):
    return nd.exact.GaussianMixture(means, covariances, weights).log_prob(X, T)


def expected():
    """Log density, and its gradients in means, covariances and weights."""
    alpha, sigma = np.cos(np.arctan(100.0) * T), np.sin(np.arctan(100.0) * T)
    inverse = np.linalg.inv(alpha**2 * COVARIANCES + sigma**2 * np.eye(2))
    pull = np.einsum("kij,kj->ki", inverse, X - alpha * MEANS)
    terms = -0.5 * np.einsum("ki,ki->k", X - alpha * MEANS, pull) + 0.5 * np.linalg.slogdet(inverse / (2 * np.pi))[1]
    log_p = logsumexp(terms, b=WEIGHTS)
    share = WEIGHTS * np.exp(terms - log_p)
    outer = 0.5 * alpha**2 * (pull[:, :, None] * pull[:, None, :] - inverse)
    return log_p, (alpha * share[:, None] * pull, share[:, None, None] * outer, share / WEIGHTS - 1)


GIVEN = {"means": (0,), "covariances": (1,), "weights": (2,), "all": (0, 1, 2)}


@pytest.mark.parametrize(
    ("precision", "what"),
    quick_among([(p, what) for p in (32, 64) for what in GIVEN], [(32, "all"), (64, "all"), (64, "means")]),
)
def test_gradients_of_mixtures(what, precision):
    numbers = GIVEN[what]
    with jax.enable_x64(precision == 64):
        found, slopes = jax.jit(jax.value_and_grad(value, numbers))(MEANS, COVARIANCES, WEIGHTS)
        log_p, gradients = expected()
        tolerance = 1e-9 if precision == 64 else 2e-5
        np.testing.assert_allclose(found, log_p, rtol=tolerance)
        for number, slope in zip(numbers, slopes, strict=True):
            np.testing.assert_allclose(slope, gradients[number], rtol=10 * tolerance, atol=tolerance)


def test_second_derivatives_are_finite():
    assert np.all(np.isfinite(jax.jit(jax.hessian(value, 1))(MEANS, COVARIANCES, WEIGHTS)))


def mapped(f):
    return lambda *a: jax.tree.map(lambda b: b[0], jax.vmap(f)(*(b[None] for b in a)))


@pytest.mark.slow
@pytest.mark.parametrize("transform", [jax.jit, pytest.param(mapped, marks=pytest.mark.slow)])
def test_traced_and_known_densities_are_the_same(transform):
    def everything(means, covariances, weights, low, width):
        density = nd.exact.GaussianMixture(means, covariances, weights)
        box = nd.exact.UniformBox(low, low + width)
        parts = {"mixture": density, "box": box, "product": density * box, "sum": 0.5 * density + 0.5 * box}
        facts = {
            k: (d.log_prob(X, T), d.score(X, T), moments_of(d.gaussian(T)), d.is_calibrated) for k, d in parts.items()
        }
        return facts, density.sample(KEY, 4000, T).mean(0), box.sample(KEY, 3), density.with_schedule(SCHEDULE).means

    arguments = [jnp.asarray(a, float) for a in (MEANS, COVARIANCES, WEIGHTS, [-1.0, -0.5], [1.5, 3.0])]
    found, known = transform(everything)(*arguments), everything(*map(np.asarray, arguments))
    (mean, known_mean), found, known = (found[1], known[1]), (found[0], *found[2:]), (known[0], *known[2:])
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(known), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    # Another root of the covariance makes other draws of one law.
    np.testing.assert_allclose(mean, known_mean, atol=5 * np.sqrt(2 * 1.5 / 4000))


@pytest.mark.slow
def test_gradients_of_boxes():
    with jax.enable_x64(True):
        box = lambda low, high, t: nd.exact.UniformBox(low, high).log_prob(X, t)  # noqa: E731
        low, high = np.array([-1.0, -0.5]), np.array([0.8, 1.5])
        found = jax.grad(box, (0, 1))(low, high, 0.2)
        for number, ends in enumerate(((1, 0), (0, 1))):
            for axis in np.eye(2):
                step = 1e-6 * axis
                ahead, behind = (box(low + s * ends[0] * step, high + s * ends[1] * step, 0.2) for s in (1, -1))
                np.testing.assert_allclose(found[number] @ axis, (ahead - behind) / 2e-6, rtol=1e-5)
        # Without noise: log p = -sum log(high - low).
        found = jax.grad(box, (0, 1))(low, high, 0.0)
        np.testing.assert_allclose(found, [1 / (high - low), -1 / (high - low)], rtol=1e-9)


def test_shapes_are_checked_all_the_same():
    wrong = {
        r"means must have 2 axes": lambda m: nd.exact.GaussianMixture(m[0], COVARIANCES),
        r"covariances must have shape \(3, 2, 2\)": lambda m: nd.exact.GaussianMixture(m, COVARIANCES[:2]),
        r"weights must have shape \(3,\)": lambda m: nd.exact.GaussianMixture(m, COVARIANCES, m[0]),
        r"low and high must have one shape": lambda m: nd.exact.UniformBox(m[0], m[:, 0]),
    }
    for words, make in wrong.items():
        with pytest.raises(ShapeError, match=words):
            jax.jit(lambda m, make=make: make(m).log_prob(X))(MEANS)
    # What is known is checked, whatever else is traced.
    with pytest.raises(ParameterError, match="weights must be positive"):
        jax.jit(lambda m: nd.exact.GaussianMixture(m, COVARIANCES, [1.0, -1.0, 1.0]).log_prob(X))(MEANS)


# A latent in the parameters of a prior.


def hierarchical(y=None):
    centre = numpyro.sample("centre", dist.Normal(0.0, 2.0))
    prior = nd.exact.GaussianMixture(centre[None, None], np.full((1, 1, 1), 0.5))
    x = numpyro.sample("x", nd.DiffusionPrior(prior))
    numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)


Y = jnp.array([1.3])


#: y ~ N(centre, 0.5 + 0.25), centre ~ N(0, 4): a posterior in closed form.
VARIANCE = 1 / (1 / 4 + 1 / 0.75)
CENTRE = VARIANCE * 1.3 / 0.75


@pytest.mark.slow
def test_nuts_takes_latents_in_the_parameters():
    mcmc = MCMC(NUTS(hierarchical), num_warmup=300, num_samples=2000, progress_bar=False)
    mcmc.run(KEY, Y)
    draws = np.asarray(mcmc.get_samples()["centre"])
    error = np.sqrt(VARIANCE / numpyro.diagnostics.effective_sample_size(draws[None]))
    assert abs(draws.mean() - CENTRE) < 5 * error


@pytest.mark.slow
def test_guides_take_latents_in_the_parameters():
    guide = AutoLaplaceApproximation(hierarchical)
    result = SVI(hierarchical, guide, numpyro.optim.Adam(0.05), Trace_ELBO()).run(KEY, 2000, Y, progress_bar=False)
    np.testing.assert_allclose(guide.median(result.params)["centre"], CENTRE, atol=1e-3)
    guide = AutoNormal(hierarchical)
    SVI(hierarchical, guide, numpyro.optim.Adam(0.05), Trace_ELBO()).run(KEY, 2, Y, progress_bar=False)
    assert Predictive(hierarchical, num_samples=3)(KEY)["x"].shape == (3, 1)


def test_annealing_says_that_it_cannot():
    with pytest.raises(DiffusionError, match=r"depends on (another|a) latent|other latent"):
        nd.AnnealedMCMC(hierarchical, nd.HMC(), num_chains=10, progress_bar=False).run(KEY, Y)
