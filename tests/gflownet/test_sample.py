"""Weighted paths: laws of their weights, log sums and distributions against dynamic programming, and runs."""

import jax
import numpy as np
import pytest
from flows import GRID, exact, flat, shares, unlisted, wrong

import numpyro_diffusion as nd
from numpyro_diffusion import gflownet
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError, TracedError

COUNT = 4000
F = (exact(0), exact(1), exact(2))
W = (wrong(0), wrong(1), wrong(2))
COMPOSITIONS = {
    "harmonic mean": nd.harmonic_mean(*F[:2], alpha=0.3),
    "contrast": nd.contrast(*F[:2], alpha=0.05),
    "product": nd.product(*F),
    "wrong product": nd.product(*W),
    "wrong contrast": nd.contrast(*W[:2], alpha=0.1),
    "quotient": W[0] ** 1.5 / W[1] ** 0.5,
}


def check(run, flow):
    """Distribution and log sum of a run within 5 sigma of dynamic programming."""
    truth, log_sum = shares(flow)
    assert abs(run.log_evidence - log_sum) < 5 * run.log_evidence_error + 1e-5
    # Of coordinates, whose errors families give.
    mean = truth @ np.asarray(gflownet.every_state(GRID))
    found = nd.expectation(run, lambda state: state * 1.0)
    assert np.all(np.abs(found.value - mean) < 5 * found.error + 1e-4)


QUICK = {("harmonic mean", "routing"), ("wrong product", "flows")}
EVERY = [(name, proposal) for name in COMPOSITIONS for proposal in ("routing", "flows", None)]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("name", "proposal"), [pytest.param(*pair, marks=[pytest.mark.slow] * (pair not in QUICK)) for pair in EVERY]
)
def test_compositions(name, proposal):
    flow = COMPOSITIONS[name]
    run = gflownet.sample(jax.random.key(1), flow, num_samples=COUNT, proposal=proposal)
    check(run, flow)
    truth = shares(flow)[0]
    # Each path counts in every state on its way; an exact draw would leave sqrt(p (1 - p) / n).
    assert np.sum(np.abs(run.probabilities() - truth)) < 2 * np.sum(np.sqrt(truth * (1 - truth) / COUNT))


@pytest.mark.slow
@pytest.mark.parametrize("flows", [F, W], ids=["balanced", "wrong"])
def test_weights_of_mixtures_are_constant(flows):
    mixture = nd.mixture(*flows, weights=[0.2, 0.3, 0.5])
    run = gflownet.sample(jax.random.key(0), mixture, num_samples=500, proposal="routing")
    assert np.ptp(run.log_weights) < 1e-3
    assert run.log_evidence == pytest.approx(0, abs=1e-3)


@pytest.mark.slow
def test_weights_of_mixtures_are_constant_along_paths():
    # One backward policy is enough; the flows need not balance.
    mixed = [gflownet.Flow(f.environment, f.policy, f.log_z, f.name) for f in map(unlisted, F)]
    run = gflownet.sample(jax.random.key(0), nd.mixture(*mixed), num_samples=500, proposal="routing")
    assert np.ptp(run.log_weights) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("proposal", ["routing", pytest.param(None, marks=pytest.mark.slow)])
def test_along_paths(proposal):
    flow = nd.harmonic_mean(*F[:2], alpha=0.3)
    run = gflownet.sample(jax.random.key(5), nd.harmonic_mean(*map(unlisted, F[:2]), alpha=0.3), proposal=proposal)
    assert not run.is_exact
    check(run, flow)


@pytest.mark.slow
def test_permuted_factors():
    run, permuted = (
        gflownet.sample(jax.random.key(2), nd.product(*flows), num_samples=COUNT, proposal="routing")
        for flows in (F, F[::-1])
    )
    # Up to rounding, which sends a path or two elsewhere.
    assert np.sum(np.abs(run.probabilities() - permuted.probabilities())) < 0.01
    assert run.log_evidence == pytest.approx(permuted.log_evidence, abs=0.01)


@pytest.mark.slow
def test_with_a_flat_flow():
    run = gflownet.sample(jax.random.key(2), F[0] * flat(), num_samples=COUNT)
    check(run, F[0] * flat())
    assert np.sum(np.abs(run.probabilities() - shares(F[0])[0])) < 0.2


