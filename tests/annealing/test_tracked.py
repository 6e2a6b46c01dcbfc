"""Reverse diffusion that tracks log densities: weights of products, and mixtures of score-only models."""

import jax
import numpy as np
import pytest
from annealing.test_resume import Killed, assert_equal, stop_at
from counting import compilations
from densities import ScoreOf, gaussian, network
from exact_problems import P2, Q2, assert_moments, components, of_components, of_product, of_quadrature
from exact_problems import gaussian as gaussian_of
from exact_problems import sample as annealed
from quick import quick_among
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.annealing import population as populations
from numpyro_diffusion.annealing.tracked import tracked_step
from numpyro_diffusion.diagnose.summary import summary
from numpyro_diffusion.errors import ParameterError, ScoreOnlyError

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
KEY = jax.random.key(0)
P, Q = ScoreOf(P2, "p"), ScoreOf(Q2, "q")
#: Two modes 4 apart, where shares show.
LEFT, RIGHT = (gaussian((x, 0.0), ((0.1, 0.0), (0.0, 0.2)), n) for x, n in ((-2.0, "left"), (2.0, "right")))


#: Weights of products with it have light tails.
WIDE = gaussian_of([0.3, -0.2], [[1.5, 0.3], [0.3, 1.0]])


def sample(density, kernel=None, seed=0, **settings):
    return annealed(density, kernel or nd.Reverse(), seed, **{"num_chains": 400, "levels": 60} | settings)


@pytest.mark.slow
def test_mixtures_of_scores_have_the_evidence_and_the_shares_of_their_masses():
    density = 0.25 * ScoreOf(LEFT, "l") + 0.75 * ScoreOf(RIGHT, "r")
    run = sample(density)
    assert run.is_weighted and abs(run.log_evidence) < 5 * run.log_evidence_error < 0.5
    share = np.mean(np.asarray(run.samples)[:, 0] > 0)
    assert abs(share - 0.75) < 5 * np.sqrt(0.75 * 0.25 * (run.log_evidence_error**2 + 1 / 400))
    # Masses are those of the formula, not of shares.
    twice = sample(2 * (ScoreOf(LEFT, "l") + ScoreOf(RIGHT, "r")))
    assert abs(twice.log_evidence - np.log(4)) < 5 * twice.log_evidence_error


@pytest.mark.slow
def test_mixtures_of_mixtures_have_their_moments():
    exact = 0.4 * P2 + 0.6 * Q2
    parts = [(a * w, m, C) for a, p in ((0.4, P2), (0.6, Q2)) for w, m, C in components(p)]
    run = sample(0.4 * P + 0.6 * Q)
    assert abs(run.log_evidence) < 5 * run.log_evidence_error < 0.5
    assert_moments(run.samples, of_components(exact, parts), run.log_evidence_error, allowance=0.03)


FACTORS = {
    "scores": (P, ScoreOf(WIDE, "wide")), "one of each": (P, WIDE), "log densities": (P2, WIDE),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("factors", quick_among(FACTORS, ["one of each"]))
def test_products_are_weighted_right(factors):
    p, q = FACTORS[factors]
    problem = of_product(P2, WIDE)
    run = sample(p * q, nd.Reverse(weighted=True))
    assert abs(run.log_evidence - problem.log_z) < 5 * run.log_evidence_error < 2.5
    assert_moments(run.samples, problem, run.log_evidence_error, allowance=0.03)
    assert run.evaluations_per_chain > 60


@pytest.mark.slow
def test_without_weights_products_are_biased_as_ever():
    run = sample(P * Q)
    assert not run.is_weighted and np.isnan(run.log_evidence) and run.evaluations_per_chain == 59
    with pytest.raises(AssertionError):
        assert_moments(run.samples, of_product(P2, Q2), 0.0, allowance=0.03)


@pytest.mark.slow
def test_contrasts_and_harmonic_means_of_scores():
    exact = of_quadrature(nd.harmonic_mean(P2, Q2))
    run = sample(nd.harmonic_mean(P, Q), levels=80, num_chains=600)
    assert abs(run.log_evidence - exact.log_z) < 5 * run.log_evidence_error < 1
    assert_moments(run.samples, exact, run.log_evidence_error, allowance=0.05)
    run = sample(nd.contrast(P, Q), num_chains=50, levels=20)
    assert np.all(np.isfinite(run.samples)) and np.isfinite(run.log_evidence)


G = ScoreOf(gaussian_of([1.0, -2.0], [[2.0, 0.3], [0.3, 0.05]]))


# The Gaussian of their product turns, and its mean moves.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("density", "log_z"),
    [
        pytest.param(G, 0.0, marks=pytest.mark.slow),
        (G * ScoreOf(WIDE, "wide"), of_product(G.density, WIDE).log_z),
    ],
    ids=["one", "product"],
)
def test_weights_of_gaussians_are_constant(density, log_z):
    run = sample(density, nd.Reverse(weighted=True), resample_threshold=0.0, num_chains=100, levels=30)
    assert np.std(run.log_weights) < 0.05 and abs(run.log_evidence - log_z) < 0.05


@pytest.mark.slow
def test_without_resampling_there_are_weights():
    run = sample(P * WIDE, nd.Reverse(weighted=True), resample_threshold=0.0)
    assert np.std(run.log_weights) > 0.1 and not np.any(run.stats["resampled"])
    assert_moments(run.samples, of_product(P2, WIDE), run.log_evidence_error, np.asarray(run.log_weights), 0.05)


