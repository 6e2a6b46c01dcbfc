"""The page of peers: a summary, then one table a problem, all of it from the rows of `results/peers.json`."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from benchmarks.peers.registry import Method, Problem

WITHIN = 1.3
HEADER = f"""# Peers: the same problems, equal evaluations

`make peers`. Rows of a problem were measured in one sitting where one commit stands below them. Distance / floor: of as many samples as exact draws give the floor, mean ± standard
error over seeds; within: at most {WITHIN} (with `?` where the standard error reaches across, or one seed has none). Evaluations: values with gradients of the density per sample, of all factors; a step that differentiates
through a score counts two; what tunes a peer beforehand is not counted, our pilot is. Seconds: of processor time, exact draws and distances included, median over seeds; compilation counts where a seed compiles and no earlier run did.
Nearer, sooner, fewer evaluations: than any of ours, with `?` where the difference is within its standard error. Peers are the packages themselves where one is named, else written from the formulas of their papers.
"""
COLUMNS = ("method", "who", f"within {WITHIN} x floor", "distance / floor", "evaluations", "seconds", "seeds")


def summed(rows: dict) -> dict:
    """Mean ratio, its standard error, evaluations, seconds and seeds of one method, of seed -> figures."""
    figures = list(rows.values())
    ratios = np.array([f["distance"] / f["floor"] if f["distance"] is not None else np.inf for f in figures])
    costs = [f["evaluations"] for f in figures if f.get("evaluations")]
    error = math.nan
    if len(ratios) > 1 and np.all(np.isfinite(ratios)):
        error = ratios.std(ddof=1) / math.sqrt(len(ratios))
    tests = [f["C2ST"] for f in figures if "C2ST" in f]
    return {
        "C2ST": float(np.mean(tests)) if tests else None, "ratio": float(ratios.mean()), "error": float(error), "evaluations": float(np.mean(costs)) if costs else None,
        "seconds": float(np.median([f["processor seconds"] for f in figures])), "seeds": len(ratios),
    }  # fmt: skip


def verdict(found: dict) -> str:
    """Whether a method is within reach of the floor."""
    gap = abs(found["ratio"] - WITHIN)
    # One seed has no standard error, and is never sure of a finite figure.
    sure = gap >= found["error"] or math.isinf(found["ratio"])
    return ("yes" if found["ratio"] <= WITHIN else "no") + ("" if sure else "?")


def line(name: str, method: Method, found: dict) -> str:
    ratio = f"{found['ratio']:.2f}" + (f" ± {found['error']:.2f}" if math.isfinite(found["error"]) else "")
    cost = "" if found["evaluations"] is None else f"{found['evaluations']:.0f}"
    cells = [name, method.who, verdict(found), ratio, cost, f"{found['seconds']:.1f}", str(found["seeds"])]
    cells += [] if found["C2ST"] is None else [f"{found['C2ST']:.3f}"]
    return "| " + " | ".join(cells) + " |"


def is_ours(name: str) -> bool:
    return name.startswith("ours")


def summary(title: str, problem: Problem, found: dict) -> str:
    """One line of the first table: who is within, who is nearest, and where a peer does better than ours."""
    rivals = {name: f for name, f in found.items() if name != "exact draws"}
    within = {name: f for name, f in rivals.items() if f["ratio"] <= WITHIN}
    cost = lambda f: f["evaluations"] or math.inf
    named = lambda some: ", ".join(f"{name} ({f['ratio']:.2f})" for name, f in sorted(some.items())) or "none"
    cells = [title, named(within), named({name: f for name, f in rivals.items() if name not in within})]
    cells.append(", ".join(problem.cannot) or "")
    mine = [f for name, f in rivals.items() if is_ours(name)]
    inside = [f for name, f in within.items() if is_ours(name)]
    nearest = min(mine, key=lambda f: f["ratio"], default={"ratio": math.inf, "error": 0.0})
    least = min(map(cost, inside), default=math.inf)
    quickest = min((f["seconds"] for f in inside), default=math.inf)
    better = []
    for name, f in rivals.items():
        if is_ours(name):
            continue
        ways = []
        if f["ratio"] < nearest["ratio"]:
            sure = nearest["ratio"] - f["ratio"] >= math.hypot(nearest["error"], f["error"])
            ways += ["nearer" if sure else "nearer?"]
        if name in within:
            ways += ["fewer evaluations"] if cost(f) < least else []
            ways += ["sooner"] if f["seconds"] < quickest else []
        better += [f"{name}: {', '.join(ways)}"] if ways else []
    return "| " + " | ".join([*cells, "; ".join(better) or "no"]) + " |"


def tally(found: Iterable[dict]) -> str:
    """How many problems someone is within reach of, of the methods of each."""
    within = [{name for name, f in methods.items() if f["ratio"] <= WITHIN} - {"exact draws"} for methods in found]
    ours, peers = ([any(is_ours(name) is kind for name in names) for names in within] for kind in (True, False))
    default = sum("ours, default" in names for names in within)
    return (
        f"Of {len(within)} problems ours is within reach in {sum(ours)}, by its defaults in {default}; some peer in "
        f"{sum(peers)}; nobody in {sum(not names for names in within)}."
    )


def table(title: str, problem: Problem, rows: dict) -> str:
    """A problem's section, of method -> seed -> figures."""
    found = {name: summed(rows[name]) for name in problem.methods if name in rows}
    columns = [*COLUMNS, *(["C2ST"] if any(f["C2ST"] is not None for f in found.values()) else [])]
    lines = [f"## {title}", "", problem.text, "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += [line(name, problem.methods[name], f) for name, f in found.items()]
    lines += [f"| {name} | {why} | cannot" + " | " * (len(columns) - 3) + " |" for name, why in problem.cannot.items()]
    places = {(f["machine"], f["commit"]) for by_seed in rows.values() for f in by_seed.values()}
    lines += ["", "; ".join(f"{machine}, commit {commit}" for machine, commit in sorted(places)) + "."]
    return "\n".join(lines)


def page(problems: dict[str, Problem], found: dict, after: str = "") -> str:
    """The page, of row name -> seed -> figures."""
    rows: dict[str, dict] = {}
    for name, by_seed in found.items():
        title, method = name.split(": ", 1)
        rows.setdefault(title, {})[method] = by_seed
    known = {title: problem for title, problem in problems.items() if title in rows}
    sums = {title: {name: summed(by_seed) for name, by_seed in rows[title].items()} for title in known}
    heads = ("problem", f"within {WITHIN} x floor", "not", "cannot", "does better than ours")
    lines = [
        HEADER,
        "## Who is within reach",
        "",
        tally(sums.values()),
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
    ]
    for title, problem in known.items():
        lines.append(summary(title, problem, sums[title]))
    missing = [title for title in problems if title not in rows]
    lines += ["", f"Without rows yet, `make peers` measures them: {'; '.join(missing)}."] if missing else []
    sections = [table(title, problem, rows[title]) for title, problem in known.items()]
    return "\n".join(lines) + "\n\n" + "\n\n".join([*sections, *filter(None, [after])]) + "\n"
