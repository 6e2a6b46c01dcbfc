"""Images: cosine axes, convolutions, U-Net energies, and annealing where no [d, d] matrix fits."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import untrained

import numpyro_diffusion as nd
from numpyro_diffusion.annealing.frame import frame_at
from numpyro_diffusion.density.axes import CosineAxes, DenseAxes
from numpyro_diffusion.density.gaussian import Gaussian, gaussian_mixture, gaussian_product
from numpyro_diffusion.errors import CheckpointError, DiagnosticWarning, ParameterError, ShapeError
from numpyro_diffusion.networks.unet import position_map
from numpyro_diffusion.train import losses, optimise

SHAPE = (4, 4, 2)
SIZE = 32
NETWORK = nd.UNetConfig(
    shape=SHAPE, width=8, multipliers=(1, 2), num_blocks=1, embedding_size=8, num_positions=1, normalise=False
)
TRAINING = nd.TrainingConfig(num_steps=20, batch_size=16, learning_rate=3e-3, max_gradient_norm=10.0)


def images(rng_key, num_samples):
    """A bright spot at a random place, and the place."""
    place_key, noise_key = jax.random.split(rng_key)
    place = jax.random.uniform(place_key, (num_samples, 2))
    spots = jax.vmap(lambda p: position_map(p, SHAPE, 0.2))(place)
    return spots * jnp.array([1.0, -0.5]) + 0.1 * jax.random.normal(noise_key, (num_samples, *SHAPE)), place


def fitted(**settings):
    return nd.fit(
        jax.random.key(0), images, network=NETWORK, progress_bar=False,
        **{"parameterisation": "inner_product", "training": TRAINING} | settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def density():
    return fitted()


def test_cosines_are_orthonormal_and_known_to_the_transform():
    basis = CosineAxes((4, 6, 3))
    axes = jax.vmap(basis.point)(jnp.eye(72))
    np.testing.assert_allclose(axes @ axes.T, np.eye(72), atol=1e-5)
    y = jax.random.normal(jax.random.key(0), (72,))
    np.testing.assert_allclose(DenseAxes(axes.T).coordinates(y), basis.coordinates(y), atol=1e-5)
    np.testing.assert_allclose(basis.point(basis.coordinates(y)), y, atol=1e-5)


def test_neighbouring_pixels_are_nearly_uncorrelated_along_cosines():
    x = np.asarray(images(jax.random.key(1), 4000)[0]).reshape(4000, -1)
    coordinates = np.asarray(jax.vmap(CosineAxes(SHAPE).coordinates)(jnp.asarray(x)))

    def coupling(values):
        correlation = np.corrcoef(values.T)
        return np.abs(correlation[~np.eye(SIZE, dtype=bool)]).mean()

    assert coupling(coordinates) < 0.5 * coupling(x)


@pytest.mark.parametrize("combine", [gaussian_product, gaussian_mixture])
def test_diagonal_gaussians_combine_as_dense_ones_do(combine):
    basis, rng = CosineAxes(SHAPE), np.random.default_rng(0)
    parts = [
        (Gaussian(jnp.asarray(rng.normal(size=SIZE)), jnp.asarray(rng.uniform(1, 2, SIZE)), basis), c)
        for c in (jnp.asarray(1.0), jnp.asarray(0.7))
    ]
    dense = combine([(Gaussian.of(g.mean, g.covariance), c) for g, c in parts])
    diagonal = combine(parts)
    assert diagonal.axes == basis
    np.testing.assert_allclose(diagonal.mean, dense.mean, atol=1e-3)
    if combine is gaussian_product:
        np.testing.assert_allclose(diagonal.covariance, dense.covariance, atol=1e-3)
    else:
        variances = np.diag(jax.vmap(basis.coordinates)(jax.vmap(basis.coordinates)(dense.covariance).T))
        np.testing.assert_allclose(diagonal.variance, variances, atol=1e-3)


def test_a_denominator_removes_as_much_as_in_a_dense_product():
    basis = CosineAxes(SHAPE)
    wide = Gaussian(jnp.zeros(SIZE), jnp.full(SIZE, 4.0), basis)
    narrow = Gaussian(jnp.ones(SIZE), jnp.full(SIZE, 1.0), basis)
    for exponent in (-0.5, -3.0):
        parts = [(narrow, jnp.asarray(1.0)), (wide, jnp.asarray(exponent))]
        dense = gaussian_product([(Gaussian.of(g.mean, g.covariance), c) for g, c in parts])
        diagonal = gaussian_product(parts)
        np.testing.assert_allclose(diagonal.mean, dense.mean, atol=1e-3)
        np.testing.assert_allclose(diagonal.covariance, dense.covariance, atol=1e-3)


def test_the_frame_is_the_dense_one(density):
    diagonal = frame_at(density, 0.3, "whitened")
    gaussian = density.gaussian(0.3)
    value, vector = np.linalg.eigh(np.asarray(gaussian.covariance, dtype=np.float64))
    root = (vector * np.sqrt(value)) @ vector.T
    u = jax.random.normal(jax.random.key(0), (SIZE,))
    np.testing.assert_allclose(diagonal.point(u, (SIZE,)), gaussian.mean + root @ u, atol=1e-3)
    np.testing.assert_allclose(diagonal.coordinates(diagonal.point(u, SHAPE)), u, atol=1e-3)
    np.testing.assert_allclose(diagonal.log_det, 0.5 * np.log(value).sum(), rtol=1e-3)


def test_the_start_has_the_density_it_says(density):
    draws, log_prob = jax.vmap(density.start)(jax.random.split(jax.random.key(0), 2000))
    gaussian = density.gaussian(1.0)
    exact = jax.scipy.stats.multivariate_normal.logpdf(draws, gaussian.mean, gaussian.covariance)
    np.testing.assert_allclose(log_prob, exact, atol=2e-2)
    error = np.sqrt(np.diag(gaussian.covariance) / len(draws))
    assert np.all(np.abs(draws.mean(0) - gaussian.mean) < 5 * error)


@pytest.mark.parametrize("form", ["l2", "dae", "inner_product"])
@pytest.mark.parametrize("calibrated", [True, False])
def test_an_energy_is_its_formula(form, calibrated):
    config = nd.UNetConfig(shape=SHAPE, width=8, multipliers=(1, 2), num_blocks=1, small_start=True)
    density = untrained(
        config, SHAPE, form, calibrated,
        mean=np.full(SIZE, 0.2), covariance=np.linspace(0.1, 1, SIZE), seed=1, sigma_max=10.0,
    )  # fmt: skip
    x, t = jax.random.normal(jax.random.key(2), SHAPE), 0.4
    alpha, r = float(density.schedule.alpha(t)), float(density.schedule.noise_to_signal(t))
    s = np.sqrt(np.linspace(0.1, 1, SIZE).mean())
    y = x.reshape(-1) / alpha - 0.2
    z = y / np.hypot(r, s)
    seen, f = density._network(y, r)
    np.testing.assert_allclose(seen, z, rtol=1e-5)
    assert np.abs(f).max() > 1e-3
    energy = {"l2": 0.5 * f**2, "dae": 0.5 * (z - f) ** 2, "inner_product": z * f}[form].sum()
    if calibrated:
        variance = np.linspace(0.1, 1, SIZE) + r**2
        coordinates = CosineAxes(SHAPE).coordinates(y)
        expected = -0.5 * np.sum(coordinates**2 / variance + np.log(2 * np.pi * variance))
        expected -= s / r * energy
    else:
        expected = -np.hypot(r, s) / r * energy
    np.testing.assert_allclose(density.log_prob(x, t), expected - SIZE * np.log(alpha), rtol=1e-4)


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


def test_conditions_and_their_composition_share_one_call(density):
    composed = nd.compose_conditions(density, jnp.array([[0.2, 0.2], [0.8, 0.8]]))
    x = images(jax.random.key(4), 3)[0]
    parts = [density.given(c).log_prob(x, 0.5) for c in (None, [0.2, 0.2], [0.8, 0.8])]
    np.testing.assert_allclose(composed.log_prob(x, 0.5), parts[1] + parts[2] - parts[0], rtol=1e-3, atol=1e-2)
    assert isinstance(composed.gaussian(0.5).axes, CosineAxes)
    text = str(jax.make_jaxpr(lambda x: composed.log_density(x, 0.5))(x[0]))
    alone = str(jax.make_jaxpr(lambda x: density.log_density(x, 0.5))(x[0]))
    assert text.count("conv_general_dilated") == alone.count("conv_general_dilated")


def test_annealing_with_a_predictor(density):
    kernel = nd.HMC(num_integration_steps=1, persistence=0.9)
    run = nd.anneal(
        jax.random.key(5), density, kernel, num_chains=8, num_steps=1, levels=6, predictor=True, num_pilot_chains=4,
        progress_bar=False,
    )  # fmt: skip
    assert run.samples.shape == (8, *SHAPE)
    assert np.all(np.isfinite(run.samples))
    assert run.evaluations_per_chain == 6 * (1 + 1 + 1)
    assert not run.is_weighted


def test_weights_that_collapse_are_given_up_and_it_is_said(monkeypatch, density):
    monkeypatch.setattr(sys.modules["numpyro_diffusion.annealing.settings"], "WATCHED_SIZE", SIZE)
    sharp = density**400.0
    settings = {"num_chains": 8, "num_steps": 1, "levels": 3, "progress_bar": False}
    with pytest.warns(DiagnosticWarning, match="weights collapsed at level"):
        run = nd.anneal(jax.random.key(6), sharp, nd.MALA(step_size=1e-3), **settings)
    assert not run.is_weighted
    assert np.isnan(run.log_evidence)
    assert len(np.unique(np.asarray(run.samples)[:, 0, 0, 0])) == 8
    kept = nd.anneal(jax.random.key(6), sharp, nd.MALA(step_size=1e-3), resample_threshold=0.5, **settings)
    assert kept.is_weighted


def test_score_models_of_images():
    density = fitted(model="score")
    assert density.score(images(jax.random.key(7), 2)[0], 0.2).shape == (2, *SHAPE)
    run = nd.anneal(jax.random.key(8), density, nd.Reverse(), num_chains=4, levels=5, progress_bar=False)
    assert np.all(np.isfinite(run.samples))


@pytest.mark.parametrize("settings", [{"compute_dtype": "bfloat16"}, {"rematerialise": True}, {"attention": (4, 2)}])
def test_variants_of_the_network(settings):
    config = nd.UNetConfig(shape=SHAPE, width=8, multipliers=(1, 2), num_blocks=1, small_start=True, **settings)
    density = untrained(config, SHAPE, "inner_product", mean=np.zeros(SIZE), covariance=np.ones(SIZE), seed=1)
    x = jax.random.normal(jax.random.key(2), SHAPE)
    value, score = density.log_prob(x, 0.3), density.score(x, 0.3)
    assert value.dtype == score.dtype == jnp.float32
    assert np.isfinite(value) and np.all(np.isfinite(score))


def test_recomputing_changes_nothing():
    values = []
    for again in (False, True):
        config = nd.UNetConfig(shape=SHAPE, width=8, multipliers=(1, 2), small_start=True, rematerialise=again)
        density = untrained(config, SHAPE, mean=np.zeros(SIZE), covariance=np.ones(SIZE), seed=1)
        values.append(density.score(jnp.ones(SHAPE), 0.3))
    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5)


def test_denoiser_weighting_counts_large_noise_more(density):
    y = images(jax.random.key(0), 64)[0].reshape(64, -1) - density.mean
    condition = jnp.zeros((64, 3))
    key = jax.random.key(1)
    low, high = (density._replace(sigmas=jnp.array(sigmas)) for sigmas in ([0.01, 0.011], [5.0, 5.5]))
    ratio = [
        losses.loss(p, key, y, condition, 0.0, "denoiser") / losses.loss(p, key, y, condition, 0.0, "score")
        for p in (low, high)
    ]
    s2 = float(density._scale()) ** 2
    # A mean over levels, weighted by what is lost at each: between the least weight and the largest.
    for value, (least, most) in zip(ratio, ((0.01, 0.011), (5.0, 5.5)), strict=True):
        assert (1 + least**2 / s2) * (1 - 1e-4) <= value <= (1 + most**2 / s2) * (1 + 1e-4)
    with pytest.raises(ParameterError, match="weighting must be one of"):
        nd.TrainingConfig(weighting="edm")


BAD = [
    ({"shape": (4, 4)}, "height, width, channels"),
    ({"shape": (6, 4, 1), "multipliers": (1, 2, 2)}, "divisible by 4"),
    ({"shape": SHAPE, "attention": (3,)}, "attention must name heights"),
    ({"shape": SHAPE, "compute_dtype": "float16"}, "compute_dtype"),
    ({"shape": SHAPE, "position_width": 0.0}, "position_width"),
    ({"shape": SHAPE, "width": 0}, "width must be an integer"),
    ({"shape": SHAPE, "multipliers": ()}, "divisible|multiplier"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_architectures_are_refused(settings, message):
    with pytest.raises(ParameterError, match=message):
        nd.UNetConfig(**settings)


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
    with pytest.raises(ShapeError, match="points must have shape"):
        density.log_prob(np.zeros((2, 4, 4, 3)))
    path = tmp_path / "density.safetensors"
    nd.save(density, path)
    with pytest.raises(CheckpointError, match="belongs to|kind"):
        nd.fit(key, images, checkpoint_path=path, **settings)
