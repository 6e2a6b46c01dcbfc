"""Runs, bounds, kernels and calibration: bad input."""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import gaussian, mixture, network, unknown
from exact_problems import LEVELS, P2, sample
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.annealing.kernels import HMC, MALA, UHMC, ULA, BlackJAX
from numpyro_diffusion.annealing.reverse import Reverse
from numpyro_diffusion.datasets import planar
from numpyro_diffusion.errors import ParameterError, ScheduleError, ScoreOnlyError, ShapeError, TracedError

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
KEY = jax.random.key(0)
POINTS = np.zeros((3, 2))
QUIET = {"levels": 3, "progress_bar": False}
NO_KEYS = [0, 1.5, None, "key", np.int64(3), np.zeros(2), np.zeros((4, 2), np.uint32), jax.random.split(KEY, 2), True]


CALLS = {
    "anneal": lambda key=KEY, density=None, **kw: nd.anneal(key, density or mixture(), nd.HMC(0.5), **kw),
    "reverse": lambda key=KEY, density=None, **kw: nd.anneal(key, density or mixture(), nd.Reverse(), **kw),
    "ais": lambda key=KEY, density=None, **kw: nd.ais_bound(key, density or mixture(), nd.HMC(0.5), **kw),
    "raise": lambda key=KEY, density=None, **kw: nd.raise_bound(key, density or mixture(), POINTS, nd.HMC(0.5), **kw),
    "bdmc": lambda key=KEY, density=None, **kw: nd.bdmc(key, density or mixture(), POINTS, nd.HMC(0.5), **kw),
}


def anneal(*args, **settings):
    """`nd.anneal` with a key."""
    return nd.anneal(jax.random.key(0), *args, **settings)


#: What is refused: (call, error, words of the message: rule, value, remedy).
REFUSED = {
    "anneal without a key": (lambda: nd.anneal(gaussian(), HMC()), ValueError, "one JAX key.*Keys come first"),
    "accuracy beside levels": (lambda: anneal(gaussian(), accuracy=0.1, levels=9), ValueError, "got 0.1 beside levels"),
    "accuracy beside ESS": (
        lambda: anneal(gaussian(), accuracy=0.1, level_ess=0.9), ValueError, "0.1 beside level_ess.*Leave one of them"),
    "anneal a class that is no pytree": (lambda: anneal(unknown()), TypeError, "got Unknown.*Decorate"),
    "anneal a product with one": (lambda: anneal(gaussian() * unknown()), TypeError, "got Unknown.*Decorate"),
    "anneal a function": (lambda: anneal(lambda x, t: 0.0), TypeError, "takes a density.*nd.as_density"),
    "anneal a number": (lambda: anneal(3.0), TypeError, "takes a density; got .*nd.as_density"),
    "anneal nothing": (lambda: anneal(None), TypeError, "takes a density; got .*nd.as_density"),
    "anneal a name": (lambda: anneal("ring"), TypeError, "takes a density; got .*nd.as_density"),
    "anneal by a class": (lambda: anneal(gaussian(), HMC), TypeError, r"takes a kernel such as nd.HMC\(\)"),
    "anneal by a number": (lambda: anneal(gaussian(), 0.1), TypeError, r"takes a kernel such as nd.HMC\(\)"),
    "anneal by BlackJAX": (lambda: anneal(gaussian(), blackjax.nuts), TypeError, "takes a kernel such as nd.HMC"),
    "anneal by text": (lambda: anneal(gaussian(), "HMC"), TypeError, "takes a kernel such as nd.HMC"),
    "bound a function": (lambda: nd.ais_bound(jax.random.key(0), print), TypeError, "takes a density.*nd.as_density"),
    "bound by text": (
        lambda: nd.ais_bound(jax.random.key(0), gaussian(), "HMC"), TypeError, "takes a kernel such as nd.HMC"),
    "a mesh of text": (lambda: anneal(gaussian(), mesh="cpu"), TypeError, "jax.sharding.Mesh"),
    "no algorithm": (lambda: nd.BlackJAX("barker"), TypeError, "such as blackjax.barker"),
    "recalibrate a mixture": (lambda: nd.recalibrate(0, gaussian()), TypeError, "takes a trained energy"),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)


