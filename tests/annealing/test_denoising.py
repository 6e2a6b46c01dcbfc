"""Reverse diffusion steps with weights: laws of the step, and evidences that stay unbiased."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.annealing.denoising import denoising
from numpyro_diffusion.annealing.information import Information, learn
from numpyro_diffusion.annealing.level import level_at
from numpyro_diffusion.annealing.plan import Plan, PlannedLevel
from numpyro_diffusion.annealing.population import start


def gaussian(d=3, seed=0, name="p"):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d))
    return nd.exact.GaussianMixture(rng.normal(size=(1, d)), (root @ root.T + 0.1 * np.eye(d))[None], name=name)


def parted(d=2):
    return nd.exact.GaussianMixture(np.array([[-3.0] * d, [3.0] * d]), np.tile(0.25 * np.eye(d), (2, 1, 1)), name="q")


def run(density, seed=0, **options):
    options = {"num_chains": 200, "progress_bar": False} | options
    return nd.anneal(jax.random.key(seed), density, options.pop("kernel", None), **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "density",
    [pytest.param(gaussian() ** 2.0, marks=pytest.mark.slow), gaussian() * gaussian(seed=1, name="r")],
    ids=["square", "product"],
)
@pytest.mark.parametrize(
    ("step_size", "frame", "metric"),
    [
        (0.1, "identity", "frame"),
        *(pytest.param(None, *s, marks=pytest.mark.slow) for s in (("whitened", "pilot"), ("identity", "frame"))),
    ],
)
def test_weights_of_gaussians_are_constant(density, step_size, frame, metric):
    kernel = nd.MALA(step_size)
    found = run(density, levels=6, kernel=kernel, predictor=True, frame=frame, metric=metric)
    assert np.max(found.stats["log_weight_increment_sd"]) < 2e-2
    carried = run(density, levels=6, kernel=kernel, predictor=False, metric=metric)
    assert found.log_evidence == pytest.approx(carried.log_evidence, abs=5e-3)


def test_step_is_a_density_ratio():
    # Forward and backward kernels of the step, written out as Gaussians in y.
    p, levels = parted(), (0.5, 0.4)
    before, after = (level_at(p, jnp.asarray(t), "identity") for t in levels)
    state = start(p, jax.random.key(0), num_chains=1, frame_kind="identity").state
    x = jnp.asarray([0.7, -0.4])
    value, gradient = jax.value_and_grad(lambda x: p.log_density(x, levels[0]))(x)
    state = jax.tree.map(lambda a: a[0], state)._replace(position=x, logdensity=value, logdensity_grad=gradient)
    new, gain = denoising(before, after).move(jnp.asarray([0.3, -1.1]), state)
    alpha, alpha_to = (p.schedule.alpha(t) for t in levels)
    old, now = (p.gaussian(t).covariance / a**2 for t, a in zip(levels, (alpha, alpha_to), strict=True))
    lost = old - now
    step = jnp.linalg.inv(jnp.linalg.inv(lost) + jnp.linalg.inv(now))
    y, y_to = x / alpha, new / alpha_to

    def normal(gap, covariance):
        return jax.scipy.stats.multivariate_normal.logpdf(gap, jnp.zeros(2), covariance)

    ratio = normal(y - y_to, lost) - normal(y_to - y - lost @ (alpha * gradient), step)
    assert float(gain) == pytest.approx(float(ratio + 2 * jnp.log(alpha_to / alpha)), abs=2e-3)


def test_what_loses_nothing_stays():
    # At the resolution noise falls no further: y stays, and weights know of it.
    p = nd.load_pretrained("ring")
    times = p.schedule.time(jnp.asarray([0.5, 0.25]) * p.resolution)
    before, after = (level_at(p, t, "whitened") for t in times)
    state = jax.tree.map(lambda a: a[0], start(p, jax.random.key(0), num_chains=1, frame_kind="whitened").state)
    new, _ = denoising(before, after).move(jnp.asarray([2.0, -2.0]), state)
    x, x_to = (level.point(u) for level, u in ((before, state.position), (after, new)))
    np.testing.assert_allclose(x / p.schedule.alpha(times[0]), x_to / p.schedule.alpha(times[1]), rtol=1e-4)


@pytest.mark.slow
def test_evidence_is_unbiased():
    p = parted()
    density, found = p * gaussian(2), []
    truth = run(density, num_chains=20_000, levels=60, predictor=False, num_steps=2)
    for seed in range(12):
        found.append(run(density, seed, levels=25, predictor=True, kernel=nd.MALA(0.1), num_steps=1).log_evidence)
    ratio = np.exp(np.array(found) - truth.log_evidence)
    error = np.hypot(ratio.std(ddof=1) / np.sqrt(len(ratio)), truth.log_evidence_error)
    assert abs(ratio.mean() - 1) < 5 * error
    assert error < 0.1


@pytest.mark.slow
def test_pilot_chooses_and_files_keep_the_choice(tmp_path):
    p = parted()
    found = run(p, level_ess=0.95, checkpoint_path=tmp_path / "run")
    again = run(p, level_ess=0.95, checkpoint_path=tmp_path / "run")
    np.testing.assert_array_equal(found.samples, again.samples)
    carried = run(p, level_ess=0.95, predictor=False)
    assert len(found.levels) <= len(carried.levels) + 2
    assert not np.array_equal(found.levels, carried.levels)


@pytest.mark.slow
def test_score_only_densities_step_too():
    from tests.densities import ScoreOf

    p = gaussian(2)
    for predictor in (False, True):
        found = run(ScoreOf(p), kernel=nd.MALA(), levels=30, predictor=predictor)
        assert found.is_weighted
        assert abs(found.log_evidence) < max(5 * found.log_evidence_error, 0.02)


def test_unknown_predictor_is_refused():
    with pytest.raises(nd.errors.ParameterError, match="predictor"):
        run(gaussian(), predictor="sometimes")


def test_plans_say_where_steps_lead():
    levels = [
        PlannedLevel(1.0, 0.1, None, None, 1.0, np.eye(2)),
        PlannedLevel(0.5, 0.2, None, PlannedLevel(1.0), 1.0, 2 * np.eye(2), step=True),
        PlannedLevel(0.0, 0.3, None, None, 0.5, 3 * np.eye(2)),
    ]
    plan = Plan.of(levels)
    assert [plan.at(i).step for i in range(3)] == [False, True, False]
    assert plan.at(1).before.t == 1.0 and plan.at(2).previous == 0.5
    np.testing.assert_array_equal(plan.at(1).before.information, np.eye(2))


def test_information_sees_modes_and_no_noise():
    d, n = 20, 200
    p = nd.exact.GaussianMixture(
        np.array([[-8.0] * d, [8.0] * d]), np.tile(np.eye(d), (2, 1, 1)), name="far"
    )  # two modes, along one diagonal
    t = p.schedule.time(1.0)
    level = level_at(p, t, "whitened")
    x = p.schedule.alpha(t) * (p.sample(jax.random.key(0), n) + jax.random.normal(jax.random.key(1), (n, d)))
    u = jax.vmap(level.frame.coordinates)(x)
    population = start(p, jax.random.key(0), num_chains=n, frame_kind="whitened")
    state = jax.vmap(level.enter)(u, jnp.zeros_like(u))
    known = learn(level, population._replace(state=state), None)
    values = np.sort(np.linalg.eigvalsh(known.matrix))
    np.testing.assert_allclose(values[:-1], 1.0, atol=1e-4)
    spread = 20 * 64
    assert values[-1] == pytest.approx((spread + 2) / 2, rel=0.3)
    assert isinstance(learn(level, population._replace(state=state), known), Information)
