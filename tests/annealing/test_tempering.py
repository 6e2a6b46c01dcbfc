"""Replica exchange: its laws, its evidence, its runs, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import COVARIANCES, MEANS, WEIGHTS, mixture
from exact_problems import P2, Q2, assert_moments, of_product

import numpyro_diffusion as nd
from numpyro_diffusion.annealing.level import level_at
from numpyro_diffusion.annealing.plan import Plan
from numpyro_diffusion.annealing.settings import Settings
from numpyro_diffusion.annealing.tempering import engine
from numpyro_diffusion.annealing.tempering.bridge import evidence
from numpyro_diffusion.annealing.tempering.ladder import Tally, enter, exchange, piece
from numpyro_diffusion.annealing.tempering.rungs import rungs
from numpyro_diffusion.diagnose.findings import findings
from numpyro_diffusion.errors import (
    CheckpointError,
    DiagnosticWarning,
    InterruptWarning,
    ParameterError,
    ScoreOnlyError,
)

KEY, QUIET = jax.random.key(0), {"engine": "tempering", "progress_bar": False}
#: Far apart: one in three exchanges is refused.
TIMES = np.array([0.6, 0.3, 0.0])
NORMAL = nd.exact.GaussianMixture(np.zeros((3, 2)), np.tile(np.eye(2), (3, 1, 1)))


#: Preconditioners of the levels at `TIMES`.
SCALES = np.array([[[1.0, 0.0], [0.4, 0.5]], [[0.7, 0.0], [-0.3, 1.2]], [[0.5, 0.0], [0.2, 0.9]]])


def ladder(density, points, kind="whitened", scales=None):
    """Levels at `TIMES`, and replicas at points x [K, G, d]."""
    levels = rungs(density, Plan(TIMES, np.full(3, 0.5), scales), kind)
    at = [level_at(density, t, kind).frame.coordinates for t in TIMES]
    u = jnp.stack([jax.vmap(to)(x) for to, x in zip(at, points, strict=True)])
    return levels, enter(density, levels, u, KEY)


def exact_points(count):
    """Exact draws [K, G, 2] of a mixture at every level."""
    density = mixture()
    keys = jax.random.split(jax.random.key(1), (len(TIMES), 2))
    alpha, sigma = density.schedule.alpha(TIMES), density.schedule.sigma(TIMES)
    clean = jnp.stack([density.sample(key, count) for key in keys[:, 0]])
    noise = jnp.stack([jax.random.normal(key, clean.shape[1:]) for key in keys[:, 1]])
    return alpha[:, None, None] * clean + sigma[:, None, None] * noise


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "scales"), [("whitened", None), ("identity", None), ("whitened", SCALES)])
def test_exchanges_leave_every_level_as_it_is(kind, scales):
    count = 8000
    before = exact_points(count)
    levels, replicas = ladder(mixture(), before, kind, scales)
    turn = jax.jit(lambda replicas, key, number: exchange(mixture(), levels, replicas, key, number, kind, None))
    rates = []
    for number in range(4):
        replicas, found = turn(replicas, jax.random.key(10 + number), number)
        rates.append(np.asarray(found.probability).mean(1))
    rates = np.array(rates)
    # Even and odd pairs by turns, and none of them for certain.
    assert np.all((rates > 0) == (np.arange(3) % 2 == np.arange(4)[:, None] % 2))
    assert np.all(rates[rates > 0] < 0.97)
    at = [levels.whole(jax.tree.map(lambda a, k=k: a[k], levels.levels), mixture()) for k in range(len(TIMES))]
    after = jnp.stack([jax.vmap(level.point)(u) for level, u in zip(at, replicas.state.position, strict=True)])
    for k in range(len(TIMES)):
        for power in (1, 2, 3):
            old, new = (np.asarray(x[k], dtype=float) ** power for x in (before, after))
            error = np.sqrt((old.var(0) + new.var(0)) / count)
            assert np.all(np.abs(old.mean(0) - new.mean(0)) < 5 * error)
        cached = jax.vmap(at[k].log_prob)(replicas.state.position[k])
        np.testing.assert_allclose(replicas.state.logdensity[k], cached, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("density", "shares"), [(mixture(), True), (P2 * Q2, False)])
def test_preconditioned_rungs_are_frames_with_one_matrix(density, shares):
    found = rungs(density, Plan(TIMES, np.full(3, 0.5), SCALES), "whitened")
    # The axes of a product turn.
    assert (found.axes is not None) == shares
    u = jnp.asarray([0.7, -1.3])
    for k, t in enumerate(TIMES):
        frame = found.whole(jax.tree.map(lambda a, k=k: a[k], found.levels), density).frame
        expected = level_at(density, t, "whitened", scale=SCALES[k]).frame
        v = frame.unscaled(u)
        np.testing.assert_allclose(frame.point(v, (2,)), expected.point(expected.unscaled(u), (2,)), atol=1e-5)
        np.testing.assert_allclose(frame.rescaled(v), u, atol=1e-5)
        np.testing.assert_allclose(frame.upper.T @ frame.upper, expected.root @ expected.root.T, atol=1e-5)
        assert frame.is_scaled and frame.log_det == pytest.approx(float(expected.log_det))


@pytest.mark.slow
def test_replicas_that_are_never_refused_run_straight_down():
    # In frames a Gaussian is the same at all levels.
    num_draws = 8
    levels, replicas = ladder(NORMAL, jnp.ones((3, 4, 2)))
    _, _, founder, tally = piece(
        NORMAL, nd.HMC(), levels, replicas, KEY, 0, jnp.zeros(3), num_draws=num_draws, thinning=1, settings=Settings()
    )
    np.testing.assert_allclose(tally.exchange, tally.turns, atol=1e-5)
    # A fresh draw enters in every other sweep, sweep n, and is on the last of three rungs two sweeps later.
    np.testing.assert_array_equal(founder[:, 0], [-1, -1, 0, 0, 2, 2, 4, 4])
    np.testing.assert_array_equal(tally.tours, 3)


def test_evidence_of_independent_batches():
    # One pair of Gaussians N(0, 1) and N(m, 1) exp(c): works are Gaussian, and every batch is independent.
    rng, shape, m, c = np.random.default_rng(0), (20, 1, 4), 1.0, 0.7
    errors, claims = [], []
    for _ in range(200):
        a, b = rng.normal(size=(*shape, 50)), m + rng.normal(size=(*shape, 50))
        work = [c + m * x - m**2 / 2 for x in (a, b)]
        forward, reverse = ((1 / (1 + np.exp(-w))).sum(-1) for w in (work[0] - 0.3, 0.3 - work[1]))
        turns = np.full(shape, 50.0)
        found = evidence(Tally(turns, None, forward, reverse, None, None, None), np.array([0.3]))
        errors.append(found.log_evidence[0] - c)
        claims.append(found.error[0])
    errors, claims = np.array(errors), np.array(claims)
    assert abs(errors.mean()) < 5 * errors.std() / np.sqrt(200)
    # The largest of the errors of four batch lengths lies a little above the truth.
    assert 1 < claims.mean() / errors.std() < 1.5


def test_evidence_of_pairs_that_saw_nothing():
    nothing = np.zeros((3, 2, 4))
    found = evidence(Tally(nothing, None, nothing, nothing, None, None, None), np.zeros(2))
    assert np.all(np.isnan(found.log_evidence)) and np.all(np.isinf(found.error))


@pytest.fixture(scope="module")
def product_run():
    return nd.anneal(KEY, P2 * Q2, num_samples=200, num_chains=8, **QUIET)


@pytest.mark.slow
def test_a_product_is_sampled_and_weighed(product_run):
    run, problem = product_run, of_product(P2, Q2)
    families = len(np.unique(run.ancestors))
    # One draw per fresh one is independent.
    assert_moments(run.samples, problem, 1 / np.sqrt(families))
    assert abs(run.log_evidence - problem.log_z) < 5 * run.log_evidence_error < 0.5
    assert run.samples.shape == (1600, 2) and len(run.levels) == len(run.stats["swap_rate"]) < 12
    assert run.barrier == pytest.approx(np.sum(1 - run.stats["swap_rate"]))
    # To enter the ladder, and per sweep to exchange and for one step: 25 pieces of 40 sweeps, and three before them.
    assert run.evaluations_per_chain == len(run.levels) * (1 + 1120 * (1 + run.kernel.evaluations_per_step))
    # A pilot of as many chains, with more steps a level, and the anneal that places the rungs.
    assert run.pilot_evaluations > 2 * 96 * len(run.levels) * (1 + run.kernel.evaluations_per_step) / 8


@pytest.mark.slow
def test_what_a_run_tells(product_run, capsys):
    run = product_run
    run.print_summary()
    text = capsys.readouterr().out
    for words in ("8 groups of 200 draws", "round trips", "barrier", "per group of replicas", "findings"):
        assert words in text
    assert f"and {run.pilot_evaluations:.0f} for the pilot" in text
    assert repr(run).startswith("TemperedRun of") and "8 groups of 200 draws" in repr(run)
    tree = run.to_datatree()
    assert tree.posterior.x.shape == (8, 200, 2)
    np.testing.assert_array_equal(tree.posterior.x[3], run.samples[600:800])
    assert set(tree.annealing.data_vars) >= {"swap_rate", "acceptance_rate", "log_evidence_error"}
    assert set(np.asarray(run.ancestors[:200])).isdisjoint(np.asarray(run.ancestors[200:]))


SHORT = {"num_samples": 50, "num_chains": 2, "thinning": 2, "levels": TIMES, "checkpoint_every_seconds": 0.0, **QUIET}


def stop_at(monkeypatch, number, error):
    """Piece `number` fails once."""
    original, calls = engine.piece, []

    def failing(*args, **kwargs):
        calls.append(None)
        if len(calls) == number:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(engine, "piece", failing)


def assert_equal(found, expected):
    for name in ("samples", "ancestors", "log_evidence", "log_evidence_error", "tours", "pilot_evaluations"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    for name, values in expected.stats.items():
        np.testing.assert_array_equal(found.stats[name], values, err_msg=name)


@pytest.mark.slow
def test_given_levels_are_the_rungs_and_ones_too_far_apart_are_found():
    run = nd.anneal(KEY, mixture(), nd.HMC(0.5), **SHORT)
    np.testing.assert_array_equal(run.levels, TIMES)
    # Of no pilot: 96 chains place the rungs, at each of which they enter and take one step, for two groups.
    assert run.pilot_evaluations == 96 * len(TIMES) * (1 + run.kernel.evaluations_per_step) / 2
    far = {"levels": [1.0, 0.1, 0.0]}
    # Of the same shapes: nothing is compiled anew.
    narrow = nd.exact.GaussianMixture(MEANS, 1e-6 * COVARIANCES, WEIGHTS, name="m")
    with pytest.warns(DiagnosticWarning, match=r"hardly exchange replicas.*more levels than 3"):
        run = nd.anneal(KEY, narrow, nd.HMC(0.5), **SHORT | far)
    assert any("fresh draws" in finding for finding in findings(run))


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 20])
def test_a_killed_run_ends_bit_for_bit_as_an_uninterrupted_one(tmp_path, monkeypatch, number):
    path = tmp_path / "run.safetensors"
    expected = nd.anneal(KEY, mixture(), nd.HMC(0.5), **SHORT)
    stop_at(monkeypatch, number, SystemExit())
    with pytest.raises(SystemExit):
        nd.anneal(KEY, mixture(), nd.HMC(0.5), checkpoint_path=path, **SHORT)
    assert_equal(nd.anneal(KEY, mixture(), nd.HMC(0.5), checkpoint_path=path, **SHORT), expected)
    assert_equal(nd.anneal(KEY, mixture(), nd.HMC(0.5), checkpoint_path=path, **SHORT), expected)
    with pytest.raises(CheckpointError, match="draws"):
        nd.anneal(KEY, mixture(), nd.HMC(0.5), checkpoint_path=path, **SHORT | {"thinning": 3})


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_there_is(monkeypatch):
    stop_at(monkeypatch, 13, KeyboardInterrupt())
    with pytest.warns(InterruptWarning, match="interrupted after"):
        run = nd.anneal(KEY, mixture(), nd.HMC(0.5), **SHORT)
    assert not run.is_complete and 0 < len(run.samples) < 100 and "incomplete" in repr(run)
    assert np.isfinite(run.log_evidence)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"kernel": nd.ULA(0.1)}, "nd.HMC or nd.MALA"),
        ({"kernel": nd.Reverse()}, "nd.HMC or nd.MALA"),
        ({"predictor": True}, "predictor"),
        ({"resample_threshold": 0.5, "keep_history": True}, "keep_history, resample_threshold"),
        ({"num_islands": 2, "num_chains": 4}, "takes no num_islands"),
        ({"engine": "replica"}, "engine must be one of"),
        ({"engine": "annealing", "num_samples": 3}, "nd.AnnealedMCMC"),
        ({"num_samples": 0}, "num_samples"),
        ({"thinning": 1.5}, "thinning"),
        ({"num_chains": 0}, "num_chains"),
    ],
)
def test_what_is_refused(settings, match):
    with pytest.raises(ParameterError, match=match):
        nd.anneal(KEY, mixture(), **QUIET | settings)


def test_scores_alone_are_refused():
    score = nd.from_score(lambda x, t: -x, (2,), nd.VariancePreserving.cosine())
    with pytest.raises(ScoreOnlyError, match=r"nd\.distil"):
        nd.anneal(KEY, score, **QUIET)
