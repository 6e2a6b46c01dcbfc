"""Posteriors and evidences of NumPyro models with diffusion priors, against closed forms and quadrature."""

import functools

import densities
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from counting import compilations
from numpyro.infer.util import potential_energy
from scipy.stats import multivariate_normal

import numpyro_diffusion as nd

MEAN, COVARIANCE = np.array([1.0, -0.5]), np.array([[1.0, 0.6], [0.6, 0.8]])
A, SIGMA, Y = np.array([[1.0, 2.0]]), 0.3, np.array([1.7])
run_quietly = functools.partial(nd.AnnealedMCMC, num_chains=512, progress_bar=False)


def linear(prior, y):
    """A linear observation, beside a positive latent that the data say nothing about."""
    x = numpyro.sample("x", prior)
    g = numpyro.sample("g", dist.Exponential(1.0))
    numpyro.deterministic("g_squared", g**2)
    numpyro.sample("y", dist.Normal(jnp.asarray(A) @ x, SIGMA).to_event(1), obs=y)


@functools.cache
def gaussian_prior():
    return nd.DiffusionPrior(densities.gaussian(MEAN, COVARIANCE))


@functools.cache
def linear_run():
    mcmc = run_quietly(linear)
    mcmc.run(jax.random.key(1), gaussian_prior(), jnp.asarray(Y))
    return mcmc


def posterior(y=Y):
    """Mean, covariance and log evidence of `linear`."""
    precision = np.linalg.inv(COVARIANCE) + A.T @ A / SIGMA**2
    covariance = np.linalg.inv(precision)
    mean = covariance @ (np.linalg.solve(COVARIANCE, MEAN) + A.T @ y / SIGMA**2)
    evidence = multivariate_normal(A @ MEAN, A @ COVARIANCE @ A.T + SIGMA**2 * np.eye(1)).logpdf(y)
    return mean, covariance, evidence


def assert_mean(values, expected, sd, count):
    """The mean lies within 5 standard errors of `count` independent draws."""
    assert np.all(np.abs(np.mean(values, 0) - expected) < 5 * np.asarray(sd) / np.sqrt(count))


def test_posterior_of_a_linear_gaussian_model_is_exact():
    mcmc, (mean, covariance, evidence) = linear_run(), posterior()
    x, g = (np.asarray(mcmc.get_samples()[k]) for k in ("x", "g"))
    # Chains share ancestors; a third of them counts for certain.
    assert_mean(x, mean, np.sqrt(np.diag(covariance)), 512 / 3)
    assert_mean(g, 1.0, 1.0, 512 / 3)
    root = np.linalg.cholesky(np.linalg.inv(covariance))
    assert_mean(((x - mean) @ root) ** 2, 1.0, np.sqrt(2), 512 / 3)
    assert abs(mcmc.log_evidence - evidence) < 5 * max(mcmc.log_evidence_error, 0.02)
    np.testing.assert_allclose(mcmc.get_samples()["g_squared"], g**2, rtol=1e-5)


def test_new_data_of_the_same_shape_compile_nothing_anew():
    mcmc, other = linear_run(), run_quietly(linear)
    with compilations() as compiled:
        other.run(jax.random.key(2), gaussian_prior(), jnp.asarray(Y + 0.5))
    assert len(other.annealed.levels) != len(mcmc.annealed.levels) or not compiled
    mean = posterior(Y + 0.5)[0]
    assert_mean(np.asarray(other.get_samples()["x"]), mean, np.sqrt(np.diag(posterior()[1])), 512 / 3)
    changed = nd.DiffusionPrior(densities.gaussian(MEAN + 3.0, COVARIANCE))
    other.run(jax.random.key(2), changed, jnp.asarray(Y))
    # As if the data had moved the other way.
    expected, unchanged = (posterior(y)[2] for y in (Y - A @ np.full_like(MEAN, 3.0), Y))
    assert abs(expected - unchanged) > 1
    assert abs(other.log_evidence - expected) < 5 * max(other.log_evidence_error, 0.02)


