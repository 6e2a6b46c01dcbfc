r"""The hypergrid: points of {0 ... side - 1}^dim, reached from the origin by steps up along one axis; any may stop.

Rewards look at a point as z in [-1, 1]^dim, z = 2 x / (side - 1) - 1. Those of two dimensions are of Garipov et al.
(2023), with the constants of its public code; `corners` and `cosines` are of Bengio et al. (2021) and its code, where
spheres are our round corners.

====================== =============================================================================================
`circle(k)`            k = 1, 2, 3: a disc of radius .6 centred .3 from the middle, at 180, 60 and -60 degrees, in which
                       the reward is b + a sum_i N(z; m_i, s^2) / k with k bumps; .1 outside
`symmetric_shubert`    the Shubert function of :math:`|z|`, in [-9.45, -7.15]^2, moved into [0, 1], plus .001
`diagonal_sigmoid`     sigmoid(5 (z_1 + z_2)) plus 1e-5
`corners`              :math:`.001 + .5 \prod_i 1[|z_i| > .5] + 2 \prod_i 1[.6 < |z_i| < .8]`
`cosines`              :math:`.01 + \prod_i (1 + \cos 50 z_i) \phi(5 z_i)`
`spheres`              :math:`.001 + .5 \, 1[\rho < .4] + 2 \, 1[.15 < \rho < .3]`, rho the distance of :math:`|z|` from
                       (.5, ..., .5)
====================== =============================================================================================

Sources: Garipov et al. (2023), arXiv:2309.16115; Bengio et al. (2021), arXiv:2106.04399.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.fields import Checked
from ..errors import ShapeError, check_integer
from .environment import Environment

#: Most states that are listed.
MOST_STATES = 2**21


@dataclasses.dataclass(frozen=True)
class Hypergrid(Checked, Environment):
    """Points [dim] of integers from 0 to side - 1; action i < dim adds one to coordinate i.

    Attributes:
        dim: Number of coordinates.
        side: Values of each.
    """

    dim: Annotated[int, partial(check_integer, high=64)] = 2
    side: Annotated[int, partial(check_integer, low=2, high=2**16)] = 32

    @property
    def num_actions(self) -> int:
        return self.dim + 1

    @property
    def num_backward_actions(self) -> int:
        return self.dim

    @property
    def max_length(self) -> int:
        return self.dim * (self.side - 1) + 1

    @property
    def num_states(self) -> int | None:
        count = self.side**self.dim
        return count if count <= MOST_STATES else None

    def initial_state(self):
        return jnp.zeros(self.dim, jnp.int32)

    def step(self, state, action):
        return state + (jnp.arange(self.dim) == action)

    def step_back(self, state, backward_action):
        return state - (jnp.arange(self.dim) == backward_action)

    def legal(self, state):
        return jnp.append(state < self.side - 1, True)

    def legal_backward(self, state):
        return state > 0

    def undoing(self, state, action):
        return action

    def redoing(self, state, backward_action):
        return backward_action

    def features(self, state):
        return jax.nn.one_hot(state, self.side).ravel()

    def index(self, state):
        return jnp.sum(state * self._strides())

    def state_of(self, index):
        return index // self._strides() % self.side

    def _strides(self):
        return jnp.asarray(self.side ** np.arange(self.dim)[::-1], jnp.int32)

    def scaled(self, state) -> jax.Array:
        """z in [-1, 1]^dim."""
        return 2 * state / (self.side - 1) - 1.0

    def reward(self, function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
        """A reward of states, of a function of z in [-1, 1]^dim such as those below."""
        return lambda state: function(self.scaled(state))


#: Of each circle: its angle, the scale and distance from the middle of its bumps, their first angle, a and b.
_CIRCLES = {
    1: (np.pi, 0.3, 0.0, 0.0, 2.5, 6.5),
    2: (np.pi / 3, 0.21, 0.32, -np.pi / 6, 3.5, 10.5),
    3: (-np.pi / 3, 0.18, 0.32, np.pi, 2.5, 5.5),
}


def circle(number: int) -> Callable[[jax.Array], jax.Array]:
    """The first, second or third circle, a function of z [2]."""
    check_integer("number", number, 1, 3, "There are three circles.")
    angle, scale, distance, first, a, b = _CIRCLES[number]

    def around(centre, radius, angles):
        return centre + radius * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)

    def reward(z):
        if jnp.shape(z) != (2,):
            raise ShapeError(f"circles are rewards of z [2]; got shape {jnp.shape(z)}. Use Hypergrid(2, side).")
        centre = around(jnp.zeros(2), 0.3, jnp.asarray(angle))
        bumps = around(centre, distance, first + 2 * np.pi * jnp.arange(number) / number)
        squares = jnp.sum((z - bumps) ** 2, axis=-1) / scale**2
        density = jnp.mean(jnp.exp(-0.5 * squares)) / (2 * np.pi * scale**2)
        return jnp.where(jnp.linalg.norm(z - centre) < 0.6, a * density + b, 0.1)

    return reward


def symmetric_shubert(z) -> jax.Array:
    """Four by four modes, mirrored, of z [2]."""
    y = -9.45 + 2.3 * (jnp.abs(z) / 2 + 0.5)
    i = jnp.arange(1, 6)
    sums = jnp.sum(i * jnp.cos((i + 1) * y[:, None] + i), axis=1)
    # Its least and largest value there.
    low, high = -186.6157949555621, 210.27662470796076
    return (jnp.prod(sums) - low) / (high - low) + 1e-3


def diagonal_sigmoid(z) -> jax.Array:
    """High where the sum of z is positive."""
    return jax.nn.sigmoid(5 * jnp.sum(z)) + 1e-5


def corners(z) -> jax.Array:
    """2^dim modes near the corners, of any z [dim]."""
    far = jnp.abs(z)
    return 1e-3 + 0.5 * jnp.all(far > 0.5) + 2.0 * jnp.all((far > 0.6) & (far < 0.8))


def cosines(z) -> jax.Array:
    """Ripples under a bell, of any z [dim]."""
    return 0.01 + jnp.prod((1 + jnp.cos(50 * z)) * jax.scipy.stats.norm.pdf(5 * z))


def spheres(z) -> jax.Array:
    """2^dim balls with a brighter shell in each, of any z [dim]."""
    distance = jnp.linalg.norm(jnp.abs(z) - 0.5)
    return 1e-3 + 0.5 * (distance < 0.4) + 2.0 * ((distance > 0.15) & (distance < 0.3))
