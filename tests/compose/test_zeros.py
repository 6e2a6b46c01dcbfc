"""Compositions where a density is zero, and far out: the walls of a box at t = 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import X, gaussian, log_prob_of, score_of
from quick import quick_among

import numpyro_diffusion as nd

INSIDE, ONE, NONE = jnp.array([0.2, 0.3]), jnp.array([0.2, 1.8]), jnp.array([9.0, 9.0])


def boxes():
    return nd.exact.UniformBox([-1, -1], [1, 1], name="p"), nd.exact.UniformBox([-1, -1], [1, 2], name="q")


ZEROS = {
    "product": lambda p, q, g: p * q,
    "harmonic_mean": lambda p, q, g: nd.harmonic_mean(p, q, alpha=0.3),
    "harmonic_mean_three": lambda p, q, g: nd.harmonic_mean(g, p, q, weights=[1, 2, 3]),
    "harmonic_mean_by_inverses": lambda p, q, g: 1 / (0.5 / p + 0.3 / q + 0.2 / g),
    "contrast": lambda p, q, g: nd.contrast(p, q, g),
    "quotient": lambda p, q, g: p / q,
    "negation": lambda p, q, g: nd.negation(p, g),
    "quotient_of_mixture": lambda p, q, g: p * g / (p + q),
}


#: What the others are made of.
QUICK = {"product", "contrast", "quotient"}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", quick_among(ZEROS, QUICK))
def test_zero_stays_zero(name):
    p, q = boxes()
    density = ZEROS[name](p, q, gaussian(name="g"))

    @jax.jit
    def all_of(density, x):
        def finite_sum(density):
            value = density.log_prob(x, 0.0)
            return jnp.sum(jnp.where(jnp.isfinite(value), value, 0.0))

        return density.log_prob(x, 0.0), density.score(x, 0.0), jax.grad(finite_sum)(density)

    # Inside both, inside q alone, inside none of the boxes.
    value, score, weights = all_of(density, jnp.stack([INSIDE, ONE, NONE]))
    assert np.isfinite(value[0])
    np.testing.assert_array_equal(value[1:], -np.inf)
    for gradient in (score, *jax.tree.leaves(weights)):
        assert np.all(np.isfinite(gradient))


def test_harmonic_mean_inside_the_walls():
    p, q = boxes()
    value = log_prob_of(nd.harmonic_mean(p, q, alpha=0.3), INSIDE)
    np.testing.assert_allclose(value, -np.log(0.7 * 4 + 0.3 * 6), rtol=1e-5)


def test_mixture_lives_where_any_lives():
    p, q = boxes()
    mixed = nd.mixture(p, q, weights=[1, 3])
    np.testing.assert_allclose(log_prob_of(mixed, INSIDE), np.log(0.25 / 4 + 0.75 / 6), rtol=1e-5)
    np.testing.assert_allclose(log_prob_of(mixed, ONE), np.log(0.75 / 6), rtol=1e-5)
    assert log_prob_of(mixed, NONE) == -np.inf
    assert np.all(np.isfinite(score_of(mixed, jnp.stack([INSIDE, ONE, NONE]))))


def test_what_cancels_does_not_kill():
    p, q = boxes()
    np.testing.assert_allclose(log_prob_of(q * p / p, ONE), log_prob_of(q, ONE))
    assert np.all(np.isfinite(score_of(q * p / p, ONE)))


def test_infinite_where_only_the_denominator_is_zero():
    p, q = boxes()
    assert log_prob_of(q / p, ONE) == np.inf
    assert np.all(np.isfinite(score_of(q / p, ONE)))


def test_far_from_everything():
    # Log densities of -1e6 neither overflow nor cancel to NaN.
    p, q, r = (gaussian((float(i), 0.0), name="pqr"[i]) for i in range(3))
    x = jnp.array([1500.0, 0.0])
    P, Q, R = (-0.5 * (1500.0 - i) ** 2 - np.log(2 * np.pi) for i in range(3))
    np.testing.assert_allclose(log_prob_of(nd.harmonic_mean(p, q, r), x), min(P, Q, R), rtol=1e-5)
    np.testing.assert_allclose(log_prob_of(nd.contrast(r, p, q), x), R, rtol=1e-5)
    np.testing.assert_allclose(score_of(nd.harmonic_mean(p, q, r), x), score_of(p, x), rtol=1e-4, atol=1e-3)


def test_nan_is_not_hidden():
    broken = nd.as_density(lambda x, t: jnp.nan * x[0], (2,), normalised=True, name="broken")
    for density in (gaussian() * broken, 0.5 * gaussian() + 0.5 * broken, nd.harmonic_mean(gaussian(), broken)):
        assert np.isnan(log_prob_of(density, X[0]))
