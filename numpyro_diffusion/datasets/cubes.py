r"""Pictures of one to five cubes on a ground plane, with the place of every cube: CLEVR in a hundred lines of JAX.

A pixel is the mean of rays. A ray from the camera, :math:`p(s) = o + s d`, meets a cube where it lies between all
three pairs of faces. In the frame of the cube, which turns about the vertical axis and has half an edge h,

.. math::
    s_{\mathrm{in}} = \max_k \min_\pm \frac{\pm h - o_k}{d_k}, \qquad
    s_{\mathrm{out}} = \min_k \max_\pm \frac{\pm h - o_k}{d_k}, \qquad s_{\mathrm{in}} < s_{\mathrm{out}}.

The nearest surface, cube or ground, has the colour albedo * (a + (1 - a) max(0, n . l) v): ambient light a, and the
lamp l where a second ray, towards it, meets no cube (v = 1). Lengths are in widths of the image at the middle of the
scene, and places in the image are (column, row) in [0, 1], (0, 0) at the top left. The camera looks down on the ground
and sees no horizon.

Places are drawn in the image and carried back to the ground, so that their density does not depend on the camera.
Du et al. (2023) train p(x | a cube at y), y the place of any one cube of the picture x, and compose it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ParameterError

MAX_CUBES = 5
COLOURS = ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
#: The colours of CLEVR, red, green and blue in [0, 1].
PALETTE = np.array([*bytes.fromhex("575757ad23232a4bd71d6914814a198126c029d0d0ffee33")]).reshape(-1, 3) / 255
#: Colour of the ground in the middle, and how fast it fades; share of ambient light.
GROUND, FALLOFF, AMBIENT = (0.74, 0.73, 0.72), 0.35, 0.35
#: Places keep this distance from the edges of the image, and from each other.
MARGIN, MIN_DISTANCE = 0.14, 0.2
#: Half an edge of a cube (smallest, largest), and the gap between two cubes on the ground.
HALF, GAP = (0.08, 0.09), 0.01
#: Distance of the camera, and so the focal length in widths of the image: a mild telephoto.
FOCAL = 2.6
#: Candidates for the place of one cube, layouts to choose from, and scenes rendered at a time.
CANDIDATES, LAYOUTS, CHUNK = 32, 2, 64
MIN_SIZE = 8


class Scene(NamedTuple):
    """One scene; the first `count` of five cubes are there.

    Attributes:
        ground: Where the cubes stand on the ground, [5, 2].
        angle: By how much they turn about the vertical axis, in radians, [5].
        half: Half an edge, [5].
        colour: Index into `COLOURS`, [5].
        mask: Whether the cube is there, [5].
        positions: (column, row) of the centres in the image, [5, 2]; zero for cubes that are not there.
        eye: Place of the camera, [3].
        frame: Its axes right, down and forward, [3, 3].
        light: Unit vector towards the lamp, [3].
    """

    ground: jax.Array
    angle: jax.Array
    half: jax.Array
    colour: jax.Array
    mask: jax.Array
    positions: jax.Array
    eye: jax.Array
    frame: jax.Array
    light: jax.Array

    @property
    def count(self) -> jax.Array:
        """Number of cubes."""
        return jnp.sum(self.mask, axis=-1)


class Labels(NamedTuple):
    """What is in n pictures: `positions` [n, 5, 2], `mask` [n, 5], `colour` [n, 5] and `count` [n], see `Scene`."""

    positions: jax.Array
    mask: jax.Array
    colour: jax.Array
    count: jax.Array


def sample_scene(rng_key: jax.Array, num_cubes: int | None = None) -> Scene:
    """A random scene: cubes that neither overlap nor hide each other, camera and lamp.

    Of `CANDIDATES` uniform places the first that fits is taken, cube by cube, in each of `LAYOUTS` layouts; of these
    the first is taken in which all cubes fit. One layout of five cubes fails once in 20,000 times.

    Args:
        rng_key: Random key; the same key gives the same scene.
        num_cubes: Number of cubes, 1 to 5; uniform if None.

    Raises:
        ParameterError: for another number of cubes.
    """
    if num_cubes is not None:
        _check_count("num_cubes", num_cubes)
    count_key, camera_key, light_key, layout_key, half_key, colour_key = jax.random.split(rng_key, 6)
    count = jax.random.randint(count_key, (), 1, MAX_CUBES + 1) if num_cubes is None else num_cubes
    mask = jnp.arange(MAX_CUBES) < count
    eye, frame = _camera(camera_key)
    # The lamp stands to the left of the camera, and behind it.
    azimuth, height = jax.random.uniform(light_key, (2,), minval=jnp.array([-2.7, 0.75]), maxval=jnp.array([-2.1, 1.0]))
    half = jax.random.uniform(half_key, (MAX_CUBES,), minval=HALF[0], maxval=HALF[1])
    keys = jax.random.split(layout_key, LAYOUTS)
    places, ground, angle, room = jax.vmap(lambda key: _layout(key, eye, frame, half))(keys)
    best = jnp.argmax(jnp.min(jnp.where(mask, room, 0.0), axis=1))
    return Scene(
        ground=ground[best],
        angle=angle[best],
        half=half,
        colour=jax.random.randint(colour_key, (MAX_CUBES,), 0, len(COLOURS)),
        mask=mask,
        positions=jnp.where(mask[:, None], places[best], 0.0),
        eye=eye,
        frame=frame,
        light=_direction(azimuth, height),
    )


def render(scene: Scene, size: int) -> jax.Array:
    """The picture of a scene, RGB [size, size, 3] in [-1, 1].

    A pixel is the mean of 2x2 rays, and of more where the picture is smaller than 24 pixels. Memory and time grow with
    `size` squared.

    Raises:
        ParameterError: if `size` is not an integer >= 8.
    """
    _check_size(size)
    rays = max(2, math.ceil(48 / size))
    grid = (jnp.arange(size * rays) + 0.5) / (size * rays)
    places = jnp.stack(jnp.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    colours = jax.vmap(lambda place: _trace(scene, place), out_axes=-1)(places)
    image = jnp.mean(colours.reshape(3, size, rays, size, rays), axis=(2, 4))
    return 2 * jnp.clip(jnp.moveaxis(image, 0, -1), 0, 1) - 1


@lru_cache
def labelled(size: int) -> Callable[[jax.Array, int], tuple[jax.Array, Labels]]:
    """Sampler `(rng_key, num_samples) -> (x [num_samples, size, size, 3], Labels)`; the number of cubes is uniform.

    It can be called within `jax.jit` (`num_samples` static) and is the same object for the same size. It renders
    `CHUNK` pictures at a time, which bounds its memory.

    Raises:
        ParameterError: if `size` is not an integer >= 8.
    """
    _check_size(size)

    def draw(rng_key):
        # Without the barrier the compiler would lay out the scene anew for every ray.
        scene = jax.lax.optimization_barrier(sample_scene(rng_key))
        return render(scene, size), Labels(scene.positions, scene.mask, scene.colour, scene.count)

    def sample(rng_key, num_samples):
        # Whole chunks: a rest of another length would be compiled a second time.
        chunk = min(CHUNK, num_samples)
        keys = jax.random.split(rng_key, -(-num_samples // chunk) * chunk)
        drawn = jax.lax.map(draw, keys, batch_size=chunk)
        return jax.tree.map(lambda values: values[:num_samples], drawn)

    return sample


@lru_cache
def sampler(size: int) -> Callable[[jax.Array, int], tuple[jax.Array, jax.Array]]:
    """Sampler `(rng_key, num_samples) -> (x [num_samples, size, size, 3], y [num_samples, 2])`.

    Picture x has one to five cubes, and y is the place of one of them, any with the same probability: the data of
    p(x | a cube at y). Otherwise like `labelled`.

    Raises:
        ParameterError: if `size` is not an integer >= 8.
    """
    with_labels = labelled(size)

    def sample(rng_key, num_samples):
        scenes, choice = jax.random.split(rng_key)
        x, labels = with_labels(scenes, num_samples)
        which = jax.random.randint(choice, (num_samples,), 0, labels.count)
        return x, jnp.take_along_axis(labels.positions, which[:, None, None], axis=1)[:, 0]

    return sample


def positions(rng_key: jax.Array, count: int) -> jax.Array:
    """Places [count, 2] that the cubes of one scene could have, to ask for: those of a random scene of `count` cubes.

    Raises:
        ParameterError: if `count` is not one of 1 to 5.
    """
    _check_count("count", count)
    return sample_scene(rng_key, count).positions[:count]


def _camera(rng_key):
    low, high = jnp.array([-0.15, 0.66, 0.96, -0.03, -0.03]), jnp.array([0.15, 0.78, 1.04, 0.03, 0.03])
    azimuth, height, distance, *aim = jax.random.uniform(rng_key, (5,), minval=low, maxval=high)
    target = jnp.array([*aim, 0.0])
    # Seen from the camera at azimuth 0, x is to the right and y goes away.
    forward = -_direction(azimuth - np.pi / 2, height)
    right = jnp.array([jnp.cos(azimuth), jnp.sin(azimuth), 0.0])
    return target - distance * FOCAL * forward, jnp.stack([right, jnp.cross(forward, right), forward])


def _direction(azimuth, height):
    return jnp.array([jnp.cos(height) * jnp.cos(azimuth), jnp.cos(height) * jnp.sin(azimuth), jnp.sin(height)])


def _ray(frame, place):
    """Direction [3] of the ray through a place in the image, of depth 1."""
    return jnp.append((place - 0.5) / FOCAL, 1.0) @ frame


def _layout(rng_key, eye, frame, half):
    """Places [5, 2] in the image and on the ground, angles [5], and the room [5] each cube has: 0 if enough."""

    def on_ground(place, half):
        d = _ray(frame, place)
        return eye[:2] + (half - eye[2]) / d[2] * d[:2]

    keys = jax.random.split(rng_key)
    shape = (MAX_CUBES, CANDIDATES)
    # The first layout that fits is taken, so places further into the lists are as good as the first.
    places = jax.random.uniform(keys[0], (*shape, 2), minval=MARGIN, maxval=1 - MARGIN)
    angles = jax.random.uniform(keys[1], shape, maxval=np.pi / 2)
    grounds = jax.vmap(jax.vmap(on_ground, (0, None)))(places, half)

    def place(i, chosen):
        at, on, turned, room = chosen
        apart = jnp.linalg.norm(places[i][:, None] - at, axis=-1) - MIN_DISTANCE
        gap = _gap(grounds[i][:, None] - on, angles[i][:, None], half[i], turned, half) - GAP
        free = jnp.min(jnp.where(jnp.arange(MAX_CUBES) < i, jnp.minimum(apart, gap), 0.0), axis=1)
        first = jnp.argmax(jnp.minimum(free, 0.0))
        picked = places[i, first], grounds[i, first], angles[i, first], jnp.minimum(free[first], 0.0)
        return tuple(values.at[i].set(value) for values, value in zip(chosen, picked, strict=True))

    start = (places[:, 0], grounds[:, 0], angles[:, 0], jnp.zeros(MAX_CUBES))
    return jax.lax.fori_loop(0, MAX_CUBES, place, start)


def _gap(offset, angle, half, other_angle, other_half):
    """Distance of two squares along the best separating axis; negative if they overlap."""
    turned = angle - other_angle
    reach = jnp.abs(jnp.cos(turned)) + jnp.abs(jnp.sin(turned))
    along = [jnp.max(jnp.abs(_turn(offset, -a)), axis=-1) for a in (angle, other_angle)]
    return jnp.maximum(along[0] - half - reach * other_half, along[1] - other_half - reach * half)


def _turn(vector, angle):
    """Vectors [..., 2] turned by angles [...]."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = vector[..., 0], vector[..., 1]
    return jnp.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def _meet(cube, origin, direction, light):
    """Where a ray enters a cube (infinity if it misses), and the cosine between the lamp and the face it meets.

    Vectors are sequences of scalars: as arrays with a last axis of length 3 the loops are not vectorised.
    """
    ground, angle, half, is_there = cube
    cos, sin = jnp.cos(angle), jnp.sin(angle)

    def turned(x, y, z):
        return cos * x + sin * y, cos * y - sin * x, z

    o = turned(origin[0] - ground[0], origin[1] - ground[1], origin[2] - half)
    d, towards_lamp = turned(*direction), turned(*light)
    inverse = [1 / jnp.where(jnp.abs(b) < 1e-6, 1e-6, b) for b in d]
    low = [-a * v - half * jnp.abs(v) for a, v in zip(o, inverse, strict=True)]
    high = [-a * v + half * jnp.abs(v) for a, v in zip(o, inverse, strict=True)]
    enter, leave = reduce(jnp.maximum, low), reduce(jnp.minimum, high)
    cosines = [-jnp.sign(b) * l for b, l in zip(d, towards_lamp, strict=True)]
    cosine = jnp.where(low[0] == enter, cosines[0], jnp.where(low[1] == enter, cosines[1], cosines[2]))
    return jnp.where(is_there & (enter < leave) & (leave > 0), enter, jnp.inf), cosine


