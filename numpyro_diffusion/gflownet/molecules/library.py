"""rdkit, which only molecules need: imported when it is first used, with a remedy where it is missing."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path

from ...checks.text import shown
from ...errors import MissingLibraryError, ParameterError, missing_library


def rdkit(module: str):
    """The module `rdkit.<module>`.

    Raises:
        MissingLibraryError: where rdkit is not installed.
    """
    try:
        return importlib.import_module(f"rdkit.{module}")
    except ImportError as error:
        raise missing_library("molecules", "molecules need") from error


def parsed(smiles: str):
    """The rdkit molecule of SMILES.

    Raises:
        ParameterError: for text that is no molecule.
        MissingLibraryError: where rdkit is not installed.
    """
    chem = rdkit("Chem")
    # rdkit reads empty text as a molecule without atoms.
    molecule = chem.MolFromSmiles(smiles) if isinstance(smiles, str) and smiles else None
    if molecule is None:
        raise ParameterError(f"SMILES must be molecules that rdkit can read; got {shown(smiles)}. Correct the text.")
    return molecule


@functools.cache
def sa_scorer():
    """The module `sascorer` (Ertl and Schuffenhauer 2009) that comes with rdkit as a contribution, outside its package.

    Raises:
        MissingLibraryError: where rdkit is not installed, or came without its contributions.
    """
    path = Path(rdkit("RDConfig").RDContribDir) / "SA_Score" / "sascorer.py"
    spec = importlib.util.spec_from_file_location("rdkit_sascorer", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise MissingLibraryError(
            f"the synthetic accessibility score is a contribution to rdkit, expected at {path}. "
            "Install rdkit from its wheels: pip install 'numpyro-diffusion[molecules]'."
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
