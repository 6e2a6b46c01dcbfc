"""Molecules as the sEH proxy of Bengio et al. (2021) reads them: atoms as 71 numbers, and their neighbours.

Columns of an atom: element H, C, N, O, F or another (0 to 5), acceptor and donor (6 to 8, which the proxy was trained
without, all 0), aromatic (9), sp, sp2, sp3 (10 to 12), number of hydrogens (13), atomic number from 1 to 56 (14 to 69),
free stem (70, 0 for whole molecules).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...errors import ParameterError
from .library import rdkit

NUM_FEATURES = 71
MAX_DEGREE = 6
#: Kinds of bonds: single, double, triple, aromatic; and the loop that a molecule of one atom has.
BONDS = ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")
LOOP = len(BONDS)
_ELEMENTS = {"H": 0, "C": 1, "N": 2, "O": 3, "F": 4}
_HYBRIDISATIONS = {"SP": 10, "SP2": 11, "SP3": 12}
_AROMATIC, _HYDROGENS, _NUMBER = 9, 13, 14
_HEAVIEST = 56


class MoleculeGraph(NamedTuple):
    """One molecule, filled up to a fixed number of atoms n; arrays may have leading axes.

    Attributes:
        atoms: Features [n, 71], zero for atoms that are none.
        neighbours: Numbers of neighbouring atoms, int32 [n, MAX_DEGREE]; -1 for none.
        bonds: Kinds of the bonds to them, int32 [n, MAX_DEGREE].
        exists: Which atoms there are, bool [n].
    """

    atoms: Any
    neighbours: Any
    bonds: Any
    exists: Any


def graph_of(molecule, num_atoms: int | None = None) -> MoleculeGraph:
    """The graph of an rdkit molecule, filled up to `num_atoms`.

    Raises:
        ParameterError: for more atoms than that, none at all, elements beyond barium, or bonds of other kinds.
    """
    chem = rdkit("Chem")
    count = molecule.GetNumAtoms()
    size = count if num_atoms is None else num_atoms
    if not 0 < count <= size:
        raise ParameterError(f"a molecule must have from 1 to {size} heavy atoms; got {count}. Raise num_atoms.")
    atoms = np.zeros((size, NUM_FEATURES), np.float32)
    neighbours = np.full((size, MAX_DEGREE), -1, np.int32)
    bonds = np.zeros((size, MAX_DEGREE), np.int32)
    for i, atom in enumerate(molecule.GetAtoms()):
        if not 1 <= atom.GetAtomicNum() <= _HEAVIEST or atom.GetDegree() > MAX_DEGREE:
            raise ParameterError(
                f"the sEH proxy knows elements up to barium with at most {MAX_DEGREE} bonds; got {atom.GetSymbol()} "
                f"with {atom.GetDegree()} in {chem.MolToSmiles(molecule)}. Leave that molecule out."
            )
        atoms[i, _ELEMENTS.get(atom.GetSymbol(), 5)] = 1
        atoms[i, _AROMATIC] = atom.GetIsAromatic()
        if (hybridisation := _HYBRIDISATIONS.get(str(atom.GetHybridization()))) is not None:
            atoms[i, hybridisation] = 1
        atoms[i, _HYDROGENS] = atom.GetTotalNumHs(includeNeighbors=True)
        atoms[i, _NUMBER + atom.GetAtomicNum() - 1] = 1
        for k, bond in enumerate(atom.GetBonds()):
            neighbours[i, k], bonds[i, k] = bond.GetOtherAtomIdx(i), _kind(bond)
    if count == 1:
        neighbours[0, 0], bonds[0, 0] = 0, LOOP
    return MoleculeGraph(atoms, neighbours, bonds, np.arange(size) < count)


def _kind(bond) -> int:
    name = str(bond.GetBondType())
    if name not in BONDS:
        raise ParameterError(f"bonds must be one of {', '.join(BONDS)}; got {name}. Leave that molecule out.")
    return BONDS.index(name)