def test_routing_alone_is_right_for_mixtures_alone():
    assert np.sum(np.abs(shares(gflownet.routing(nd.mixture(*W)))[0] - shares(nd.mixture(*W))[0])) < 1e-4
    harmonic = nd.harmonic_mean(*F[:2], alpha=0.05)
    assert np.sum(np.abs(shares(gflownet.routing(harmonic))[0] - shares(harmonic)[0])) > 0.05


@pytest.mark.slow
def test_islands_agree_with_their_errors():
    flow = COMPOSITIONS["wrong product"]
    run = gflownet.sample(jax.random.key(3), flow, num_samples=20_000, num_islands=20, proposal="routing")
    errors = np.exp(run.island_log_evidences - shares(flow)[1]) - 1
    scatter = errors.std(ddof=1) / np.sqrt(20)
    assert abs(errors.mean()) < 5 * scatter
    # A standard deviation of 20 is known within a factor two at 5 sigma.
    assert 0.45 < run.log_evidence_error / scatter < 2.2
    check(run, flow)


def test_same_key_same_run():
    first, again, other = (
        gflownet.sample(jax.random.key(k), COMPOSITIONS["contrast"], num_samples=500) for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.log_evidence == again.log_evidence != other.log_evidence


@pytest.mark.slow
def test_summary_and_tree(capsys):
    run = gflownet.sample(jax.random.key(0), COMPOSITIONS["harmonic mean"], num_samples=1000, num_islands=2)
    run.print_summary()
    text = capsys.readouterr().out
    assert "p * q / (0.3 * p + 0.7 * q)" in text and "findings      none" in text and "ESS" in text
    assert "findings: none" in repr(run)
    tree = run.to_datatree()
    assert tree["posterior"]["x"].shape == (2, 500, 2)
    assert float(tree["sample_stats"]["weight"].sum()) == pytest.approx(1, abs=1e-6)
    assert tree["paths"]["ess"].shape == (GRID.max_length,)
    assert tree.attrs["log_evidence"] == run.log_evidence


@pytest.mark.slow
@pytest.mark.parametrize("name", ["harmonic mean", pytest.param("wrong product", marks=pytest.mark.slow)])
@pytest.mark.parametrize("proposal", ["routing", pytest.param("flows", marks=pytest.mark.slow)])
def test_bounds(name, proposal):
    flow = COMPOSITIONS[name]
    bound = gflownet.bdmc(jax.random.key(4), flow, proposal=proposal)
    truth = shares(flow)[1]
    assert bound.lower - 5 * bound.lower_error < truth < bound.upper + 5 * bound.upper_error
    assert abs(bound.gap) < 0.5
    objects = jax.vmap(GRID.state_of)(jax.random.categorical(jax.random.key(0), flow.log_probs(), shape=(900,)))
    given = gflownet.bdmc(jax.random.key(5), flow, objects, proposal=proposal)
    assert abs(given.upper - bound.upper) < 5 * np.hypot(given.upper_error, bound.upper_error)


@pytest.mark.slow
def test_constant_weights_are_known_to_rounding():
    flow = 0.3 * F[0] + 0.7 * F[1]
    bound = gflownet.bdmc(jax.random.key(0), flow)
    assert 0 < bound.lower_error < 1e-5 and 0 < bound.upper_error < 1e-5
    assert abs(bound.lower) < 3 * bound.lower_error and abs(bound.upper) < 3 * bound.upper_error


@pytest.mark.slow
def test_a_few_paths_tell_no_error():
    few = gflownet.sample(jax.random.key(0), F[0], num_samples=3)
    assert np.isinf(few.log_evidence_error) and "3 paths tell no error" in few.findings()[0]


def test_findings():
    # A high power of a flow, by paths of the flow itself: few of them hold the weight.
    run = gflownet.sample(jax.random.key(0), W[0] ** 20, num_samples=200, proposal="w0")
    assert any("collapse" in finding for finding in run.findings())
    with pytest.warns(nd.errors.DiagnosticWarning):
        run.warn()


def test_refused():
    with pytest.raises(ArgumentTypeError, match="flow"):
        gflownet.sample(jax.random.key(0), "p")
    with pytest.raises(ParameterError, match="proposal"):
        gflownet.sample(jax.random.key(0), F[0] * F[1], proposal="best")
    with pytest.raises(ParameterError, match="num_islands"):
        gflownet.sample(jax.random.key(0), F[0], num_samples=10, num_islands=3)
    with pytest.raises(TracedError):
        jax.jit(lambda key: gflownet.sample(key, F[0]).log_evidence)(jax.random.key(0))
