"""Molecules made of fragments: an environment, rewards, and what is made with them. Needs rdkit, extra `molecules`."""

from .assembly import num_derivations, smiles_of
from .environment import Derivation, MoleculeEnvironment
from .fragments import bengio_fragments
from .measures import cells, shares, tanimoto_diversity
from .pictures import draw_molecules
from .proxy import SehProxy
from .rewards import MoleculeReward, qed, sa, scores
from .transformer import FragmentTransformer

__all__ = [
    "Derivation", "FragmentTransformer", "MoleculeEnvironment", "MoleculeReward", "SehProxy", "bengio_fragments",
    "cells", "draw_molecules", "num_derivations", "qed", "sa", "scores", "shares", "smiles_of", "tanimoto_diversity",
]  # fmt: skip
