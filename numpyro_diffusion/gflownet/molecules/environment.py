r"""Molecules grown fragment by fragment, every derivation in one order alone.

A *derivation* says how a molecule is made: fragment 0, and for every further one k = 1, 2, ... its *piece*, which is a
fragment and the atom of its own that is bonded, and its *slot*, which is an earlier fragment and the atom there. Slots
increase in k, fragments before atoms, so that a tree of fragments with a root is numbered breadth-first: the tree has
one derivation, and no two sequences of actions end in the same one. So every state has exactly one parent, the
backward policy is 1, and the probability of reaching a state is the product of the policy along the one way to it.

What remains is that one *molecule* has several derivations: any fragment can be the root, a benzene ring can be bonded
at six equivalent atoms, and propane is CCC or C on CC. `multiplicity.num_derivations` counts them, n(m), and rewards
divide by n(m): a flow trained perfectly draws *molecules* (canonical SMILES) in proportion to R(m)^beta. A mixture,
harmonic mean, contrast or sculpting of such flows is homogeneous of degree one in them and so is right for molecules
as well; a product of F flows weighs a molecule by n(m)^(1 - F) beside the product of the flows over molecules.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import NotKnownError, check_integer
from ..environment import Environment
from .fragments import Fragment, bengio_fragments, checked_fragments
from .library import parsed

#: Most states that are listed.
MOST_STATES = 1 << 21


class Derivation(NamedTuple):
    """How a molecule is made, in N = `max_fragments` places; -1 where there is nothing.

    Attributes:
        pieces: Which fragment, bonded by which of its atoms, int32 [N]; fragment 0 is bonded by none.
        slots: Where it is bonded, int32 [N]; set one action before the piece.
    """

    pieces: jax.Array
    slots: jax.Array


@dataclasses.dataclass(frozen=True, repr=False)
class MoleculeEnvironment(Environment):
    """Trees of at most `max_fragments` fragments, each atom of which takes part in at most one bond between them.

    Actions: the slots (fragment number times the most atoms of any fragment, plus the atom's place in its list), the
    pieces, stop. A molecule of k fragments takes 2 k actions.

    Attributes:
        max_fragments: N, at least 1. With all 72 fragments there are 16,201 derivations for N = 2, 5e6 for 3, 9e11 for
            5, 6e22 for 9.
        fragments: Pairs (SMILES, atoms that may be bonded); those of Bengio et al. (2021) by default.

    Raises:
        ParameterError: for a number below 1, or fragments that are no molecules or cannot be bonded.
        MissingLibraryError: where rdkit is not installed.
    """

    max_fragments: int = 5
    fragments: tuple[Fragment, ...] = dataclasses.field(default_factory=bengio_fragments)

    def __repr__(self) -> str:
        # Flows and their checkpoints are known by it: other fragments, another text.
        digest = hashlib.sha256(repr(self.fragments).encode()).hexdigest()[:8]
        return f"MoleculeEnvironment({self.max_fragments}, <{len(self.fragments)} fragments {digest}>)"

    def __post_init__(self):
        object.__setattr__(self, "max_fragments", check_integer("max_fragments", self.max_fragments))
        object.__setattr__(self, "fragments", checked_fragments(self.fragments))

    @functools.cached_property
    def pieces(self) -> np.ndarray:
        """The fragment and the place in its list of atoms that every piece is, int32 [P, 2]."""
        listed = [(f, b) for f, (_, atoms) in enumerate(self.fragments) for b in range(len(atoms))]
        return np.asarray(listed, np.int32)

    @functools.cached_property
    def width(self) -> int:
        """The most atoms of a fragment that may be bonded: slots per fragment."""
        return max(len(atoms) for _, atoms in self.fragments)

    @functools.cached_property
    def max_atoms(self) -> int:
        """The most heavy atoms of a molecule."""
        return self.max_fragments * max(parsed(smiles).GetNumAtoms() for smiles, _ in self.fragments)

    @property
    def num_slots(self) -> int:
        """Number of slots: the last fragment of a full derivation offers none."""
        return (self.max_fragments - 1) * self.width

    @property
    def num_actions(self) -> int:
        return self.num_slots + len(self.pieces) + 1

    @property
    def num_backward_actions(self) -> int:
        return 1

    @property
    def max_length(self) -> int:
        return 2 * self.max_fragments

    @property
    def num_states(self) -> int | None:
        """Known for two of the 72 fragments, three of a dozen: everything about flows is exact there."""
        count = math.prod(self._radices)
        return count if count <= MOST_STATES else None

    @functools.cached_property
    def _radices(self) -> tuple[int, ...]:
        """Values of every piece and every slot but that of fragment 0, each with one for none."""
        slots = [number * self.width + 1 for number in range(1, self.max_fragments)]
        return (*[len(self.pieces) + 1] * self.max_fragments, *slots)

    def index(self, state: Derivation) -> jax.Array:
        digits = jnp.concatenate([state.pieces, state.slots[1:]]) + 1
        return jnp.sum(digits * self._strides())

    def state_of(self, index: jax.Array) -> Derivation:
        digits = index // self._strides() % np.array(self._radices) - 1
        pieces, slots = jnp.split(digits.astype(jnp.int32), [self.max_fragments])
        return Derivation(pieces, jnp.concatenate([jnp.full(1, -1, jnp.int32), slots]))

    def _strides(self) -> np.ndarray:
        if self.num_states is None:
            raise NotKnownError(
                f"states have numbers where there are at most {MOST_STATES} of them; {self!r} has more. Take fewer "
                "fragments, or a smaller max_fragments."
            )
        return np.cumprod([1, *self._radices[:-1]], dtype=np.int32)

    def initial_state(self) -> Derivation:
        empty = jnp.full(self.max_fragments, -1, jnp.int32)
        return Derivation(empty, empty)

    def step(self, state: Derivation, action: jax.Array) -> Derivation:
        count, piece = num_fragments(state), action - self.num_slots
        return Derivation(
            state.pieces.at[count].set(jnp.where(piece >= 0, piece, -1)),
            state.slots.at[count].set(jnp.where(piece >= 0, state.slots[count], action)),
        )

    def step_back(self, state: Derivation, backward_action: jax.Array) -> Derivation:
        count, waits = num_fragments(state), self._waits(state)
        # Without a slot that waits for a piece the last piece goes, and its slot waits.
        return Derivation(
            jnp.where(waits, state.pieces, state.pieces.at[count - 1].set(-1)),
            jnp.where(waits, state.slots.at[count].set(-1), state.slots),
        )

    def legal(self, state: Derivation) -> jax.Array:
        count, waits = num_fragments(state), self._waits(state)
        fragment, own = self.pieces.T
        number, place = jnp.divmod(jnp.arange(self.num_slots), self.width)
        held = state.pieces[number]
        lengths = jnp.asarray([len(atoms) for _, atoms in self.fragments])
        free = (place < lengths[jnp.asarray(fragment)[held]]) & ((number == 0) | (place != jnp.asarray(own)[held]))
        later = jnp.arange(self.num_slots) > state.slots[count - 1]
        slots = (number < count) & free & later & ~waits & (count < self.max_fragments)
        pieces = waits | ((count == 0) & (own == 0))  # fragment 0 once, by the first of its pieces
        return jnp.concatenate([slots, pieces, ((count > 0) & ~waits)[None]])

    def legal_backward(self, state: Derivation) -> jax.Array:
        return (num_fragments(state) > 0)[None]

    def undoing(self, state: Derivation, action: jax.Array) -> jax.Array:
        return jnp.zeros((), jnp.int32)

    def redoing(self, state: Derivation, backward_action: jax.Array) -> jax.Array:
        count = num_fragments(state)
        piece = self.num_slots + state.pieces[count - 1]
        return jnp.where(self._waits(state), state.slots[jnp.minimum(count, self.max_fragments - 1)], piece)

    def features(self, state: Derivation) -> jax.Array:
        """Which piece and which slot is where, how many fragments there are, and whether a slot waits: all one-hot."""
        parts = [
            jax.nn.one_hot(state.pieces, len(self.pieces)),
            jax.nn.one_hot(state.slots, self.num_slots),
            jax.nn.one_hot(num_fragments(state), self.max_fragments + 1),
            self._waits(state),
        ]
        return jnp.concatenate([jnp.ravel(part).astype(jnp.float32) for part in parts])

    def _waits(self, state: Derivation) -> jax.Array:
        """Whether a slot was chosen whose piece is not."""
        count = num_fragments(state)
        return (count < self.max_fragments) & (state.slots[jnp.minimum(count, self.max_fragments - 1)] >= 0)


def num_fragments(state: Derivation) -> jax.Array:
    """How many fragments a derivation has."""
    return jnp.sum(state.pieces >= 0, axis=-1)
