"""Networks from elsewhere as densities: laws of closed forms, under their own schedule and under others."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapters.closed_form import OTHER, POINTS, PREDICTIONS, SCHEDULES, TIMES, adapted, exact, scores, worst
from counting import compilations
from densities import mixture
from quick import quick_among, slow

import numpyro_diffusion as nd
from numpyro_diffusion.density.adapted import AdaptedModel
from numpyro_diffusion.errors import CheckpointError, DiagnosticWarning, ScoreOnlyError

CASES = [(p, s) for p in PREDICTIONS for s in SCHEDULES if p != "flow" or s == "flow"]


@jax.jit
def under_both(*densities):
    """Their scores under their own schedule and under another: of each two arrays [times, points, 2]."""
    schedules = densities[0].schedule, OTHER
    return [[scores(d.with_schedule(s), POINTS * s.alpha(0.5)) for d in densities] for s in schedules]


#: Every prediction, and every schedule.
QUICK = [
    ("noise", "betas"), ("velocity", "cosine"), ("denoiser", "exploding"), ("flow", "flow"), ("score", "flow"),
    ("energy", "sigmas"),
]  # fmt: skip


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize(("prediction", "schedule"), quick_among(CASES, QUICK))
def test_scores_are_those_of_the_closed_form(prediction, schedule):
    density = adapted(prediction, schedule)
    for found, true in under_both(density, mixture().with_schedule(density.schedule)):
        assert worst(found, true) < 1e-4


@pytest.mark.slow
def test_energies_have_log_densities_up_to_a_constant():
    for schedule in ("cosine", "betas"):
        density = adapted("energy", schedule).with_schedule(OTHER)
        true = mixture().with_schedule(OTHER)
        for t in TIMES:
            difference = density.log_prob(POINTS, t) - true.log_prob(POINTS, t)
            np.testing.assert_allclose(difference, -3.0, atol=2e-4)
    assert density.has_log_density and not density.is_calibrated


def test_energies_of_data_without_noise_become_wide_with_it():
    variance = np.array([0.5, 2.0])
    energy = lambda x: 0.5 * jnp.sum(x**2 / variance)
    schedule, other = nd.VarianceExploding(0.0, 10.0), nd.VariancePreserving.cosine()
    density = nd.from_energy(energy, (2,), schedule, timesteps="none", data_scale=np.sqrt(variance))
    true = nd.exact.GaussianMixture(np.zeros((1, 2)), np.diag(variance)[None])
    for d, t in ((density, 0.3), (density.with_schedule(other), 0.6), (density.with_schedule(other), 1.0)):
        difference = d.log_prob(POINTS, t) - true.with_schedule(d.schedule).log_prob(POINTS, t)
        np.testing.assert_allclose(difference, np.log(2 * np.pi), atol=2e-3)


def test_others_have_scores_only():
    density = adapted()
    assert isinstance(density, AdaptedModel) and not density.has_log_density
    assert density.log_density(POINTS[0], 0.5) == 0
    with pytest.raises(ScoreOnlyError):
        nd.mixture(density, mixture()).log_density(POINTS[0], 0.5)


def test_predicted_noise_is_the_score_in_units_of_variance_exploding():
    density = adapted("velocity", "betas")
    exploding = nd.VarianceExploding(0.01, 50.0)
    for r in (0.1, 2.0, 20.0):
        noise = density.predicted_noise(POINTS[0], r)
        true = mixture().with_schedule(exploding).score(POINTS[0], exploding.time(r))
        np.testing.assert_allclose(-noise / r, true, rtol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [slow("cosine"), "betas"])
def test_below_the_resolution_the_density_stays_what_it_is(schedule):
    density = adapted("noise", schedule, data_scale=2.0)
    low, _ = density.origin.noise_range
    assert density.resolution == (low or 0.002 * 2)
    fine = density.with_schedule(nd.VarianceExploding(1e-4, 50.0))
    t = fine.schedule.time(density.resolution * np.array([0.2, 1.0]))
    below, at = jax.vmap(lambda t: fine.score(POINTS, t))(t)
    np.testing.assert_allclose(below, at, rtol=2e-3)
    np.testing.assert_allclose(fine.gaussian(0.0).variance, fine.gaussian(t[1]).variance, rtol=1e-5)


def test_discrete_and_continuous_models_compose_in_one_formula():
    parts = [
        adapted(p, s).with_schedule(OTHER) for p, s in (("noise", "betas"), ("flow", "flow"), ("energy", "sigmas"))
    ]
    found = scores(parts[0] * parts[1] / parts[2] ** 0.5)
    assert worst(found, 1.5 * scores(mixture().with_schedule(OTHER))) < 1e-4


def test_batches_are_one_call_of_the_network():
    weights = jnp.ones((2, 2))

    def fn(weights, x, t):
        assert x.ndim == 2 and x.shape[0] == t.shape[0]
        return x @ weights + t[:, None]

    def one(weights, x, t):
        return x @ weights + t

    schedule = nd.VariancePreserving.cosine()
    density = nd.from_noise_prediction(fn, (2,), schedule, parameters=weights, batched=True)
    x = jax.random.normal(jax.random.key(0), (64, 2))
    text = str(jax.make_jaxpr(lambda d, x: d.score(x, 0.5))(density, x))
    assert text.count("dot_general") == 1
    single = nd.from_noise_prediction(one, (2,), schedule, parameters=weights)
    np.testing.assert_allclose(density.score(x, 0.5), single.score(x, 0.5), rtol=1e-5)


def test_new_weights_compile_nothing_and_are_no_constants():
    def fn(weights, x, t):
        return jnp.tanh(weights["a"] @ x) + weights["b"]

    def of(seed):
        a, b = np.random.default_rng(seed).normal(size=(2, 2, 2))
        return nd.from_noise_prediction(
            fn, (2,), nd.VariancePreserving.cosine(), parameters={"a": a, "b": b[0]}, name=f"n{seed}"
        )

    first = scores(of(0))
    with compilations() as found:
        second = scores(of(1))
    assert found == [] and not np.allclose(first, second)
    closed = jax.make_jaxpr(lambda density, x: density.score(x, 0.5))(of(2), POINTS)
    assert sum(np.size(a) for a in closed.consts) == 0


def test_what_a_function_reads_is_read_when_a_run_begins():
    read = {"scale": jnp.float32(1.0)}
    density = nd.from_noise_prediction(lambda x, t: read["scale"] * x, (2,), nd.VariancePreserving.cosine())
    before, identity = scores(density), density.identity()
    read["scale"] = jnp.float32(3.0)
    with compilations() as found:
        after = scores(density)
    np.testing.assert_allclose(after, 3 * before, rtol=1e-5)
    assert found == []
    assert density.identity()["weights"] != identity["weights"]
    assert density.identity()["computation"] == identity["computation"]


@pytest.mark.slow
def test_runs_with_a_checkpoint(tmp_path):
    density = adapted()
    run = lambda d: nd.anneal(
        jax.random.key(0), d, nd.ULA(step_size=0.1), num_chains=8, levels=4, num_steps=1,
        checkpoint_path=tmp_path / "run", progress_bar=False,
    )  # fmt: skip
    np.testing.assert_array_equal(run(density).samples, run(adapted()).samples)
    with pytest.raises(CheckpointError, match="computation"):
        run(adapted("velocity"))


@pytest.mark.slow
def test_reverse_diffusion_samples_the_mixture():
    schedule = OTHER
    density = nd.from_noise_prediction(
        exact("noise", schedule), (2,), schedule, data=mixture().sample(jax.random.key(1), 500)
    )
    run = nd.anneal(jax.random.key(0), density, nd.Reverse(), num_chains=2000, levels=60, progress_bar=False)
    mean, covariance = mixture()._moments().mean, mixture()._moments().covariance
    error = (run.samples.mean(0) - mean) / np.sqrt(np.diag(covariance) / 2000)
    assert np.all(np.abs(error) < 5)


@pytest.mark.slow
def test_moments_of_data_and_scales():
    x = mixture().sample(jax.random.key(0), 400)
    density = adapted(data=np.asarray(x))
    np.testing.assert_allclose(density.moments.mean, np.mean(x, 0), rtol=1e-4)
    np.testing.assert_allclose(density.moments.covariance, np.cov(x.T), rtol=1e-3, atol=1e-4)
    scaled = adapted(data_scale=[1.0, 3.0])
    np.testing.assert_allclose(scaled.gaussian(0.0).covariance, np.diag([1.0, 9.0]), rtol=1e-3, atol=1e-4)
    image = nd.from_noise_prediction(lambda x, t: x, (4, 4, 1), nd.VarianceExploding(), data_scale=0.5)
    np.testing.assert_allclose(image.moments.covariance, 0.25 * np.eye(16), atol=1e-6)


@pytest.mark.slow
def test_data_say_which_convention_is_wrong():
    x = np.asarray(mixture().sample(jax.random.key(0), 500))
    schedule, timesteps = SCHEDULES["betas"]
    network = exact("noise", schedule, timesteps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted("noise", "betas", data=x)
    with pytest.warns(DiagnosticWarning, match="sign is flipped"):
        nd.from_noise_prediction(lambda x, t: -network(x, t), (2,), schedule, timesteps=timesteps, data=x)


def test_names():
    def unet(x, t):
        return x

    density = nd.from_noise_prediction(unet, (2,), nd.VariancePreserving.cosine())
    assert repr(density) == "unet" and repr(density**2 / density.with_schedule(density.schedule)) != ""
    assert repr(adapted(name="mine") * adapted(name="yours")) == "mine * yours"
