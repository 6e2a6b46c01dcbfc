r"""What stands where in a captioned scene: one or two solids on a ground under a sky, drawn at random.

The stage is seen from the front by parallel rays, so that what is large looks large however far it is: x goes right, y
away and z up, in widths of the image, and rays fall at `TILT`. A place in the image is (column, row) in [0, 1], (0, 0)
at the top left; the ground point (x, y, 0) is at

.. math:: \mathrm{column} = \tfrac12 + x, \qquad \mathrm{row} = \tfrac12 - y \sin \mathrm{TILT} .

Ground shows below the row `HORIZON`, sky above. Two solids are numbered from left to right.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.text import layouts
from ..errors import check_key

SHAPES = ("cube", "ball", "cylinder", "cone")
COLOURS = ("red", "green", "blue", "yellow")
SIZES = ("small", "large")
GROUNDS = ("sand", "grass", "snow", "water")
SKIES = ("sunny", "overcast", "night")
#: Whether the left of two solids stands beside the right one, in front of it or behind it.
DEPTHS = ("beside", "in front of", "behind")

TILT, HORIZON = np.radians(30.0), 0.36
#: Radii by size, and by how much they vary; reach of the widest solid in radii.
RADII, JITTER, REACH = (0.105, 0.17), 0.06, 1.16
#: Rows of what stands beside something or alone, at the front, and at the back; gap between what stands side by side.
ROWS, FRONT, BACK, GAP = (0.6, 0.88), (0.82, 0.9), (0.54, 0.6), 0.03
#: Least distance of two columns of solids at different depths: both stay in view.
APART = 0.24


class Labels(NamedTuple):
    """What a picture shows, as whole numbers; arrays of JAX or NumPy, which may have leading axes.

    Attributes:
        shape, colour, size: Indices into `SHAPES`, `COLOURS` and `SIZES`, of the solids from left to right [2]; -1 for
            one that is not there.
        count: Number of solids, 1 or 2.
        depth: Where the left one stands, an index into `DEPTHS`; -1 where there is one only.
        ground, sky: Indices into `GROUNDS` and `SKIES`.
    """

    shape: Any
    colour: Any
    size: Any
    count: Any
    depth: Any
    ground: Any
    sky: Any

    __repr__ = layouts


class Scene(NamedTuple):
    """One scene: its labels, and what they leave open.

    Attributes:
        labels: What there is; of a solid that is not there too, see `mask`.
        mask: Whether a solid is there, [2].
        place: (column, row) of the middles of their feet, [2, 2].
        radius: In widths of the image, [2].
        angle: By how much they turn about the vertical axis, in radians, [2].
        azimuth: Of the lamp, in radians; 0 is right, -pi / 2 in front.
        light_column: Column of the sun or the moon.
        phases: Of the ground's and the sky's waves, in radians, [4].
    """

    labels: Labels
    mask: jax.Array
    place: jax.Array
    radius: jax.Array
    angle: jax.Array
    azimuth: jax.Array
    light_column: jax.Array
    phases: jax.Array

    __repr__ = layouts


def sample_scene(rng_key: jax.Array) -> Scene:
    """A random scene: every label uniform, of one or two solids, of which neither hides the other.

    The same key gives the same scene; it can be traced and mapped.
    """
    keys = jax.random.split(check_key(rng_key), 8)
    draw = lambda key, known, shape=(): jax.random.randint(key, shape, 0, len(known))
    count = jax.random.randint(keys[0], (), 1, 3)
    shape_key, colour_key, size_key = jax.random.split(keys[1], 3)
    shape, colour = draw(shape_key, SHAPES, (2,)), draw(colour_key, COLOURS, (2,))
    size = draw(size_key, SIZES, (2,))
    depth_key, ground_key, sky_key = jax.random.split(keys[2], 3)
    depth, ground, sky = draw(depth_key, DEPTHS), draw(ground_key, GROUNDS), draw(sky_key, SKIES)
    mask = jnp.arange(2) < count
    radius = jnp.array(RADII)[size] * (1 + JITTER * jax.random.uniform(keys[3], (2,), minval=-1.0))
    angle = jax.random.uniform(keys[4], (2,), maxval=np.pi / 2)
    light_key, column_key, phase_key = jax.random.split(keys[5], 3)
    labels = Labels(
        *(jnp.where(mask, values, -1) for values in (shape, colour, size)),
        count=count, depth=jnp.where(count == 2, depth, -1), ground=ground, sky=sky,
    )  # fmt: skip
    return Scene(
        labels, mask, jnp.where(count == 2, _pair(keys[6], radius, depth), _alone(keys[7], radius)), radius, angle,
        azimuth=jax.random.uniform(light_key, minval=-2.6, maxval=-2.0),
        light_column=jax.random.uniform(column_key, minval=0.1, maxval=0.9),
        phases=jax.random.uniform(phase_key, (4,), maxval=2 * np.pi),
    )  # fmt: skip


def _alone(rng_key, radius):
    """Places [2, 2] of which the first counts."""
    margin = REACH * radius[0] + 0.02
    low, high = jnp.array([margin, ROWS[0]]), jnp.array([1 - margin, ROWS[1]])
    return jnp.broadcast_to(jax.random.uniform(rng_key, (2,), minval=low, maxval=high), (2, 2))


def _pair(rng_key, radius, depth):
    """Places [2, 2] of two solids, the first left of the second."""
    column_key, apart_key, row_key, level_key = jax.random.split(rng_key, 4)
    margin, touching = REACH * radius + 0.02, REACH * jnp.sum(radius) + GAP
    most = 1 - jnp.sum(margin)
    apart = jax.random.uniform(apart_key, minval=jnp.where(depth == 0, touching, APART), maxval=most)
    left = jax.random.uniform(column_key, minval=margin[0], maxval=1 - margin[1] - apart)
    front, back = (jax.random.uniform(k, minval=a, maxval=b) for k, (a, b) in zip(
        jax.random.split(row_key), (FRONT, BACK), strict=True
    ))  # fmt: skip
    level = jax.random.uniform(level_key, minval=ROWS[0], maxval=ROWS[1])
    rows = jnp.stack([jnp.stack([level, level]), jnp.stack([front, back]), jnp.stack([back, front])])[depth]
    return jnp.stack([jnp.stack([left, left + apart]), rows], axis=-1)
