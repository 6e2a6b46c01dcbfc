r"""Words of fixed length over an alphabet, grown at either end; the whole word stops.

A word is built by appending or prepending one letter at a time, so that many paths lead to one word. Letters are
numbers 0 ... num_letters - 1; a state is [length] of them with -1 in places that are still empty, at the end.
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
from ..checks.text import shown
from ..errors import ParameterError, check_integer
from .environment import Environment
from .grid import MOST_STATES


@dataclasses.dataclass(frozen=True)
class Sequences(Checked, Environment):
    """Words of `length` letters; action a < num_letters appends letter a, action num_letters + a prepends it.

    The first letter can only be appended. Backward action 0 removes the last letter, 1 the first one of several.
    """

    length: Annotated[int, partial(check_integer, high=64)] = 8
    num_letters: Annotated[int, partial(check_integer, low=2, high=64)] = 4

    @property
    def num_actions(self) -> int:
        return 2 * self.num_letters + 1

    @property
    def num_backward_actions(self) -> int:
        return 2

    @property
    def max_length(self) -> int:
        return self.length + 1

    @property
    def num_states(self) -> int | None:
        count = (self.num_letters ** (self.length + 1) - 1) // (self.num_letters - 1)
        return count if count <= MOST_STATES else None

    def initial_state(self):
        return jnp.full(self.length, -1, jnp.int32)

    def size(self, state) -> jax.Array:
        """Letters that are there."""
        return jnp.sum(state >= 0)

    def step(self, state, action):
        letter, size = action % self.num_letters, self.size(state)
        appended = jnp.where(jnp.arange(self.length) == size, letter, state)
        prepended = jnp.roll(state, 1).at[0].set(letter)
        return jnp.where(action < self.num_letters, appended, prepended)

    def step_back(self, state, backward_action):
        without_last = jnp.where(jnp.arange(self.length) == self.size(state) - 1, -1, state)
        without_first = jnp.roll(state, -1).at[-1].set(-1)
        return jnp.where(backward_action == 0, without_last, without_first)

    def legal(self, state):
        size = self.size(state)
        grows = jnp.full(self.num_letters, size < self.length)
        return jnp.concatenate([grows, grows & (size > 0), (size == self.length)[None]])

    def legal_backward(self, state):
        size = self.size(state)
        return jnp.stack([size > 0, size > 1])

    def undoing(self, state, action):
        return jnp.where(action < self.num_letters, 0, 1)

    def redoing(self, state, backward_action):
        last, first = state[self.size(state) - 1], state[0] + self.num_letters
        return jnp.where(backward_action == 0, last, first)

    def features(self, state):
        return jax.nn.one_hot(state, self.num_letters).ravel()

    def index(self, state):
        # Words of each size after those that are shorter, in the order of their letters read as digits.
        size = self.size(state)
        place = jnp.maximum(size - 1 - jnp.arange(self.length), 0)
        return self._offsets()[size] + jnp.sum(jnp.where(state >= 0, state * self.num_letters**place, 0))

    def state_of(self, index):
        size = jnp.sum(index >= self._offsets()) - 1
        place = size - 1 - jnp.arange(self.length)
        digits = (index - self._offsets()[size]) // self.num_letters ** jnp.maximum(place, 0) % self.num_letters
        return jnp.where(place >= 0, digits, -1)

    def _offsets(self):
        counts = self.num_letters ** np.arange(self.length + 1)
        return jnp.asarray(np.cumsum(counts) - counts, jnp.int32)


def motif_reward(motif: str | tuple[int, ...], sharpness: float = 1.5, letters: str = "ACGT") -> Callable:
    r"""A synthetic reward of words: :math:`e^{c m(x)}`, m the most letters of a motif that the word has at one place.

    It is bumpy, has many modes, and needs no data: m(x) = max_k sum_j 1[x_{k + j} = motif_j] over all places k.

    Args:
        motif: Letters, as text over `letters` or as their numbers; no longer than the words.
        sharpness: c.

    Raises:
        ParameterError: for a motif that is empty, of other letters, or longer than the words.
    """
    numbers = [letters.find(letter) for letter in motif] if isinstance(motif, str) else motif
    wanted = np.asarray(numbers)
    if wanted.ndim != 1 or not wanted.size or wanted.dtype.kind not in "iu" or wanted.min() < 0:
        raise ParameterError(f"motif must be letters of {letters!r}, or their numbers; got {shown(motif)}.")

    def reward(state):
        if len(wanted) > len(state):
            raise ParameterError(f"a motif must be no longer than the words, {len(state)}; got {len(wanted)} letters.")
        places = jnp.arange(len(state) - len(wanted) + 1)[:, None] + jnp.arange(len(wanted))
        matches = jnp.sum(state[places] == wanted, axis=1)
        return jnp.exp(sharpness * jnp.max(matches))

    return reward