def test_shapes_and_fields():
    mcmc = linear_run()
    samples, grouped = mcmc.get_samples(), mcmc.get_samples(group_by_chain=True)
    assert samples["x"].shape == (512, 2) and grouped["x"].shape == (512, 1, 2)
    fields = mcmc.get_extra_fields()
    assert {k: v.shape for k, v in fields.items()} == dict.fromkeys(
        ("log_weight", "ancestor", "acceptance_rate", "is_divergent", "diverging", "log_density"), (512,)
    )
    assert np.all(np.asarray(fields["log_weight"]) == 0) and not np.any(np.asarray(fields["is_divergent"]))
    assert mcmc.last_state.z["g"].shape == (512,)
    np.testing.assert_allclose(np.exp(mcmc.last_state.z["g"]), samples["g"], rtol=1e-5)
    levels = len(mcmc.annealed.levels)
    assert mcmc.evaluations_per_chain == levels * (1 + 2)


def test_log_density_is_the_models_own():
    mcmc = linear_run()
    joint = mcmc.joint
    z = joint.ravel(jax.tree.map(lambda v: v[0], mcmc.last_state.z))
    ours = joint.log_prob(z, 0.0)
    theirs = -potential_energy(linear, (gaussian_prior(), jnp.asarray(Y)), {}, joint.unravel(z))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    np.testing.assert_allclose(mcmc.get_extra_fields()["log_density"][0], theirs, rtol=1e-5)


