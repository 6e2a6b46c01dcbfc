"""Fragments: small molecules, and the atoms of theirs that may be bonded to other fragments.

A bond between fragments is single, and takes a hydrogen from both atoms (from some oxides of sulphur and phosphorus it
takes none: they are written with fewer bonds than the element can have). An atom takes part in one such bond at most.
"""

from __future__ import annotations

import functools
import json
import reprlib
from collections.abc import Iterable
from pathlib import Path

from ...errors import ArgumentTypeError, ParameterError
from .library import rdkit

#: (SMILES, numbers of the atoms that may be bonded): one fragment.
Fragment = tuple[str, tuple[int, ...]]


@functools.cache
def bengio_fragments() -> tuple[Fragment, ...]:
    """The 72 fragments of Bengio et al. (2021), 127 atoms of which may be bonded.

    They come from recursionpharma/gflownet and GFNOrg/gflownet, MIT licence; its text is in the file beside this one.

    References:
        Bengio et al. (2021), Flow network based generative models for non-iterative diverse candidate generation.
    """
    text = (Path(__file__).parent / "fragments_72.json").read_text(encoding="utf-8")
    return tuple((smiles, tuple(stems)) for smiles, stems in json.loads(text)["fragments"])


def checked_fragments(fragments: Iterable) -> tuple[Fragment, ...]:
    """The fragments as tuples, every one a molecule that can be bonded where it says.

    Raises:
        ArgumentTypeError: for what is no list of (SMILES, atoms).
        ParameterError: for SMILES that are no connected molecule, and atoms that it does not have or that take no bond.
        MissingLibraryError: where rdkit is not installed.
    """
    try:
        listed = tuple((smiles, tuple(int(atom) for atom in atoms)) for smiles, atoms in fragments)
    except (TypeError, ValueError):
        raise ArgumentTypeError(
            "fragments must be pairs of SMILES and numbers of atoms, such as [('CC', [0, 1]), ('c1ccccc1', [0, 3])]; "
            f"got {reprlib.repr(fragments)}."
        ) from None
    if not listed:
        raise ParameterError("fragments must be one at least; got none. Leave them out for those of Bengio et al.")
    for smiles, atoms in listed:
        _check(smiles, atoms)
    return listed


def _check(smiles, atoms) -> None:
    chem = rdkit("Chem")
    molecule = chem.MolFromSmiles(smiles) if isinstance(smiles, str) and smiles else None
    if molecule is None or len(chem.GetMolFrags(molecule)) != 1:
        raise ParameterError(f"a fragment must be SMILES of one connected molecule; got {smiles!r}. Correct it.")
    if not atoms or len(set(atoms)) < len(atoms) or not all(0 <= atom < molecule.GetNumAtoms() for atom in atoms):
        raise ParameterError(
            f"a fragment's atoms must be different numbers from 0 to {molecule.GetNumAtoms() - 1} for {smiles!r}, one "
            f"at least; got {list(atoms)}."
        )
    try:
        joined([molecule, chem.MolFromSmiles("C" * len(atoms))], [(0, atom, 1, k) for k, atom in enumerate(atoms)])
    except ValueError as error:
        raise ParameterError(
            f"a fragment's atoms must each take one more bond; got {list(atoms)} for {smiles!r}, which rdkit refuses: "
            f"{error}. Leave such atoms out."
        ) from None


def joined(molecules: list, bonds: Iterable[tuple[int, int, int, int]]):
    """One rdkit molecule of several and the single bonds (molecule, its atom, molecule, its atom) between them."""
    chem = rdkit("Chem")
    first, whole = [0], molecules[0]
    for molecule in molecules[1:]:
        first.append(whole.GetNumAtoms())
        whole = chem.CombineMols(whole, molecule)
    whole = chem.RWMol(whole)
    for i, a, j, b in bonds:
        ends = first[i] + a, first[j] + b
        whole.AddBond(*ends, chem.BondType.SINGLE)
        for atom in map(whole.GetAtomWithIdx, ends):
            # Hydrogens that brackets write, such as those of [nH], do not adjust themselves.
            atom.SetNumExplicitHs(max(atom.GetNumExplicitHs() - 1, 0))
    chem.SanitizeMol(whole)
    return whole.GetMol()
