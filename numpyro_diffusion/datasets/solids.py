r"""Cubes, balls, cylinders and cones as rays see them: where a ray enters, and how the face it meets is lit.

In its own frame, its foot at the origin, every solid of radius :math:`\rho` is the slab :math:`0 \le z \le h` within a
side: two pairs of planes :math:`|x|, |y| \le h / 2` for the cube, and else

.. math:: x^2 + y^2 + a_2 z^2 + 2 a_1 z + a_0 \le 0 .

All are convex: along a ray o + s d each condition holds on an interval of s, and the ray is inside on their
intersection. A pixel has the colour albedo * tint * (ambient + lamp max(0, n . l) v), v = 0 where another ray, towards
the lamp l, meets a solid. Ground and sky are waves of few colours.
"""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np

from .staging import HORIZON, TILT, Scene

#: Height h and (a_2, a_1, a_0) by shape, of radius one: cube, ball, cylinder, cone.
HEIGHTS = np.array([1.64, 2.0, 1.7, 2.2])
_SLOPE = 1.05 / 2.2
SIDES = np.array([[0, 0, 0], [1, -1, 0], [0, 0, -(0.8**2)], [-(_SLOPE**2), 2.2 * _SLOPE**2, -(1.05**2)]])
PALETTE = np.array([[0.86, 0.10, 0.10], [0.05, 0.58, 0.24], [0.10, 0.16, 0.86], [0.99, 0.86, 0.08]])
#: By ground: two colours between which it waves, and its waves' numbers per width along x and y.
GROUND_COLOURS = np.array([
    [[0.84, 0.68, 0.44], [0.76, 0.59, 0.36]], [[0.50, 0.70, 0.22], [0.38, 0.60, 0.16]],
    [[0.97, 0.98, 1.00], [0.88, 0.91, 0.97]], [[0.16, 0.50, 0.68], [0.42, 0.72, 0.84]],
])  # fmt: skip
GROUND_WAVES = np.array([[1.0, 3.0], [9.0, 4.0], [1.5, 1.5], [0.6, 6.0]])
#: By sky: colour at the top and at the horizon, and of sun or moon and how large they are.
SKY_COLOURS = np.array([[[0.30, 0.58, 0.95], [0.72, 0.88, 1.0]], [[0.62, 0.64, 0.67], [0.76, 0.77, 0.79]],
                        [[0.02, 0.03, 0.14], [0.10, 0.12, 0.30]]])  # fmt: skip
DISCS, DISC_RADII = np.array([[1.0, 0.95, 0.35], [0.7, 0.7, 0.7], [0.95, 0.95, 0.85]]), np.array([0.075, 0.0, 0.06])
#: By sky: ambient light, lamp, and the tint of both; elevation of the lamp.
AMBIENT, LAMP = np.array([0.5, 0.78, 0.55]), np.array([0.75, 0.22, 0.4])
TINT = np.array([[1.0, 0.98, 0.92], [0.88, 0.9, 0.93], [0.76, 0.8, 0.98]])
ELEVATION = 0.85


def trace(scene: Scene, place) -> jax.Array:
    """Colour [3] in [0, 1] of the ray through one place (column, row) of the image."""
    labels, sky = scene.labels, scene.labels.sky
    direction, origin = [0.0, float(np.cos(TILT)), -float(np.sin(TILT))], _start(place)
    cos, sin = float(np.cos(ELEVATION)), float(np.sin(ELEVATION))
    light = [cos * jnp.cos(scene.azimuth), cos * jnp.sin(scene.azimuth), sin]
    # All of a solid that is not there is index -1: the last, and masked.
    feet = jnp.stack([scene.place[:, 0] - 0.5, (0.5 - scene.place[:, 1]) / np.sin(TILT)], axis=-1)
    parts = (feet, scene.radius, scene.angle, labels.shape, scene.mask)
    solids = [tuple(part[i] for part in parts) for i in range(2)]
    distance = -origin[2] / direction[2]
    x, y = origin[0], origin[1] + distance * direction[1]
    is_sky = place[1] < HORIZON
    colour, normal_up, lit = _ground(labels.ground, scene.phases, x, y), 1.0, light[2]
    distance = jnp.where(is_sky, jnp.inf, distance)
    for solid, paint in zip(solids, jnp.asarray(PALETTE)[labels.colour], strict=True):
        enter, cosine, up = _meet(solid, origin, direction, light)
        nearer = enter < distance
        pairs = ((enter, distance), (cosine, lit), (up, normal_up), (paint, colour))
        distance, lit, normal_up, colour = (jnp.where(nearer, new, old) for new, old in pairs)
        is_sky = is_sky & ~nearer
    reached = jnp.where(is_sky, 0.0, distance)
    # A step towards the lamp, so that a surface does not shade itself.
    point = [o + reached * d + 1e-3 * l for o, d, l in zip(origin, direction, light, strict=True)]
    shaded = reduce(jnp.logical_or, [_meet(solid, point, light, light)[0] < jnp.inf for solid in solids])
    lamp = jnp.asarray(LAMP)[sky] * jnp.where(shaded, 0.0, jnp.maximum(lit, 0.0))
    brightness = jnp.asarray(AMBIENT)[sky] * (0.75 + 0.25 * normal_up) + lamp
    return jnp.where(is_sky, _sky(scene, place), colour * jnp.asarray(TINT)[sky] * brightness)


