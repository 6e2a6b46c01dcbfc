"""General sculpting against its two-label cases, its definition, and rejection samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError


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


def test_annealed_samples_are_those_of_rejection():
    composed, count = nd.sculpt([P, Q, R], [1, 1, 3]), 4000
    run = nd.anneal(jax.random.key(1), composed, num_chains=count, levels=24, progress_bar=False)
    # Draws of the mixture, kept with the probability of the answers: Bayes' rule as it stands.
    key, keep = jax.random.split(jax.random.key(2))
    x = jnp.concatenate([d.sample(k, 40_000) for d, k in zip((P, Q, R), jax.random.split(key, 3), strict=True)])
    logs = jnp.stack([d.log_prob(x) for d in (P, Q, R)])
    claims = jax.nn.softmax(logs, axis=0)
    kept = x[jax.random.uniform(keep, (len(x),)) < claims[0] ** 2 * claims[2]]
    error = np.sqrt(np.var(kept, axis=0) * (1 / len(kept) + 1 / run.particles.num_effective))
    assert np.all(np.abs(nd.expectation(run).value - jnp.mean(kept, axis=0)) < 5 * error)


@pytest.mark.parametrize("labels", [[0, 1], [3], [], [1.0], 1])
def test_labels_outside(labels):
    with pytest.raises(ParameterError, match="labels"):
        nd.sculpt([P, Q], labels)


def test_no_list():
    with pytest.raises(ArgumentTypeError, match="list of densities"):
        nd.sculpt(P, [1])
    with pytest.raises(ParameterError, match="weights"):
        nd.sculpt([P, Q], [1, 2], weights=[1.0, 0.0])
