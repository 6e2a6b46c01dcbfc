"""Runs that fail without a word: error bars too small, chains that leave, improper targets, findings unsaid."""

from __future__ import annotations

import contextlib
import io
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.stats import multivariate_normal, norm

import numpyro_diffusion as nd
from benchmarks.faults.ordinary.inputs import KEY, Input, caught, close, refused, require
from numpyro_diffusion.diagnose import findings as diagnostics

MEANS = np.array([[[-1.2, 0.3], [0.9, -0.5]], [[1.4, 0.8], [-0.6, -0.9]]])
COVARIANCES = np.array(
    [[[[0.3, 0.1], [0.1, 0.2]], [[0.15, 0.0], [0.0, 0.4]]], [[[0.2, 0.0], [0.0, 0.2]], [[0.5, -0.2], [-0.2, 0.3]]]]
)
SHARES = np.array([[0.3, 0.7], [0.6, 0.4]])


def _mixture(i: int, shift: float = 0.0):
    return nd.exact.GaussianMixture(MEANS[i] + shift, COVARIANCES[i], SHARES[i], name="pq"[i])


def _log_z(shift: float = 0.0) -> float:
    """log of the integral of the product of the two mixtures, the second one moved."""
    terms = [
        SHARES[0, i] * SHARES[1, j]
        * multivariate_normal(MEANS[0, i], COVARIANCES[0, i] + COVARIANCES[1, j]).pdf(MEANS[1, j] + shift)
        for i in range(2) for j in range(2)
    ]  # fmt: skip
    return math.log(sum(terms))


def gaussian(mean, sd, **settings):
    return nd.exact.GaussianMixture([np.atleast_1d(mean)], [sd**2 * np.eye(np.size(mean))], **settings)


def run_of(density, kernel=None, **settings):
    settings = {"num_chains": 300, "levels": 12, "progress_bar": False, "rng_key": KEY} | settings
    return nd.anneal(settings.pop("rng_key"), density, kernel or nd.HMC(0.3), **settings)