every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_call
@pytest.mark.parametrize("key", NO_KEYS, ids=lambda k: f"{type(k).__name__}-{np.shape(k)}")
def test_what_is_no_key(call, key):
    with pytest.raises(ParameterError, match=r"rng_key must be one JAX key such as jax.random.key\(0\); got"):
        call(key, **QUIET)


@every_call
@pytest.mark.parametrize("value", [True, np.True_, 2.0, np.float32(2), 0, -1, "2", [2]], ids=repr)
def test_counts_are_integers(call, value):
    names = {"raise": ["num_repeats", "num_steps"]}.get(next(k for k, v in CALLS.items() if v is call))
    for name in names or ["num_chains", "num_steps"]:
        with pytest.raises(ParameterError, match=rf"{name} must be an integer >= 1; got"):
            call(**QUIET, **{name: value})


TRANSFORMED = {
    "key in jit": lambda call: jax.jit(lambda key: call(key))(KEY),
    "key in vmap": lambda call: jax.vmap(lambda key: call(key))(jax.random.split(KEY, 2)),
    "nothing in jit": lambda call: jax.jit(lambda x: x + call().levels[0])(1.0),
    "exponent in grad": lambda call: jax.grad(lambda a: call(KEY, mixture() ** a).levels[0])(1.0),
    "weight in scan": lambda call: jax.lax.scan(lambda c, a: (c, call(KEY, a * mixture()).levels[0]), 0, jnp.ones(2)),
}


@every_call
@pytest.mark.parametrize("inside", TRANSFORMED.values(), ids=TRANSFORMED)
def test_runs_are_not_traced(call, inside):
    with pytest.raises(TracedError, match="runs on the host.*Python loop.*nd.AnnealedKernel"):
        inside(lambda *args: call(*args, **QUIET))


def test_points_of_bounds_are_not_traced():
    for bound in (nd.raise_bound, nd.bdmc):
        with pytest.raises(TracedError, match="Python loop"):
            jax.jit(lambda x, bound=bound: bound(KEY, mixture(), x, nd.HMC(0.5), **QUIET).lower)(POINTS)
        with pytest.raises(ParameterError, match="at least one point; got none"):
            bound(KEY, mixture(), np.zeros((0, 2)), nd.HMC(0.5), **QUIET)


P, Q = gaussian(name="p"), gaussian(covariance=((0.1, 0.0), (0.0, 0.1)), name="q")
SHIFTED = gaussian(mean=(0.5, 0.0), covariance=((0.5, 0.0), (0.0, 2.0)), name="s")


@every_call
@pytest.mark.parametrize("density", [1 / P, P / Q, P / Q**2, P * Q / SHIFTED**2.5, P / Q + P], ids=repr)
def test_improper_formulas_are_refused(call, density):
    with pytest.raises(ParameterError, match=r"improper: the exponents of its factors sum to .*floor"):
        call(KEY, density, **QUIET)


def test_metrics_and_frames():
    for name in ("metric", "frame"):
        with pytest.raises(ParameterError, match=rf"{name} must be one of .*; got 'x'"):
            nd.anneal(KEY, mixture(), nd.HMC(0.5), **QUIET, **{name: "x"})
    with pytest.raises(ScheduleError, match="levels must be None, a number of levels, or a list of times; got True"):
        nd.anneal(KEY, mixture(), nd.HMC(0.5), levels=True, progress_bar=False)
    with pytest.raises(ParameterError, match="Use metric='frame'"):
        nd.anneal(KEY, nd.load_pretrained("cubes_16"), nd.HMC(0.5), metric="pilot", progress_bar=False)


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"levels": [0.1, 0.5]}, ScheduleError, "levels must decrease; got 0.1 before 0.5. Reverse"),
        ({"levels": [1.0, 0.5, 0.5, 0.0]}, ScheduleError, "levels must decrease; got 0.5 before 0.5"),
        ({"levels": [1.5, 0.0]}, ScheduleError, r"levels must lie in \[0, 1\]; got 0.0 to 1.5"),
        ({"levels": [1.0, -0.1]}, ScheduleError, r"levels must lie in \[0, 1\]; got -0.1"),
        ({"levels": [1.0, np.nan, 0.0]}, ScheduleError, r"levels must lie in \[0, 1\]; got nan"),
        ({"levels": [1.0]}, ScheduleError, r"at least two times; got shape \(1,\)"),
        ({"levels": [[1.0, 0.0]]}, ScheduleError, r"at least two times; got shape \(1, 2\)"),
        ({"levels": 1}, ParameterError, "num_levels must be at least 2; got 1"),
        ({"levels": "many"}, ScheduleError, "levels must be None, a number of levels, or a list of times; got 'many'"),
        ({"level_ess": 1.0}, ParameterError, r"level_ess must lie in \(0, 1\); got 1.0"),
        ({"level_ess": 0.0}, ParameterError, r"level_ess must lie in \(0, 1\); got 0.0"),
        ({"resample_threshold": -0.1}, ParameterError, r"resample_threshold must lie in \[0, 1\]; got -0.1"),
        ({"resample_threshold": 1.1}, ParameterError, r"resample_threshold must lie in \[0, 1\]; got 1.1"),
        ({"resample_threshold": np.nan}, ParameterError, r"resample_threshold must lie in \[0, 1\]; got nan"),
        ({"chain_batch_size": 0}, ParameterError, "chain_batch_size must be an integer >= 1; got 0"),
        ({"chain_batch_size": 2.5}, ParameterError, "chain_batch_size must be an integer >= 1; got 2.5"),
        ({"frame": "polar"}, ParameterError, "frame must be one of .*'whitened'.*; got 'polar'"),
    ],
    ids=str,
)
def test_bad_settings(settings, error, message):
    with pytest.raises(error, match=message):
        sample(P2, HMC(), **settings)


