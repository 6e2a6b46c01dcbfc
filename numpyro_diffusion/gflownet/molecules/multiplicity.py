r"""How many derivations a molecule has, counted without listing them.

Pair a derivation d of molecule m with an isomorphism of what d makes onto m; every d has \|Aut(m)\| of these. The same
pairs are: a way to cut bonds of m into components, a component as root, and for every component c an isomorphism of a
fragment onto it, with the atoms at cut bonds among those that may be bonded, w(c) in all. Hence

.. math:: n(m) = \frac{1}{|\mathrm{Aut}(m)|} \sum_{\text{cuts}} \#\text{components} \prod_c w(c) .

Only single bonds outside rings can be cut, and without them m falls into blocks that form a tree: the sum runs over
that tree, from the leaves up, by number of components. w is looked up: a component, with dummy atoms where it was cut,
is some fragment with dummy atoms at some of its atoms, in as many ways as such a molecule has automorphisms.
"""

from __future__ import annotations

import collections
import functools
import itertools

import numpy as np

from ...errors import ParameterError
from .fragments import Fragment, joined
from .library import rdkit

#: Isotopes from here on mark atoms; none that exists is as heavy.
_MARK = 500


def num_automorphisms(molecule) -> int:
    """Number of symmetries of an rdkit molecule: permutations of its atoms that keep elements, charges and bonds.

    By orbits and stabilisers: the size of one atom's orbit, times the symmetries that hold this atom in place. Two
    atoms are in one orbit if the molecule with a mark on one is the molecule with a mark on the other. (Equal canonical
    rank is not enough: in C1CC1CCC1CC1 it does not tell the chain's CH2 from those of the rings.)
    """
    chem = rdkit("Chem")
    molecule, count = chem.Mol(molecule), 1
    for mark in itertools.count(_MARK):
        ranks = list(chem.CanonicalRankAtoms(molecule, breakTies=False))
        alike = [[i for i, other in enumerate(ranks) if other == rank] for rank in set(ranks)]
        alike = [atoms for atoms in alike if len(atoms) > 1]
        if not alike:
            break
        first, *others = min(alike, key=len)
        held = _marked(molecule, first, mark)
        text = chem.MolToSmiles(held)
        count *= 1 + sum(chem.MolToSmiles(_marked(molecule, atom, mark)) == text for atom in others)
        molecule = held
    return count


def _marked(molecule, atom: int, mark: int):
    marked = rdkit("Chem").Mol(molecule)
    marked.GetAtomWithIdx(atom).SetIsotope(mark)
    return marked


class Multiplicity:
    """The number n(m) of derivations of molecules in one environment; holds its table of cut fragments."""

    def __init__(self, fragments: tuple[Fragment, ...], max_fragments: int):
        chem = rdkit("Chem")
        self.max_fragments = max_fragments
        #: SMILES of a component with dummy atoms -> isomorphisms of fragments onto it.
        self.weights: collections.Counter[str] = collections.Counter()
        #: The most atoms of fragments that have so many blocks or more.
        self.largest: collections.Counter[int] = collections.Counter()
        dummy = chem.MolFromSmiles("*")
        for smiles, atoms in fragments:
            whole = chem.MolFromSmiles(smiles)
            for size in range(len(atoms) + 1):
                for cut in itertools.combinations(atoms, size):
                    bonds = [(0, atom, k + 1, 0) for k, atom in enumerate(cut)]
                    capped = joined([whole, *[dummy] * size], bonds)
                    self.weights[chem.MolToSmiles(capped)] += num_automorphisms(capped)
            for count in range(1, len(_blocks(whole)[0]) + 1):
                self.largest[count] = max(self.largest[count], whole.GetNumAtoms())

    def __call__(self, molecule) -> int:
        """n(m) of an rdkit molecule.

        Raises:
            ParameterError: for a molecule that has no derivation.
        """
        pairs = sum(components * int(ways) for components, ways in enumerate(self._ways(molecule)))
        count, rest = divmod(pairs, num_automorphisms(molecule))
        if count == 0 or rest:
            raise ParameterError(
                f"a molecule must be made of at most {self.max_fragments} of the environment's fragments; got "
                f"{rdkit('Chem').MolToSmiles(molecule)}. Take a larger max_fragments, or leave it out."
            )
        return count

    def _ways(self, molecule) -> np.ndarray:
        """Sums over ways to cut a molecule, of products of weights, by number of components [max_fragments + 1]."""
        blocks, bonded = _blocks(molecule)

        def fits(inside) -> bool:
            return sum(len(blocks[block]) for block in inside) <= self.largest[len(inside)]

        @functools.cache
        def components(top, parent) -> list[tuple[tuple[int, ...], tuple[tuple[int, int], ...]]]:
            """Connected sets of blocks with `top` nearest to the root, and the edges (block, its parent) cut below."""
            found = [((top,), ())]
            for child in bonded[top] - {parent}:
                options = [((), ((child, top),)), *components(child, top)]
                found = [(a + b, cut + also) for a, cut in found for b, also in options if fits(a + b)]
            return found

        def ways(top, parent) -> np.ndarray:
            total = np.zeros(self.max_fragments + 1, int)
            for inside, cut in components(top, parent):
                atoms = [atom for block in inside for atom in blocks[block]]
                if weight := self.weights.get(_capped(molecule, atoms), 0):
                    product = np.array([0, weight])
                    for edge in cut:
                        product = np.convolve(product, below(*edge))[: self.max_fragments + 1]
                    total[: len(product)] += product
            return total

        below = functools.cache(ways)
        return ways(0, -1)


def _blocks(molecule) -> tuple[list[list[int]], list[set[int]]]:
    """What is left without single bonds outside rings: atoms of every block, and the blocks it was bonded to."""
    chem = rdkit("Chem")
    single = [b for b in molecule.GetBonds() if b.GetBondType() == chem.BondType.SINGLE and not b.IsInRing()]
    whole = chem.RWMol(molecule)
    for bond in single:
        whole.RemoveBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
    blocks = [list(atoms) for atoms in chem.GetMolFrags(whole)]
    block_of = {atom: number for number, atoms in enumerate(blocks) for atom in atoms}
    bonded: list[set[int]] = [set() for _ in blocks]
    for bond in single:
        a, b = block_of[bond.GetBeginAtomIdx()], block_of[bond.GetEndAtomIdx()]
        bonded[a].add(b)
        bonded[b].add(a)
    return blocks, bonded


def _capped(molecule, atoms: list[int]) -> str:
    """SMILES of some atoms of a molecule, with a dummy atom for every bond to another atom."""
    chem = rdkit("Chem")
    part, number = chem.RWMol(), {}
    for atom in atoms:
        number[atom] = part.AddAtom(molecule.GetAtomWithIdx(atom))
    for atom in atoms:
        for bond in molecule.GetAtomWithIdx(atom).GetBonds():
            other = bond.GetOtherAtomIdx(atom)
            if other not in number:
                part.AddBond(number[atom], part.AddAtom(chem.Atom(0)), bond.GetBondType())
            elif atom < other:
                part.AddBond(number[atom], number[other], bond.GetBondType())
    part.UpdatePropertyCache(strict=False)
    return chem.MolToSmiles(part)
