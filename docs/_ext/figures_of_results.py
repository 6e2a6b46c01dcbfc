"""Figures of the benchmarks in pages: tables and pictures are made of `benchmarks/results/*.json` at every build.

    ```{results} table1        the table of a benchmark: rows are means and standard errors over seeds
    :rows: HMC$                 only rows whose name matches this expression
    :columns: LL; W2            only these columns
    :strip: product             what to leave out of the names of rows
    :fold: All rows             folded away under these words

    ```{chart} table1          a picture of one column
    :column: LL
    :title: ...
    :unit: ...
    :log:                       on a logarithmic axis
    :line: 1                    a vertical line, such as a noise floor

No figure of these pages is written by hand, except in sentences that say by which table they can be checked.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from benchmarks.table import RESULTS, markdown

ROOT = RESULTS.parent.parent
HEAD = "| row | seeds |"


def measured(name: str) -> dict:
    """Rows of a benchmark: name -> seed -> figures."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def written(name: str) -> list[str]:
    """Lines of what the benchmark wrote beside its rows, without its heading."""
    lines = (RESULTS / f"{name}.md").read_text(encoding="utf-8").splitlines()
    return [re.sub(r"^#+ (.*)$", r"**\1**", line) for line in lines if not line.startswith("# ")]


def parts(name: str) -> tuple[list[str], list[str], list[str]]:
    """What stands above the table of rows, its columns, and what stands below; no columns if there is no such table."""
    lines = written(name)
    heads = [i for i, line in enumerate(lines) if line.startswith(HEAD)]
    if len(heads) != 1:
        return lines, [], []
    end = next((i for i in range(heads[0], len(lines)) if not lines[i].startswith("|")), len(lines))
    return lines[: heads[0]], [cell.strip() for cell in lines[heads[0]].strip("| ").split(" | ")][2:], lines[end:]


def chosen(rows: dict, expression: str | None) -> dict:
    found = {row: by_seed for row, by_seed in rows.items() if expression is None or re.search(expression, row)}
    if not found:
        raise ValueError(f"no row matches {expression!r}; there are {sorted(rows)}")
    return found


def provenance(name: str, rows: dict) -> str:
    """Where the rows are from: machine and commit if they say so, else the commit that brought the file."""
    figures = [f for by_seed in rows.values() if isinstance(by_seed, dict) for f in by_seed.values()]
    said = [
        ", ".join(sorted({str(f[key]) for f in figures if isinstance(f, dict) and f.get(key)}))
        for key in ("machine", "device", "commit")
    ]
    if not said[2]:
        git = ["git", "log", "-1", "--format=%h of %cs", "--", f"benchmarks/results/{name}.json"]
        done = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
        said[2] = done.stdout.strip()
    seeds = {len(by_seed) for by_seed in rows.values() if isinstance(by_seed, dict)}
    number = f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
    words = [f"{len(rows)} rows, seeds: {number}", *said[:2], f"commit {said[2]}" if said[2] else ""]
    return "; ".join(word for word in words if word)


