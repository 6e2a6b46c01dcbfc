"""Pictures of cubes: what the labels say is what the pixels show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_among

from numpyro_diffusion.datasets import cubes
from numpyro_diffusion.datasets import scenes as placing

SIZES = quick_among((16, 32), [16])


@pytest.fixture(scope="module")
def scenes():
    """A hundred scenes of one to five cubes."""
    return jax.jit(jax.vmap(cubes.sample_scene))(jax.random.split(jax.random.key(0), 100))


def centroid(weights):
    """(column, row) in [0, 1] of the centre of mass of [size, size]."""
    size = len(weights)
    centres = (np.arange(size) + 0.5) / size
    return np.array([weights.sum(0) @ centres, weights.sum(1) @ centres]) / weights.sum()


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_pictures_and_labels_have_their_shapes_and_ranges(size):
    sample = jax.jit(cubes.labelled(size), static_argnums=1)
    x, labels = sample(jax.random.key(1), 70)
    assert x.shape == (70, size, size, 3) and x.dtype == jnp.float32
    assert -1 <= x.min() < -0.5 and 0.3 < x.max() <= 1
    assert labels.positions.shape == (70, 5, 2) and labels.mask.shape == labels.colour.shape == (70, 5)
    assert np.array_equal(labels.mask.sum(1), labels.count) and set(np.asarray(labels.count)) == {1, 2, 3, 4, 5}
    present = np.asarray(labels.positions)[np.asarray(labels.mask)]
    assert np.all((present > placing.MARGIN - 1e-4) & (present < 1 - placing.MARGIN + 1e-4))
    assert np.all(np.asarray(labels.positions)[~np.asarray(labels.mask)] == 0)


@pytest.mark.slow
def test_the_key_decides_everything():
    sample = jax.jit(cubes.sampler(16), static_argnums=1)
    first, again, other = (sample(jax.random.key(seed), 8) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0]) and not np.array_equal(first[1], other[1])
    assert cubes.sampler(16) is cubes.sampler(16) and cubes.labelled(16) is not cubes.labelled(32)


@pytest.mark.slow
def test_the_condition_is_the_place_of_any_one_cube():
    scene_key, _ = jax.random.split(jax.random.key(3))
    x, y = jax.jit(cubes.sampler(16), static_argnums=1)(jax.random.key(3), 500)
    same, labels = jax.jit(cubes.labelled(16), static_argnums=1)(scene_key, 500)
    assert np.array_equal(x, same)
    is_it = np.all(np.asarray(labels.positions) == np.asarray(y)[:, None], axis=-1) & np.asarray(labels.mask)
    assert np.all(is_it.sum(1) == 1)
    # Of five cubes each is as likely: 5 sigma of a binomial.
    among = is_it[np.asarray(labels.count) == 5]
    assert np.all(np.abs(among.mean(0) - 0.2) < 5 * np.sqrt(0.16 / len(among)))


@pytest.mark.slow
def test_cubes_neither_overlap_nor_hide_each_other():
    scenes = jax.jit(jax.vmap(lambda key: cubes.sample_scene(key, 5)))(jax.random.split(jax.random.key(4), 1_000))
    for i in range(5):
        for j in range(i):
            apart = jnp.linalg.norm(scenes.positions[:, i] - scenes.positions[:, j], axis=-1)
            assert apart.min() > placing.MIN_DISTANCE - 1e-4
            # Points on the boundary of one cube are not within the other.
            edge = np.linspace(-1, 1, 9)
            square = np.concatenate([[(s, e), (e, s)] for s in (-1, 1) for e in edge])
            for one, two in ((i, j), (j, i)):
                corners = placing._turn(square * scenes.half[:, one, None, None], scenes.angle[:, one, None])
                local = placing._turn(
                    corners + (scenes.ground[:, one] - scenes.ground[:, two])[:, None], -scenes.angle[:, two, None]
                )
                assert np.all(np.abs(local).max(-1) > np.asarray(scenes.half)[:, two, None])


@pytest.mark.parametrize("size", SIZES)
def test_a_cube_is_where_its_label_says(scenes, size):
    render = jax.jit(jax.vmap(lambda scene: cubes.render(scene, size)))
    # No lamp, no shadow: what differs is the cube itself.
    dark = scenes._replace(light=jnp.zeros_like(scenes.light) - jnp.array([0.0, 0.0, 1.0]))
    without = dark._replace(mask=dark.mask.at[:, 0].set(False))
    difference = np.abs(np.asarray(render(dark) - render(without))).sum(-1)
    for pixels, scene in zip(difference, np.asarray(scenes.positions[:, 0]), strict=True):
        assert pixels.max() > 0.1
        assert np.abs(centroid(pixels) - scene).max() < 0.06  # a pixel of 16, where neighbours hide a part


@pytest.mark.slow
def test_a_cube_has_its_colour_and_size(scenes):
    x = np.asarray(jax.jit(jax.vmap(lambda scene: cubes.render(scene, 32)))(scenes))
    for picture, place, colour, mask in zip(x, scenes.positions, scenes.colour, scenes.mask, strict=True):
        for (column, row), index in zip(np.asarray(place)[mask], np.asarray(colour)[mask], strict=True):
            i, j = int(row * 32), int(column * 32)
            pixels = (picture[i - 1 : i + 2, j - 1 : j + 2].reshape(-1, 3) + 1) / 2
            # A face has its colour times its brightness: the same direction in RGB, whatever the light.
            albedo = cubes.PALETTE[index] / np.linalg.norm(cubes.PALETTE[index])
            cosine = pixels @ albedo / np.linalg.norm(pixels, axis=1)
            assert np.median(cosine) > 0.995
    alone = jax.vmap(lambda key: cubes.sample_scene(key, 1))(jax.random.split(jax.random.key(5), 20))
    alone = alone._replace(light=jnp.zeros_like(alone.light))
    empty = alone._replace(mask=jnp.zeros_like(alone.mask))
    render = jax.jit(jax.vmap(lambda scene: cubes.render(scene, 16)))
    width = (np.abs(np.asarray(render(alone) - render(empty))).sum(-1) > 0.02).any(1).sum(1)
    assert 3 <= width.mean() <= 5 and width.min() >= 3


def test_colours_are_distinct():
    distances = np.linalg.norm(cubes.PALETTE[:, None] - cubes.PALETTE, axis=-1)
    assert len(cubes.COLOURS) == len(cubes.PALETTE) == 8
    assert distances[~np.eye(8, dtype=bool)].min() > 0.2


def test_a_shadow_darkens_the_ground_on_the_side_away_from_the_lamp(scenes):
    render = jax.jit(jax.vmap(lambda scene: cubes.render(scene, 32)))
    alone = scenes._replace(mask=jnp.arange(5) < jnp.ones((100, 1)))
    empty = scenes._replace(mask=jnp.zeros_like(scenes.mask))
    dark = alone._replace(light=alone.light * jnp.array([0.0, 0.0, -1.0]))
    unlit = empty._replace(light=dark.light)
    cube = np.abs(np.asarray(render(dark) - render(unlit))).sum(-1) > 1e-4
    change = np.where(cube[..., None], 0.0, np.asarray(render(alone) - render(empty)))
    assert change.max() < 1e-5  # a cube never lights the ground
    # A cube may hide most of its shadow.
    darker = (change < -0.1).all(-1).sum((1, 2))
    assert darker.min() >= 1 and np.median(darker) > 5
    # The lamp stands to the left, so shadows fall to the right.
    assert all(centroid(-c.sum(-1))[0] > p[0] for c, p in zip(change, np.asarray(alone.positions[:, 0]), strict=True))


def test_the_camera_and_the_lamp_move(scenes):
    assert np.all(np.std(np.asarray(scenes.eye), axis=0) > 0.02)
    assert np.all(np.std(np.asarray(scenes.light), axis=0) > 0.02)
    gram = np.asarray(jnp.einsum("nij,nkj->nik", scenes.frame, scenes.frame))
    assert np.allclose(gram, np.eye(3), atol=1e-5) and np.allclose(jnp.linalg.norm(scenes.light, axis=-1), 1, atol=1e-5)
    empty = scenes._replace(mask=jnp.zeros_like(scenes.mask))
    x = jax.jit(jax.vmap(lambda scene: cubes.render(scene, 16)))(empty)
    assert np.std(np.asarray(x.mean((1, 2, 3)))) > 0.005  # between scenes
    assert np.all(np.std(np.asarray(x), axis=(1, 2)) > 0.01)  # the gradient within one


@pytest.mark.parametrize("count", [1, 3, 5])
def test_places_to_ask_for(count):
    places = cubes.positions(jax.random.key(6), count)
    assert places.shape == (count, 2) and np.all((places > 0.1) & (places < 0.9))
    assert int(cubes.sample_scene(jax.random.key(6), count).count) == count
