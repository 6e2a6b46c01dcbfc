"""What a run is asked for: keys, counts, traces, improper formulas; and what it says in few words, with remedies."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import gaussian, mixture, network

import numpyro_diffusion as nd
from numpyro_diffusion.diagnose.findings import findings
from numpyro_diffusion.diagnose.findings.outweighed import outweighed
from numpyro_diffusion.diagnose.findings.statistics import closer_levels, shorter_steps
from numpyro_diffusion.diagnose.summary import summary
from numpyro_diffusion.errors import ParameterError, ScheduleError, TracedError, check_integer, check_key

pytestmark = [
    pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning"),
    pytest.mark.usefixtures("quick_compilation"),
]
KEY = jax.random.key(0)
POINTS = np.zeros((3, 2))
CALLS = {
    "anneal": lambda key=KEY, density=None, **kw: nd.anneal(key, density or mixture(), nd.HMC(0.5), **kw),
    "reverse": lambda key=KEY, density=None, **kw: nd.anneal(key, density or mixture(), nd.Reverse(), **kw),
    "ais": lambda key=KEY, density=None, **kw: nd.ais_bound(key, density or mixture(), nd.HMC(0.5), **kw),
    "raise": lambda key=KEY, density=None, **kw: nd.raise_bound(key, density or mixture(), POINTS, nd.HMC(0.5), **kw),
    "bdmc": lambda key=KEY, density=None, **kw: nd.bdmc(key, density or mixture(), POINTS, nd.HMC(0.5), **kw),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
QUIET = {"levels": 3, "progress_bar": False}
NO_KEYS = [0, 1.5, None, "key", np.int64(3), np.zeros(2), np.zeros((4, 2), np.uint32), jax.random.split(KEY, 2), True]


@every_call
@pytest.mark.parametrize("key", NO_KEYS, ids=lambda k: f"{type(k).__name__}-{np.shape(k)}")
def test_what_is_no_key(call, key):
    with pytest.raises(ParameterError, match=r"rng_key must be one JAX key such as jax.random.key\(0\); got"):
        call(key, **QUIET)


def test_keys_of_both_kinds():
    typed = jax.random.key(3)
    for key in (typed, jax.random.key_data(typed), np.asarray(jax.random.key_data(typed))):
        assert isinstance(check_key(key), jax.Array)
    assert jax.jit(check_key)(typed) == typed


@every_call
@pytest.mark.parametrize("value", [True, np.True_, 2.0, np.float32(2), 0, -1, "2", [2]], ids=repr)
def test_counts_are_integers(call, value):
    names = {"raise": ["num_repeats", "num_steps"]}.get(next(k for k, v in CALLS.items() if v is call))
    for name in names or ["num_chains", "num_steps"]:
        with pytest.raises(ParameterError, match=rf"{name} must be an integer >= 1; got"):
            call(**QUIET, **{name: value})


def test_integers_of_every_kind():
    assert [check_integer("n", n) for n in (3, np.int32(3), np.uint8(3))] == [3, 3, 3]
    with pytest.raises(ParameterError, match="n must be an integer >= 0; got -1"):
        check_integer("n", -1, low=0)


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


@pytest.mark.parametrize(
    "density", [P / Q**0.9, P**2 / Q**0.5, 0.5 * P + 0.5 * (P / Q**0.9), P * SHIFTED / Q**0.7], ids=repr
)
def test_denominators_that_outweigh_are_found(density):
    (found,) = outweighed(density, 0.0)
    assert found[1] >= 1 and "q ** " in found[0]
    run = nd.anneal(KEY, density, nd.HMC(0.5), num_chains=16, **QUIET)
    (text,) = findings(run)
    assert "grow without bound" in text and "floor=0.01" in text


@pytest.mark.parametrize(
    "density",
    [P, P * Q, Q / P**0.9, P / Q**0.05, Q**2 / P, nd.negation(P, Q, floor=0.1), mixture() / P**0.5, network() * P],
    ids=repr,
)
def test_denominators_that_do_not(density):
    assert outweighed(density, 0.0) == []


def test_factors_with_modes_are_asked_themselves():
    """Each mode is narrower than the denominator, all together are wider: the Gaussians alone would complain."""
    angles = np.linspace(0, 2 * np.pi, 9)[:-1]
    ring = nd.exact.GaussianMixture(3 * np.c_[np.cos(angles), np.sin(angles)], np.tile(0.02 * np.eye(2), (8, 1, 1)))
    bar = gaussian(covariance=((0.1, 0.0), (0.0, 2.0)), name="bar")
    assert outweighed(ring / bar**0.5, 0.0) == []
    assert len(outweighed(ring / bar**0.5 / Q**0.4, 0.0)) <= 1


# Metrics and levels.


def test_metrics_and_frames():
    for name in ("metric", "frame"):
        with pytest.raises(ParameterError, match=rf"{name} must be one of .*; got 'x'"):
            nd.anneal(KEY, mixture(), nd.HMC(0.5), **QUIET, **{name: "x"})
    with pytest.raises(ScheduleError, match="levels must be None, a number of levels, or a list of times; got True"):
        nd.anneal(KEY, mixture(), nd.HMC(0.5), levels=True, progress_bar=False)
    with pytest.raises(ParameterError, match="Use metric='frame'"):
        nd.anneal(KEY, nd.load_pretrained("cubes_16"), nd.HMC(0.5), metric="pilot", progress_bar=False)


@pytest.mark.parametrize("bad", [True, "0.5", [True, True], [], 0, [[0.1]], 1j], ids=repr)
def test_what_is_no_step_size(bad):
    with pytest.raises(ParameterError, match="step_size must be positive"):
        nd.HMC(bad)


# In few words.


def test_kernels_print_their_settings():
    kernels = {
        nd.HMC(): "HMC(step_size=tuned, num_integration_steps=3)",
        nd.UHMC(0.25, 5, 0.5): "UHMC(step_size=0.25, num_integration_steps=5, persistence=0.5)",
        nd.ULA(np.full(4, 0.1)): "ULA(step_size=array[4])",
        nd.BlackJAX(blackjax.nuts, inverse_mass_matrix=np.ones(2)): "BlackJAX(nuts, step_size=tuned, "
        "inverse_mass_matrix=array[2])",
        nd.Reverse(): "Reverse()",
    }
    for kernel, text in kernels.items():
        assert repr(kernel) == text
    assert jax.jit(lambda k: jnp.zeros(len(repr(k))))(nd.MALA(0.1)).shape == (len("MALA(step_size=traced)"),)


def test_runs_and_bounds_print_in_a_few_lines():
    run = nd.anneal(KEY, mixture(name="m"), num_chains=64, **QUIET)
    lines = repr(run).splitlines()
    assert len(lines) <= 5 and max(map(len, lines)) < 120
    assert "AnnealedRun of m by HMC(" in lines[0] and "64 chains, 3 levels" in lines[1] and "+-" in lines[2]
    assert "findings" in lines[3]
    bound = nd.ais_bound(KEY, mixture(), num_chains=64, **QUIET)
    assert len(repr(bound)) < 100 and "ais: lower" in repr(bound)
    assert "findings" in summary(bound) and "Pareto k" in summary(bound)
    reverse = nd.anneal(KEY, mixture(), nd.Reverse(), num_chains=8, **QUIET)
    assert "no log evidence" in repr(reverse) and np.isnan(reverse.ess)


def test_hmc_is_the_kernel_where_none_is_given():
    settings = {"num_chains": 32, **QUIET}
    given, default = nd.anneal(KEY, mixture(), nd.HMC(), **settings), nd.anneal(KEY, mixture(), **settings)
    np.testing.assert_array_equal(given.samples, default.samples)
    for bound in (nd.bdmc, nd.raise_bound):
        more = {"num_chains": 32} if bound is nd.bdmc else {}
        one, other = (bound(KEY, mixture(), POINTS, *k, **QUIET, **more) for k in ((), (nd.HMC(),)))
        assert one.lower == other.lower


def test_remedies_are_what_the_call_can_do():
    given = nd.anneal(KEY, mixture(), nd.HMC(0.4), num_chains=32, levels=4, progress_bar=False)
    placed = nd.anneal(KEY, mixture(), nd.HMC(), num_chains=32, progress_bar=False)
    by_level = nd.anneal(KEY, mixture(), nd.HMC([0.5, 0.4, 0.3, 0.2]), num_chains=32, levels=4, progress_bar=False)
    assert closer_levels(given) == "more levels than 4" and "level_ess" in closer_levels(placed)
    assert "smaller than 0.4" in shorter_steps(given) and "0.2 to 0.5" in shorter_steps(by_level)
    assert "step_size=0.5 * run.stats['step_size'] with levels=run.levels" in shorter_steps(placed)
    again = nd.anneal(
        KEY, mixture(), nd.HMC(step_size=0.5 * placed.stats["step_size"]), levels=placed.levels, num_chains=32,
        progress_bar=False,
    )  # fmt: skip
    assert again.stats["acceptance_rate"].mean() > placed.stats["acceptance_rate"].mean()


def test_progress_shows_the_pilot_and_one_bar(capsys):
    nd.anneal(KEY, mixture(), nd.HMC(), num_chains=16)
    shown = capsys.readouterr().err
    assert "pilot: level 1, t = 1" in shown and "compiling" in shown and "ess=" in shown
    assert shown.rstrip("\n").count("\n") == 0, "one bar is one line"
    nd.anneal(KEY, mixture(), nd.HMC(), num_chains=16, progress_bar=False)
    assert capsys.readouterr().err == ""
