"""Peers on the same problems with as many evaluations: who comes within 1.3 x the floor, and at what cost.

    python benchmarks/peers/peers.py [--seeds 3] [--only "product, d = 2"] [--quick]

A registry problem -> method -> function of the seed; `gmm.py` and its neighbours define the problems, `page.py` makes
results/peers.md of the rows. Rows resume; those of one problem belong to one sitting, `--fresh` measures all anew.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import time
from pathlib import Path

from benchmarks.peers import elsewhere, gmm, linear, planar, reference_posteriors
from benchmarks.peers.page import page
from benchmarks.peers.registry import Problem
from benchmarks.table import arguments, measure

SEEDS = 3
NOT_RUN = """## Not run

`sbi==0.27.0` and `bayesflow==2.0.12` learn posteriors from simulations, and their compositional scores combine those of several observations; neither takes a
prior that is a diffusion model together with a likelihood that is a formula. Their wheels are small (0.5 MB each), what they stand on is not: torch (555 MB), tensorboard and nflows; keras with a
backend of its own. They were not installed here, and no figure of theirs is shown."""


def problems() -> dict[str, Problem]:
    """The registry, in the page's order."""
    return {
        **{f"Product of mixtures, d = {d}": gmm.product(d) for d in (2, 10, 30)},
        "Forty modes": gmm.forty_modes(),
        **{f"Linear inverse problem, d_y = {d_y}": linear.inverse(d_y) for d_y in (1, 2)},
        "Two moons": reference_posteriors.reference("two_moons"),
        "Gaussian mixture of sbibm": reference_posteriors.reference("gaussian_mixture"),
        **{f"Table 1, {name}": planar.composition(name) for name in ("product", "mixture", "negation")},
        **{f"Canvas, {name}": planar.canvas(name) for name in ("field, 4-fold", "patches, overlapping")},
        **{f"Discs {name}": planar.sculpted(name) for name in ("{1,2}", "{1,1}")},
    }


@functools.cache
def place() -> dict[str, str]:
    """Machine and commit of a row; `+` where files differ from the commit."""
    cpu = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")] \
        if cpu.exists() else []  # fmt: skip
    git = functools.partial(subprocess.run, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    commit = git(["git", "rev-parse", "--short", "HEAD"]).stdout.strip()
    changed = git(["git", "status", "--porcelain", "-uno", "--", "*.py"]).stdout.strip()
    machine = f"{(models or [platform.processor() or platform.machine()])[0]}, {os.cpu_count()} cores"
    return {"machine": machine, "commit": (commit or "unknown") + ("+" if changed else "")}


def rows(registry: dict[str, Problem]):
    """(row name, function of the seed) of every row."""

    def timed(run, seed: int) -> dict:
        """Processor seconds of all threads, which those who share the machine do not change."""
        start = time.process_time()
        found = run(seed)
        return found | {"processor seconds": time.process_time() - start} | place()

    for title, problem in registry.items():
        for name, method in problem.methods.items():
            yield f"{title}: {name}", functools.partial(timed, method.run)


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=SEEDS)
    registry = problems()
    text = functools.partial(page, registry, after=f"{elsewhere.sections()}\n\n{NOT_RUN}")
    # Problem by problem, so that all rows of one are of one sitting.
    for title, problem in registry.items():
        measure("peers", options, rows({title: problem}), "", [], text)
        options.fresh = False
