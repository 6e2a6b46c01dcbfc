"""Tiny distillations: exact scores give back log densities, runs repeat and resume, a teacher's weights are a start."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import ScoreOf, network, untrained

import numpyro_diffusion as nd
from numpyro_diffusion.annealing.calibration import LogZ
from numpyro_diffusion.distillation import normalise, teacher
from numpyro_diffusion.distillation.student import fresh_student
from numpyro_diffusion.train import optimise

KEY = jax.random.key(0)
NETWORK = nd.NetworkConfig(width=16, num_blocks=1, embedding_size=8)
SHORT = nd.TrainingConfig(num_steps=30, batch_size=64, learning_rate=1e-2)
TWO = nd.exact.GaussianMixture([[-1.0, 0.0], [1.0, 0.5]], np.stack([0.2 * np.eye(2)] * 2), [0.25, 0.75], name="two")
DATA = np.asarray(TWO.sample(jax.random.key(2), 500))


EXACT = ScoreOf(TWO)


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setattr(optimise, "CHUNK", 10)


def distil(teacher=EXACT, data=DATA, key=KEY, **kwargs):
    settings = {"network": NETWORK, "training": SHORT, "normalise": False, "progress_bar": False}
    return nd.distil(key, teacher, data, **(settings | kwargs))


def same_weights(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


# What a teacher is asked for.


@functools.cache
def asked(exact_up_to):
    """Scores by keys, at y and r: compiled once for either way."""
    return jax.jit(jax.vmap(lambda key, y, r: teacher.scores(EXACT, y, r, None, key), (0, None, None)))


@pytest.mark.parametrize("exact_up_to", [2, 1], ids=["exact", "hutchinson"])
@pytest.mark.parametrize("r", [0.05, 0.7, 5.0])
def test_scores_are_the_derivatives_of_the_log_density(r, exact_up_to, monkeypatch):
    monkeypatch.setattr(teacher, "EXACT", exact_up_to)
    y = jnp.array([0.4, -0.3])
    components = [(w, m, 0.2 * np.eye(2)) for w, m in ((0.25, [-1.0, 0.0]), (0.75, [1.0, 0.5]))]

    def log_prob(y, log_r):
        variance = 0.2 + jnp.exp(2 * log_r)
        terms = [jnp.log(w) - jnp.sum((y - jnp.array(m)) ** 2) / (2 * variance) for w, m, _ in components]
        return jax.nn.logsumexp(jnp.stack(terms)) - jnp.log(2 * jnp.pi * variance)

    score, time_score = jax.grad(log_prob, (0, 1))(y, jnp.log(r))
    keys = jax.random.split(KEY, 4000)
    found, times = asked(exact_up_to)(keys, y, r)
    np.testing.assert_allclose(found[0], score, rtol=1e-3, atol=1e-4)
    error = 5 * np.std(times) / np.sqrt(len(times))
    np.testing.assert_allclose(np.mean(times), time_score, rtol=1e-3, atol=1e-3 + error)
    assert (np.std(times) > 1e-4) == (exact_up_to == 1)


def test_a_network_from_elsewhere_has_a_time_score():
    """Of N(0, I): a wrong one, of a divergence that is lost, would be r^2 |s|^2 alone."""
    flat = lambda x, t: x * jnp.sin(jnp.arctan(100.0) * t)
    model = nd.from_noise_prediction(flat, (2,), nd.VariancePreserving.cosine(), name="g")
    y, r = jnp.array([0.5, -1.0]), 0.8
    _, time_score = teacher.scores(model, y, r, None, KEY)
    expected = r**2 / (1 + r**2) * (jnp.sum(y**2) / (1 + r**2) - 2)
    np.testing.assert_allclose(time_score, expected, rtol=1e-3)


# Laws.


@pytest.fixture(scope="module")
def distilled():
    training = nd.TrainingConfig(num_steps=1000, batch_size=256, learning_rate=1e-2, ema_decay=0.99)
    network = nd.NetworkConfig(width=32, num_blocks=1, embedding_size=8)
    return distil(network=network, training=training, parameterisation="dae", normalise=True)


def test_the_score_of_a_mixture_gives_back_its_log_density(distilled):
    x = TWO.sample(jax.random.key(3), 300)
    noise = distilled.resolution * jax.random.normal(jax.random.key(4), x.shape)
    for t in (0.0, 0.3, 0.8):
        alpha, sigma = TWO.schedule.alpha(t), TWO.schedule.sigma(t)
        z = alpha * (x + noise) + sigma * jax.random.normal(jax.random.key(5), x.shape)
        error = np.asarray(distilled.log_prob(z, t) - TWO.log_prob(z, t))
        # Far better than the Gaussian that the energy stands on.
        assert np.sqrt(np.mean(error**2)) < 0.08
    base = np.asarray(distilled.moments.noised(1.0, 0.0).log_prob(np.zeros(2)) - TWO.log_prob(np.zeros(2)))
    assert abs(base) > 0.2


def test_the_normaliser_is_taken_out(distilled):
    report = nd.calibration_report(distilled, levels=[1.0, 0.5, 0.1, 0.0])
    assert np.max(np.abs(report.log_z)) < 3e-3
    assert np.max(np.abs(distilled.log_z[1])) > 3e-3  # there was something to take out


def test_a_distilled_energy_is_one_like_any_other(distilled, tmp_path):
    assert isinstance(distilled, nd.EnergyDensity) and distilled.is_calibrated and distilled.typical is not None
    assert repr(distilled) == "score distilled" and distilled.schedule == EXACT.schedule
    nd.save(distilled, tmp_path / "d.safetensors")
    again = nd.load(tmp_path / "d.safetensors")
    assert np.array_equal(again.log_prob(DATA[:5]), distilled.log_prob(DATA[:5]))


@pytest.mark.slow
def test_the_key_decides():
    assert same_weights(distil().state, distil().state)
    assert not same_weights(distil().state, distil(key=jax.random.key(9)).state)


@pytest.mark.slow
def test_without_data_the_teacher_is_sampled(monkeypatch):
    monkeypatch.setattr(teacher, "NUM_DRAWN", 400)
    density = distil(data=None)
    assert repr(density) == "score distilled from its samples"
    np.testing.assert_allclose(density.mean, TWO.gaussian(0.0).mean, atol=0.4)
    np.testing.assert_allclose(density.moments.covariance, TWO.gaussian(0.0).covariance, atol=0.3)


@pytest.mark.slow
def test_a_sampler_is_data():
    density = distil(data=lambda key, n: TWO.sample(key, n))
    np.testing.assert_allclose(density.mean, TWO.gaussian(0.0).mean, atol=0.05)


# The teacher's own network as a start.


@pytest.mark.parametrize("form", ["l2", "dae", "inner_product"])
def test_a_score_model_of_the_same_architecture_is_the_start(form):
    model = network("score")
    how = {"parameterisation": form, "base": None, "name": "s"}
    begins = fresh_student(KEY, model, DATA, None, network=None, sigmas=(None, None), **how)
    assert begins.config == model.config and begins.moments is model.moments
    assert np.array_equal(begins.sigmas, model.sigmas)
    theirs, ours = model.state["network"], begins.state["network"]
    assert same_weights(theirs["stem"], ours["stem"])
    factor = {"l2": 0.1, "dae": 1.0, "inner_product": -0.5}[form]
    assert same_weights(jax.tree.map(lambda a: factor * a, theirs["head"]), ours["head"])
    other = fresh_student(KEY, model, DATA, None, network=NETWORK, sigmas=(None, None), **how)
    assert other.config == NETWORK


@pytest.mark.slow
def test_inner_products_begin_with_the_score_of_a_linear_teacher():
    """f = A u with A symmetric, of round data: far below their scale the scores are the same at once."""
    model = untrained(NETWORK, (2,), "score", mean=np.zeros(2), covariance=np.eye(2), cls=nd.ScoreModel)
    state = jax.tree.map(lambda a: a, model.state)
    wide = lambda matrix: jnp.zeros((2, NETWORK.width)).at[:, :2].set(jnp.array(matrix))
    for layer, kernel in (("stem", wide(np.eye(2))), ("head", wide([[0.3, 0.1], [0.1, -0.2]]).T)):
        state["network"][layer]["kernel"].set_value(kernel)
        state["network"][layer]["bias"].set_value(jnp.zeros(kernel.shape[1]))
    model = model._replace(state=state)
    how = {"network": None, "parameterisation": "inner_product", "base": None, "sigmas": (None, None), "name": "s"}
    begins = fresh_student(KEY, model, DATA, None, **how)
    y, t = jnp.array([[0.9, -0.4]]), model.schedule.time(0.02)
    plain = -y / (1 + 0.02**2)
    np.testing.assert_allclose(begins.score(y, t) - plain, model.score(y, t) - plain, rtol=2e-3)
    assert np.all(np.abs(model.score(y, t) - plain) > 1)


# Interruption.


@pytest.mark.slow
def test_resumed_after_a_kill_it_ends_with_the_same_weights(tmp_path, monkeypatch):
    path, whole = tmp_path / "run.training", distil()

    class Bar(optimise.tqdm):
        def update(self, n=1):
            if self.n + n >= 20:
                raise KeyboardInterrupt
            return super().update(n)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optimise, "tqdm", Bar)
        distil(checkpoint_path=path, checkpoint_every_seconds=0.0, progress_bar=True)
    steps, original = [], optimise._train_chunk

    def counted(*args, **kwargs):
        steps.append(kwargs["count"])
        return original(*args, **kwargs)

    monkeypatch.setattr(optimise, "_train_chunk", counted)
    assert same_weights(distil(checkpoint_path=path).state, whole.state)
    assert sum(steps) == 20


@pytest.mark.slow
def test_checkpoint_of_another_teacher_is_refused(tmp_path):
    path = tmp_path / "run.training"
    distil(checkpoint_path=path)
    moved = ScoreOf(nd.exact.GaussianMixture([[-1.0, 0.1], [1.0, 0.5]], np.stack([0.2 * np.eye(2)] * 2)))
    for change, what in (({"teacher": moved}, "teacher's weights"), ({"data": 2 * DATA}, "data")):
        with pytest.raises(nd.errors.CheckpointError, match=f"other .*{what}.*choose another checkpoint_path"):
            distil(**({"checkpoint_path": path} | change))


# log Z beyond two dimensions.


def test_efforts_grow_until_log_z_is_known(monkeypatch):
    asked = []

    class Run:
        is_complete = True

        def __init__(self, error):
            self.log_evidence_error = error

    def run(key, density, kernel, *, num_chains, **_):
        asked.append(num_chains)
        knots = np.asarray(density.log_z[0])
        return Run(0.5 / len(asked) ** 3), LogZ(knots, np.full(len(knots), 3.0), np.zeros(len(knots)))

    monkeypatch.setattr(normalise, "log_z_by_annealing", run)
    density = network("l2", event_shape=(4,))
    assert np.allclose(normalise.normalised(KEY, density, False).log_z[1], density.log_z[1] + 3)
    assert asked == [1000, 2000]
    monkeypatch.setattr(normalise, "log_z_by_annealing", lambda *a, **k: (Run(np.inf), None))
    with pytest.warns(nd.errors.DiagnosticWarning, match=r"log Z of l2 was not taken out.*inf nats. nd.recalibrate"):
        assert normalise.normalised(KEY, density, False) is density