def error_bars() -> list[Input]:
    """log Z within three of its errors, or a finding that says why not; over several seeds each."""

    def over_seeds(density, truth, kernel, seeds=6, **settings):
        off, said, silent = [], 0, []
        for seed in range(seeds):
            with caught() as texts:
                run = run_of(density, kernel, rng_key=jax.random.key(seed), **settings)
            far = not abs(run.log_evidence - truth) <= 3 * run.log_evidence_error
            off.append(run.log_evidence - truth)
            said += bool(texts)
            if far and not texts:
                silent.append(f"{run.log_evidence:.3f} +- {run.log_evidence_error:.3f}")
        # One in four hundred runs may be so far off by chance; of a few that is none.
        require(not silent, f"{len(silent)} of {seeds} silent, such as {silent[:1]} for {truth:.3f}")
        return f"off by {min(off):.2f} to {max(off):.2f}, {said} of {seeds} with findings"

    def single(**settings):
        run = run_of(_mixture(0) * _mixture(1), num_chains=1, **settings)
        require(math.isnan(run.log_evidence_error), f"the error of one chain is {run.log_evidence_error}")
        return "nan"

    def bound(make, truth, upper=False):
        with caught() as said:
            found = make()
        # An error of NaN says that nothing is known of it, as for a single point.
        fine = math.isnan(found.lower_error) or found.lower <= truth + 4 * found.lower_error or bool(said)
        fine &= not upper or found.upper >= truth - 4 * found.upper_error or bool(said)
        require(fine, f"{found} for {truth:.3f}")
        return f"{found} for {truth:.3f}" + (f"; said: {said[0]}" if said else "")

    both, truth = _mixture(0) * _mixture(1), _log_z()
    far, far_z = _mixture(0) * _mixture(1, 4.0), _log_z(4.0)
    sharp = gaussian(0.0, 1e-3) * gaussian(0.5, 1e-3)
    tail = gaussian([0.0] * 20, 1.0) ** 3
    tail_z = 20 * (-math.log(2 * math.pi) - 0.5 * math.log(3))
    point = lambda: nd.raise_bound(KEY, _mixture(0), MEANS[0][:1], nd.HMC(0.3), levels=4, progress_bar=False)
    bdmc = lambda kernel: nd.bdmc(
        KEY, _mixture(0), _mixture(0).sample(KEY, 200), kernel, levels=5, num_chains=200, progress_bar=False
    )
    few = {"levels": 6}
    return [
        Input("UHMC(1.2), six levels", lambda: over_seeds(both, truth, nd.UHMC(1.2), **few)),
        Input("UHMC(.9), four levels", lambda: over_seeds(both, truth, nd.UHMC(0.9), levels=4)),
        Input("ULA(.4), eight levels", lambda: over_seeds(both, truth, nd.ULA(0.4), levels=8)),
        Input("ULA(.05), three levels", lambda: over_seeds(both, truth, nd.ULA(0.05), levels=3)),
        Input("MALA, steps that never fit", lambda: over_seeds(both, truth, nd.MALA(3.0), **few)),
        Input("HMC, two levels", lambda: over_seeds(both, truth, nd.HMC(0.3), levels=2)),
        Input("HMC, a product far apart, four levels", lambda: over_seeds(far, far_z, nd.HMC(0.3), levels=4)),
        Input("plain AIS, five levels", lambda: over_seeds(both, truth, nd.HMC(0.3), levels=5, resample_threshold=0.0)),
        Input("ten chains", lambda: over_seeds(both, truth, nd.HMC(0.3), num_chains=10)),
        Input("twenty dimensions, p ** 3, six levels", lambda: over_seeds(tail, tail_z, nd.HMC(0.5), **few)),
        Input("log Z of -62,494", lambda: over_seeds(
            sharp, norm(0, math.hypot(1e-3, 1e-3)).logpdf(0.5), nd.HMC(0.3), seeds=3, **few)),
        Input("one chain", single),
        Input("one chain, plain AIS", lambda: single(resample_threshold=0.0)),
        Input("a bound of four levels", lambda: bound(
            lambda: nd.ais_bound(KEY, both, nd.UHMC(1.2), levels=4, num_chains=200, progress_bar=False), truth)),
        Input("RAISE of one point", lambda: bound(point, float(_mixture(0).log_prob(MEANS[0][:1])[0]))),
        Input("BDMC, HMC", lambda: bound(lambda: bdmc(nd.HMC(0.3)), 0.0, True)),
        Input("BDMC, UHMC(1.0)", lambda: bound(lambda: bdmc(nd.UHMC(1.0)), 0.0, True)),
    ]  # fmt: skip


def score_only() -> list[Input]:
    """Chains without a log density that leave everything, and levels that are asked for."""
    ring = nd.load_pretrained("ring_score")

    def steep(slope):
        # Its score grows faster than any step can follow.
        return nd.as_density(lambda x, t: -slope * jnp.sum(x**4), (2,), mean=np.zeros(2), covariance=np.eye(2))

    def leaves(density, kernel, **settings):
        with caught() as said:
            run = run_of(density, kernel, num_chains=100, **settings)
        size = np.abs(np.asarray(run.samples)).max()
        told = any("left the scale" in text or "not finite" in text or "diverge" in text for text in said)
        require(size < 30 or told, f"max |x| {size:.1e}, said {said}")
        return f"max |x| {size:.2g}" + (f"; said: {said[0][:160]}" if said else "")

    def levels(count, expected=None, **settings):
        def model():
            x = numpyro.sample("x", nd.DiffusionPrior(ring))
            numpyro.sample("y", dist.Normal(x[0], 0.3), obs=0.2)

        mcmc = nd.AnnealedMCMC(model, nd.ULA(0.01), num_chains=50, levels=count, progress_bar=False, **settings)
        mcmc.run(KEY)
        expected = count if expected is None else expected
        require(len(mcmc.annealed.levels) == expected, f"{len(mcmc.annealed.levels)} levels for {expected}")
        return f"{expected} levels"

    def accepted():
        run = run_of(ring, nd.HMC(0.1), levels=40)
        found = f"{run.log_evidence:.3f} +- {run.log_evidence_error:.3f} for 0"
        require(abs(run.log_evidence) < 5 * run.log_evidence_error, found)
        return found

    few = {"levels": 8}
    return [
        Input("ULA(.3)", lambda: leaves(ring, nd.ULA(0.3), levels=20)),
        Input("UHMC(1.5)", lambda: leaves(ring, nd.UHMC(1.5), **few)),
        Input("a product of scores, ULA(.2)", lambda: leaves(ring * nd.load_pretrained("ring_score") ** 2, nd.ULA(0.2), **few)),
        Input("a power of a score, UHMC(1)", lambda: leaves(ring**3, nd.UHMC(1.0), **few)),
        Input("ULA with steps per level", lambda: leaves(ring, nd.ULA(np.full(8, 0.5)), **few)),
        Input("a steep energy, ULA(.3)", lambda: leaves(steep(2.0), nd.ULA(0.3), **few)),
        Input("a steep energy, UHMC(.7)", lambda: leaves(steep(0.5), nd.UHMC(0.7), **few)),
        Input("small steps that stay", lambda: leaves(ring, nd.ULA(1e-3), **few)),
        Input("AnnealedMCMC(levels=7)", lambda: levels(7)),
        Input("AnnealedMCMC(levels=23, metric frame)", lambda: levels(23, metric="frame")),
        Input("AnnealedMCMC with five times", lambda: levels(np.array([1.0, 0.6, 0.3, 0.1, 0.0]), 5)),
        Input("HMC of a score, along line integrals", accepted),
        refused("a bound of a score", lambda: nd.ais_bound(KEY, ring, progress_bar=False), r"only a score"),
    ]  # fmt: skip


