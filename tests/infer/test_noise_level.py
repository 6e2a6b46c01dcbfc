"""`nd.handlers.noise_level`: a model at a noise level, with its likelihood to a power; its views; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from densities import log_prob_of, moments_of
from infer.models import KEY, OTHER, PRIOR, P, Q, X, Y, noise_level, plain
from numpyro.contrib.control_flow import scan
from numpyro.handlers import mask, seed, substitute, trace
from numpyro.infer.util import compute_log_probs, log_density, potential_energy
from quick import quick_among

from numpyro_diffusion.errors import UnsupportedModelError
from numpyro_diffusion.infer.handlers import VIEWS, seen


# Models, each with unconstrained values of its latents.
def several():
    x, z = numpyro.sample("x", PRIOR), numpyro.sample("z", OTHER)
    numpyro.sample("y", dist.Normal(x[0] * z[1], 0.5), obs=Y[0])


def plates():
    with numpyro.plate("outer", 2, dim=-2), numpyro.plate("inner", 3):
        x = numpyro.sample("x", PRIOR)
        numpyro.sample("y", dist.Normal(x[..., 0], 0.5), obs=jnp.stack([Y, -Y]))


def grouped():
    x = numpyro.sample("x", PRIOR.expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(x[:, 0], 0.5).to_event(1), obs=Y)


def masked_likelihood():
    x = numpyro.sample("x", PRIOR)
    with numpyro.plate("n", 3), mask(mask=jnp.array([True, False, True])):
        numpyro.sample("y", dist.Normal(x[0], 0.5), obs=Y.at[1].set(jnp.nan))


def masked_prior():
    with mask(mask=True):
        x = numpyro.sample("x", PRIOR)
    with mask(mask=jnp.array(True)):
        z = numpyro.sample("z", OTHER)
    numpyro.sample("y", dist.Normal(x[0] + z[0], 0.5), obs=Y[0])


def factor():
    x = numpyro.sample("x", PRIOR)
    numpyro.factor("bump", -jnp.sum((x - 1) ** 2))


def subsampled():
    x = numpyro.sample("x", PRIOR)
    with numpyro.plate("n", 3, subsample_size=2):
        numpyro.sample("y", dist.Normal(x[0], 0.5), obs=numpyro.subsample(Y, 0))


def deterministic():
    x = numpyro.sample("x", PRIOR)
    total = numpyro.deterministic("total", x.sum())
    numpyro.sample("y", dist.Normal(total, 0.5), obs=Y[0])


def child():
    x = numpyro.sample("x", PRIOR)
    z = numpyro.sample("z", dist.Normal(x.sum(), 0.3))
    numpyro.sample("y", dist.Normal(z, 0.5), obs=Y[0])


def constrained():
    x = numpyro.sample("x", PRIOR)
    with numpyro.plate("n", 2):
        s = numpyro.sample("s", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(x[0], s.sum()), obs=Y[0])


def scanned():
    x = numpyro.sample("x", PRIOR)

    def step(state, y):
        numpyro.sample("y", dist.Normal(state, 0.5), obs=y)
        return 0.9 * state, None

    scan(step, x.sum(), Y)


Z = {"x": X}
MODELS = {
    plain: Z,
    several: Z | {"z": X + 0.2},
    plates: {"x": jax.random.normal(KEY, (2, 3, 2))},
    grouped: {"x": jax.random.normal(KEY, (3, 2))},
    masked_likelihood: Z,
    masked_prior: Z | {"z": X + 0.2},
    factor: Z,
    subsampled: Z,
    deterministic: Z,
    child: Z | {"z": jnp.array(0.4)},
    constrained: Z | {"s": jnp.array([-0.3, 0.2])},
    scanned: Z,
}
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)


def energy(model, z, t, power, view="gaussian"):
    return potential_energy(noise_level(seed(model, 0), t, power, view), (), {}, z)


@pytest.mark.quick_cases(4)
@every_model
def test_at_zero_with_the_whole_likelihood_nothing_changes(model):
    views = VIEWS if model in (plates, child) else ["gaussian"]

    @jax.jit
    def energies(z):
        changed = [energy(model, z, 0.0, 1.0, view) for view in views]
        return potential_energy(seed(model, 0), (), {}, z), changed

    expected, changed = energies(MODELS[model])
    np.testing.assert_allclose(changed, np.full(len(views), expected), rtol=1e-5)


#: Of a gradient each; the simpler models are slow.
QUICK = [plates, masked_likelihood, child, constrained, scanned]


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("model", quick_among(MODELS, QUICK), ids=[model.__name__ for model in MODELS])
def test_linear_in_the_power_with_traced_numbers(model):
    value = jax.value_and_grad(lambda z, power, t: energy(model, z, t, power))
    batched = jax.jit(jax.vmap(value, (None, 0, None)))
    for t in (0.0, 0.4):
        energies, gradients = batched(MODELS[model], jnp.array([0.0, 0.25, 1.0]), t)
        assert abs(energies[0] - energies[2]) > 1e-2
        for none, some, full in (energies, *jax.tree.leaves(gradients)):
            assert np.isfinite([none, some, full]).all()
            np.testing.assert_allclose(some, 0.75 * none + 0.25 * full, rtol=1e-4, atol=1e-5)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("model", [plates, masked_likelihood, child], ids=lambda model: model.__name__)
def test_numbers_and_traced_numbers_agree(model):
    traced = jax.jit(lambda z, t, power: energy(model, z, t, power))
    for t, power in ((0.4, 0.3), (1.0, 0.0)):
        constant = jax.jit(lambda z, t=t, power=power: energy(model, z, t, power))
        np.testing.assert_allclose(traced(MODELS[model], t, power), constant(MODELS[model]), rtol=1e-5)


def site_log_probs(model, z, t, power):
    """Log density by site of a model whose latents are given without constraints."""
    unconstrained = numpyro.infer.util._unconstrain_params
    noisy = noise_level(seed(model, 0), t, power)
    return compute_log_probs(unconstrained(noisy, z), (), {}, {})[0]


def test_terms_of_a_constrained_latent_are_left_alone():
    z = MODELS[constrained]
    values = jax.jit(lambda power: site_log_probs(constrained, z, 0.4, power))
    slopes = jax.jit(jax.jacrev(lambda power: site_log_probs(constrained, z, 0.4, power)))(0.5)
    assert set(slopes) == {"x", "s", "_s_log_det", "y"}
    assert [float(slopes[k]) for k in ("x", "s", "_s_log_det")] == [0, 0, 0]
    assert float(slopes["y"]) == pytest.approx(float(values(1.0)["y"]), rel=1e-5) != 0
    assert float(values(0.5)["_s_log_det"]) == pytest.approx(float(z["s"].sum()), rel=1e-5) != 0
    expected = dist.HalfNormal(1.0).log_prob(jnp.exp(z["s"])).sum()
    assert float(values(0.5)["s"]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("model", [several, plates, grouped, masked_prior], ids=lambda model: model.__name__)
def test_every_prior_is_at_the_level(model):
    z = MODELS[model]
    values = jax.jit(lambda t: site_log_probs(model, z, t, 0.0))(0.6)
    densities = {"x": P, "z": Q}
    for name in z:
        expected = log_prob_of(densities[name], z[name], 0.6).sum()
        assert float(values[name]) == pytest.approx(float(expected), rel=1e-5)
    assert float(values["y"]) == 0


def test_latents_that_depend_on_x_and_deterministic_sites_see_the_view():
    def model():
        x = numpyro.sample("x", PRIOR)
        numpyro.deterministic("twice", 2 * x)
        numpyro.sample("z", dist.Normal(x, 0.3).to_event(1))
        return x

    t, z = 0.5, {"x": X, "z": jnp.array([0.1, 0.2])}
    seen_x = X / P.schedule.alpha(t)
    noisy = noise_level(model, t, 1.0, "scaled")
    sites = trace(substitute(noisy, z)).get_trace()
    np.testing.assert_allclose(sites["twice"]["value"], 2 * seen_x, rtol=1e-6)
    np.testing.assert_allclose(sites["x"]["value"], X)  # Recorded as it is.
    expected = log_prob_of(P, X, t) + dist.Normal(seen_x, 0.3).log_prob(z["z"]).sum()
    assert float(log_density(noisy, (), {}, z)[0]) == pytest.approx(float(expected), rel=1e-5)
    with noise_level(t=t, likelihood_power=1.0, view="scaled"), substitute(data=z):
        np.testing.assert_allclose(model(), seen_x, rtol=1e-6)
    # Traces inside of it would record what the model sees.
    with noise_level(t=t), pytest.raises(UnsupportedModelError, match="around what traces the model at site 'x'"):
        log_density(model, (), {}, z)


def test_likelihoods_of_a_scan_are_tempered_and_see_the_view():
    t, power = 0.5, 0.25
    state = (X / P.schedule.alpha(t)).sum() * 0.9 ** jnp.arange(3)
    expected = log_prob_of(P, X, t) + power * dist.Normal(state, 0.5).log_prob(Y).sum()
    found = jax.jit(lambda z: -energy(scanned, z, t, power, "scaled"))(Z)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_the_scale_of_a_subsampled_plate_is_kept():
    with seed(rng_seed=0):
        index = numpyro.plate("n", 3, subsample_size=2)._indices
    model = substitute(subsampled, {"n": index})
    likelihood = dist.Normal(X[0], 0.5).log_prob(Y[index]).sum() * 3 / 2
    found = jax.jit(lambda z: -energy(model, z, 0.0, 0.25))(Z)
    assert float(found) == pytest.approx(float(log_prob_of(P, X) + 0.25 * likelihood), rel=1e-5)


UNDEFINED = {
    "outside the support": lambda x: numpyro.sample("y", dist.Uniform(0, 1), obs=jnp.array(5.0)),
    "negative scale": lambda x: numpyro.sample("y", dist.Normal(0, x[1]), obs=Y[0]),
    "root of a negative number": lambda x: numpyro.sample("y", dist.Normal(0, jnp.sqrt(x[1])), obs=Y[0]),
    "factor": lambda x: numpyro.factor("y", jnp.log(0 * x[0])),
    "infinite rate": lambda x: numpyro.sample("y", dist.Poisson(jnp.exp(1e3 * x[0])), obs=jnp.array(5)),
    "not positive definite": lambda x: numpyro.sample("y", dist.MultivariateNormal(x, x[1] * jnp.eye(2)), obs=X),
}


@jax.jit
@jax.value_and_grad
def without_likelihood(z):
    seen_x = seen("gaussian", P, z["x"], 0.4)
    return -P.log_density(z["x"], 0.4) - dist.Normal(seen_x[0], 1.0).log_prob(z["s"])


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("likelihood", UNDEFINED.values(), ids=UNDEFINED.keys())
def test_at_power_zero_an_undefined_likelihood_counts_nothing(likelihood):
    def model():
        x = numpyro.sample("x", PRIOR)
        s = numpyro.sample("s", dist.Normal(x[0], 1.0))
        likelihood(x + 0 * s)

    z = Z | {"s": jnp.array(0.2)}
    value = jax.jit(jax.value_and_grad(lambda z, power: energy(model, z, 0.4, power)))
    assert not np.isfinite(value(z, 1.0)[0])
    (found, gradient), (expected, expected_gradient) = value(z, 0.0), without_likelihood(z)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
    np.testing.assert_allclose(gradient["s"], expected_gradient["s"], rtol=1e-4)


# Views.
T = 0.45


def noised(t=T):
    return float(P.schedule.alpha(t)), float(P.schedule.sigma(t))


def test_the_gaussian_view_is_the_posterior_mean_of_a_gaussian():
    (mean, covariance), (alpha, sigma) = moments_of(Q.gaussian(0.0)), noised()
    gain = alpha * covariance @ np.linalg.inv(alpha**2 * covariance + sigma**2 * np.eye(2))
    np.testing.assert_allclose(seen("gaussian", Q, X, T), mean + gain @ (X - alpha * mean), rtol=1e-4)
    np.testing.assert_allclose(seen("denoised", Q, X, T), seen("gaussian", Q, X, T), rtol=1e-4)


def test_the_denoised_view_is_the_posterior_mean_of_a_mixture():
    # By responsibilities and conditional means of the components, instead of by a score.
    alpha, sigma = noised()
    weights, means = np.exp(np.asarray(P.log_weights, dtype=float)), np.asarray(P.means, dtype=float)
    vectors, values = np.asarray(P.eigenvectors, dtype=float), np.asarray(P.eigenvalues, dtype=float)
    x, total, mass = np.asarray(X, dtype=float), 0.0, 0.0
    for w, m, u, v in zip(weights, means, vectors, values, strict=True):
        covariance = u @ np.diag(v) @ u.T
        inverse = np.linalg.inv(alpha**2 * covariance + sigma**2 * np.eye(2))
        away = x - alpha * m
        share = w * np.sqrt(np.linalg.det(inverse)) * np.exp(-0.5 * away @ inverse @ away)
        total, mass = total + share * (m + alpha * covariance @ inverse @ away), mass + share
    np.testing.assert_allclose(seen("denoised", P, X, T), total / mass, rtol=1e-4, atol=1e-5)
    assert np.abs(seen("gaussian", P, X, T) - total / mass).max() > 0.01


def test_the_other_views():
    np.testing.assert_array_equal(seen("x", P, X, T), X)
    np.testing.assert_allclose(seen("scaled", P, X, T), X / noised()[0], rtol=1e-6)


@pytest.mark.parametrize("view", VIEWS)
def test_views_of_batches_and_at_the_data(view):
    batch = jax.random.normal(KEY, (2, 3, 2))
    each = jax.jit(jax.vmap(jax.vmap(lambda x: seen(view, P, x, T))))(batch)
    np.testing.assert_allclose(jax.jit(lambda x: seen(view, P, x, T))(batch), each, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen(view, P, batch, 0.0), batch, rtol=1e-5, atol=1e-6)
