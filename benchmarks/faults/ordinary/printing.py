"""What is printed of densities, kernels and runs, and while they run."""

from __future__ import annotations

import contextlib
import io
import re
import time

import numpy as np

import numpyro_diffusion as nd
from benchmarks.faults.ordinary.habits import PRIOR, plain, printed, run_of
from benchmarks.faults.ordinary.inputs import KEY, Input, require


def printing() -> list[Input]:
    """What is printed: short, without addresses, as it comes."""

    def short(make, limit=600):
        text = repr(make())
        require(
            len(text) <= limit and "0x" not in text and "Array(" not in text, f"{len(text)} characters: {text[:200]}"
        )
        return f"{len(text)} characters: {text[:100]}"

    def anneal(density=None, kernel=None, **settings):
        settings = {"num_chains": 50, "levels": 6, "progress_bar": False} | settings
        return nd.anneal(KEY, density or PRIOR, kernel, **settings)

    def progress(call):
        err, begin = io.StringIO(), time.perf_counter()
        with contextlib.redirect_stderr(err):
            call()
        said = err.getvalue()
        require("pilot" in said.lower(), f"no word of the pilot: {said[:200]}")
        return f"{len(said)} characters in {time.perf_counter() - begin:.0f} s, of the pilot too"

    def undefined():
        run = anneal(nd.load_pretrained("ring_score"), nd.Reverse())
        text = repr(run) + printed(run.print_summary)
        require(not re.search(r"(?i)\bess[ =]+\d", text), text[:300])
        return "no ESS"

    def default_kernel():
        truth = 0.0
        run = anneal(num_chains=300, levels=None)
        bound = nd.ais_bound(KEY, PRIOR, num_chains=100, levels=10, progress_bar=False)
        require(abs(run.log_evidence - truth) < 5 * max(run.log_evidence_error, 0.02), f"{run.log_evidence}")
        require(abs(bound.lower - truth) < 0.3, f"{bound}")
        return f"{type(run.kernel).__name__}, {run.log_evidence:.3f}"

    network = lambda: nd.load_pretrained("cubes_16")
    composed = lambda: nd.compose_conditions(network(), np.full((5, 2), 0.4))
    return [
        Input("a run", lambda: short(anneal)),
        Input("a run of Reverse", lambda: short(lambda: anneal(kernel=nd.Reverse()))),
        Input("an AnnealedMCMC", lambda: short(lambda: run_of(plain), 200)),
        Input("an AnnealedKernel", lambda: short(lambda: nd.AnnealedKernel(plain), 200)),
        Input("a kernel with steps per level", lambda: short(lambda: nd.HMC(np.linspace(1, 2, 300)), 100)),
        Input("a kernel of BlackJAX", lambda: short(lambda: nd.BlackJAX(__import__("blackjax").barker, step_size=0.1), 100)),
        Input("a prior", lambda: short(lambda: nd.DiffusionPrior(PRIOR * PRIOR**0.5), 100)),
        Input("a prior at a level", lambda: short(lambda: nd.DiffusionPrior(0.2 * PRIOR + 0.8 * PRIOR**2, 0.5), 200)),
        Input("the joint density of a run", lambda: short(lambda: run_of(plain).joint, 200)),
        Input("a base of 300 components", lambda: short(lambda: nd.MixtureBase.of(
            np.zeros((300, 2)), np.tile(np.eye(2), (300, 1, 1)), np.full((1, 300), 1 / 300)), 200)),
        Input("a data set's truth", lambda: short(lambda: nd.datasets.targets.target("product"), 300)),
        Input("a trained density of images", lambda: short(network, 100)),
        Input("five conditions of it", lambda: short(composed, 600)),
        Input("an unnamed mixture of 500", lambda: short(
            lambda: nd.exact.GaussianMixture(np.zeros((500, 2)), np.tile(np.eye(2), (500, 1, 1))), 100)),
        Input("a bound", lambda: short(lambda: nd.ais_bound(KEY, PRIOR, levels=6, num_chains=50, progress_bar=False), 200)),
        Input("a calibration report", lambda: short(
            lambda: nd.calibration_report(nd.exact.GaussianMixture([[0.0]], [[[1.0]]])), 600)),
        Input("ESS where weights are undefined", undefined),
        Input("the pilot's progress", lambda: progress(lambda: anneal(progress_bar=True, levels=None))),
        Input("the pilot's progress in AnnealedMCMC", lambda: progress(lambda: _noisy())),
        Input("no kernel given", default_kernel),
    ]  # fmt: skip


def _noisy():
    nd.AnnealedMCMC(plain, num_chains=50, progress_bar=True).run(KEY)
