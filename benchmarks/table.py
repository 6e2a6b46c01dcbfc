"""Rows of a benchmark: computed once per seed, kept as they come, resumed after a kill, summed up in Markdown."""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import jax
import numpy as np
from tqdm.auto import tqdm

RESULTS = Path(__file__).parent / "results"


def arguments(description: str, seeds: int = 5) -> argparse.Namespace:
    """Command line that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="every row once, in minutes")
    parser.add_argument("--seeds", type=int, default=None, help=f"number of seeds (default {seeds}; 1 with --quick)")
    parser.add_argument("--only", default="", help="run rows whose name contains this text")
    parser.add_argument("--fresh", action="store_true", help="forget earlier rows")
    options = parser.parse_args()
    options.seeds = options.seeds or (1 if options.quick else seeds)
    return options


def measure(
    name: str, options, rows: Iterable[tuple[str, Callable[[int], dict]]], header: str, columns: list[str],
    page: Callable[[dict], str] | None = None,
) -> dict:  # fmt: skip
    """Compute what is missing of `rows` x seeds and write results/<name>.json and .md.

    Args:
        name: File name; "--quick" results go to files of their own.
        options: From `arguments`.
        rows: (row name, function of the seed that returns a flat dict of figures).
        header: Markdown put above the table: what it shows and how to read it.
        columns: Figures to print, in order; others are only kept.
        page: What the Markdown is instead, of row name -> seed -> figures.

    Returns:
        row name -> list of figures by seed.
    """
    RESULTS.mkdir(exist_ok=True)
    page = page or partial(markdown, header=header, columns=columns)
    path = RESULTS / f"{name}{'_quick' if options.quick else ''}.json"
    found = {} if options.fresh or not path.exists() else json.loads(path.read_text())
    rows = [(row, fn) for row, fn in rows if options.only in row]
    # Seed by seed, so that an interrupted table is complete for the seeds it has.
    todo = [(row, fn, seed) for seed in range(options.seeds) for row, fn in rows if str(seed) not in found.get(row, {})]
    bar = tqdm(todo, desc=name)
    for row, fn, seed in bar:
        bar.set_postfix_str(f"{row}, seed {seed}")
        start = time.perf_counter()
        figures = fn(seed)
        figures["seconds"] = time.perf_counter() - start
        found.setdefault(row, {})[str(seed)] = {k: plain(v) for k, v in figures.items()}
        write(path, json.dumps(found, indent=1))
        write(path.with_suffix(".md"), page(found))
    if not rows:
        return {}
    text = page(found)
    write(path, json.dumps(found, indent=1))
    write(path.with_suffix(".md"), text)
    print(text)
    return {row: list(by_seed.values()) for row, by_seed in found.items()}


def best_seconds(compiled: Callable, *args, repeats: int = 5) -> float:
    """Best seconds of a call, after one that does not count."""
    jax.block_until_ready(compiled(*args))
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        found.append(time.perf_counter() - start)
    return min(found)


def markdown(found: dict, header: str, columns: list[str]) -> str:
    """Mean and standard error over seeds of every row."""
    lines = [header.strip(), "", "| row | seeds | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for row, by_seed in found.items():
        cells = [cell([figures.get(column) for figures in by_seed.values()]) for column in columns]
        lines.append(f"| {row} | {len(by_seed)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(values) -> str:
    numbers = [v for v in values if isinstance(v, int | float) and v is not None and math.isfinite(v)]
    if not numbers:
        texts = {v for v in values if isinstance(v, str)}
        return ", ".join(sorted(texts))
    mean = float(np.mean(numbers))
    form = ".0f" if abs(mean) >= 100 else ".3f" if abs(mean) >= 0.002 or mean == 0 else ".1e"
    if len(numbers) == 1:
        return f"{mean:{form}}"
    return f"{mean:{form}} ± {np.std(numbers, ddof=1) / math.sqrt(len(numbers)):{form}}"


def plain(value):
    if isinstance(value, str | list):
        return value
    value = float(value)
    return value if math.isfinite(value) else None


def write(path: Path, text: str) -> None:
    working = path.with_suffix(path.suffix + ".tmp")
    working.write_text(text, encoding="utf-8")
    os.replace(working, path)
