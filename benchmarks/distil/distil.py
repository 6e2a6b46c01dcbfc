"""Score models distilled to energies, beside their teachers, and Table 1 of what was distilled.

    python benchmarks/distil/distil.py            # five seeds; resumes; two hours on two cores
    python benchmarks/distil/distil.py --quick    # one seed

Students are trained, and kept, by `students`; this measures them.
"""

from __future__ import annotations

import argparse
from functools import cache
from typing import Any

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.distil.students import student, teacher
from benchmarks.paper.table1 import against_truth, density_of
from benchmarks.table import arguments, measure
from numpyro_diffusion.datasets import cubes, digits, planar, targets

#: Densities and problems, and the most seeds of each.
SEEDS = {"ring": 5, "bar": 5, "digits": 5, "product": 5, "mixture": 1, "negation": 1, "cubes_16": 1}
COLUMNS = [
    "log Z", "log Z +-", "nats", "teacher nats", "nats - teacher", "truth", "Frechet", "teacher Frechet", "Frechet of data",
    "Frechet ratio", "mismatch", "LL - truth", "TV", "W2", "log Z error", "seconds",
]  # fmt: skip
HEADER = """# Distillation: score models become calibrated energies

`python benchmarks/distil/distil.py`. Mean ± standard error over seeds of `nd.distil`; one teacher each: the pretrained
`ring_score`, `bar_score` and `cubes_16_score`, and a score model of the digits trained by `students.py`. log Z: largest
|log Z| over noise levels in two dimensions, by quadrature; of the digits |log Z| at t = 0 by an annealed run of 4,000
chains with a key of its own, of standard error "log Z +-"; not measured of cubes, nor taken out. nats: mean log density
of held-out points with the noise of the resolution; the teacher's by its probability flow; truth: the closed form's of
the points without that noise. Frechet: distance of reverse diffusion's samples from held-out data, of points as they
are (moments); Frechet of data: of two halves of these, the floor that sample sizes set, below which ratios say nothing.
mismatch: mean square of r times the difference of scores, per dimension, mean over eight levels. Cubes: {cubes}.

Asked for: |log Z| at most 0.1 nat in two dimensions and 0.5 in 64, nats at least the teacher's less 0.5, Frechet
distances within 5 %. The digits' log Z falls short: annealed runs with more steps find mass where there are no data,
which the normaliser that was taken out does not know.

Rows of Table 1 (`benchmarks/paper/table1.py`): `nd.anneal(key, density, nd.HMC())` with 2,000 chains of densities that were
distilled, and of those that were trained as energies; LL, TV, W2 and log Z error as there, seeds as the column says.
"""
CUBES = (
    "1,000 steps of batch 32 from the teacher's weights, an eighth of the teacher's own training; without a condition"
)


@cache
def held_out(name: str) -> np.ndarray:
    """Points that neither teacher nor student has seen."""
    if name == "digits":
        return np.asarray(digits.dequantise(jax.random.key(7), digits.images("test")[0]))
    if name == "cubes_16":
        return np.asarray(cubes.sampler(16)(jax.random.key(10_001), 256)[0])
    return np.asarray(planar.exact(name).sample(jax.random.key(77), 10_000))


def distilled(name: str):
    """Function of the seed that measures one student beside its teacher."""

    def compute(seed: int) -> dict:
        x, density, key = held_out(name), student(name, seed), jax.random.key(500 + seed)
        is_planar = name not in ("digits", "cubes_16")
        how: dict[str, Any] = {"num_samples": 4_000} if is_planar else {}
        if not is_planar:
            how = {"num_chains": 4_000} if name == "digits" else {"num_likelihoods": 0}
        report = nd.distillation_report(key, density, teacher(name), x, **how)
        drift = np.max(np.abs(nd.calibration_report(density).log_z)) if is_planar else abs(report.log_z)
        return {
            "log Z": drift, "log Z +-": report.log_z_error, "nats": report.nats, "teacher nats": report.teacher_nats,
            "nats - teacher": report.nats - report.teacher_nats, "nats error": report.nats_error[0],
            "truth": float(planar.exact(name).log_prob(x).mean()) if is_planar else np.nan,
            "Frechet": report.frechet, "teacher Frechet": report.teacher_frechet, "Frechet of data": report.frechet_floor,
            "Frechet ratio": report.frechet / report.teacher_frechet, "mismatch": report.mismatch.mean(),
            "mismatch by level": report.mismatch.tolist(),
        }  # fmt: skip

    return compute


def table1(problem: str, kind: str):
    """Function of the seed that samples a composition of distilled densities, or of those trained as energies."""
    target = targets.target(problem)

    def compute(seed: int) -> dict:
        is_distilled = kind == "distilled"
        density = (
            target.density(lambda name: student(name, seed)) if is_distilled else density_of(problem, "calibrated")
        )
        run = nd.anneal(jax.random.key(1000 + seed), density, nd.HMC(), num_chains=2000, progress_bar=False)
        error = run.log_evidence - target.log_evidence
        return {"log Z error": error} | against_truth(run.samples, target, seed)

    return compute


def rows(name: str):
    """The rows of a density, or of a problem of Table 1."""
    if name in targets.NAMES:
        return [(f"{name} {kind}", table1(name, kind)) for kind in ("distilled", "trained")]
    return [(name, distilled(name))]


if __name__ == "__main__":
    options = arguments(__doc__ or "")
    for name, most in SEEDS.items():
        those = argparse.Namespace(**vars(options) | {"seeds": min(options.seeds, most)})
        measure("distil", those, rows(name), HEADER.format(cubes=CUBES), COLUMNS)
        options.fresh = False
