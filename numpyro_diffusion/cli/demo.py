"""The demonstration: pretrained densities composed, sampled two ways and held against the truth, in a minute.

Du et al. (2023), Figures 2 and A5-A7, with a table beside the picture; then handwritten digits with their evidence.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..annealing.anneal import anneal
from ..annealing.kernels import HMC
from ..annealing.reverse import Reverse
from ..checks.text import columns
from ..datasets import digits
from ..datasets.targets import NAMES, Target, hole_fraction, target
from ..density.density import Density
from ..diagnose import metrics
from ..diagnose.result import AnnealedRun
from ..disk.densities import list_pretrained, load_pretrained
from .results import PICTURES, RESULTS, Results

#: Log likelihoods of the paper's Table 1: energies, reverse diffusion and HMC.
PAPER = {
    ("product", "reverse"): -6.03,
    ("product", "annealed"): 2.72,
    ("mixture", "reverse"): -2.17,
    ("mixture", "annealed"): 1.30,
}
SAMPLERS = {"reverse": Reverse(), "annealed": HMC()}
COLUMNS = {
    "problem": "problem",
    "sampler": "sampler",
    "log_likelihood": "LL",
    "truth": "truth",
    "paper": "paper",
    "fraction_outside": "outside",
    "mode_weight_tv": "mode TV",
    "log_mmd2": "ln MMD2",
    "log_mmd2_floor": "(floor)",
    "log_evidence": "log Z",
    "true_log_evidence": "(truth)",
    "evaluations": "evals",
    "seconds": "seconds",
}


def compare(
    name: str, *, num_chains: int, seed: int, progress_bar: bool = False, told: Callable[[dict], Any] = lambda row: None
) -> tuple[list[dict], list[np.ndarray]]:
    """One planar problem: a table row and samples [num_chains, 2] per entry of `SAMPLERS`, after those of the truth.

    Each row is passed to `told` as soon as it is there.
    """
    problem, rows = target(name), []
    truth, second = problem.sample(num_chains, seed), problem.sample(num_chains, seed + 1)
    floor = metrics.report(second, problem, truth=truth)

    def add(sampler, figures, drawn):
        row = {"problem": name, "sampler": sampler} | figures
        row["hole_fraction"] = hole_fraction(drawn) if name == "negation" else None
        row |= {"truth": problem.mean_log_prob, "true_log_evidence": problem.log_evidence}
        rows.append(row | {"log_mmd2_floor": floor["log_mmd2"], "paper": PAPER.get((name, sampler))})
        told(rows[-1])

    add("truth", floor, second)
    samples = [truth]
    density = problem.density(load_pretrained)
    for label, sampler in SAMPLERS.items():
        start = time.perf_counter()
        key = jax.random.fold_in(jax.random.key(seed), NAMES.index(name))
        run = anneal(key, density, sampler, num_chains=num_chains, progress_bar=progress_bar)
        drawn = np.asarray(run.samples)
        seconds = time.perf_counter() - start
        figures = {"log_evidence": run.log_evidence, "evaluations": run.evaluations_per_chain, "seconds": seconds}
        add(label, figures | metrics.report(drawn, problem, truth=truth), drawn)
        samples.append(drawn)
    return rows, samples


def table(rows: Sequence[dict]) -> str:
    """The rows as text, one line each; what is not defined is a dash."""
    head, *body = columns(
        [list(COLUMNS.values())] + [[_cell(row.get(key), key) for key in COLUMNS] for row in rows], num_left=2
    ).split("\n")
    return "\n".join([head, "-" * len(head), *body])


def _cell(value, key) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    if isinstance(value, str):
        return value
    if key == "evaluations":
        return str(value)
    return f"{value:.{ {'fraction_outside': 3, 'mode_weight_tv': 3, 'seconds': 1}.get(key, 2) }f}"


def picture(problems: Sequence[Target], samples: Sequence[Sequence[np.ndarray]]) -> bytes:
    """PNG with a row per problem: the trained components, draws of the truth, of reverse diffusion, of annealing.

    Raises:
        ImportError: if matplotlib is missing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    shade = LinearSegmentedColormap.from_list("density", ["white", "#c9d9ec", "#4a7ab5", "#14315c"])
    edge, size = 1.08, 217
    axis = np.linspace(-edge, edge, size)
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2), dtype=float)
    figure = Figure(figsize=(11, 2.3 * len(problems) + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(problems), 5, squeeze=False)
    for row, (problem, drawn) in enumerate(zip(problems, samples, strict=True)):
        for column, factor in enumerate(problem.factors):
            height = _density_on(load_pretrained(factor), grid).reshape(size, size)
            axes[row, column].imshow(
                height, origin="lower", extent=(-edge, edge, -edge, edge), cmap=shade, vmax=np.quantile(height, 0.999)
            )
            axes[row, column].set_title(factor.replace("_", " "), fontsize=9, color="#444444")
        for column, (label, x) in enumerate(zip(("truth", "reverse diffusion", "annealed HMC"), drawn, strict=True), 2):
            colour = "#777777" if column == 2 else "#c0562f" if column == 3 else "#14315c"
            axes[row, column].scatter(*x[:2000].T, s=2.5, alpha=0.35, linewidths=0, color=colour)
            axes[row, column].set_title(label, fontsize=9, color=colour)
        axes[row, 0].set_ylabel(problem.name, fontsize=11)
    for ax in axes.flat:
        ax.set(xlim=(-edge, edge), ylim=(-edge, edge), xticks=[], yticks=[], aspect="equal")
        ax.spines[:].set_color("#cccccc")
    return _png(figure)


@jax.jit
def _density_at(density: Density, x):
    return jnp.exp(jax.vmap(lambda point: density.log_density(point, jnp.zeros(())))(x))


def _density_on(density, x):
    return np.asarray(_density_at(density, x))


def digit_picture(drawn, real, count: int = 10) -> bytes:
    """PNG of two blocks of 8x8 digits [n, 64], side by side: drawn ones and real ones, evenly picked.

    Resampling puts the copies of a chain next to each other, so the first of many would be a poor selection.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.4, 4.8), layout="constrained")
    figure.get_layout_engine().set(wspace=0.08)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    FigureCanvasAgg(figure)
    for ax, images, title in zip(figure.subplots(1, 2), (drawn, real), ("drawn", "real"), strict=True):
        tiles = np.full((count * count, 9, 9), np.nan)
        picked = np.linspace(0, len(images), min(count**2, len(images)), endpoint=False).astype(int)
        chosen = np.random.default_rng(0).permutation(np.asarray(images)[picked]).reshape(-1, 8, 8)
        tiles[: len(chosen), :8, :8] = chosen
        block = tiles.reshape(count, count, 9, 9).transpose(0, 2, 1, 3).reshape(9 * count, 9 * count)
        ax.imshow(block[:-1, :-1], cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
        ax.set_title(title, fontsize=11)
        ax.set_axis_off()
    return _png(figure)


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130)
    return buffer.getvalue()


def draw_digits(*, num_chains: int, seed: int, progress_bar: bool = False) -> AnnealedRun:
    """Annealed draws of the pretrained digits. Their density is normalised, so its log evidence should be zero.

    Levels and step sizes are about those that a pilot finds; finding them would take longer than using them.
    """
    density = load_pretrained("digits")
    # Close to each other where the classes part.
    corners, counts = (100.0, 1.1, 0.35, 0.06, 0.03), (10, 20, 80, 14)
    ends = zip(corners[:-1], corners[1:], counts, strict=True)
    parts = [np.geomspace(high, low, count, endpoint=False) for high, low, count in ends]
    ratios = np.append(np.concatenate(parts), corners[-1])
    steps = np.exp(
        np.interp(np.log(ratios), np.log([0.03, 0.1, 0.3, 1.0, 100.0]), np.log([0.05, 0.115, 0.3, 0.58, 0.63]))
    )
    levels = np.append(np.asarray(density.schedule.time(ratios)), 0.0)
    levels[0] = 1.0
    return anneal(
        jax.random.key(seed), density, HMC(np.append(steps, steps[-1])), levels=levels, num_steps=3,
        num_chains=num_chains, progress_bar=progress_bar,
    )  # fmt: skip


def run(
    output: Path, *, seed: int = 0, num_chains: int = 1000, num_digits: int = 256, echo: Callable[[str], Any] = print
) -> dict[str, Any]:
    """The whole demonstration: prints its tables, writes pictures and results.json into the folder `output`.

    Rows of the table and pictures are written as they are there, so that a kill leaves those found so far.

    Args:
        output: Folder, made if missing; earlier results in it are replaced.
        seed: Seed of chains and truths.
        num_chains: Chains, and draws of the truth, per planar problem.
        num_digits: Digits drawn.
        echo: Takes what is printed.

    Returns:
        What results.json holds: "planar", the rows of the table, and "digits" where that density is there; "settings",
        and "is_complete", false where the demonstration did not end.

    Raises:
        ParameterError: if the folder cannot be written.
    """
    begin, available = time.perf_counter(), set(list_pretrained())
    results = Results(Path(output), {"seed": seed, "num_chains": num_chains, "num_digits": num_digits})
    problems = [target(name) for name in NAMES if available.issuperset(target(name).factors)]

    def told(row):
        results.add(row)
        echo(
            f"{row['problem']}, {row['sampler']}: LL {row['log_likelihood']:.2f} ({time.perf_counter() - begin:.0f} s)"
        )

    done: list[tuple[Target, Any]] = []
    # Two at a time: most of the minute is compilation, which leaves the second core idle. Digits take longest.
    with ThreadPoolExecutor(2) as pool:
        digits_job = pool.submit(draw_digits, num_chains=num_digits, seed=seed) if "digits" in available else None
        jobs = [pool.submit(compare, problem.name, num_chains=num_chains, seed=seed, told=told) for problem in problems]
        try:
            for problem in problems:
                echo(f"{problem.name}: {problem.density(load_pretrained)!r}")
            for problem, job in zip(problems, jobs, strict=True):
                done.append((problem, job.result()[1]))
                results.draw(PICTURES[0], lambda: picture(*zip(*done, strict=True)))
            rows = [row for job in jobs for row in job.result()[0]]
            results.update(planar=rows)
            echo(f"\n{table(rows)}\n\n{_notes(rows)}")
            if digits_job is not None:
                drawn = digits_job.result()
                results.update(digits=_digit_figures(drawn))
                echo(f"\n{_evidence_check(drawn)}")
                results.draw(PICTURES[1], lambda: digit_picture(drawn.samples, digits.images("test")[0]))
        except BaseException:
            # What has not begun need not.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    results.update(is_complete=True)
    written = ", ".join(dict.fromkeys([RESULTS, *results.written]))
    echo(f"\n{output}: {written}, after {time.perf_counter() - begin:.0f} s")
    return results.found


def _notes(rows):
    notes = [
        "LL is the mean true log density of the draws: right is the truth's own value, more is too sharp. The paper's",
        "figures are its Table 1. (floor) is ln MMD2 between two draws of the truth; evals are gradients per chain;",
        "seconds hold compilation, with two problems at a time.",
    ]
    holes = [f"{row['sampler']} {row['hole_fraction']:.3f}" for row in rows if row["hole_fraction"] is not None]
    return "\n".join(
        [*notes, f"Share of the negation's draws in the small box: {', '.join(holes)}."] if holes else notes
    )


def _digit_figures(drawn):
    return {
        "log_evidence": drawn.log_evidence,
        "log_evidence_error": drawn.log_evidence_error,
        "num_chains": len(drawn.samples),
        "evaluations": drawn.evaluations_per_chain,
    }


def _evidence_check(drawn):
    verdict = "passed" if abs(drawn.log_evidence) <= 1 else "FAILED"
    evidence = f"{drawn.log_evidence:+.2f} +- {drawn.log_evidence_error:.2f} nats"
    effort = f"{len(drawn.levels)} levels, {drawn.evaluations_per_chain} evaluations each"
    return (
        f"digits: {len(drawn.samples)} drawn, {effort}\n"
        f"evidence check {verdict}: log Z = {evidence}, where 0 is normalised and 1 allowed"
    )
