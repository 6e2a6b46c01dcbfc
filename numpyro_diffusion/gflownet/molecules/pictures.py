"""Molecules drawn by rdkit, with what is to be said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...errors import ParameterError, ShapeError, check_integer
from .library import parsed, rdkit

#: Width and height of one molecule in pixels.
PANEL = (240, 220)


def draw_molecules(
    smiles: Sequence[str], values: Mapping[str, Sequence[float]] | None = None, *, columns: int = 4
) -> bytes:
    """A PNG picture of molecules in rows, each with its values below.

    Args:
        smiles: Molecules, one at least.
        values: What to write: name -> one number a molecule, such as `{"QED": scores(qed, smiles)}`.
        columns: Molecules in a row.

    Returns:
        The content of a PNG file; in notebooks `IPython.display.Image(data)` shows it.

    Raises:
        ParameterError: for no molecules, and text that is no molecule.
        ShapeError: for values that are not one number a molecule.
        MissingLibraryError: where rdkit is not installed.
    """
    molecules, values = [parsed(text) for text in smiles], values or {}
    if not molecules:
        raise ParameterError("smiles must be one molecule at least; got none. Give some to draw.")
    for name, column in values.items():
        if np.shape(column) != (len(molecules),):
            raise ShapeError(f"values must be one number a molecule, {len(molecules)}; got {name} {np.shape(column)}.")
    legends = ["  ".join(f"{name} {column[i]:.2f}" for name, column in values.items()) for i in range(len(molecules))]
    columns = min(check_integer("columns", columns), len(molecules))
    rows = -(-len(molecules) // columns)
    drawing = rdkit("Chem.Draw.rdMolDraw2D").MolDraw2DCairo(columns * PANEL[0], rows * PANEL[1], *PANEL)
    drawing.drawOptions().legendFontSize = 16
    drawing.DrawMolecules(molecules, legends=legends)
    drawing.FinishDrawing()
    return drawing.GetDrawingText()