class Results(SphinxDirective):
    """A table, with the words that the benchmark put above it and where it is from."""

    required_arguments = 1
    option_spec = {
        "rows": directives.unchanged,
        "columns": directives.unchanged,
        "strip": directives.unchanged,
        "fold": directives.unchanged,
        "optional": directives.flag,
    }

    def run(self):
        name = self.arguments[0]
        path = RESULTS / f"{name}.md"
        self.env.note_dependency(str(path))
        self.env.note_dependency(str(path.with_suffix(".json")))
        if "optional" in self.options and not path.is_file():
            words = "These rows are not measured yet."
            return [nodes.paragraph(words, words)]
        above, columns, below = parts(name)
        rows = measured(name)
        part = self.options.keys() & {"rows", "columns"}
        if not columns:
            lines = above
        else:
            names = [c.strip() for c in self.options["columns"].split(";")] if "columns" in self.options else columns
            known = {key for by_seed in rows.values() for figures in by_seed.values() for key in figures}
            if missing := set(names) - known - set(columns):
                raise self.error(f"{name}.json has no figure {sorted(missing)}")
            table = {re.sub(self.options.get("strip", "$^"), "", row): by_seed
                     for row, by_seed in chosen(rows, self.options.get("rows")).items()}  # fmt: skip
            lines = markdown(table, "", names).strip().splitlines()
            lines = lines if part else [*above, *lines, "", *below]
        lines = [re.sub(r"!\[.*?\]\(.*?\)", "", line) for line in lines]  # pictures stand in the page, with words
        box = nodes.container(classes=["results"])
        self.state.nested_parse(StringList(lines, str(path)), 0, box)
        if not part:
            box += nodes.paragraph(provenance(name, rows), provenance(name, rows), classes=["provenance"])
        if "fold" not in self.options:
            return [box]
        summary = f"<details><summary>{self.options['fold']}</summary>"
        return [nodes.raw("", summary, format="html"), box, nodes.raw("", "</details>", format="html")]


class Chart(SphinxDirective):
    """A picture of one column, rows from top to bottom, bars of one standard error over seeds."""

    required_arguments = 1
    option_spec = {
        "column": directives.unchanged_required,
        "rows": directives.unchanged,
        "strip": directives.unchanged,
        "title": directives.unchanged_required,
        "log": directives.flag,
        "line": directives.unchanged,
    }

    def run(self):
        name, column = self.arguments[0], self.options["column"]
        self.env.note_dependency(str(RESULTS / f"{name}.json"))
        figures = {}
        for row, by_seed in chosen(measured(name), self.options.get("rows")).items():
            values = np.array([f[column] for f in by_seed.values() if f.get(column) is not None])
            if len(values):
                error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
                figures[re.sub(self.options.get("strip", "$^"), "", row)] = (values.mean(), error)
        if not figures:
            raise self.error(f"{name}.json has no figure {column!r} in these rows")
        folder = Path(self.env.srcdir) / "_build" / "charts"
        folder.mkdir(parents=True, exist_ok=True)
        where = folder / f"{name}_{self.env.new_serialno('chart')}_{Path(self.env.docname).name}.svg"
        draw(where, figures, self.options)
        said = "; ".join(f"{row} {mean:.3g} ± {error:.2g}" for row, (mean, error) in figures.items())
        image = nodes.image(
            uri="/" + os.path.relpath(where, self.env.srcdir), alt=f"{self.options['title']}: {said}.", width="100%"
        )
        return [image]


def draw(path: Path, figures: dict, options: dict) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    style = {"font.size": 9, "svg.hashsalt": path.stem, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style):
        figure, axes = plt.subplots(figsize=(5.2, 0.9 + 0.27 * len(figures)), layout="constrained")
        means, errors = np.array(list(figures.values())).T
        places = np.arange(len(figures))[::-1]
        axes.errorbar(means, places, xerr=errors, fmt="o", color="#1f5c99", ms=4.5, lw=1.2)
        axes.set_yticks(places, list(figures))
        axes.set_ylim(-0.6, len(figures) - 0.4)
        axes.grid(axis="x", color="#dddddd", lw=0.6)
        if "log" in options:
            axes.set_xscale("log")
        if "line" in options:
            axes.axvline(float(options["line"]), color="#b4532a", lw=1, ls="--")
        axes.set_xlabel(options["title"])
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def to_the_site(app, docname, source):
    """Pages link to files, so that they can be read where the repository is; here the same links stay in the site."""
    text = re.sub(r"\]\(\.\./benchmarks/results/(\w+)\.md\)", r"](#result-\1)", source[0])
    # Markdown that is no page of the site is given to be downloaded.
    source[0] = re.sub(r"\[([^]]+)\]\((\.\./(?:[A-Z]+|benchmarks/\S+)\.md)\)", r"{download}`\1 <\2>`", text)


def setup(app):
    app.add_directive("results", Results)
    app.add_directive("chart", Chart)
    app.connect("source-read", to_the_site)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