def improper() -> list[Input]:
    """Compositions without a finite integral."""
    p, q, wide = (
        gaussian([0.0, 0.0], 1.0, name="p"),
        gaussian([0.3, 0.0], 0.6, name="q"),
        gaussian([0.0, 0.0], 3.0, name="w"),
    )
    words = r"improper: the exponents of its factors sum to .*floor"

    def model(density):
        return lambda: numpyro.sample("x", nd.DiffusionPrior(density))

    def told(density):
        with caught() as said:
            run_of(density, nd.HMC(0.3), num_chains=100, levels=8)
        require(any("without bound" in text for text in said), f"said {said}")
        return said[0]

    def fine(density, truth):
        run = run_of(density, levels=20)
        require(
            abs(run.log_evidence - truth) < 5 * max(run.log_evidence_error, 0.03), f"{run.log_evidence} for {truth}"
        )
        return f"{run.log_evidence:.3f} for {truth:.3f}"

    # N(0, 1)^1.5 / N(.3, .36)^.25 in two dimensions: precisions 1.5 and -.25 / .36.
    a, b, m = 1.5, -0.25 / 0.36, 0.3
    log_z = -1.5 * math.log(2 * math.pi) + 0.25 * math.log(2 * math.pi * 0.36) - math.log((a + b) / (2 * math.pi))
    log_z -= 0.5 * a * b / (a + b) * m**2
    samplers = {
        "anneal": lambda d: run_of(d),
        "Reverse": lambda d: run_of(d, nd.Reverse()),
        "ULA": lambda d: run_of(d, nd.ULA(0.1)),
        "ais_bound": lambda d: nd.ais_bound(KEY, d, progress_bar=False),
        "raise_bound": lambda d: nd.raise_bound(KEY, d, np.zeros((3, 2)), progress_bar=False),
        "bdmc": lambda d: nd.bdmc(KEY, d, np.zeros((3, 2)), progress_bar=False),
        "calibration by annealing": lambda d: nd.calibration_report(d, method="anneal", num_chains=50),
        "AnnealedMCMC": lambda d: nd.AnnealedMCMC(model(d), progress_bar=False).run(KEY),
    }  # fmt: skip
    made = [
        "1 / p",
        "p / q ** 2",
        "q / q ** 1.5",
        "p * q / p ** 3",
        "(p / q) * (q / p)",
        "1 / (p * q)",
        "p / w",
        "2 / p",
    ]
    formulas = {name: eval(name, {"p": p, "q": q, "w": wide}) for name in made}
    return [
        *[refused(f"{f}, {s}", lambda d=d, s=s: samplers[s](d), words)
          for (f, d), s in zip(formulas.items(), samplers, strict=True)],
        Input("p / q ** .9, which grows: q is narrower", lambda: told(p / q**0.9)),
        Input("p ** 1.5 / q ** .25, which is proper", lambda: fine(p**1.5 / q**0.25, log_z)),
    ]  # fmt: skip


