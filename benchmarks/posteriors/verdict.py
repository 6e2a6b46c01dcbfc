"""Does the verdict before a run know which runs will fail? 200 random compositions with known truth.

    python benchmarks/posteriors/verdict.py [--quick] [--only "product, d = 2"]

The compositions are in `posteriors.compositions`; about half of them are hard: factors that barely overlap, extreme
exponents, denominators as wide as what they divide, levels too few or too far apart, steps too long or too short.
"""

from __future__ import annotations

import functools
import json
import warnings

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.posteriors.compositions import ROWS, composition
from benchmarks.table import RESULTS, arguments, markdown, measure, write
from numpyro_diffusion.diagnose.metrics import sliced_wasserstein2
from numpyro_diffusion.diagnose.verdict import MOST_DISTANCE, MOST_NATS

NAME, CHAINS, SETS = "verdict", 1000, 5
#: Seeds below were looked at when the score's rule was made.
FIRST_SEED = 10_000
COLUMNS = ["score", "bad", "log Z off", "W2 / floor", "predicted error", "log Z error", "evaluations", "pilot's"]
HEADER = f"""# A verdict before the run

`python benchmarks/posteriors/verdict.py`. Random compositions of Gaussian mixtures with known truth, {CHAINS:,} chains, a seed each. Score: the chance of failure that `nd.verdict` gives, from the pilot
alone. Bad: share of runs whose log evidence is off by more than {MOST_NATS} nats, or whose samples lie more than {MOST_DISTANCE:g} x as far from exact draws (sliced W2, mean over {SETS} sets) as exact draws do. log Z off: the
distance from the truth, nats (at most 10); log Z error: the run's own standard error. The score's rule was made on other seeds.
"""


def judged(kind: str, d: int, seed: int) -> dict:
    """The verdict on a composition, and what the run made of it."""
    of = composition(kind, d, seed + FIRST_SEED)
    key = jax.random.key(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verdict = nd.verdict(key, of.density, of.kernel, num_chains=CHAINS, progress_bar=False, **of.options)
        run = nd.anneal(key, of.density, of.kernel, num_chains=CHAINS, progress_bar=False, **of.options)
    rng = np.random.default_rng([1, seed])
    sets = [of.draw(rng, CHAINS) for _ in range(SETS)]

    def distance(x):
        return float(np.mean([sliced_wasserstein2(x, truth) for truth in sets]))

    floor = np.mean([distance(of.draw(rng, CHAINS)) for _ in range(SETS)])
    x = np.asarray(run.samples)
    ratio = distance(x) / floor if np.all(np.isfinite(x)) else np.inf
    off = abs(run.log_evidence - of.evidence)
    off = off if np.isfinite(off) else np.inf
    return {
        "score": verdict.score, "bad": float(off > MOST_NATS or ratio > MOST_DISTANCE), "log Z off": min(off, 10.0),
        "W2 / floor": min(ratio, 100.0), "predicted error": verdict.log_evidence_error,
        "log Z error": run.log_evidence_error, "evaluations": run.evaluations_per_chain,
        "pilot's": verdict.pilot_evaluations, "verdict": verdict.verdict, "reasons": list(verdict.reasons),
    }  # fmt: skip


def area(scores, bad) -> float:
    """Area under the ROC curve: the chance that a bad run has a higher score than a good one, ties counting half."""
    scores, bad = np.asarray(scores), np.asarray(bad, dtype=bool)
    gap = scores[bad][:, None] - scores[~bad]
    return float(np.mean((gap > 0) + 0.5 * (gap == 0)))


def summed_up(found: dict[str, list[dict]]) -> str:
    """The curve's area over all rows, and what the three words are worth."""
    rows = [row for by_seed in found.values() for row in by_seed]
    score, bad = (np.array([row[name] for row in rows], dtype=float) for name in ("score", "bad"))
    rng, areas = np.random.default_rng(0), []
    for _ in range(1000):
        i = rng.integers(len(rows), size=len(rows))
        areas.append(area(score[i], bad[i]))
    lines = [f"Area under the ROC curve over {len(rows)} compositions, {bad.sum():.0f} of them bad: {area(score, bad):.3f} "
             f"(bootstrap {np.quantile(areas, 0.05):.3f} to {np.quantile(areas, 0.95):.3f}); asked >= 0.9."]  # fmt: skip
    for word in ("good", "doubtful", "bad"):
        said = bad[[row["verdict"] == word for row in rows]]
        lines.append(f"- {word}: {len(said)} runs, {said.sum():.0f} of them bad")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=25)
    rows = [(f"{kind}, d = {d}", functools.partial(judged, kind, d)) for kind, d in ROWS]
    found = measure(NAME, options, rows, HEADER, COLUMNS)
    path = RESULTS / f"{NAME}{'_quick' if options.quick else ''}.json"
    text = summed_up(found)
    write(path.with_suffix(".md"), markdown(json.loads(path.read_text()), HEADER, COLUMNS) + "\n" + text)
    print(text)
