"""Energies of images: trained, resumed, saved, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from images import NETWORK, SHAPE, TRAINING, fitted, images

import numpyro_diffusion as nd
from numpyro_diffusion.errors import CheckpointError, ParameterError, ShapeError
from numpyro_diffusion.train import losses, optimise


@pytest.mark.slow
def test_training_learns_and_resumes_exactly(tmp_path):
    class Killed(Exception):
        pass

    whole = fitted()
    part = optimise._train_chunk
    calls = 0

    def dies(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 8:
            raise Killed
        return part(*args, **kwargs)

    path = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimise, "SLOW_CHUNK", 5)
        patch.setattr(optimise, "_train_chunk", dies)
        with pytest.raises(Killed):
            fitted(checkpoint_path=path, checkpoint_every_seconds=0.0)
        patch.setattr(optimise, "_train_chunk", part)
        resumed = fitted(checkpoint_path=path)
    for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(resumed.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_saved_and_loaded(density, tmp_path):
    path = tmp_path / "density.safetensors"
    nd.save(density, path)
    x = images(jax.random.key(3), 4)[0]
    loaded = nd.load(path)
    np.testing.assert_allclose(loaded.log_prob(x, 0.3), density.log_prob(x, 0.3), rtol=1e-5)
    given = [d.given(jnp.array([0.2, 0.8])).log_prob(x, 0.3) for d in (loaded, density)]
    np.testing.assert_allclose(*given, rtol=1e-5)


@pytest.mark.slow
def test_denoiser_weighting_counts_large_noise_more(density):
    y = images(jax.random.key(0), 64)[0].reshape(64, -1) - density.mean
    condition = jnp.zeros((64, 3))
    key = jax.random.key(1)
    low, high = (density._replace(sigmas=jnp.array(sigmas)) for sigmas in ([0.01, 0.011], [5.0, 5.5]))
    plain = lambda weighting: nd.TrainingConfig(time_score_weight=0.0, weighting=weighting)
    ratio = [
        np.divide(*(losses.loss(p, key, y, condition, plain(name)) for name in ("denoiser", "score")))
        for p in (low, high)
    ]
    s2 = float(density._scale()) ** 2
    # A mean over levels, weighted by what is lost at each: between the least weight and the largest.
    for value, (least, most) in zip(ratio, ((0.01, 0.011), (5.0, 5.5)), strict=True):
        assert (1 + least**2 / s2) * (1 - 1e-4) <= value <= (1 + most**2 / s2) * (1 + 1e-4)
    with pytest.raises(ParameterError, match="weighting must be one of"):
        nd.TrainingConfig(weighting="edm")


def test_bad_images_and_conditions_are_refused(density, tmp_path):
    settings = {"network": NETWORK, "training": TRAINING, "progress_bar": False}
    key, place = jax.random.key(0), np.full((8, 2), 0.5)
    with pytest.raises(ShapeError, match="takes images of shape"):
        nd.fit(key, np.random.default_rng(0).normal(size=(8, 2, 4, 4)), conditions=place, **settings)
    with pytest.raises(ShapeError, match="floating point"):
        nd.fit(key, np.zeros((8, *SHAPE), np.uint8), conditions=place, **settings)
    with pytest.raises(ShapeError, match="1 positions are 2 numbers"):
        nd.fit(key, np.random.default_rng(0).normal(size=(8, *SHAPE)), conditions=place[:, :1], **settings)
    with pytest.raises(ParameterError, match="images must be of order one"):
        nd.fit(key, np.random.default_rng(0).uniform(0, 255, size=(8, *SHAPE)), conditions=place, **settings)
    with pytest.raises(ShapeError, match="a condition must have shape"):
        density.given([0.1, 0.2, 0.3])
    with pytest.raises(ShapeError, match=r"numpy.eye\(2\)\[number\]"):
        density.given(1)
    with pytest.raises(ShapeError, match="Give one of these; all of them together are nd.compose_conditions"):
        density.given(place)
    with pytest.raises(ParameterError, match=r"a condition must be finite; got \[nan 0.5\]"):
        density.given([np.nan, 0.5])
    with pytest.raises(AttributeError, match="takes no condition. Give it to a density of its own before composing"):
        (density * density).given(place[0])
    with pytest.raises(ShapeError, match="points must have shape"):
        density.log_prob(np.zeros((2, 4, 4, 3)))
    path = tmp_path / "density.safetensors"
    nd.save(density, path)
    with pytest.raises(CheckpointError, match="belongs to|kind"):
        nd.fit(key, images, checkpoint_path=path, **settings)