@pytest.mark.slow
def test_tracked_log_densities_are_those_of_the_leaves():
    """Along one path of many steps each leaf's log density is what it is in closed form."""
    density = 0.4 * P + 0.6 * Q
    times = P.schedule.levels(60, smallest=0.02)[:-1]
    state = populations.start(
        density, jax.random.key(3), num_chains=16, frame_kind="identity", mesh=None, tracks=True
    ).state  # fmt: skip
    step = jax.jit(jax.vmap(tracked_step, in_axes=(None, 0, 0, None, None)))
    for i, (t, t_to) in enumerate(zip(times[:-1], times[1:], strict=True)):
        state = step(density, jax.random.split(jax.random.key(i), 16), state, t, t_to)
    x = state.position
    exact = np.stack([jax.vmap(lambda x, p=p: p.log_density(x, times[-1]))(x) for p in (P2, Q2)], axis=1)
    assert P.schedule.noise_to_signal(times[-1]) > P.resolution and np.std(exact) > 0.5
    error = np.asarray(state.leaves) - exact
    assert np.abs(np.median(error)) < 0.05 and np.quantile(np.abs(error), 0.8) < 0.2


@pytest.mark.slow
def test_a_conditional_model_and_guidance():
    model = network("score", condition_size=2)
    a, b = (model.given(np.array(c)) for c in ([1.0, 0.0], [0.0, 1.0]))
    settings = {"num_chains": 32, "levels": 12}
    for density in (0.5 * a + 0.5 * b, nd.guided(model, a, 2.0)):
        run = sample(density, nd.Reverse(weighted=True), **settings)
        assert run.is_weighted and np.isfinite(run.log_evidence) and np.all(np.isfinite(run.samples))


@pytest.mark.slow
def test_retrained_weights_and_other_shares_compile_nothing_anew():
    first, second = (network("score", seed=seed) for seed in (0, 1))
    other = ScoreOf(gaussian())
    settings = {"num_chains": 16, "levels": 5}
    run = sample(0.5 * first + 0.5 * other, **settings)
    with compilations() as found:
        again = sample(0.3 * second + 0.7 * other, **settings)
    assert not found and not np.array_equal(run.samples, again.samples)


FEW = {"num_chains": 16, "levels": 6, "resample_threshold": 0.9}


@pytest.mark.slow
@pytest.mark.parametrize("level", [1, 4, 6])
def test_a_killed_run_ends_bit_for_bit_as_an_uninterrupted_one(tmp_path, monkeypatch, level):
    settings = FEW | {"keep_history": True, "checkpoint_every_seconds": 0.0}
    density = 0.4 * P + 0.6 * Q
    expected = sample(density, **settings)
    settings["checkpoint_path"] = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, level, Killed())
        with pytest.raises(Killed):
            sample(density, **settings)
    assert_equal(sample(density, **settings), expected)
    assert_equal(sample(density, **settings), expected)  # a finished run is read back


@pytest.mark.slow
def test_whether_runs_are_weighted_belongs_to_their_checkpoints(tmp_path):
    sample(P * Q, nd.Reverse(weighted=True), **FEW, checkpoint_path=tmp_path / "run")
    with pytest.raises(nd.errors.CheckpointError, match="kernel"):
        sample(P * Q, nd.Reverse(), **FEW, checkpoint_path=tmp_path / "run")


@pytest.mark.slow
def test_pieces_are_one_and_a_mesh_of_one_is_none():
    density, mesh = 0.4 * P + 0.6 * Q, jax.make_mesh((1,), ("chains",))
    whole = sample(density, **FEW, keep_history=True)
    for other in (sample(density, **FEW, chain_batch_size=8), sample(density, **FEW, mesh=mesh)):
        np.testing.assert_allclose(other.samples, whole.samples, atol=1e-4)
        np.testing.assert_array_equal(other.ancestors, whole.ancestors)
        np.testing.assert_allclose(other.log_evidence, whole.log_evidence, atol=1e-4)
    increments = np.asarray(whole.history["log_weight_increment"])
    assert increments.shape == (6, 16) and np.all(np.isfinite(increments)) and np.any(increments != 0)


@pytest.mark.slow
def test_what_a_run_says_of_itself():
    run = sample(0.4 * P + 0.6 * Q, keep_history=True, **FEW)
    assert run.kernel == nd.Reverse(True) and repr(nd.Reverse(True)) == "Reverse(weighted=True)"
    assert {"ess", "log_evidence", "resampled"} <= set(run.stats) and run.stats["ess"].shape == (6,)
    assert run.stats["log_evidence"][-1] == pytest.approx(run.log_evidence, abs=1e-4)
    assert "log evidence" in summary(run) and "acceptance    none" in summary(run)


MIXED = r"shares at one point need log densities.*nd\.Reverse\(\)"
REFUSED = {
    "weighted by text": (lambda: nd.Reverse(weighted="yes"), ParameterError, r"weighted must be .*got 'yes'"),
    "weighted by a number": (lambda: nd.Reverse(weighted=2), ParameterError, r"weighted.*got 2"),
    "a mixture by HMC": (lambda: sample(P + Q, nd.HMC()), ScoreOnlyError, MIXED),
    "a mixture unweighted": (lambda: sample(P + Q, nd.Reverse(weighted=False)), ScoreOnlyError, MIXED),
    "improper": (lambda: sample(P / Q, nd.Reverse(weighted=True)), ParameterError, "improper"),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)
