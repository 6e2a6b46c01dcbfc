"""Numbers that came out wrong without a word: normalisers, masses, narrow boxes, extreme schedules, keys used twice."""

from __future__ import annotations

import decimal
import fractions
import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_ndtr, logsumexp
from scipy.stats import norm

import numpyro_diffusion as nd
from benchmarks.faults.ordinary.inputs import KEY, Input, caught, close, refused, require
from numpyro_diffusion.density.base import data_gaussian
from numpyro_diffusion.train import losses

P = nd.exact.GaussianMixture([[0.2]], [[[0.6]]], name="p")
Q = nd.exact.GaussianMixture([[-1.0]], [[[1.4]]], name="q")
X = 0.37
LOG_P, LOG_Q = norm(0.2, 0.6**0.5).logpdf(X), norm(-1.0, 1.4**0.5).logpdf(X)


def calibration() -> list[Input]:
    """log Z by `calibration_report`: right to .01 nats at every level, or said to be not."""

    def mixture(means, sds, weights=None, **settings):
        means = np.asarray(means, dtype=float).reshape(len(means), -1)
        covariances = [sd**2 * np.eye(means.shape[1]) for sd in sds]
        return nd.exact.GaussianMixture(means, covariances, weights, **settings)

    def function(log_density, shape=(1,)):
        return nd.as_density(lambda x, t: log_density(x), shape)

    def normal(x, mean, sd):
        return jnp.sum(jax.scipy.stats.norm.logpdf(x, mean, sd))

    def report(density, truth=0.0, **settings):
        with caught() as said:
            found = nd.calibration_report(density, **settings)
        off = float(np.max(np.abs(found.log_z - truth)))
        require(off <= 0.01 or said, f"log Z {np.array2string(found.log_z, precision=3)} for {truth:.3f}")
        return f"off by {off:.1e}" + (f"; said: {said[0]}" if said else "")

    skew = np.array([[1.0, 0.9999], [0.9999, 1.0]])
    squeezed = nd.exact.GaussianMixture([[3.0, -2.0]], [skew])
    inverse = np.linalg.inv(skew)
    banana = lambda x: normal(x[0], 0.0, 2.0) + normal(x[1], 0.3 * x[0] ** 2, 0.05)
    spike = lambda x: jnp.logaddexp(normal(x, 0.0, 1.0) + math.log(0.5), normal(x, 4.0, 1e-3) + math.log(0.5))
    student = lambda x: jax.scipy.stats.t.logpdf(x[0], 3.0, 40.0, 2.0)
    tilted = lambda x: -0.5 * (x - 2.0) @ jnp.asarray(inverse, float) @ (x - 2.0)
    tilted_z = 0.5 * math.log(np.linalg.det(2 * math.pi * skew))
    return [
        Input("two modes at +-10, sd .001", lambda: report(mixture([[-10], [10]], [1e-3] * 2))),
        Input("N(10, 1) as a function", lambda: report(function(lambda x: normal(x, 10.0, 1.0)))),
        Input("three modes at -30, 1, 200, sds .002, 1, .05", lambda: report(mixture([[-30], [1], [200]], [0.002, 1, 0.05]))),
        Input("two modes of weights 1 to 10,000", lambda: report(mixture([[-3], [40]], [0.5, 0.01], [1e4, 1]))),
        Input("four corners in the plane, sd .003", lambda: report(mixture([[-5, -5], [-5, 5], [5, -5], [5, 5]], [0.003] * 4))),
        Input("correlation .9999 in the plane", lambda: report(squeezed)),
        Input("7 p, not normalised", lambda: report(7.0 * P, math.log(7.0))),
        Input("a spike of half the mass, sd .001, as a function", lambda: report(function(spike))),
        Input("a banana as a function in the plane", lambda: report(function(banana, (2,)), levels=[0.0])),
        Input("a Student density at 40 as a function", lambda: report(function(student), levels=[0.5, 0.0])),
        Input("correlation .9999 as a function", lambda: report(function(tilted, (2,)), tilted_z, levels=[0.0])),
        Input("a box of width .003 beside 1, in the plane",
              lambda: report(nd.exact.UniformBox([2.0, -7.0], [2.003, -6.0]), levels=[0.6, 0.1, 0.0])),
        Input("a mixture under an exploding schedule",
              lambda: report(mixture([[-20], [20]], [0.01] * 2, schedule=nd.VarianceExploding(0.001, 100.0)))),
        refused("exp(|x|), which has no integral", lambda: report(function(lambda x: jnp.abs(x[0]))), r"(?i)integral|grow"),
        Input("p q, far apart", lambda: report(
            mixture([[-4]], [0.3]) * mixture([[4]], [0.2]), norm(0, math.hypot(0.3, 0.2)).logpdf(8.0), levels=[0.0])),
    ]  # fmt: skip


