"""Small images, and densities of them that are trained in no time."""

import dataclasses

import jax
import jax.numpy as jnp
from densities import randomise, untrained

import numpyro_diffusion as nd
from numpyro_diffusion.density.axes import CosineAxes
from numpyro_diffusion.networks.embedding import position_map

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


def random_images():
    """An energy of these images with random weights."""
    x = images(jax.random.key(1), 500)[0].reshape(500, SIZE)
    along_cosines = jax.jit(jax.vmap(CosineAxes(SHAPE).coordinates))(x)
    config = dataclasses.replace(NETWORK, condition_size=2)
    density = untrained(config, SHAPE, "inner_product", mean=x.mean(axis=0), covariance=along_cosines.var(axis=0))
    randomise(density, 0.05)
    return density
