"""What stands where in a picture of cubes: places, colours, camera and lamp, drawn at random.

Lengths are in widths of the image at the middle of the scene, and places in the image are (column, row) in [0, 1],
(0, 0) at the top left. The camera looks down on the ground and sees no horizon. Places are drawn in the image and
carried back to the ground, so that their density does not depend on the camera.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.text import layouts
from ..errors import check_integer, check_key

MAX_CUBES = 5
COLOURS = ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
#: Places keep this distance from the edges of the image, and from each other.
MARGIN, MIN_DISTANCE = 0.14, 0.2
#: Half an edge of a cube (smallest, largest), and the gap between two cubes on the ground.
HALF, GAP = (0.08, 0.09), 0.01
#: Distance of the camera, and so the focal length in widths of the image: a mild telephoto.
FOCAL = 2.6
#: Candidates for the place of one cube, and layouts to choose from.
CANDIDATES, LAYOUTS = 32, 2


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

    __repr__ = layouts

    @property
    def count(self) -> jax.Array:
        """Number of cubes."""
        return jnp.sum(self.mask, axis=-1)


def sample_scene(rng_key: jax.Array, num_cubes: int | None = None) -> Scene:
    """A random scene: cubes that neither overlap nor hide each other, camera and lamp.

    Of `CANDIDATES` uniform places the first that fits is taken, cube by cube, in each of `LAYOUTS` layouts; of these
    the first is taken in which all cubes fit. One layout of five cubes fails once in 20,000 times.

    The number of cubes is uniform on 1 to 5 if None; ParameterError for another. The same key gives the same scene.
    """
    check_key(rng_key)
    count_key, camera_key, light_key, layout_key, half_key, colour_key = jax.random.split(rng_key, 6)
    count = jax.random.randint(count_key, (), 1, MAX_CUBES + 1)
    if num_cubes is not None:
        count = _checked_count("num_cubes", num_cubes)
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


def positions(rng_key: jax.Array, count: int) -> jax.Array:
    """Places [count, 2] that the cubes of one scene could have, to ask for: those of a random scene of `count` cubes.

    ParameterError if `count` is not one of 1 to 5.
    """
    count = _checked_count("count", count)
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


def ray(frame, place):
    """Direction [3] of the ray through a place in the image, of depth 1."""
    return jnp.append((place - 0.5) / FOCAL, 1.0) @ frame


def _layout(rng_key, eye, frame, half):
    """Places [5, 2] in the image and on the ground, angles [5], and the room [5] each cube has: 0 if enough."""

    def on_ground(place, half):
        d = ray(frame, place)
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


def _checked_count(name, count) -> int:
    return check_integer(name, count, 1, MAX_CUBES, "Compose several scenes for more.")