def masses() -> list[Input]:
    """Masses and exponents that float32 does not hold."""

    def value(make, truth, at=X, tolerance=2e-5):
        def call():
            found = [make().log_prob(np.array([at]))]
            found.append(jax.jit(lambda x: make().log_prob(x))(jnp.array([at])))
            found.append(jax.jit(lambda density, x: density.log_prob(x))(make(), jnp.array([at])))
            return close(np.array(found), np.full(3, truth), tolerance)

        return call

    def evidence(density, truth):
        run = nd.anneal(KEY, density, nd.HMC(0.5), num_chains=200, levels=10, progress_bar=False)
        require(
            abs(run.log_evidence - truth) < 5 * max(run.log_evidence_error, 0.02), f"{run.log_evidence} for {truth}"
        )
        return f"{run.log_evidence:.3f} +- {run.log_evidence_error:.3f}"

    log, big = math.log, 10**40
    both = logsumexp([LOG_P, LOG_Q])
    slope = lambda: close((1e-44 * P * (1e-30 * Q)).score(np.array([X])), -(X - 0.2) / 0.6 - (X + 1.0) / 1.4)
    words = r"must be .*got"
    return [
        Input("1e-40 p", value(lambda: 1e-40 * P, LOG_P + log(1e-40))),
        Input("1e-300 p + 1e-300 q", value(lambda: 1e-300 * P + 1e-300 * Q, both + log(1e-300))),
        Input("a Python integer of 41 digits", value(lambda: big * P, LOG_P + log(1e40))),
        Input("p / 1e200", value(lambda: P / 1e200, LOG_P - log(1e200))),
        Input("(1e30 p) (1e-35 q)", value(lambda: (1e30 * P) * (1e-35 * Q), LOG_P + LOG_Q + log(1e-5))),
        Input("(1e-30 p) ** 3", value(lambda: (1e-30 * P) ** 3, 3 * (LOG_P + log(1e-30)))),
        Input("1e25 p q / (1e25 p + q)", value(
            lambda: 1e25 * P * Q / (1e25 * P + Q), LOG_P + LOG_Q + log(1e25) - logsumexp([LOG_P + log(1e25), LOG_Q]))),
        Input("1e-20 (1e-20 (1e-20 p))", value(lambda: 1e-20 * (1e-20 * (1e-20 * P)), LOG_P + log(1e-60))),
        Input("a fraction", value(lambda: fractions.Fraction(1, 10**60) * P, LOG_P - log(1e60)), r"must be one real"),
        Input("a decimal", value(lambda: decimal.Decimal("1e-70") * P, LOG_P - log(1e70)), r"must be one real"),
        Input("a subnormal NumPy number", value(lambda: np.float64(1e-310) * P, LOG_P + log(1e-310))),
        Input("mixture(weights=[1e-50, 1e-48])", value(
            lambda: nd.mixture(P, Q, weights=[1e-50, 1e-48]), logsumexp([LOG_P, LOG_Q + log(100)]) - log(101))),
        Input("GaussianMixture(weights=[1e-60, 1])", value(
            lambda: nd.exact.GaussianMixture([[30.0], [0.2]], [[[1.0]], [[0.6]]], [1e-60, 1]), norm(30, 1).logpdf(30) - log(1e60), 30.0)),
        Input("a mixture of mixtures, 1e-30 each", value(
            lambda: 1e-30 * (0.5 * P + 0.5 * Q) + 1e-30 * Q, logsumexp([LOG_P + log(5e-31), LOG_Q + log(1.5e-30)]))),
        Input("harmonic_mean of 1e-38 p and 1e38 q", value(
            lambda: nd.harmonic_mean(1e-38 * P, 1e38 * Q), LOG_P + LOG_Q - logsumexp([LOG_P + log(5e-39), LOG_Q + log(5e37)]))),
        Input("a traced weight of 1e-30, twice", lambda: close(
            jax.jit(lambda w: (w * (w * P)).log_prob(jnp.array([X])))(1e-30), LOG_P + log(1e-60))),
        Input("its score", slope),
        Input("the evidence of 1e-50 p q", lambda: evidence(
            1e-50 * (P * Q), log(1e-50) + norm(0.2, 2.0**0.5).logpdf(-1.0))),
        refused("p ** 1e-60", lambda: (P**1e-60).log_prob(np.array([X])), words),
        refused("p ** 1e60", lambda: (P**1e60).log_prob(np.array([X])), words),
        refused("10 ** 400 p", lambda: 10**400 * P, r"must be finite|got"),
        refused("mixture(weights=[-1e-50, 1])", lambda: nd.mixture(P, Q, weights=[-1e-50, 1]), r"positive; got .*-1\.?e-50"),
        refused("means of 1e200", lambda: nd.exact.GaussianMixture([[1e200]], [[[1.0]]]), r"means.*got 1e\+200"),
        refused("covariances of 1e-80", lambda: nd.exact.GaussianMixture([[0.0]], [[[1e-80]]]), r"got 1e-80"),
    ]  # fmt: skip