def _start(place):
    """A point of the ray through a place, before everything."""
    up, back = 0.5 - place[1], 4.0
    return [place[0] - 0.5, up * np.sin(TILT) - back * np.cos(TILT), up * np.cos(TILT) + back * np.sin(TILT)]


def _meet(solid, origin, direction, light):
    """Where a ray enters a solid (infinity if it misses), and of the face it meets n . l and n . z."""
    foot, radius, angle, shape, is_there = solid
    cos, sin = jnp.cos(angle), jnp.sin(angle)

    def turned(x, y, z):
        return cos * x + sin * y, cos * y - sin * x, z

    height, (a2, a1, a0) = jnp.asarray(HEIGHTS)[shape] * radius, jnp.asarray(SIDES)[shape]
    a1, a0, half = a1 * radius, a0 * radius**2, height / 2
    o = turned(origin[0] - foot[0], origin[1] - foot[1], origin[2])
    d, l = turned(*direction), turned(*light)
    inverse = [1 / jnp.where(jnp.abs(b) < 1e-6, 1e-6, b) for b in d]
    middle = (o[0], o[1], o[2] - half)
    low = [-a * v - half * jnp.abs(v) for a, v in zip(middle, inverse, strict=True)]
    high = [-a * v + half * jnp.abs(v) for a, v in zip(middle, inverse, strict=True)]
    # The curved side: A s^2 + 2 B s + C <= 0 with A > 0, as no ray is steeper than the cone.
    a = d[0] ** 2 + d[1] ** 2 + a2 * d[2] ** 2
    b = o[0] * d[0] + o[1] * d[1] + a2 * o[2] * d[2] + a1 * d[2]
    c = o[0] ** 2 + o[1] ** 2 + a2 * o[2] ** 2 + 2 * a1 * o[2] + a0
    square = b**2 - a * c
    root = jnp.sqrt(jnp.maximum(square, 0.0))
    is_cube, missed = shape == 0, jnp.where(square > 0, 0.0, jnp.inf)
    side_in = jnp.where(is_cube, jnp.maximum(low[0], low[1]), (-b - root) / a + missed)
    side_out = jnp.where(is_cube, jnp.minimum(high[0], high[1]), (-b + root) / a - missed)
    enter, leave = jnp.maximum(side_in, low[2]), jnp.minimum(side_out, high[2])
    hit = is_there & (enter < leave) & (leave > 0)
    # The normal where the ray enters: of the slab, of a plane of the cube, of the curved side. Finite also where it
    # misses: at edges the compiler may compute a hit twice, once as a miss.
    reached = jnp.where(hit, enter, 0.0)
    x, y, z = (at + reached * along for at, along in zip(o, d, strict=True))
    curved = [x, y, a2 * z + a1]
    flat = [jnp.where(low[0] >= low[1], -jnp.sign(d[0]), 0.0), jnp.where(low[0] >= low[1], 0.0, -jnp.sign(d[1])), 0.0]
    length = jnp.sqrt(sum(v**2 for v in curved) + 1e-12)
    normal = [jnp.where(is_cube, f, v / length) for f, v in zip(flat, curved, strict=True)]
    on_slab = low[2] >= side_in
    normal = [jnp.where(on_slab, 0.0, normal[0]), jnp.where(on_slab, 0.0, normal[1]),
              jnp.where(on_slab, -jnp.sign(d[2]), normal[2])]  # fmt: skip
    return jnp.where(hit, enter, jnp.inf), sum(n * v for n, v in zip(normal, l, strict=True)), normal[2]


def _ground(ground, phases, x, y):
    """Colour [3] of the ground at (x, y)."""
    along, away = jnp.asarray(GROUND_WAVES)[ground]
    wave = jnp.sin(2 * np.pi * along * x + phases[0]) + jnp.sin(2 * np.pi * away * y + 2 * x + phases[1])
    first, second = jnp.asarray(GROUND_COLOURS)[ground]
    return first + (second - first) * (0.5 + 0.25 * wave)


def _sky(scene, place):
    """Colour [3] of the sky at a place of the image."""
    sky = scene.labels.sky
    top, bottom = jnp.asarray(SKY_COLOURS)[sky]
    clouds = 0.04 * jnp.sin(9 * place[0] + scene.phases[2]) * jnp.sin(25 * place[1] + scene.phases[3])
    colour = top + (bottom - top) * place[1] / HORIZON + jnp.where(sky == 1, clouds, 0.0)
    off = jnp.hypot(place[0] - scene.light_column, place[1] - 0.12)
    return jnp.where(off < jnp.asarray(DISC_RADII)[sky], jnp.asarray(DISCS)[sky], colour)
