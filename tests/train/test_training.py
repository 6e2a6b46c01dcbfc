"""Tiny fits: that training goes downhill, repeats exactly after a kill, and refuses what does not belong to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import log_prob_of, mixture, moments_of, score_of
from quick import slow

import numpyro_diffusion as nd
from numpyro_diffusion.disk import densities as storage
from numpyro_diffusion.disk import runs
from numpyro_diffusion.train import losses, optimise

NETWORK = nd.NetworkConfig(width=16, num_blocks=1, embedding_size=8)
CONFIG = nd.TrainingConfig(num_steps=40, batch_size=128, learning_rate=1e-2)
KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (4, 2))
TWO = nd.exact.GaussianMixture([[-2.0, 0.0], [2.0, 1.0]], np.stack([0.1 * np.eye(2)] * 2))
DATA = np.asarray(TWO.sample(jax.random.key(2), 500))


def sampler(rng_key, num_samples):
    return TWO.sample(rng_key, num_samples)


def conditional_sampler(rng_key, num_samples):
    label_key, noise_key = jax.random.split(rng_key)
    label = jax.random.bernoulli(label_key, 0.5, (num_samples,)).astype(float)
    x = 0.3 * jax.random.normal(noise_key, (num_samples, 2)) + 2 * label[:, None] - 1
    return x, jax.nn.one_hot(label.astype(int), 2)


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setattr(optimise, "CHUNK", 10)


def fit(data=DATA, **kwargs):
    return nd.fit(KEY, data, **({"network": NETWORK, "training": CONFIG, "progress_bar": False} | kwargs))


def same_weights(a, b):
    return all(np.array_equal(*pair) for pair in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize(
    ("kind", "num_steps"),
    [
        *(slow(({"parameterisation": p}, n)) for p, n in (("l2", 1500), ("dae", 200))),  # l2 is slow to leave zero
        ({}, 200),
        slow(({"parameterisation": "inner_product", "calibrated": False}, 200)),
        ({"model": "score"}, 200),
    ],
    ids=["l2", "dae", "by_default", "inner_product_uncalibrated", "score"],
)
def test_loss_decreases(kind, num_steps, monkeypatch):
    monkeypatch.setattr(optimise, "CHUNK", 50)
    density = fit(training=nd.TrainingConfig(num_steps=num_steps, batch_size=256, learning_rate=1e-2), **kind)
    assert isinstance(density, nd.ScoreModel if kind.get("model") == "score" else nd.EnergyDensity)
    assert density.is_calibrated == (kind.get("calibrated", True) and "model" not in kind)
    # Before and after on the same noise, so that the difference is not the draw's.
    start = density._replace(state=density.config.build(2, jax.random.split(KEY)[0])[1])
    y = TWO.sample(jax.random.key(5), 4000) - density.mean
    loss = jax.jit(lambda p: losses.loss(p, jax.random.key(6), y, None, nd.TrainingConfig(time_score_weight=1.0)))
    assert loss(density) < 0.95 * loss(start)


@pytest.mark.slow
def test_the_key_decides():
    other = nd.fit(jax.random.key(9), DATA, network=NETWORK, training=CONFIG, progress_bar=False)
    assert same_weights(fit(), fit()) and not same_weights(fit(), other)


@pytest.mark.slow
def test_moments_and_noise_range_come_from_the_data():
    with pytest.warns(nd.errors.DiagnosticWarning, match="^fit is not trained yet: at noise of .*num_steps="):
        density = fit(name="fit")
    mean, covariance = moments_of(density.gaussian(0.0))
    np.testing.assert_allclose(mean, DATA.mean(0), atol=1e-5)
    np.testing.assert_allclose(covariance, np.cov(DATA.T) + density.resolution**2 * np.eye(2), atol=1e-5)
    std = np.sqrt(np.mean(np.diag(np.cov(DATA.T))))
    np.testing.assert_allclose(density.sigmas, [0.006 * std, 20 * std], rtol=1e-4)
    np.testing.assert_allclose(fit(sigma_min=0.05, sigma_max=30.0).sigmas, [0.05, 30.0])


@pytest.mark.slow
def test_from_a_sampler():
    density = fit(sampler)
    np.testing.assert_allclose(density.mean, TWO.gaussian(0.0).mean, atol=0.05)
    assert np.all(np.isfinite(log_prob_of(density, X, 0.3)))


@pytest.mark.slow
@pytest.mark.parametrize("data", ["arrays", "sampler"])
def test_with_conditions(data, trained):
    density = trained["energy"] if data == "arrays" else fit(conditional_sampler, parameterisation="dae")
    assert density.config.condition_size == 2
    one, two = density.given([1.0, 0.0]), density.given([0.0, 1.0])
    assert not np.allclose(score_of(one, X, 0.5), score_of(two, X, 0.5))


@pytest.mark.slow
def test_points_of_any_shape():
    images = np.asarray(jax.random.normal(jax.random.key(4), (100, 2, 2, 1)))
    density = fit(images)
    assert density.event_shape == (2, 2, 1)
    assert score_of(density, jnp.asarray(images[:3]), 0.3).shape == (3, 2, 2, 1)


# Interruption.


class Killed(KeyboardInterrupt):
    pass


def killed_at(monkeypatch, step):
    """Lets training die, as if by Ctrl-C, when the progress bar comes to `step`."""

    class Bar(optimise.tqdm):
        done = 0

        def update(self, n=1):
            self.done += n
            if self.done >= step:
                raise Killed
            return super().update(n)

    monkeypatch.setattr(optimise, "tqdm", Bar)


@pytest.mark.parametrize("data", [DATA, slow(sampler)], ids=["array", "sampler"])
def test_resumed_after_a_kill_it_ends_with_the_same_weights(data, tmp_path, monkeypatch):
    path = tmp_path / "run.training"
    whole = fit(data)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, 30)
        fit(data, checkpoint_path=path, checkpoint_every_seconds=0.0)
    steps, original = [], optimise._train_chunk

    def counted(*args, **kwargs):
        steps.append(kwargs["count"])
        return original(*args, **kwargs)

    monkeypatch.setattr(optimise, "_train_chunk", counted)
    resumed = fit(data, checkpoint_path=path, checkpoint_every_seconds=0.0)
    assert sum(steps) == 20  # 40, less the two chunks that were saved before the kill
    assert same_weights(resumed.state, whole.state)
    steps.clear()
    assert same_weights(fit(data, checkpoint_path=path).state, whole.state)
    assert not steps  # a finished run is only read


def test_checkpoints_keep_their_interval(tmp_path, monkeypatch):
    written, now = [], [0.0]
    original = optimise._train_chunk

    def slow(*args, **kwargs):
        now[0] += 10.0
        return original(*args, **kwargs)

    monkeypatch.setattr(optimise, "_train_chunk", slow)
    monkeypatch.setattr(runs.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(runs.checkpoint, "write", lambda *args: written.append(now[0]))
    fit(checkpoint_path=tmp_path / "run.training", checkpoint_every_seconds=15.0)
    assert written == [20.0, 40.0]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"training": nd.TrainingConfig(num_steps=50, batch_size=64)}, "training"),
        ({"network": nd.NetworkConfig(width=8, num_blocks=1)}, "network"),
        ({"parameterisation": "dae"}, "parameterisation"),
        ({"calibrated": False}, "calibrated"),
        ({"model": "score"}, "model"),
        ({"data": 2 * DATA}, "data"),
        ({"sigma_min": 0.1}, "sigma_min"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_checkpoint_of_another_run_is_refused(change, what, training_file):
    with pytest.raises(nd.errors.CheckpointError, match=rf"other .*{what}.*choose another checkpoint_path"):
        fit(**({"checkpoint_path": training_file} | change))


@pytest.fixture(scope="module")
def training_file(tmp_path_factory):
    # Scoped to the module, and so made before `short_chunks`.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimise, "CHUNK", 10)
        path = tmp_path_factory.mktemp("training") / "run.training"
        fit(checkpoint_path=path)
        return path


def test_damaged_training_file_is_refused(training_file, tmp_path):
    content = training_file.read_bytes()
    (tmp_path / "short").write_bytes(content[: len(content) // 2])
    (tmp_path / "foreign").write_bytes(b"not a checkpoint at all" * 10)
    for name in ("short", "foreign"):
        with pytest.raises(nd.errors.CheckpointError):
            fit(checkpoint_path=tmp_path / name)


def test_progress_bar_shows_the_loss(capsys):
    fit(progress_bar=True, name="cat")
    shown = capsys.readouterr().err
    assert "cat" in shown and "40/40" in shown and "loss=" in shown


@pytest.fixture(scope="module")
def trained():
    x, conditions = (np.asarray(a) for a in conditional_sampler(jax.random.key(3), 500))
    linear = nd.VariancePreserving.linear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimise, "CHUNK", 10)
        return {
            "energy": fit(x, conditions=conditions, parameterisation="dae", name="cat", schedule=linear),
            "score": fit(model="score", schedule=nd.VarianceExploding(0.002, 50.0)),
        }


@pytest.mark.parametrize("kind", ["energy", "score"])
def test_save_and_load(kind, trained, tmp_path):
    density, path = trained[kind], tmp_path / "density.safetensors"
    nd.save(density, path, card={"seed": 0})
    again = nd.load(path)
    assert type(again) is type(density)
    assert jax.tree.structure(again) == jax.tree.structure(density)
    assert same_weights(again, density)
    for field in ("name", "schedule", "event_shape", "config", "parameterisation", "is_calibrated"):
        assert getattr(again, field) == getattr(density, field), field
    np.testing.assert_array_equal(score_of(again, X, 0.4), score_of(density, X, 0.4))


def test_half_precision_halves_the_weights(trained, tmp_path):
    full, half = tmp_path / "full", tmp_path / "half"
    nd.save(trained["score"], full)
    nd.save(trained["score"], half, dtype="float16")
    assert half.stat().st_size < 0.8 * full.stat().st_size
    again = nd.load(half)
    np.testing.assert_allclose(score_of(again, X, 0.4), score_of(trained["score"], X, 0.4), rtol=1e-2, atol=1e-2)


def test_only_trained_leaves_are_saved(trained, tmp_path):
    for density in (mixture(), trained["score"] ** 2):
        with pytest.raises(TypeError, match="only trained leaves and adapted models can be saved"):
            nd.save(density, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_damaged_file_is_refused(trained, tmp_path, training_file):
    path = tmp_path / "density.safetensors"
    nd.save(trained["energy"], path)
    content = path.read_bytes()
    damages = {
        "truncated": content[:-7],
        "flipped": content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
        "foreign": b"\x80\x04pickle me" * 20,
        "empty": b"",
        "of another kind": training_file.read_bytes(),
    }
    for name, damaged in damages.items():
        path.write_bytes(damaged)
        with pytest.raises(nd.errors.CheckpointError):
            nd.load(path)
            pytest.fail(name)
    with pytest.raises(nd.errors.CheckpointError):
        nd.load(tmp_path / "missing")


@pytest.mark.parametrize(
    "change",
    [
        {"class": "Foreign"},
        {"parameterisation": "other"},
        {"network": {"width": 99}},
        {"network": {"surprise": 1}},
        {"schedule": {"type": "Foreign"}},
        {"schedule": {"type": "VarianceExploding", "sigma_max": -1.0}},
        {"event_shape": [3]},
    ],
    ids=str,
)
def test_intact_file_of_another_architecture_is_refused(change, trained, tmp_path):
    path = tmp_path / "density.safetensors"
    nd.save(trained["score"], path)
    arrays, config = storage.checkpoint.read(path, kind="density")
    storage.checkpoint.write(path, arrays, config | change)
    with pytest.raises(nd.errors.CheckpointError, match=r"intact but does not describe"):
        nd.load(path)


def test_pretrained_densities_load():
    for name in nd.list_pretrained():
        density = nd.load_pretrained(name)
        assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves(density))
        assert isinstance(nd.pretrained_card(name), dict)