def _smoothed(distance, half, sigma):
    """Log density of a uniform plus a normal number, in double precision."""
    nodes, shares = np.polynomial.legendre.leggauss(80)
    if half < sigma:
        return logsumexp(norm.logpdf(distance + half * nodes, 0.0, sigma), b=shares / 2)
    a, b = -abs(distance) - half, -abs(distance) + half
    top, bottom = log_ndtr(b / sigma), log_ndtr(a / sigma)
    return top + math.log1p(-math.exp(bottom - top)) - math.log(2 * half)


def boxes() -> list[Input]:
    """Boxes narrow or wide against the noise, and schedules at the ends of what floats hold."""

    def box(width, centre=0.0, t=1.0, beyond=0.4, schedule=None):
        schedule = schedule or nd.VariancePreserving.cosine()
        density = nd.exact.UniformBox([centre - width / 2], [centre + width / 2], schedule)
        half = ((centre + width / 2) - (centre - width / 2)) / 2
        if isinstance(schedule, nd.VarianceExploding):
            alpha, sigma = 1.0, schedule.sigma_max * t**schedule.rho
        else:
            angle = math.atan(schedule.sigma_max) * float(np.float32(t))
            alpha, sigma = math.cos(angle), math.sin(angle)
        x = np.float32(alpha * centre + beyond * sigma)
        truth = _smoothed(float(x) - alpha * centre, alpha * half, sigma)
        return close(density.log_prob(np.array([x]), np.float32(t)), truth, 2e-3)

    def ends(schedule, alpha):
        return close(np.array([schedule.alpha(1.0), schedule.alpha(0.0)]) / [alpha, 1.0], [1.0, 1.0], 1e-5)

    def evidence(width, mean):
        target = nd.exact.UniformBox([mean - width], [mean + width]) * nd.exact.GaussianMixture([[0.0]], [[[1.0]]])
        truth = math.log(np.diff(norm.cdf([mean - width, mean + width]))[0] / (2 * width))
        with caught() as said:
            run = nd.anneal(KEY, target, nd.HMC(), num_chains=400, num_pilot_chains=64, progress_bar=False)
        off = abs(run.log_evidence - truth)
        require(
            off < 5 * max(run.log_evidence_error, 0.03) or said,
            f"{run.log_evidence} +- {run.log_evidence_error} for {truth}",
        )
        return f"{run.log_evidence:.3f} for {truth:.3f}" + (f"; said: {said[0]}" if said else "")

    cosine, exploding = nd.VariancePreserving.cosine, nd.VarianceExploding
    words = r"must (lie|be).*got"
    return [
        Input("width 1e-6 at t = 1", lambda: box(1e-6)),
        Input("width 3e-12 at t = .03", lambda: box(3e-12, t=0.03)),
        Input("width 1e-3 about 12 at t = .7", lambda: box(1e-3, 12.0, 0.7, -2.5)),
        Input("width .02 at a noise of about as much", lambda: box(0.02, t=0.013, beyond=1.0)),
        Input("width 1e5 at t = .5, six deviations out", lambda: box(1e5, t=0.5, beyond=6.0)),
        Input("width 1e-4 under an exploding schedule", lambda: box(1e-4, 2.0, 0.9, 3.0, exploding(0.0, 50.0))),
        Input("thirty-five deviations out", lambda: box(0.5, t=0.4, beyond=35.0)),
        Input("cosine(sigma_max=1e7)", lambda: ends(cosine(1e7), 1e-7)),
        Input("cosine(sigma_max=3e9)", lambda: ends(cosine(3e9), 1 / 3e9), words),
        Input("cosine(sigma_max=1e-2)", lambda: ends(cosine(1e-2), 1 / math.hypot(1, 1e-2)), words),
        Input("linear to 60", lambda: ends(nd.VariancePreserving.linear(0.1, 60.0), math.exp(-60.1 / 4)), words),
        refused("linear to 2,000", lambda: nd.VariancePreserving.linear(0.1, 2000.0).levels(10), words),
        Input("exploding to 1e12", lambda: close(exploding(0.0, 1e12).sigma(1.0), 1e12, 1e-5), words),
        refused("exploding to 1e30", lambda: exploding(0.0, 1e30), words),
        Input("evidence of a box of width .02 times N(0, 1)", lambda: evidence(0.01, 1.0)),
        Input("evidence of a box of width 2e-5 times N(0, 1)", lambda: evidence(1e-5, -0.5)),
        Input("evidence of a box in the tail", lambda: evidence(0.3, 3.0)),
    ]  # fmt: skip