def test_start_is_exact():
    joint = linear_run().joint
    z, log_prob = jax.jit(jax.vmap(joint.start))(jax.random.split(jax.random.key(3), 20_000))
    values = jax.vmap(joint.unravel)(z)
    # x has unit variance at t = 1, exp(g) ~ Exponential(1); mean log density is minus the entropy, known for both.
    assert_mean(np.asarray(values["x"]) ** 2, 1.0, np.sqrt(2), 20_000)
    g = np.asarray(values["g"])
    entropy = np.log(2 * np.pi * np.e) + 1.0 - np.mean(g)
    assert_mean(np.asarray(log_prob) + entropy, 0.0, 2.0, 20_000)
    assert abs(float(joint.likelihood_power(1.0))) == 0 and float(joint.likelihood_power(0.0)) == 1
    powers = np.asarray(joint.powers[1])
    assert np.all(np.diff(powers) <= 1e-6) and 0.2 < powers[len(powers) // 2] <= 1


@pytest.mark.slow
def test_further_draws_at_the_data_level():
    mcmc = run_quietly(linear, num_samples=120, thinning=6)
    mcmc.run(jax.random.key(4), gaussian_prior(), jnp.asarray(Y))
    x = np.asarray(mcmc.get_samples(group_by_chain=True)["x"])
    assert x.shape == (512, 20, 2) and mcmc.get_samples()["x"].shape == (10_240, 2)
    mean, covariance, _ = posterior()
    assert_mean(x[:, 5:].reshape(-1, 2), mean, np.sqrt(np.diag(covariance)), 64 * 15 / 4)
    assert np.all(np.asarray(numpyro.diagnostics.split_gelman_rubin(x)) < 1.05)
    assert mcmc.get_extra_fields(group_by_chain=True)["acceptance_rate"].shape == (512, 20)


def test_weights_without_resampling():
    mcmc = run_quietly(linear, resample_threshold=0.0)
    mcmc.run(jax.random.key(5), gaussian_prior(), jnp.asarray(Y))
    weight = np.exp(np.asarray(mcmc.log_weights) - np.max(mcmc.log_weights))
    weight /= weight.sum()
    mean, covariance, evidence = posterior()
    ess = 1 / np.sum(weight**2)
    assert 20 < ess < 511
    error = weight @ np.asarray(mcmc.get_samples()["x"]) - mean
    assert np.all(np.abs(error) < 5 * np.sqrt(np.diag(covariance) / ess))
    assert abs(mcmc.log_evidence - evidence) < 5 / np.sqrt(ess)


def modes(prior, y):
    x = numpyro.sample("x", prior)
    sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    numpyro.sample("y", dist.Normal(x[0], sigma), obs=y)


@pytest.mark.slow
def test_several_modes_and_an_unknown_noise_scale():
    mixture = nd.exact.GaussianMixture([[-3.0, 1.0], [3.0, -1.0]], 0.25 * np.array([np.eye(2)] * 2), [0.3, 0.7])
    mcmc = run_quietly(modes, num_chains=2000)
    mcmc.run(jax.random.key(6), nd.DiffusionPrior(mixture), jnp.asarray(0.2))
    # x_1 is known in closed form given sigma; sigma by quadrature.
    sigma = np.linspace(1e-3, 4, 4000)
    variance = 0.25 + sigma**2
    prior = np.sqrt(2 / np.pi) / 0.5 * np.exp(-0.5 * (sigma / 0.5) ** 2)
    parts = [
        w * np.exp(-0.5 * (0.2 - m) ** 2 / variance) / np.sqrt(2 * np.pi * variance) * prior
        for w, m in ((0.3, -3.0), (0.7, 3.0))
    ]
    masses = np.array([np.trapezoid(p, sigma) for p in parts])
    assert abs(mcmc.log_evidence - np.log(masses.sum())) < 5 * mcmc.log_evidence_error
    samples = {k: np.asarray(v) for k, v in mcmc.get_samples().items()}
    assert_mean(samples["x"][:, 0] > 0, masses[1] / masses.sum(), 0.5, 2000 / 8)
    expected = np.trapezoid(sum(parts) * sigma, sigma) / masses.sum()
    assert_mean(samples["sigma"], expected, samples["sigma"].std(), 2000 / 8)


def hierarchy(prior, other, y):
    with numpyro.plate("items", 2):
        x = numpyro.sample("x", prior)
    w = numpyro.sample("w", other)
    child = numpyro.sample("child", dist.Normal(x.sum(), 0.5))
    with numpyro.plate("data", 2):
        numpyro.sample("y", dist.Normal(x[:, 0] + child + w[0], 0.5), obs=y)


@pytest.mark.slow
def test_plates_several_priors_and_a_latent_that_depends_on_x():
    prior = gaussian_prior()
    other = nd.DiffusionPrior(densities.gaussian(schedule=nd.VarianceExploding(sigma_max=30.0)))
    y = np.array([0.5, -0.3])
    mcmc = run_quietly(hierarchy)
    mcmc.run(jax.random.key(7), prior, other, jnp.asarray(y))
    # All is linear and Gaussian: (x_1, x_2, w, child, y) as a linear map of independent normals.
    root, eye = np.linalg.cholesky(COVARIANCE), np.eye(2)
    x = np.kron(eye, root)
    rows = np.zeros((9, 9))
    rows[:4, :4], rows[4:6, 4:6] = x, eye
    rows[6] = rows[:4].sum(0)
    rows[6, 6] = 0.5
    for i in range(2):
        rows[7 + i] = rows[2 * i] + rows[6] + rows[4]
        rows[7 + i, 7 + i] += 0.5
    mean = np.concatenate([MEAN, MEAN, [0, 0], [2 * MEAN.sum()], 2 * [MEAN[0] + 2 * MEAN.sum()]])
    covariance = rows @ rows.T
    evidence = multivariate_normal(mean[7:], covariance[7:, 7:]).logpdf(y)
    gain = covariance[:7, 7:] @ np.linalg.inv(covariance[7:, 7:])
    expected = mean[:7] + gain @ (y - mean[7:])
    sd = np.sqrt(np.diag(covariance[:7, :7] - gain @ covariance[7:, :7]))
    samples = {k: np.asarray(v) for k, v in mcmc.get_samples().items()}
    found = np.column_stack([samples["x"].reshape(512, 4), samples["w"], samples["child"]])
    assert samples["x"].shape == (512, 2, 2)
    assert_mean(found, expected, sd, 512 / 4)
    assert abs(mcmc.log_evidence - evidence) < 5 * max(mcmc.log_evidence_error, 0.02)


def test_summary_tells_evidence_and_levels(capsys):
    mcmc = linear_run()
    mcmc.print_summary()
    text, evidence = capsys.readouterr().out, f"log evidence {mcmc.log_evidence:.3f}"
    assert "x[1]" in text and "g_squared" not in text and evidence in text and "levels" in text
    linear_run().print_summary(exclude_deterministic=False)
    assert "g_squared" in capsys.readouterr().out


def score_model(prior, y):
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)


