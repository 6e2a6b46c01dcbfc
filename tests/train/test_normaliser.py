"""log Z from training data: what was added to a density is found and taken out; what is not known is left alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.train.normaliser import measured, normalised_by_data

KEY, D = jax.random.key(0), 6
TRUTH = nd.exact.GaussianMixture(
    np.array([[1.0] * D, [-1.0] * D]), np.stack([np.diag(np.linspace(0.1, 0.5, D))] * 2),
    schedule=nd.VarianceExploding(),
)  # fmt: skip
LONG = nd.TrainingConfig(num_steps=2_000, batch_size=256)


@pytest.fixture(scope="module")
def short():
    """An energy that has hardly left its Gaussian."""
    few = nd.TrainingConfig(num_steps=3, batch_size=64)
    return nd.fit(KEY, TRUTH.sample, network=nd.NetworkConfig(width=16), training=few, progress_bar=False)


@pytest.fixture(scope="module")
def x():
    return np.asarray(TRUTH.sample(jax.random.key(1), 20_000))


def shifted(density):
    """The density less a curve of log r, and the curve."""
    added = 0.8 * np.sin(np.linspace(0, 4.0, density.log_z.shape[1]))[::-1]
    return density._replace(log_z=density.log_z.at[1].add(jnp.asarray(added - added[-1]))), added - added[-1]


@pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
def test_what_was_taken_off_is_found(short, x):
    before = measured(short, x, 2_000, KEY)
    less, added = shifted(short)
    found = measured(less, x, 2_000, KEY)
    np.testing.assert_allclose(found.log_z - before.log_z, -added, atol=0.02)
    assert found.log_z[-1] == found.error[-1] == 0 and np.all(np.diff(found.error) <= 0)
    mended = normalised_by_data(less, x, None, LONG, KEY)
    again = measured(mended, x, 2_000, jax.random.key(2))
    assert np.all(np.abs(again.log_z) < 4 * np.hypot(again.error, 1.5 * found.error) + 1e-4)


@pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
def test_what_is_not_known_is_left_alone(short, x):
    less, _ = shifted(short)
    few = nd.TrainingConfig(num_steps=100, batch_size=64)
    assert normalised_by_data(less, x, None, few, KEY) is less
    assert normalised_by_data(less, x[: 99 * D], None, LONG, KEY) is less
    assert normalised_by_data(less, x, np.ones((len(x), 1)), LONG, KEY) is less
    paper = nd.fit(KEY, TRUTH.sample, calibrated=False, training=few, progress_bar=False)
    assert normalised_by_data(paper, x, None, LONG, KEY) is paper


@pytest.mark.slow
def test_energies_of_vectors_are_normalised():
    means, size = np.random.default_rng(0).normal(size=(3, 8)), 8
    truth = nd.exact.GaussianMixture(means, np.stack([0.3 * np.eye(size)] * 3), schedule=nd.VarianceExploding())
    training = nd.TrainingConfig(num_steps=3_000, batch_size=256)
    density = nd.fit(KEY, truth.sample, schedule=truth.schedule, training=training, progress_bar=False)
    y = truth.sample(jax.random.key(3), 20_000)
    for r in (0.1, 1.0, 3.0):
        t = float(truth.schedule.time(r))
        noised = y + r * jax.random.normal(jax.random.key(4), y.shape)
        ratio = density.log_prob(noised, t) - truth.log_prob(noised, t)
        assert abs(float(jax.nn.logsumexp(ratio) - np.log(len(y)))) < 0.08
