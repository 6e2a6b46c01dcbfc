r"""Pictures of one to five cubes on a ground plane, with the place of every cube: CLEVR in a hundred lines of JAX.

A pixel is the mean of rays. A ray from the camera, :math:`p(s) = o + s d`, meets a cube where it lies between all
three pairs of faces. In the frame of the cube, which turns about the vertical axis and has half an edge h,

.. math::
    s_{\mathrm{in}} = \max_k \min_\pm \frac{\pm h - o_k}{d_k}, \qquad
    s_{\mathrm{out}} = \min_k \max_\pm \frac{\pm h - o_k}{d_k}, \qquad s_{\mathrm{in}} < s_{\mathrm{out}}.

The nearest surface, cube or ground, has the colour albedo * (a + (1 - a) max(0, n . l) v): ambient light a, and the
lamp l where a second ray, towards it, meets no cube (v = 1).

What stands where is drawn in `scenes`. Du et al. (2023) train p(x | a cube at y), y the place of any one cube of the
picture x, and compose it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.text import layouts
from ..errors import check_key
from .rendering import checked_size, in_pieces, picture
from .scenes import COLOURS, MAX_CUBES, Scene, positions, ray, sample_scene

__all__ = ["COLOURS", "MAX_CUBES", "Labels", "Scene", "labelled", "positions", "render", "sample_scene", "sampler"]

#: The colours of CLEVR, red, green and blue in [0, 1].
PALETTE = np.array([*bytes.fromhex("575757ad23232a4bd71d6914814a198126c029d0d0ffee33")]).reshape(-1, 3) / 255
#: Colour of the ground in the middle, and how fast it fades; share of ambient light.
GROUND, FALLOFF, AMBIENT = (0.74, 0.73, 0.72), 0.35, 0.35


class Labels(NamedTuple):
    """What is in n pictures: `positions` [n, 5, 2], `mask` [n, 5], `colour` [n, 5] and `count` [n], see `Scene`."""

    positions: jax.Array
    mask: jax.Array
    colour: jax.Array
    count: jax.Array

    __repr__ = layouts


def render(scene: Scene, size: int) -> jax.Array:
    """The picture of a scene, RGB [size, size, 3] in [-1, 1]; see `rendering.picture`."""
    return picture(lambda place: _trace(scene, place), size)


def labelled(size: int) -> Callable[[jax.Array, int], tuple[jax.Array, Labels]]:
    """Sampler `(rng_key, num_samples) -> (x [num_samples, size, size, 3], Labels)`; the number of cubes is uniform.

    It can be called within `jax.jit` (`num_samples` static) and is the same object for the same size. It renders
    64 pictures at a time, which bounds its memory. Errors as of `render`.
    """
    return _labelled(checked_size(size))


@lru_cache
def _labelled(size: int):
    def draw(rng_key):
        # Without the barrier the compiler would lay out the scene anew for every ray.
        scene = jax.lax.optimization_barrier(sample_scene(rng_key))
        return render(scene, size), Labels(scene.positions, scene.mask, scene.colour, scene.count)

    return in_pieces(draw)


def sampler(size: int) -> Callable[[jax.Array, int], tuple[jax.Array, jax.Array]]:
    """Sampler `(rng_key, num_samples) -> (x [num_samples, size, size, 3], y [num_samples, 2])`.

    Picture x has one to five cubes, and y is the place of one of them, any with the same probability: the data of
    p(x | a cube at y). Otherwise like `labelled`.
    """
    return _sampler(checked_size(size))


@lru_cache
def _sampler(size: int):
    with_labels = _labelled(size)

    def sample(rng_key, num_samples):
        check_key(rng_key)
        scenes, choice = jax.random.split(rng_key)
        x, labels = with_labels(scenes, num_samples)
        which = jax.random.randint(choice, (num_samples,), 0, labels.count)
        return x, jnp.take_along_axis(labels.positions, which[:, None, None], axis=1)[:, 0]

    return sample


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
    light, d = list(scene.light), list(ray(scene.frame, place))
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