def test_bad_input_is_named():
    with pytest.raises(TypeError, match="model must be a NumPyro model"):
        nd.AnnealedMCMC(3)
    with pytest.raises(TypeError, match=r"kernel must be a kernel such as nd.HMC\(\)"):
        nd.AnnealedMCMC(linear, "hmc")
    with pytest.raises(nd.errors.ParameterError, match="num_samples must be an integer >= 1; got 0"):
        nd.AnnealedMCMC(linear, num_samples=0)
    with pytest.raises(nd.errors.ParameterError, match="view must be one of"):
        nd.AnnealedMCMC(linear, view="sideways")
    mcmc = run_quietly(linear)
    with pytest.raises(RuntimeError, match="nothing has been run yet"):
        mcmc.get_samples()
    with pytest.raises(nd.errors.ParameterError, match="init_params is not taken"):
        mcmc.run(jax.random.key(0), gaussian_prior(), jnp.asarray(Y), init_params={"x": jnp.zeros(2)})
    with pytest.raises(nd.errors.ParameterError, match="extra_fields must be among.*'energy'"):
        mcmc.run(jax.random.key(0), gaussian_prior(), jnp.asarray(Y), extra_fields=("energy",))
    with pytest.raises(nd.errors.ParameterError, match="metric must be one of"):
        run_quietly(linear, metric="best").run(jax.random.key(0), gaussian_prior(), jnp.asarray(Y))
    with pytest.raises(nd.errors.ParameterError, match=r"likelihood_power must map t to \[0, 1\]"):
        run_quietly(linear, likelihood_power=lambda t: 2.0).run(jax.random.key(0), gaussian_prior(), jnp.asarray(Y))


def test_chosen_power_is_followed():
    joint = densities.joint_density(
        jax.random.key(0), linear, (gaussian_prior(), jnp.asarray(Y)), likelihood_power=lambda t: (1 - t) ** 2
    )
    t = np.linspace(0.05, 0.95, 7)
    np.testing.assert_allclose(jax.vmap(joint.likelihood_power)(t), (1 - t) ** 2, atol=0.02)


@pytest.mark.slow
def test_chains_do_not_flip_between_mirror_points():
    # Three leapfrogs of the tuned step are half a turn of a round Gaussian: without jitter, x goes to -x and back.
    mcmc = run_quietly(score_model, num_chains=64, num_samples=12, thinning=1)
    mcmc.run(jax.random.key(8), nd.DiffusionPrior(densities.gaussian()), jnp.zeros(2))
    x = np.asarray(mcmc.get_samples(group_by_chain=True)["x"])
    # Each chain sees all sizes. One that only flips keeps its own square: the standard deviation would be 0.71.
    within = np.mean(x[:, 1:] ** 2, axis=1)
    assert np.std(within) < 0.6


@pytest.mark.slow
def test_without_data_the_prior_is_sampled():
    mcmc = run_quietly(lambda prior: numpyro.sample("x", prior), num_chains=1000)
    mcmc.run(jax.random.key(9), gaussian_prior())
    assert_mean(np.asarray(mcmc.get_samples()["x"]), MEAN, np.sqrt(np.diag(COVARIANCE)), 1000 / 2)
    assert abs(mcmc.log_evidence) < 0.01


@pytest.mark.slow
def test_nuts_refuses_to_start_where_the_prior_is_zero():
    prior = nd.DiffusionPrior(densities.box())

    def model():
        numpyro.sample("x", prior)

    outside = numpyro.infer.init_to_value(values={"x": jnp.array([5.0, 5.0])})
    with pytest.raises(RuntimeError, match="Cannot find valid initial parameters"):
        numpyro.infer.util.initialize_model(jax.random.key(0), model, init_strategy=outside)
    inside = numpyro.infer.init_to_value(values={"x": jnp.zeros(2)})
    found = numpyro.infer.util.initialize_model(jax.random.key(0), model, init_strategy=inside)
    np.testing.assert_allclose(found.param_info.potential_energy, np.log(1.8 * 2.0), rtol=1e-5)
