"""General sculpting against its two-label cases, its definition, chains of answers, and rejection samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flows import exact, shares
from quick import quick_among

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError, ShapeError


def gaussian(x, y, name, width=0.6):
    return nd.exact.GaussianMixture(np.array([[x, y]]), width**2 * np.eye(2)[None], name=name)


P, Q, R = gaussian(0.0, 0.0, "p"), gaussian(0.8, 0.0, "q"), gaussian(0.3, 0.7, "r", width=0.5)
X = 2.0 * jax.random.normal(jax.random.key(0), (50, 2))


@pytest.mark.parametrize("alpha", [0.05, 0.3, 0.5, 0.95])
def test_two_labels_are_harmonic_means_and_contrasts(alpha):
    weights = [alpha, 1 - alpha]
    for sculpted, named in [
        (nd.sculpt([P, Q], [1, 2], weights=weights), nd.harmonic_mean(P, Q, alpha=alpha)),
        (nd.sculpt([P, Q], [1, 1], weights=weights), nd.contrast(P, Q, alpha=alpha)),
        (nd.sculpt([P, Q], [2, 2], weights=weights), nd.contrast(Q, P, alpha=1 - alpha)),
    ]:
        np.testing.assert_allclose(sculpted.log_prob(X, 0.3), named.log_prob(X, 0.3), rtol=2e-5, atol=1e-5)


def test_definition_and_order():
    weights = np.array([0.2, 0.5, 0.3])
    values = np.stack([np.asarray(d.log_prob(X, 0.1), np.float64) for d in (P, Q, R)])
    mixed = np.logaddexp.reduce(values + np.log(weights)[:, None])
    for labels in ([1, 2, 3], [1, 1, 1], [2, 2, 3]):
        found = nd.sculpt([P, Q, R], labels, weights=weights).log_prob(X, 0.1)
        wanted = mixed + sum(values[y - 1] - mixed for y in labels)
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)
        again = nd.sculpt([P, Q, R], labels[::-1], weights=weights)
        np.testing.assert_allclose(again.log_prob(X, 0.1), found, rtol=1e-5, atol=1e-5)


def test_one_label_is_that_density():
    assert repr(nd.sculpt([P, Q], [2])) == "q"
    np.testing.assert_allclose(nd.sculpt([P, Q], [2]).log_prob(X), Q.log_prob(X), rtol=1e-6)


def test_text_and_weights_that_are_traced():
    assert repr(nd.sculpt([P, Q, R], [1, 1, 3])) == "p ** 2 * r / (0.3333 * p + 0.3333 * q + 0.3333 * r) ** 2"
    traced = jax.jit(lambda w: nd.sculpt([P, Q], [1, 2], weights=w).log_prob(X))(jnp.array([0.3, 0.7]))
    np.testing.assert_allclose(traced, nd.sculpt([P, Q], [1, 2], weights=[0.3, 0.7]).log_prob(X), rtol=2e-5, atol=1e-5)


WEIGHTS = [None, [0.05, 0.9, 0.05], [0.5, 0.2, 0.3]]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("first", "then"), [([1], 2), ([1], [2, 2]), ([3, 3], [1]), ([1, 2], 3)])
def test_chained_answers_are_sculpted_at_once(weights, first, then):
    densities = [P, Q, R]
    chained = nd.observe(nd.sculpt(densities, first, weights=weights), densities, then, weights=weights)
    at_once = nd.sculpt(densities, [*first, *np.atleast_1d(then)], weights=weights)
    np.testing.assert_allclose(chained.log_prob(X, 0.2), at_once.log_prob(X, 0.2), rtol=2e-5, atol=2e-5)
    assert len(chained.leaves) == 3


@pytest.mark.parametrize("weights", WEIGHTS)
def test_an_answer_about_the_mixture_is_that_density(weights):
    densities = [P, Q, R]
    observed = nd.observe(nd.mixture(*densities, weights=weights), densities, 2, weights=weights)
    np.testing.assert_allclose(observed.log_prob(X, 0.1), Q.log_prob(X, 0.1), rtol=2e-5, atol=2e-5)


def test_answers_about_any_density_and_among_others():
    weights = np.array([0.3, 0.7])
    start = P**0.5 * Q
    observed = nd.observe(start, [Q, R], np.array([2, 1, 2]), weights=weights)
    q, r = (np.asarray(d.log_prob(X, 0.1), np.float64) for d in (Q, R))
    mixed = np.logaddexp(q + np.log(0.3), r + np.log(0.7))
    wanted = np.asarray(start.log_prob(X, 0.1)) + q + 2 * r - 3 * mixed
    np.testing.assert_allclose(observed.log_prob(X, 0.1), wanted, rtol=2e-5, atol=2e-5)


def test_chains_are_traced_and_read_as_formulas():
    chain = lambda w: nd.observe(nd.sculpt([P, Q], [1], weights=w), [P, Q], 2, weights=w)
    assert repr(chain([0.3, 0.7])) == "p * q / (0.3 * p + 0.7 * q)"
    found = jax.jit(lambda w: chain(w).log_prob(X))(jnp.array([0.3, 0.7]))
    np.testing.assert_allclose(found, chain([0.3, 0.7]).log_prob(X), rtol=2e-5, atol=1e-5)


def test_flows_are_observed_too():
    flows = [exact(0), exact(1), exact(2)]
    chained = nd.observe(nd.sculpt(flows, [1], weights=[1, 2, 3]), flows, [2, 3], weights=[1, 2, 3])
    at_once = nd.sculpt(flows, [1, 2, 3], weights=[1, 2, 3])
    (found, log_sum), (wanted, log_wanted) = shares(chained), shares(at_once)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert log_sum == pytest.approx(log_wanted, abs=1e-4)


def rejected(rng_key, prior, answers, count=40_000):
    """Draws of the mixture of `prior`, kept with the probability of answers (densities, weights, number)."""
    key, keep = jax.random.split(rng_key)
    x = jnp.concatenate([d.sample(k, count) for d, k in zip(prior, jax.random.split(key, len(prior)), strict=True)])
    chance = jnp.ones(len(x))
    for densities, weights, number in answers:
        logs = jnp.stack([d.log_prob(x) for d in densities]) + jnp.log(jnp.asarray(weights, float))[:, None]
        chance *= jax.nn.softmax(logs, axis=0)[number - 1]
    return x[jax.random.uniform(keep, (len(x),)) < chance]


THREE = [P, Q, R]
PAIR = {alpha: ([P, Q], [alpha, 1 - alpha]) for alpha in (0.05, 0.5, 0.95)}
#: A composition, the densities whose mixture x is drawn from, and what observers answer: (densities, weights, answer).
CASES = {
    "three answers": (nd.sculpt(THREE, [1, 1, 3]), THREE, [(THREE, np.ones(3), y) for y in (1, 1, 3)]),
    "a chain": (
        nd.observe(nd.observe(nd.mixture(*THREE), [P, Q], 2, weights=[0.95, 0.05]), [Q, R], 2), THREE,
        [([P, Q], [0.95, 0.05], 2), ([Q, R], [0.5, 0.5], 2)],
    ),
    # The first answer of two draws from p itself.
    **{f"harmonic mean, {a}": (nd.harmonic_mean(P, Q, alpha=a), [P], [(*PAIR[a], 2)]) for a in PAIR},
    **{f"contrast, {a}": (nd.contrast(P, Q, alpha=a), [P], [(*PAIR[a], 1)]) for a in PAIR},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", quick_among(CASES, ["contrast, 0.95"]))
def test_moments_are_those_of_rejection(case):
    composed, prior, answers = CASES[case]
    kept = rejected(jax.random.key(2), prior, answers)
    axis = np.linspace(-3, 4, 141)
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2), float)
    mass = jax.nn.softmax(composed.log_prob(grid))
    for power in (1, 2):
        error = jnp.std(kept**power, axis=0) / np.sqrt(len(kept))
        assert len(kept) > 1000 and np.all(np.abs(mass @ grid**power - jnp.mean(kept**power, axis=0)) < 5 * error)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["three answers", pytest.param("a chain", marks=pytest.mark.slow)])
def test_annealed_samples_are_those_of_rejection(case):
    composed, prior, answers = CASES[case]
    run = nd.anneal(jax.random.key(1), composed, num_chains=4000, levels=24, progress_bar=False)
    kept = rejected(jax.random.key(2), prior, answers)
    error = np.sqrt(np.var(kept, axis=0) * (1 / len(kept) + 1 / run.particles.num_effective))
    assert np.all(np.abs(nd.expectation(run).value - jnp.mean(kept, axis=0)) < 5 * error)


@pytest.mark.parametrize("labels", [[0, 1], [3], [], [1.0], 1])
def test_labels_outside(labels):
    with pytest.raises(ParameterError, match="labels"):
        nd.sculpt([P, Q], labels)


@pytest.mark.parametrize("labels", [0, 3, [], [1.0], True, None, "1"])
def test_answers_outside(labels):
    with pytest.raises(ParameterError, match="labels"):
        nd.observe(P, [P, Q], labels)


def test_answers_about_other_points():
    other = nd.exact.GaussianMixture(np.zeros((1, 3)), np.eye(3)[None])
    with pytest.raises(ShapeError, match="event shape"):
        nd.observe(other, [P, Q], 1)
    with pytest.raises(ArgumentTypeError, match="list of densities"):
        nd.observe(P, Q, 1)
    with pytest.raises(ArgumentTypeError, match="densities of one kind"):
        nd.observe(P, [exact(0), exact(1)], 1)
    with pytest.raises(ArgumentTypeError, match="takes densities"):
        nd.observe(lambda x: x, [P, Q], 1)


def test_no_list():
    with pytest.raises(ArgumentTypeError, match="list of densities"):
        nd.sculpt(P, [1])
    with pytest.raises(ParameterError, match="weights"):
        nd.sculpt([P, Q], [1, 2], weights=[1.0, 0.0])