@pytest.mark.parametrize("levels", [[0.1, 0.5], [1.5, 0.0], 1, "many"], ids=str)
def test_bad_levels_of_reverse_diffusion(levels):
    with pytest.raises((ScheduleError, ParameterError)):
        sample(P2, Reverse(), levels=levels)


def test_step_sizes_must_match_the_levels():
    with pytest.raises(ParameterError, match="got 3 step sizes for 10 levels"):
        sample(P2, HMC([0.1, 0.2, 0.3]), levels=LEVELS)
    with pytest.raises(ParameterError, match="got 3 step sizes for levels placed by conditional ESS"):
        sample(P2, HMC([0.1, 0.2, 0.3]))


@pytest.mark.parametrize("make", [ULA, MALA, HMC, UHMC, partial(BlackJAX, blackjax.barker)])
@pytest.mark.parametrize("bad", [0.0, -0.1, np.nan, np.inf, [0.1, -0.2], [[0.1]], True, "0.5", [True, True], [], 1j])
def test_bad_step_sizes(make, bad):
    with pytest.raises(ParameterError, match="step_size must be positive") as error:
        make(step_size=bad)
    assert str(bad) in str(error.value)


@pytest.mark.parametrize("make", [HMC, UHMC])
@pytest.mark.parametrize("bad", [0, -1, 2.5, None, True])
def test_bad_num_integration_steps(make, bad):
    with pytest.raises(ParameterError, match=f"num_integration_steps must be an integer >= 1; got {bad}"):
        make(num_integration_steps=bad)


@pytest.mark.parametrize("make", [HMC, UHMC])
@pytest.mark.parametrize("bad", [1, 1.0, -0.1, 1.5, float("nan")])
def test_bad_persistence(make, bad):
    with pytest.raises(ParameterError, match=rf"persistence must lie in \[0, 1\); got {bad}"):
        make(persistence=bad)


@pytest.mark.parametrize("bad", ["HMC", 0.3])
def test_step_sizes_and_persistence_that_are_no_numbers(bad):
    if isinstance(bad, str):
        with pytest.raises(ParameterError, match="HMC"):
            MALA(step_size=bad)
        with pytest.raises(ParameterError, match="HMC"):
            HMC(persistence=bad)
    with pytest.raises(TypeError, match="one of BlackJAX"):
        BlackJAX(bad)


def test_calibration_of_what_cannot_be():
    with pytest.raises(ScoreOnlyError, match="log density"):
        nd.calibration_report(network("score"))
    with pytest.raises(ShapeError, match="quadrature"):
        nd.calibration_report(nd.exact.UniformBox(-jnp.ones(3), jnp.ones(3)), method="quadrature")
    with pytest.raises(ShapeError, match="modes"):
        nd.calibration_report(planar.exact("ring"), modes=np.zeros((2, 3)))
    with pytest.raises(ParameterError, match="method"):
        nd.calibration_report(planar.exact("ring"), method="guess")
    with pytest.raises(TypeError, match="trained energy"):
        nd.recalibrate(jax.random.key(0), planar.exact("ring"))
