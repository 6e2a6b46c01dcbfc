"""Images: cosine axes, Gaussians along them, U-Net energies."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import log_prob_of, score_of, untrained
from images import SHAPE, SIZE, images
from quick import quick_among

import numpyro_diffusion as nd
from numpyro_diffusion.density.axes import CosineAxes, DenseAxes
from numpyro_diffusion.density.gaussian import Gaussian, gaussian_mixture, gaussian_product
from numpyro_diffusion.networks.unet import patches, unpatched


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


def test_the_start_has_the_density_it_says(density):
    draws, log_prob = jax.vmap(density.start)(jax.random.split(jax.random.key(0), 2000))
    gaussian = density.gaussian(1.0)
    exact = jax.scipy.stats.multivariate_normal.logpdf(draws, gaussian.mean, gaussian.covariance)
    np.testing.assert_allclose(log_prob, exact, atol=2e-2)
    error = np.sqrt(np.diag(gaussian.covariance) / len(draws))
    assert np.all(np.abs(draws.mean(0) - gaussian.mean) < 5 * error)


FORMS = [*product(("l2", "dae", "inner_product"), (True, False)), ("residual", True)]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("form", "calibrated"), quick_among(FORMS, [("residual", True), ("dae", False)]))
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
    seen, f = jax.jit(lambda d, y: d._network(y, r))(density, y)
    np.testing.assert_allclose(seen, z, rtol=1e-5)
    assert np.abs(f).max() > 1e-3
    variance, axes = np.linspace(0.1, 1, SIZE) + r**2, CosineAxes(SHAPE)
    u, change = axes.coordinates(y) / np.sqrt(variance), s / np.sqrt(r * (r + s)) * axes.coordinates(f)
    energy = {
        "l2": 0.5 * f**2, "dae": 0.5 * (z - f) ** 2, "inner_product": z * f,
        "residual": r / s * ((u + change) ** 2 - u**2) / 2,
    }[form].sum()  # fmt: skip
    if calibrated:
        coordinates = axes.coordinates(y)
        expected = -0.5 * np.sum(coordinates**2 / variance + np.log(2 * np.pi * variance))
        expected -= s / r * energy
    else:
        expected = -np.hypot(r, s) / r * energy
    np.testing.assert_allclose(log_prob_of(density, x, t), expected - SIZE * np.log(alpha), rtol=1e-4)


@pytest.mark.slow
def test_conditions_and_their_composition_share_one_call(density):
    composed = nd.compose_conditions(density, jnp.array([[0.2, 0.2], [0.8, 0.8]]))
    x = images(jax.random.key(4), 3)[0]
    parts = [log_prob_of(density.given(c), x, 0.5) for c in (None, [0.2, 0.2], [0.8, 0.8])]
    np.testing.assert_allclose(log_prob_of(composed, x, 0.5), parts[1] + parts[2] - parts[0], rtol=1e-3, atol=1e-2)
    assert isinstance(composed.gaussian(0.5).axes, CosineAxes)
    text = str(jax.make_jaxpr(lambda x: composed.log_density(x, 0.5))(x[0]))
    alone = str(jax.make_jaxpr(lambda x: density.log_density(x, 0.5))(x[0]))
    assert text.count("conv_general_dilated") == alone.count("conv_general_dilated")


@pytest.mark.parametrize(
    "settings",
    [
        {"compute_dtype": "bfloat16"},
        pytest.param({"attention": (4, 2)}, marks=pytest.mark.slow),
        pytest.param({"patch_size": 2}, marks=pytest.mark.slow),
        pytest.param({"rematerialise": True}, marks=pytest.mark.slow),
    ],
)
def test_variants_of_the_network(settings):
    config = nd.UNetConfig(shape=SHAPE, width=8, multipliers=(1, 2), num_blocks=1, small_start=True, **settings)
    density = untrained(config, SHAPE, "inner_product", mean=np.zeros(SIZE), covariance=np.ones(SIZE), seed=1)
    x = jax.random.normal(jax.random.key(2), SHAPE)
    value, score = jax.jit(lambda d: (d.log_prob(x, 0.3), d.score(x, 0.3)))(density)
    assert value.dtype == score.dtype == jnp.float32
    assert np.isfinite(value) and np.all(np.isfinite(score))


def test_patches_are_those_of_the_image():
    image = images(jax.random.key(0), 1)[0][0]
    cut = patches(image, 2)
    np.testing.assert_array_equal(cut[1, 0], image[2:4, :2].reshape(-1))
    np.testing.assert_array_equal(unpatched(cut, 2), image)
    with pytest.raises(nd.errors.ParameterError, match="patch_size"):
        nd.UNetConfig(shape=SHAPE, multipliers=(1, 2), patch_size=3)


@pytest.mark.slow
def test_recomputing_changes_nothing():
    values = []
    for again in (False, True):
        config = nd.UNetConfig(shape=SHAPE, width=8, multipliers=(1, 2), small_start=True, rematerialise=again)
        density = untrained(config, SHAPE, mean=np.zeros(SIZE), covariance=np.ones(SIZE), seed=1)
        values.append(score_of(density, jnp.ones(SHAPE), 0.3))
    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5)
