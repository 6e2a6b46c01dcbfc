"""Islands: populations that run side by side, resample by themselves, and have one mean evidence."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_problems import LEVELS, P2, Q2, assert_moments, of_product, sample

import numpyro_diffusion as nd
from numpyro_diffusion.annealing import population as populations
from numpyro_diffusion.annealing.population import on_islands, reweigh
from numpyro_diffusion.diagnose.findings.disagreeing import disagreeing
from numpyro_diffusion.diagnose.islands import layout
from numpyro_diffusion.errors import CheckpointError, DiagnosticWarning, ParameterError

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
J, N = 4, 400
PROBLEM = of_product(P2, Q2)


@pytest.fixture(scope="module")
def run():
    return sample(PROBLEM.density, nd.HMC(0.5), levels=LEVELS, num_chains=N, num_islands=J)


@pytest.fixture(scope="module")
def both():
    """A population of J islands, and each of them as a population of its own, with weights of many sizes."""
    start = populations.start(P2, jax.random.key(0), num_chains=40, frame_kind="whitened", num_islands=J)
    log_weight = 2 * jax.random.normal(jax.random.key(1), (40,))
    whole = start._replace(log_weight=log_weight, log_evidence=jnp.array([0.0, -1.0, 2.0, 0.5]))
    account = whole.account

    def part(j):
        own = slice(10 * j, 10 * j + 10)
        return populations.Population(
            jax.tree.map(lambda a: a[own], whole.state), log_weight[own], whole.ancestor[own], whole.log_evidence[j],
            account._replace(deviation=account.deviation[own], tail_nats=jnp.zeros(()), correction=jnp.zeros(())),
        )  # fmt: skip

    return whole, [part(j) for j in range(J)]


@pytest.mark.slow
def test_islands_are_weighed_and_resampled_as_populations_of_their_own(both):
    whole, parts = both
    key, shift = jax.random.key(2), jax.random.normal(jax.random.key(3), (40,))
    moved = whole.state._replace(logdensity=whole.state.logdensity + shift)
    threshold = 0.35  # some are resampled, some are not
    after, change = reweigh(whole, moved, key, threshold)
    resampled = []
    for j, (part, own_key) in enumerate(zip(parts, jax.random.split(key, J), strict=True)):
        own = slice(10 * j, 10 * j + 10)
        alone, told = reweigh(part, jax.tree.map(lambda a, own=own: a[own], moved), own_key, threshold)
        np.testing.assert_allclose(after.log_weight[own], alone.log_weight, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(after.ancestor[own], alone.ancestor)
        np.testing.assert_array_equal(after.state.position[own], alone.state.position)
        np.testing.assert_allclose(after.log_evidence[j], alone.log_evidence, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(after.account.deviation[own], alone.account.deviation, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(change.ess[j], told.ess, rtol=1e-5)
        resampled.append(bool(told.resampled))
    assert change.resampled.tolist() == resampled and any(resampled) and not all(resampled)


def test_the_evidence_is_the_mean_and_weights_between_islands_are_kept(both):
    whole, parts = both
    each = np.array([part.evidence() for part in parts])
    np.testing.assert_allclose(whole.island_evidences(), each, rtol=1e-6)
    assert float(whole.evidence()) == pytest.approx(np.log(np.mean(np.exp(each))), rel=1e-5)
    shares = np.exp(np.asarray(whole.log_weights(), float)).reshape(J, -1).sum(1)
    np.testing.assert_allclose(shares / shares.sum(), np.exp(each) / np.exp(each).sum(), rtol=1e-5)
    assert whole.founders().tolist() == list(range(40))


def test_the_error_is_that_of_a_mean(both):
    """Relative errors of the islands, weighed by their shares of the evidence."""
    whole, parts = both
    nats = jnp.zeros(J)
    shares = np.exp([float(p.evidence() - whole.evidence()) for p in parts]) / J
    each = np.array([float(p.evidence_error(jnp.zeros(()))) for p in parts])
    assert float(whole.evidence_error(nats)) == pytest.approx(np.sqrt(np.sum((shares * each) ** 2)), rel=1e-3)
    dead = whole._replace(log_weight=whole.log_weight.at[:10].set(-jnp.inf))
    assert np.isfinite(float(dead.evidence())) and np.isfinite(float(dead.evidence_error(nats)))
    assert float(on_islands(lambda p: p.log_weight.max(), dead)[0]) == -np.inf


def test_a_run_of_islands(run):
    assert abs(run.log_evidence - PROBLEM.log_z) < 5 * run.log_evidence_error < 1
    assert run.island_log_evidences.shape == (J,) and run.num_islands == J
    assert run.log_evidence == pytest.approx(np.log(np.mean(np.exp(run.island_log_evidences))), abs=1e-5)
    np.testing.assert_array_equal(np.asarray(run.ancestors) // (N // J), np.arange(N) // (N // J))
    weights = np.exp(np.asarray(run.log_weights, float)).reshape(J, -1)
    np.testing.assert_allclose(weights, weights[:, :1] * np.ones(N // J))
    np.testing.assert_allclose(weights[:, 0] / weights[:, 0].sum(), run.particles.weight.reshape(J, -1).sum(1))
    assert_moments(run.samples, PROBLEM, 0.2, run.log_weights)
    found = nd.expectation(run)
    assert np.all(np.abs(found.value - PROBLEM.mean) < 5 * found.error)
    assert np.all((found.island_error > 0) & (found.island_error < 6 * found.error))


def test_chains_of_arviz_are_the_islands(run, capsys):
    found = layout(run)
    assert found.shape == (J, N // J) and "side by side" in found.note
    tree = run.to_datatree()
    own = np.asarray(tree["sample_stats"]["ancestor"]) // (N // J)
    assert np.all(own == np.arange(J)[:, None])
    assert np.ptp(np.asarray(tree["sample_stats"]["weight"]), axis=1).max() < 1e-12
    assert "weights" in tree["posterior"].attrs
    assert list(tree["estimates"]["statistic"].values)[-1] == "island_error"
    run.print_summary()
    assert f"islands       {J}, of log evidence" in capsys.readouterr().out


@pytest.mark.slow
def test_further_kernels():
    run = sample(PROBLEM.density, nd.ULA(0.05), levels=LEVELS, num_chains=N, num_islands=J, seed=1)
    assert np.isfinite(run.log_evidence) and np.all(np.isfinite(run.island_log_evidences))
    run = sample(PROBLEM.density, nd.Reverse(), levels=20, num_chains=8, num_islands=2)
    assert run.samples.shape == (8, 2)


@pytest.mark.slow
def test_plain_weights():
    run = sample(PROBLEM.density, nd.HMC(0.5), levels=LEVELS, num_chains=N, num_islands=J, resample_threshold=0.0)
    assert run.ess < N and "withheld" in layout(run).note
    assert abs(run.log_evidence - PROBLEM.log_z) < 5 * run.log_evidence_error


def test_goes_on_from_a_checkpoint(tmp_path, run):
    settings = {"levels": LEVELS, "num_chains": N, "num_islands": J, "checkpoint_path": tmp_path / "run"}
    first, again = (sample(PROBLEM.density, nd.HMC(0.5), **settings) for _ in range(2))
    for other in (first, again):
        np.testing.assert_array_equal(other.samples, run.samples)
        np.testing.assert_array_equal(other.island_log_evidences, run.island_log_evidences)
    with pytest.raises(CheckpointError, match="num_islands"):
        sample(PROBLEM.density, nd.HMC(0.5), **settings | {"num_islands": 2})


def test_islands_that_disagree_are_found(run):
    apart = dataclasses.replace(run, island_log_evidences=np.array([0.0, -6.0, -6.0, -6.0]), log_evidence_error=0.1)
    assert "islands disagree: their shares of the evidence are 0.99" in next(disagreeing(apart))
    assert not list(disagreeing(run))
    with pytest.warns(DiagnosticWarning, match="islands disagree"):
        apart.warn()


@pytest.mark.parametrize(("islands", "chains"), [(3, 100), (100, 100), (0, 100), (2.0, 100)])
def test_refuses(islands, chains):
    with pytest.raises(ParameterError, match="num_islands must"):
        nd.anneal(jax.random.key(0), P2, num_chains=chains, num_islands=islands)
