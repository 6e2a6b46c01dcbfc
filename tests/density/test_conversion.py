"""One density under two schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import ANY, T, X, score_of

import numpyro_diffusion as nd


@pytest.mark.parametrize(
    ("name", "other"),
    [(name, nd.VarianceExploding(0.0, 50.0)) for name in ("box", "score")]
    + [("l2", nd.VariancePreserving.linear(0.2, 15.0))]
    + [
        pytest.param(name, other, marks=pytest.mark.slow)
        for name, other in [
            *((name, nd.VarianceExploding(0.0, 50.0)) for name in ("mixture", "function", "l2", "composed")),
            *((name, nd.VariancePreserving.linear(0.2, 15.0)) for name in ("mixture", "function")),
        ]
    ],
)
def test_conversion_between_schedules_is_exact(name, other):
    density, d = ANY[name](), 2
    new = density.with_schedule(other)
    assert new.schedule == other

    @jax.jit
    def both_sides(density, new, x, t):
        there = density.schedule.time(other.noise_to_signal(t))
        ratio = density.schedule.alpha(there) / other.alpha(t)
        score = new.score(x, t), ratio * density.score(x * ratio, there)
        if not density.has_log_density:
            return score, (0.0, 0.0)
        return score, (new.log_prob(x, t) - d * jnp.log(ratio), density.log_prob(x * ratio, there))

    for t in (0.4, 0.7):
        score, value = both_sides(density, new, X, t)
        np.testing.assert_allclose(*score, rtol=1e-2, atol=1e-3)
        if name == "composed":
            # Each factor carries a Jacobian of its own: 1 + 1 - 0.3 of them, where the density of the law has one.
            ratio = density.schedule.alpha(density.schedule.time(other.noise_to_signal(t))) / other.alpha(t)
            value = (value[0] - 0.7 * d * jnp.log(ratio), value[1])
        np.testing.assert_allclose(*value, rtol=2e-3, atol=2e-3)


def test_conversion_there_and_back():
    for name in ("mixture", "function", "l2", "composed"):
        density = ANY[name]()
        again = density.with_schedule(nd.VarianceExploding(0.0, 50.0)).with_schedule(density.schedule)
        np.testing.assert_allclose(score_of(again, X[0], T), score_of(density, X[0], T), rtol=1e-4, err_msg=name)
