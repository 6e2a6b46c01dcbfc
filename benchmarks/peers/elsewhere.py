"""Problems too heavy to run beside the others: read from the results of their own benchmarks, with their commits."""

from __future__ import annotations

import json
import subprocess
from typing import NamedTuple

import numpy as np

from benchmarks.table import RESULTS, cell


class Line(NamedTuple):
    """A method: its row, the column of its figure, and row and column of what it is held against, if any."""

    name: str
    who: str
    row: str
    column: str
    floor: tuple[str, str] | None = None


class Table(NamedTuple):
    """A benchmark's file in results/, the command that makes it, and lines."""

    title: str
    file: str
    command: str
    text: str
    lines: list[Line]


def _posterior(name: str, who: str, row: str, d_y: int) -> Line:
    return Line(f"{name}, d_y = {d_y}", who, f"d = 80, d_y = {d_y}: {row}", "W2 / floor")


GRID = "harmonic mean 0.5: circle1, circle2"
TABLES = [
    Table(
        "Linear inverse problems, d = 80", "posterior_gmm", "benchmarks/posteriors/posterior_gmm.py",
        "As above in 80 dimensions, with the evaluations of `ours`. Figure: sliced W2 over its floor, seed by seed.",
        [
            _posterior(name, who, row, d_y) for d_y in (1, 2)
            for name, who, row in (
                ("exact draws", "the floor itself", "noise floor"), ("ours, default", "`nd.AnnealedMCMC(model)`", "ours"),
                ("ours, closer levels", "with `nd.MALA(), level_ess=0.995`", "ours, closer levels"),
                ("ours, trained prior", "energy fitted to prior draws", "ours, trained"),
                ("DPS", "Chung et al. 2023, rewritten", "DPS"), ("TDS", "Wu et al. 2023, rewritten", "TDS"),
                ("TDS, matched", "twist as in Song et al. 2023", "TDS, matched"), ("NUTS", "NumPyro", "NUTS"),
            )
        ],
    ),
    Table(
        "Products of score models", "score_only", "benchmarks/score_only/score_only.py",
        "Products of two mixtures of which the score alone is known, 1,500 evaluations of each (d = 10: 5,100) but for HMC, which takes what its default takes. Figure: sliced W2 over its floor.",
        [
            Line(f"{name}, d = {d}", who, f"GMM product d = {d}, exact score, {row}", "W2 / floor") for d in (2, 10)
            for name, who, row in (
                ("ours, HMC by line integrals", "`nd.anneal(key, p * q, nd.HMC())`", "HMC"),
                ("ours, weighted reverse", "`nd.Reverse(weighted=True)`", "weighted reverse"),
                ("Feynman-Kac correctors", "Skreta et al. 2025, rewritten", "FKC"),
                ("SuperDiff AND", "Skreta et al. 2024, rewritten", "SuperDiff AND"),
                ("reverse diffusion", "sum of scores", "reverse"), ("annealed ULA", "Du et al. 2023", "ULA"),
            )
        ],
    ),
    Table(
        "Flows on a grid of 32 x 32", "gflownet_grid", "benchmarks/gflownet/grid.py",
        "Harmonic mean of two circles, alpha 1/2. Figure: L1 distance to the exact composition of the learned flows; floor: of as many exact draws. Published, on flows of their own: classifier .397, routing .229.",
        [
            Line("ours, weighted objects", "`nd.gflownet`", GRID, "of objects", (GRID, "floor")),
            Line("ours, `run.probabilities()`", "`nd.gflownet`", GRID, "L1", (GRID, "floor")),
            Line("routing", "Routing by Reaching, rewritten; exact expectation", GRID, "routing", (GRID, "floor")),
            Line("classifier", "Garipov et al. 2023, rewritten", f"classifier, {GRID}", "classifier", (GRID, "floor")),
        ],
    ),
    Table(
        "Canvases of cubes", "tapestry_cubes", "benchmarks/tapestry/cubes.py",
        "Figure: share of windows, in %, in which the shipped judge sees the cube they were asked for; more is better. There is no floor, few canvases.",
        [
            Line("ours, HMC", "`nd.tapestry`", "HMC", "shown, %"), Line("reverse diffusion", "of the canvas's score", "reverse, equal evaluations", "shown, %"),
            Line("MultiDiffusion", "Bar-Tal et al. 2023, rewritten", "averaged", "shown, %"),
            Line("tapered averages", "Du et al. 2023, Appendix, rewritten", "tapered", "shown, %"),
        ],
    ),
    Table(
        "Cells of coloured digits", "sculpting_digits", "benchmarks/sculpting/sculpting.py",
        "Labels {1,2} of three image densities. Figure: total variation of the masses of eight cells as a judge sees them.", [],
    ),
    Table(
        "Captions, composed", "scenes", "benchmarks/scenes/scenes.py",
        "Figure: share of pictures in which a judge sees all that the prompt asks for; more is better.",
        [
            Line(f"{name}, {cell}", who, f"{cell}, {row}", "right") for cell in ("two", "three", "NOT")
            for name, who, row in (
                ("ours, HMC", "`nd.prompt`", "HMC"), ("reverse diffusion", "sum of scores", "reverse, equal"),
                ("classifier-free", "Liu et al. 2022, rewritten", "classifier-free"),
            )
        ],
    ),
]  # fmt: skip


def commit_of(file: str) -> str:
    """The commit that last touched a result."""
    command = ["git", "log", "-1", "--format=%h", "--", f"{file}.json"]
    found = subprocess.run(command, cwd=RESULTS, capture_output=True, text=True, check=False).stdout.strip()
    return found or "unknown"


def column(found: dict, row: str, name: str) -> list:
    """A figure by seed."""
    return [figures[name] for figures in found.get(row, {}).values() if figures.get(name) is not None]


def lines_of(table: Table, found: dict) -> list[Line]:
    """Its lines; of digits all rows, as they are named there."""
    return table.lines or [Line(row, "see its own page", row, "cells") for row in found]


def section(table: Table) -> str:
    """A table as far as its results are there."""
    path = RESULTS / f"{table.file}.json"
    text = [f"### {table.title}", ""]
    if not path.exists():
        return "\n".join([*text, f"Not measured yet: `python {table.command}`."])
    found = json.loads(path.read_text())
    heads = ("method", "who", "within 1.3 x floor", "figure", "figure / floor", "evaluations", "seconds", "seeds")
    text += [table.text, "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for line in lines_of(table, found):
        values = column(found, line.row, line.column)
        if not values:
            continue
        floor = np.mean(column(found, *line.floor)) if line.floor else 1.0 if line.column.endswith("/ floor") else None
        ratio = None if floor is None else np.mean(values) / floor
        within = "" if ratio is None else "yes" if ratio <= 1.3 else "no"
        cost, seconds = column(found, line.row, "evaluations"), column(found, line.row, "seconds")
        cells = (line.name, line.who, within, cell(values), "" if ratio is None else f"{ratio:.2f}", cell(cost),
                 f"{np.median(seconds):.1f}", str(len(values)))  # fmt: skip
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join([*text, "", f"From results/{table.file}.json of commit {commit_of(table.file)}."])


def sections() -> str:
    """The second part of the page."""
    head = """## Read from other benchmarks

Too heavy to run beside the others: figures as their own commands left them, at the commits named. Seeds of a problem's rows may differ, and seconds are those of whatever shared the machine.
"""
    return "\n\n".join([head.strip(), *map(section, TABLES)])
