"""NumPyro's samplers on potential functions of densities."""

import jax
import numpy as np
import numpyro.infer
import pytest
from densities import ANY, T, X, box, gaussian, log_prob_of, mixture, moments_of
from numpyro.diagnostics import effective_sample_size
from quick import quick_among

# NumPyro's samplers on potential functions.


def gaussian_pair():
    return gaussian((1.0, 0.0), ((1.0, 0.2), (0.2, 0.5)), "p") * gaussian((0.0, -1.0), name="q") ** 0.5


def draws(kernel, density, t):
    mcmc = numpyro.infer.MCMC(
        kernel(potential_fn=density.potential_fn(t)), num_warmup=50, num_samples=50, num_chains=4,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(1), init_params=0.3 * jax.random.normal(jax.random.key(2), (4, 2)))
    return np.asarray(mcmc.get_samples(group_by_chain=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "t"),
    quick_among(
        [(k, t) for k in (numpyro.infer.NUTS, numpyro.infer.HMC) for t in (0.0, 0.3)], [(numpyro.infer.NUTS, 0.3)]
    ),
)
def test_numpyro_samples_a_composition(kernel, t):
    density = gaussian_pair()
    x, (mean, covariance) = draws(kernel, density, t), moments_of(density.gaussian(t))
    for i in range(2):
        effective = np.clip(float(effective_sample_size(x[..., i])), 20, 200)
        sd = np.sqrt(covariance[i, i])
        assert abs(x[..., i].mean() - mean[i]) < 5 * sd / np.sqrt(effective)
        assert abs(x[..., i].std() / sd - 1) < 5 / np.sqrt(2 * effective)


@pytest.mark.parametrize(
    ("name", "kernel", "t"),
    [
        ("mixture", numpyro.infer.HMC, 0.0),
        pytest.param("composed", numpyro.infer.NUTS, 0.3, marks=pytest.mark.slow),
    ],
)
def test_numpyro_runs_on_leaves_and_networks(name, kernel, t):
    x = draws(kernel, ANY[name](), t)
    assert np.all(np.isfinite(x)) and np.all(x.std((0, 1)) > 0.01)


def test_potential_is_minus_log_prob():
    for density in (mixture(), box(), mixture() * box()):
        np.testing.assert_allclose(jax.jit(density.potential_fn(T))(X[0]), -log_prob_of(density, X[0], T), rtol=1e-4)
