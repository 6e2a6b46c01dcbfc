"""Ordinary use, kind by kind: `inputs` says what an input is and what is right, every other file has some to try."""

import sys
from pathlib import Path

# Situations that the tests know too: see `situations` there.
sys.path.append(str(Path(__file__).resolve().parents[3] / "tests"))