def keys() -> list[Input]:
    """Random keys used for two things: what is drawn is then related."""
    names = (
        "split",
        "uniform",
        "normal",
        "permutation",
        "bernoulli",
        "randint",
        "categorical",
        "choice",
        "exponential",
    )

    def drawn(call):
        used, originals = [], {name: getattr(jax.random, name) for name in names}

        def watched(name):
            def draw(key, *args, **kwargs):
                if not isinstance(key, jax.core.Tracer):
                    used.append(np.asarray(jax.random.key_data(key)).tobytes())
                return originals[name](key, *args, **kwargs)

            return draw

        try:
            for name in names:
                setattr(jax.random, name, watched(name))
            with jax.disable_jit():
                call()
        finally:
            for name, original in originals.items():
                setattr(jax.random, name, original)
        require(len(used) > 1, "nothing was seen to be drawn")
        require(
            len(set(used)) == len(used), f"{len(used) - len(set(used))} of {len(used)} uses are of a key used before"
        )
        return f"{len(used)} uses of as many keys"

    def loss(parameterisation="l2", calibrated=True, score=False, classes=0, weighting="score"):
        config = nd.NetworkConfig(width=4, num_blocks=1, embedding_size=4, condition_size=classes)
        form, cls = ("score", nd.ScoreModel) if score else (parameterisation, nd.EnergyDensity)
        density = cls.fresh(
            KEY, config, (2,), schedule=nd.VariancePreserving.cosine(), parameterisation=form,
            sigmas=jnp.array([0.01, 20.0]), is_calibrated=calibrated and not score, base=None, name=None,
            moments=data_gaussian(np.zeros(2), np.eye(2), config, None),
        )  # fmt: skip
        y = jnp.asarray(np.random.default_rng(0).normal(size=(8, 2)), dtype=float)
        condition = jnp.asarray(np.eye(classes + 1)[np.arange(8) % classes], dtype=float) if classes else None
        return drawn(lambda: losses.loss(density, KEY, y, condition, nd.TrainingConfig(weighting=weighting)))

    box = nd.exact.UniformBox([0.0, 1.0], [2.0, 3.0])
    scene, planar = nd.datasets.scenes, nd.datasets.planar
    return [
        Input("the loss of a calibrated energy", loss),
        Input("of a score", lambda: loss(score=True)),
        Input("of an energy with conditions", lambda: loss(classes=3)),
        Input("of an uncalibrated denoiser", lambda: loss("dae", False)),
        Input("of an inner product, weighted as a denoiser", lambda: loss("inner_product", weighting="denoiser")),
        Input("draws of a mixture", lambda: drawn(lambda: (0 * P.sample(KEY, 3), Q.sample(jax.random.key(1), 3, 0.4)))),
        Input("draws of a box", lambda: drawn(lambda: box.sample(KEY, 5, 0.2))),
        Input("points of the ring", lambda: drawn(lambda: planar.sampler("ring")(KEY, 4))),
        Input("a scene of cubes", lambda: drawn(lambda: scene.sample_scene(KEY, 2))),
        Input("batches of labelled digits", lambda: drawn(lambda: nd.datasets.digits.labelled_sampler(KEY, 3))),
    ]