def findings() -> list[Input]:
    """What a summary says: where a run was wrong, and what can be done in that very call."""

    def printed(call):
        with contextlib.redirect_stdout(io.StringIO()) as out, caught():
            call()
        return out.getvalue()

    def posterior(kernel, **settings):
        def model():
            x = numpyro.sample("x", nd.DiffusionPrior(_mixture(0)))
            numpyro.sample("y", dist.Normal(x[0], 0.05), obs=3.0)

        mcmc = nd.AnnealedMCMC(model, kernel, num_chains=100, progress_bar=False, **settings)
        mcmc.run(KEY)
        mcmc.print_summary()

    def says(call, *words, without=()):
        text = printed(call)
        end = text[text.index("findings") :]
        require(all(re.search(word, end) for word in words), f"{words} not in: {end}")
        require(not any(re.search(word, end) for word in without), f"{without} in: {end}")
        return end

    def summary(*args, **settings):
        return lambda: run_of(*args, **settings).print_summary()

    def scaled(factor, d=2):
        # Said to be normalised, and is not.
        return nd.as_density(lambda x, t: gaussian(np.zeros(d), 1.0).log_prob(x, t) + factor, (d,), normalised=True,
                             mean=np.zeros(d), covariance=np.eye(d), name="claimed")  # fmt: skip

    both = _mixture(0) * _mixture(1)
    poor = {"levels": 3, "num_chains": 30}
    return [
        Input("AnnealedMCMC, three levels", lambda: says(
            lambda: posterior(nd.HMC(0.3), levels=3), r"findings [1-9]", r"more levels than 3", without=[r"level_ess"])),
        Input("AnnealedMCMC, steps too long", lambda: says(
            lambda: posterior(nd.HMC(5.0), levels=10, metric="frame"), r"findings [1-9]", r"smaller than 5")),
        Input("AnnealedMCMC, nothing wrong", lambda: says(
            lambda: posterior_of_gaussian().print_summary(), r"findings none")),
        Input("a normalised density off by 1", lambda: says(summary(scaled(1.0), nd.HMC(), levels=20), r"findings\s+[1-9]", r"(?i)normalis|calibrat")),
        Input("a normalised density off by -.5", lambda: says(summary(scaled(-0.5), nd.HMC(), levels=20), r"(?i)normalis|calibrat")),
        Input("a normalised density that is one", lambda: says(summary(scaled(0.0), nd.HMC(), levels=20), r"findings\s+none")),
        Input("twice a normalised density, which has mass 2", lambda: says(summary(2.0 * _mixture(0), levels=20), r"findings\s+none")),
        Input("given levels: the remedy names them", lambda: says(
            summary(_mixture(0) * _mixture(1, 2.5), **poor), r"more levels than 3", without=[r"level_ess"])),
        Input("given steps: the remedy names them", lambda: says(
            summary(both, nd.UHMC(1.2), levels=6), r"smaller than 1\.2", without=[r"tuned ones"])),
        Input("given steps per level", lambda: says(
            summary(both, nd.HMC(np.full(6, 9.0)), levels=6), r"smaller step sizes than 9", without=[r"step_size smaller"])),
        Input("tuned steps: no word of a smaller step_size", lambda: says(
            summary(both, nd.UHMC(), levels=3, num_pilot_chains=4), without=[r"a step_size smaller", r"smaller step_size"])),
        Input("findings are warnings, word for word", lambda: _as_warnings(both)),
    ]  # fmt: skip


def posterior_of_gaussian():
    """A run with nothing wrong."""

    def model():
        x = numpyro.sample("x", nd.DiffusionPrior(gaussian([0.0, 0.0], 1.0)))
        numpyro.sample("y", dist.Normal(x[0], 1.0), obs=0.5)

    mcmc = nd.AnnealedMCMC(model, nd.HMC(), num_chains=400, progress_bar=False)
    mcmc.run(KEY)
    close(mcmc.log_evidence, norm(0, 2**0.5).logpdf(0.5), 0.15)
    return mcmc


def _as_warnings(density) -> str:
    with caught() as said:
        run = run_of(density, nd.UHMC(1.2), levels=6)
    found = diagnostics.findings(run)
    is_told = found and [f"{run.title}: {finding}" for finding in found] == said
    require(is_told, f"{len(found)} findings, {len(said)} warnings")
    return f"{len(found)} of them"
