"""`nd.DiffusionPrior` as a NumPyro distribution: laws, samplers, pytrees, NumPyro's own algorithms, bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import densities
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from densities import log_prob_of, moments_of
from infer.models import P, Q, classifier
from numpyro import infer
from numpyro.handlers import condition, seed, substitute, trace
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import initialize_model, log_density
from quick import quick_among

import numpyro_diffusion as nd

KEY = jax.random.key(0)
X = jnp.array([[0.1, 0.2], [-1.2, 0.9], [0.7, -0.3]])
DENSITIES = {name: make for name, make in densities.LEAVES.items() if name not in ("score", "dae", "inner_product")} | {
    "product": lambda: P * Q,
    "mixture of two": lambda: 0.3 * P + 0.7 * Q,
    "contrast": lambda: P**2 / (P + Q),
    "guided": lambda: P * classifier(),
}

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")


every_density = pytest.mark.parametrize("make", DENSITIES.values(), ids=DENSITIES.keys())
prior_log_prob = jax.jit(lambda prior, x: prior.log_prob(x))


@pytest.mark.quick_cases(6)
@every_density
@pytest.mark.parametrize("t", [0.0, 0.4])
def test_log_prob_is_that_of_the_density(make, t):
    density = make()
    found = prior_log_prob(nd.DiffusionPrior(density, t), X)
    np.testing.assert_allclose(found, log_prob_of(density, X, t), rtol=1e-5, atol=1e-5)
    assert found.shape == (3,)


def test_at_moves_to_a_noise_level_and_leaves_the_prior_alone():
    prior = nd.DiffusionPrior(P)
    noisy, traced = prior.at(0.6), jax.jit(lambda t: prior.at(t).log_prob(X))
    np.testing.assert_allclose(noisy.log_prob(X), log_prob_of(P, X, 0.6), rtol=1e-5)
    np.testing.assert_allclose(prior.log_prob(X), log_prob_of(P, X, 0.0), rtol=1e-5)
    np.testing.assert_allclose(traced(0.6), log_prob_of(P, X, 0.6), rtol=1e-5)


def test_shapes():
    prior, image = (nd.DiffusionPrior(d) for d in (P, nd.as_density(lambda x, t: -jnp.sum(x**2), (2, 4), name="image")))
    assert (prior.batch_shape, prior.event_shape, prior.support.event_dim) == ((), (2,), 1)
    assert (image.batch_shape, image.event_shape, image.support.event_dim) == ((), (2, 4), 2)
    assert prior.support(X).shape == image.log_prob(jnp.zeros((3, 2, 4))).shape == (3,)
    assert not prior.support.is_discrete


def test_expand_to_event_and_mask():
    prior, each = nd.DiffusionPrior(P), log_prob_of(P, X)
    expanded = prior.expand((3,))
    assert (expanded.batch_shape, expanded.event_shape) == ((3,), (2,))
    np.testing.assert_allclose(expanded.log_prob(X), each, rtol=1e-6)
    draws = expanded.sample(KEY, (4,))
    assert draws.shape == (4, 3, 2) and len(np.unique(draws)) == draws.size
    joint = expanded.to_event(1)
    assert (joint.batch_shape, joint.event_shape) == ((), (3, 2))
    np.testing.assert_allclose(joint.log_prob(X), each.sum(), rtol=1e-6)
    mask = jnp.array([True, False, True])
    np.testing.assert_allclose(expanded.mask(mask).log_prob(X), jnp.where(mask, each, 0.0), rtol=1e-6)


def plated(y=None):
    with numpyro.plate("n", 3):
        x = numpyro.sample("x", nd.DiffusionPrior(P))
        numpyro.sample("y", dist.Normal(x[:, 0], 0.5), obs=y)


def test_plate_seed_trace_substitute_condition():
    y = jnp.array([0.1, -0.4, 0.8])
    sites = trace(seed(plated, 0)).get_trace(y)
    assert sites["x"]["value"].shape == (3, 2) and sites["x"]["fn"].batch_shape == (3,)
    expected = log_prob_of(P, X).sum() + dist.Normal(X[:, 0], 0.5).log_prob(y).sum()
    found, sites = log_density(plated, (y,), {}, {"x": X})
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert not sites["x"]["is_observed"]
    sites = trace(condition(seed(plated, 0), {"x": X})).get_trace(y)
    assert sites["x"]["is_observed"]
    np.testing.assert_array_equal(sites["x"]["value"], X)
    sites = trace(substitute(seed(plated, 0), {"x": X})).get_trace(y)
    np.testing.assert_array_equal(sites["x"]["value"], X)


def within_five_errors(draws, mean, covariance):
    """Sample mean and covariance of independent Gaussian-like draws, at 5 standard errors."""
    draws, n = np.asarray(draws, dtype=float), len(draws)
    sd = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(draws.mean(0) - mean) < 5 * sd / np.sqrt(n))
    products = (draws - mean)[:, :, None] * (draws - mean)[:, None]
    assert np.all(np.abs(products.mean(0) - covariance) < 5 * products.std(0) / np.sqrt(n))


@pytest.mark.parametrize("t", [0.0, 0.5])
def test_closed_forms_are_sampled_at_their_level(t):
    draws = nd.DiffusionPrior(P, t).sample(KEY, (50, 80))
    assert draws.shape == (50, 80, 2)
    within_five_errors(draws.reshape(-1, 2), P.gaussian(t).mean, P.gaussian(t).covariance)


def test_mean_and_variance_of_closed_forms():
    prior = nd.DiffusionPrior(P)
    np.testing.assert_allclose(prior.mean, P.gaussian(0.0).mean, rtol=1e-6)
    np.testing.assert_allclose(prior.variance, np.diag(P.gaussian(0.0).covariance), rtol=1e-6)
    noisy = nd.DiffusionPrior(P, 0.7)
    np.testing.assert_allclose(noisy.mean, P.gaussian(0.7).mean, rtol=1e-5)
    np.testing.assert_allclose(noisy.variance, np.diag(P.gaussian(0.7).covariance), rtol=1e-5)
    # A composition's Gaussian is a guide only.
    with pytest.raises(NotImplementedError, match="Estimate them from samples"):
        _ = nd.DiffusionPrior(P * Q).mean


def test_predictive_of_a_closed_form():
    draws = infer.Predictive(plated, num_samples=4000)(KEY)
    assert draws["x"].shape == (4000, 3, 2) and draws["y"].shape == (4000, 3)
    within_five_errors(draws["x"][:, 1], P.gaussian(0.0).mean, P.gaussian(0.0).covariance)


STRATEGIES = {name: getattr(infer, f"init_to_{name}") for name in ("uniform", "median", "mean", "sample", "feasible")}
STRATEGIES["value"] = lambda site=None: infer.init_to_value(site, values={"x": X})


STARTS = [(name, sampled) for sampled in (True, False) for name in STRATEGIES]


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize(("name", "sampled"), quick_among(STARTS, [*STARTS[:7], ("sample", False)]))
def test_every_init_strategy(name, sampled):
    # A composition cannot be sampled, nor is its mean known: NumPyro then falls back on a uniform start.
    density, strategy = P if sampled else P * Q, STRATEGIES[name]

    def model(y):
        with numpyro.plate("n", 3):
            x = numpyro.sample("x", nd.DiffusionPrior(density))
            numpyro.sample("y", dist.Normal(x[:, 0], 0.5), obs=y)

    y = jnp.zeros(3)
    info = initialize_model(KEY, model, model_args=(y,), init_strategy=strategy)
    z = info.param_info.z["x"]
    assert z.shape == (3, 2) and np.isfinite(z).all()
    expected = -log_prob_of(density, z).sum() - dist.Normal(z[:, 0], 0.5).log_prob(y).sum()
    assert float(info.param_info.potential_energy) == pytest.approx(float(expected), rel=1e-5)
    if name == "value":
        np.testing.assert_array_equal(z, X)
    if name == "mean" and sampled:
        np.testing.assert_allclose(z, np.tile(P.gaussian(0.0).mean, (3, 1)), rtol=1e-6)


def conjugate(y):
    with numpyro.plate("n", 2):
        x = numpyro.sample("x", nd.DiffusionPrior(Q))
        numpyro.sample("y", dist.Normal(x[:, 0], 0.5), obs=y)


def exact_posterior(y):
    """Means [2, 2] and covariance of x per plate row, for `conjugate`."""
    mean, covariance = (np.asarray(a, dtype=float) for a in moments_of(Q.gaussian(0.0)))
    gain = covariance[:, 0] / (covariance[0, 0] + 0.25)
    return mean + np.outer(np.asarray(y) - mean[0], gain), covariance - np.outer(gain, covariance[0])


Y = jnp.array([1.5, -0.8])


@pytest.mark.slow
def test_nuts_in_a_plate_at_the_data():
    mcmc = infer.MCMC(infer.NUTS(conjugate), num_warmup=200, num_samples=1000, progress_bar=False)
    mcmc.run(KEY, Y)
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["x"], dtype=float)
    means, covariance = exact_posterior(Y)
    ess = numpyro.diagnostics.effective_sample_size(draws)
    assert np.all(ess > 200)
    se = np.sqrt(np.diag(covariance) / ess)
    assert np.all(np.abs(draws[0].mean(0) - means) < 5 * se)
    np.testing.assert_allclose(draws[0].var(0), np.tile(np.diag(covariance), (2, 1)), rtol=5 * np.sqrt(2 / ess.min()))


@pytest.mark.slow
def test_svi_with_auto_normal():
    guide = AutoNormal(conjugate)
    svi = infer.SVI(conjugate, guide, numpyro.optim.Adam(0.05), infer.Trace_ELBO(num_particles=4))
    result = svi.run(KEY, 400, Y, progress_bar=False)
    means, covariance = exact_posterior(Y)
    # A mean-field Gaussian has the exact means, and the conditional variances.
    np.testing.assert_allclose(result.params["x_auto_loc"], means, atol=0.15)
    scales = np.tile(1 / np.sqrt(np.diag(np.linalg.inv(covariance))), (2, 1))
    np.testing.assert_allclose(result.params["x_auto_scale"], scales, rtol=0.25)


@every_density
def test_pytree_and_jit(make):
    prior = nd.DiffusionPrior(make(), 0.3)
    leaves, treedef = jax.tree.flatten(prior)
    again = jax.tree.unflatten(treedef, leaves)
    assert isinstance(again, nd.DiffusionPrior)
    assert jax.tree.structure(again) == treedef
    assert (again.batch_shape, again.event_shape) == (prior.batch_shape, prior.event_shape)
    assert all(a is b for a, b in zip(jax.tree.leaves(again), leaves, strict=True))
    moved = jax.jit(lambda p: p)(prior)
    for a, b in zip(jax.tree.leaves(moved), leaves, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_weights_are_traced_not_compiled_in():
    count = 0

    @jax.jit
    def log_prob(prior, x):
        nonlocal count
        count += 1
        return prior.log_prob(x)

    a, b = nd.DiffusionPrior(P), nd.DiffusionPrior(jax.tree.map(lambda leaf: 1.1 * leaf, P))
    assert not np.allclose(log_prob(a, X), log_prob(b, X))
    assert count == 1


SCRIPT = """
import json, densities, jax, numpy as np
import numpyro_diffusion as nd
prior = nd.DiffusionPrior(densities.mixture("p") * densities.gaussian(name="q"), 0.25)
print(json.dumps(leaves := [np.asarray(a).tolist() for a in jax.tree.leaves(prior.expand((3,)).to_event(1))]))
"""


@pytest.mark.slow
def test_leaf_order_does_not_follow_the_hash_seed():
    here, known = Path(__file__).resolve().parent.parent, {}
    exec(SCRIPT, known)
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = os.environ | {"PYTHONHASHSEED": other, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
    result = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, check=True)
    assert json.loads(result.stdout) == known["leaves"] and len(known["leaves"]) > 5


def parabola(mean, x, t):
    return -0.5 * jnp.sum((x - mean) ** 2)


def shifted(mean):
    return nd.as_density(parabola, (2,), parameters=mean)


P_, Q_ = densities.bump("p", 0.2, 0.7), densities.bump("q", -0.3, 1.2)


def test_vmapped_priors():
    means = jnp.array([[0.0, 0.0], [1.0, -1.0], [2.0, 0.5]])
    priors = jax.vmap(lambda m: nd.DiffusionPrior(shifted(m)))(means)
    each = jax.vmap(lambda prior, x: prior.log_prob(x))(priors, X)
    expected = [log_prob_of(shifted(m), x) for m, x in zip(means, X, strict=True)]
    np.testing.assert_allclose(each, expected, rtol=1e-5)
    ts = jnp.array([0.1, 0.5, 0.9])
    found = jax.vmap(lambda t, x: nd.DiffusionPrior(P).at(t).log_prob(x))(ts, X)
    np.testing.assert_allclose(found, log_prob_of(P, X, ts), rtol=1e-5)
