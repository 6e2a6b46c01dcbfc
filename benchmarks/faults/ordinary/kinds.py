"""Every kind of ordinary use, by the name of its table."""

from __future__ import annotations

from benchmarks.faults.ordinary import (
    arguments,
    arithmetic,
    cost,
    files,
    habits,
    identity,
    places,
    printing,
    runs,
    wells,
)  # fmt: skip

#: Kind -> function that gives the inputs to try.
KINDS = {
    "ordinary, 1: compositions in every place": places.places,
    "ordinary, 1: compositions by every algorithm": places.algorithms,
    "ordinary, 2: run again after a change": identity.run_again,
    "ordinary, 3: checkpoints after a change": identity.checkpoints,
    "ordinary, 4: normalisers by quadrature": arithmetic.calibration,
    "ordinary, 5: masses and exponents": arithmetic.masses,
    "ordinary, 6: errors of log evidence and bounds": runs.error_bars,
    "ordinary, 7: narrow boxes, extreme schedules": arithmetic.boxes,
    "ordinary, 8: keys used twice": arithmetic.keys,
    "ordinary, 9: score-only runs, levels asked for": runs.score_only,
    "ordinary, 10: improper compositions": runs.improper,
    "ordinary, 11: findings and remedies": runs.findings,
    "ordinary, 12: R-hat and ESS of particles": habits.summaries,
    "ordinary, 13: ArviZ": habits.arviz,
    "ordinary, 14: pipes, devices, threads": files.places,
    "ordinary, 14: files of nonsense": files.nonsense,
    "ordinary, 15: arguments": arguments.arguments,
    "ordinary, 15: runs under transformations": habits.vmapped,
    "ordinary, 16: what is printed": printing.printing,
    "ordinary, 17: other processors": wells.processors,
    "ordinary, 19: notebooks": wells.notebooks,
    "ordinary, 20: false wells": wells.wells,
    "ordinary, cost of a second run": cost.costs,
}
