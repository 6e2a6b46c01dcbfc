"""Derivations become molecules of rdkit, and canonical SMILES, by which molecules are known."""

from __future__ import annotations

import functools

import numpy as np

from ...checks.fields import check_instance
from ...errors import ParameterError
from .environment import Derivation, MoleculeEnvironment
from .fragments import joined
from .library import parsed, rdkit
from .multiplicity import Multiplicity

#: Fragments, read once.
_fragment = functools.cache(parsed)


def smiles_of(environment: MoleculeEnvironment, states: Derivation) -> list[str]:
    """Canonical SMILES of derivations [..., N], in the order of their rows.

    Raises:
        ParameterError: for a state without fragments, or one that waits for a piece.
        ArgumentTypeError: for states that are no derivations.
        MissingLibraryError: where rdkit is not installed.
    """
    check_instance("environment", environment, MoleculeEnvironment)
    check_instance("states", states, Derivation, remedy="Flow.sample and run.samples give such ones.")
    write = rdkit("Chem").MolToSmiles
    return [write(molecule_of(environment, *row)) for row in zip(*_rows(environment, states), strict=True)]


def molecule_of(environment: MoleculeEnvironment, pieces: np.ndarray, slots: np.ndarray):
    """The rdkit molecule of one derivation [N], [N]."""
    count = int(np.sum(pieces >= 0))
    if count == 0 or int(np.sum(slots >= 0)) != count - 1:
        raise ParameterError(
            f"a molecule needs a fragment, and every slot its piece; got pieces {pieces.tolist()}, slots "
            f"{slots.tolist()}. Take states where stop is legal."
        )
    fragments, places = environment.pieces[pieces[:count]].T
    bonds = []
    for child in range(1, count):
        parent, place = divmod(int(slots[child]), environment.width)
        here = environment.fragments[fragments[parent]][1][place]
        bonds.append((parent, here, child, environment.fragments[fragments[child]][1][places[child]]))
    return joined([_fragment(environment.fragments[fragment][0]) for fragment in fragments], bonds)


def num_derivations(environment: MoleculeEnvironment, smiles: str) -> int:
    """The number n(m) of derivations of a molecule in an environment; see `multiplicity`.

    Raises:
        ParameterError: for a molecule that has none, and text that is no molecule.
    """
    return _multiplicity(environment)(parsed(smiles))


@functools.cache
def _multiplicity(environment: MoleculeEnvironment) -> Multiplicity:
    return Multiplicity(environment.fragments, environment.max_fragments)


def _rows(environment: MoleculeEnvironment, states: Derivation) -> tuple[np.ndarray, np.ndarray]:
    pieces, slots = map(np.asarray, states)
    size = environment.max_fragments
    if pieces.shape != slots.shape or pieces.shape[-1:] != (size,):
        raise ParameterError(
            f"states must be pieces and slots [..., {size}] of this environment; got shapes {pieces.shape} and "
            f"{slots.shape}. Give the environment they were drawn in."
        )
    return pieces.reshape(-1, size), slots.reshape(-1, size)
