"""Weights stored as whole numbers of eight bits: what is lost, what is not, and files that were tampered with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import untrained

import numpyro_diffusion as nd
from numpyro_diffusion.classifier import Classifier, load_classifier, save_classifier
from numpyro_diffusion.disk import checkpoint, contents
from numpyro_diffusion.errors import CheckpointError, ParameterError
from numpyro_diffusion.networks.classifier import ClassifierConfig


@pytest.fixture(scope="module")
def density():
    """An energy whose hidden layers are large enough, with weights that are all random."""
    fresh = untrained(nd.NetworkConfig(width=64, num_blocks=1), (2,), mean=np.zeros(2), covariance=np.eye(2))
    # By NumPy throughout: JAX would compile a program for every shape.
    rng = np.random.default_rng(0)
    return fresh._replace(state=changed(fresh.state, lambda a: 0.1 * rng.standard_normal(a.shape)))


def changed(state, fn):
    """The weights, each through a function of NumPy arrays that may write into its argument and returns an array."""
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(fn(np.array(a)), np.float32)), state)


def weights(old, new):
    """Pairs of arrays of two models."""
    return [tuple(map(np.asarray, pair)) for pair in zip(*map(jax.tree.leaves, (old.state, new.state)), strict=True)]


def first_channel(value):
    """A change of weights: those of the first output channel are this number."""

    def change(a):
        a[..., 0] = value
        return a

    return change


def test_errors_are_below_half_a_step(density, tmp_path):
    nd.save(density, tmp_path / "a", dtype="int8")
    large = 0
    for old, new in weights(density, nd.load(tmp_path / "a")):
        assert new.dtype == old.dtype == np.float32
        if old.size >= contents.FEWEST_WHOLE:
            step = np.max(np.abs(old), axis=tuple(range(old.ndim - 1))) / 127
            assert np.all(np.abs(new - old) <= 0.501 * step) and np.any(new != old)
            large += 1
        else:
            assert np.array_equal(new, old.astype(np.float16).astype(np.float32))
    assert large == 2


def test_the_file_is_a_quarter(density, tmp_path):
    for dtype in (None, "int8"):
        nd.save(density, tmp_path / str(dtype), dtype=dtype)
    full, small = (sum(a.nbytes for a in checkpoint.read(tmp_path / name)[0].values()) for name in ("None", "int8"))
    assert small < 0.33 * full


def test_what_was_stored_is_stored_again_as_it_is(density, tmp_path):
    nd.save(density, tmp_path / "a", dtype="int8")
    nd.save(nd.load(tmp_path / "a"), tmp_path / "b", dtype="int8")
    (first, _), (second, _) = checkpoint.read(tmp_path / "a"), checkpoint.read(tmp_path / "b")
    assert all(np.array_equal(first[k], second[k]) for k in first if not k.endswith(contents.SCALE))
    assert all(np.allclose(first[k], second[k], rtol=1e-6) for k in first)


def test_a_channel_of_zeros(density, tmp_path):
    zeros = density._replace(state=changed(density.state, first_channel(0.0)))
    nd.save(zeros, tmp_path / "a", dtype="int8")
    assert all(np.all(np.asarray(a)[..., 0] == 0) for a in jax.tree.leaves(nd.load(tmp_path / "a").state))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(density, tmp_path, bad):
    wrong = density._replace(state=changed(density.state, first_channel(bad)))
    with pytest.raises((ParameterError, CheckpointError)):
        nd.save(wrong, tmp_path / "a", dtype="int8")
    assert not (tmp_path / "a").exists()


SCALES = {
    "of another shape": (lambda s: s[:-1], "expected"),
    "below zero": (lambda s: -s, r"must lie in \[0, "),
    "beyond all weights": (lambda s: 1e30 * s, "must lie in"),
}


@pytest.mark.parametrize("what", SCALES)
def test_scales_that_no_training_ends_with(density, tmp_path, what):
    change, message = SCALES[what]
    nd.save(density, tmp_path / "a", dtype="int8")
    arrays, config = checkpoint.read(tmp_path / "a")
    scales = {k: change(v) for k, v in arrays.items() if k.endswith(contents.SCALE)}
    assert scales
    checkpoint.write(tmp_path / "a", arrays | scales, config)
    with pytest.raises(CheckpointError, match=message):
        nd.load(tmp_path / "a")


def test_whole_numbers_without_a_scale_are_no_weights(density, tmp_path):
    nd.save(density, tmp_path / "a", dtype="int8")
    arrays, config = checkpoint.read(tmp_path / "a")
    checkpoint.write(tmp_path / "a", {k: v for k, v in arrays.items() if not k.endswith(contents.SCALE)}, config)
    with pytest.raises(CheckpointError, match="floating-point"):
        nd.load(tmp_path / "a")


def test_a_judge(tmp_path):
    config = ClassifierConfig(image_shape=(8, 8, 1), num_outputs=2, widths=(32, 64), hidden_size=4)
    judge = Classifier(config.build(jax.random.key(0))[1], config, "judge")
    save_classifier(judge, tmp_path / "judge", dtype="int8")
    assert "int8" in {a.dtype.name for a in checkpoint.read(tmp_path / "judge")[0].values()}
    for old, new in weights(judge, load_classifier(tmp_path / "judge")):
        assert np.max(np.abs(old - new)) < 0.01 * max(1.0, float(np.max(np.abs(old))))


def test_a_network_from_elsewhere(tmp_path):
    parameters = {"scale": jnp.ones(2), "matrix": 0.1 * jax.random.normal(jax.random.key(0), (2, 4096)),
               "back": 0.01 * jax.random.normal(jax.random.key(1), (4096, 2))}  # fmt: skip
    network = lambda w, x, t: w["scale"] * (jnp.tanh(x @ w["matrix"]) @ w["back"])
    mine = nd.from_noise_prediction(
        network, (2,), nd.VarianceExploding(0.01, 80.0), parameters=parameters, timesteps="sigma"
    )
    nd.save(mine, tmp_path / "mine", dtype="int8")
    assert "int8" in {a.dtype.name for a in checkpoint.read(tmp_path / "mine")[0].values()}
    x = jnp.array([[0.3, -0.2]])
    again = nd.load(tmp_path / "mine", network=network)
    assert np.allclose(again.score(x, 0.5), mine.score(x, 0.5), rtol=0.02)