def _trace(scene, place):
    """Colour [3] in [0, 1] of the ray through one place of the image."""
    light, d = list(scene.light), list(_ray(scene.frame, place))
    all_cubes = list(zip(scene.ground, scene.angle, scene.half, scene.mask, strict=True))
    colours = jnp.asarray(PALETTE, dtype=float)[scene.colour]
    distance, cosine = -scene.eye[2] / d[2], light[2]
    x, y = (scene.eye[k] + distance * d[k] for k in range(2))
    falloff = 1 / (1 + FALLOFF * (x**2 + y**2))
    albedo = [falloff * channel for channel in GROUND]
    for cube, colour in zip(all_cubes, colours, strict=True):
        enter, lit = _meet(cube, scene.eye, d, light)
        is_nearer = enter < distance
        distance, cosine = jnp.where(is_nearer, enter, distance), jnp.where(is_nearer, lit, cosine)
        albedo = [jnp.where(is_nearer, new, old) for new, old in zip(colour, albedo, strict=True)]
    # A step towards the lamp, so that a surface does not shade itself.
    point = [scene.eye[k] + distance * d[k] + 1e-3 * light[k] for k in range(3)]
    blocked = reduce(jnp.logical_or, [_meet(cube, point, light, light)[0] < jnp.inf for cube in all_cubes])
    lamp = jnp.where(blocked, 0.0, jnp.maximum(cosine, 0.0))
    # Without the barrier, which changes no value, the compiler traces the ray anew for every channel.
    lamp, *albedo = jax.lax.optimization_barrier((lamp, *albedo))
    return jnp.stack([channel * (AMBIENT + (1 - AMBIENT) * lamp) for channel in albedo])


def _check_size(size):
    if not isinstance(size, int) or isinstance(size, bool) or size < MIN_SIZE:
        raise ParameterError(f"size must be an integer >= {MIN_SIZE}, the pixels of a side; got {size!r}. Take 16.")


def _check_count(name, count):
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_CUBES:
        raise ParameterError(
            f"{name} must be an integer from 1 to {MAX_CUBES}; got {count!r}. Compose several scenes for more."
        )
