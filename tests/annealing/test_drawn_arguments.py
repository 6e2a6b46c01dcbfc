"""Annealing and training under keys and arguments drawn at random: the right answer, or a typed error."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import mixture
from drawn import KEY, TYPED, few, typed
from hypothesis import given
from quick import quick_among

import numpyro_diffusion as nd

# Keys


@pytest.mark.slow
def test_old_and_new_keys_are_one():
    old, new = jax.random.PRNGKey(3), jax.random.key(3)
    for call in (
        lambda key: mixture().sample(key, 5, 0.3),
        lambda key: anneal(key).samples,
    ):
        np.testing.assert_array_equal(call(old), call(new))


@pytest.mark.slow
def test_training_takes_old_and_new_keys_and_double_precision():
    old, new = (jax.tree.leaves(fit(key).state) for key in (jax.random.PRNGKey(3), jax.random.key(3)))
    for a, b in zip(old, new, strict=True):
        np.testing.assert_array_equal(a, b)
    with jax.enable_x64(True):
        assert np.isfinite(fit().log_prob(np.zeros(2)))


@pytest.mark.parametrize(
    "key", [0, None, "key", 1.5, np.zeros(3), jax.random.split(KEY, 2), np.zeros((4, 2), np.uint32)]
)
def test_what_is_no_key(key):
    for call in (anneal, fit, lambda key: mixture().sample(key, 2)):
        with pytest.raises(TYPED):
            call(key)


# Annealing


def anneal(key=KEY, density=None, kernel=None, **changes):
    arguments = {"num_chains": 8, "levels": 3, "progress_bar": False} | changes
    return nd.anneal(key, density or mixture(), kernel or nd.HMC(0.5), **arguments)


DATA = np.random.default_rng(0).normal(size=(32, 2))


def fit(key=KEY, data=DATA, **changes):
    small = nd.NetworkConfig(width=4, num_blocks=1, embedding_size=2)
    arguments = {"network": small, "training": nd.TrainingConfig(num_steps=2, batch_size=4), "progress_bar": False}
    return nd.fit(key, data, **arguments | changes)


ODD = {
    "num_chains": [-1, 0, 1, 2.5, "x", None, [], np.int64(8), np.inf],
    "num_steps": [-1, 0, 2.5, "x", None, np.int32(2)],
    "levels": [-1, 0, 1, 2.5, "x", [], [1.0], [0.0, 1.0], [1.0, np.nan], [[1.0, 0.0]], np.array([1.0, 0.5, 0.0]),
               jnp.array([1.0, 0.25, 0.0]), [1, 0], (0.9, 0.3), np.int64(3)],
    "level_ess": [0, 1, -0.5, np.nan, "x", None],
    "resample_threshold": [-0.1, 1.1, np.nan, "x", 0, 1, None, np.float32(0.3)],
    "frame": ["identity", "x", None, 3],
    "metric": ["x", None, 3],
    "chain_batch_size": [0, -1, 2.5, 3, np.int64(100), "x"],
    "num_pilot_chains": [0, -1, 2.5, "x", None],
    "keep_history": [True, 3, None, ""],
    "mesh": [3, "x", []],
    "kernel": [None, "HMC", nd.HMC, 3, nd.HMC(np.array([0.5, 0.4])), nd.HMC(np.full(3, 0.5)), nd.ULA(np.array(0.1))],
    "density": ["x", 3.0, lambda x, t: 0.0],
}  # fmt: skip


#: What makes a program of its own, by every value, is slow.
QUICK = ODD.keys() - {"frame", "chain_batch_size", "kernel", "num_steps", "num_chains", "levels", "level_ess"}


@pytest.mark.parametrize("name", quick_among(ODD, QUICK))
@pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
def test_anneal_with_odd_arguments(name):
    plain = plain_run()
    for value in ODD[name]:
        arguments = {"kernel": nd.HMC(0.5), "density": mixture()} | {name: value}
        density, kernel = arguments.pop("density"), arguments.pop("kernel")
        settings = {"num_chains": 8, "levels": 3, "progress_bar": False} | arguments
        run = typed(lambda d=density, k=kernel, s=settings: nd.anneal(KEY, d, k, **s))
        if run is None:
            continue
        chains = 1000 if settings["num_chains"] is None else int(settings["num_chains"])
        assert run.samples.shape == (chains, 2) and np.all(np.isfinite(run.samples)), value
        assert np.all(np.diff(run.levels) < 0) and all(len(v) == len(run.levels) for v in run.stats.values()), value
        assert np.isfinite(run.log_evidence) and run.log_weights.shape == (chains,), value
        if name in ("chain_batch_size", "keep_history", "num_pilot_chains"):
            np.testing.assert_allclose(run.samples, plain.samples, rtol=1e-4, atol=1e-4)


@functools.cache
def plain_run():
    return anneal()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
@given(
    kernel=st.sampled_from([nd.HMC(0.6), nd.MALA(0.3), nd.ULA(0.05), nd.UHMC(0.3)]),
    threshold=st.sampled_from([0.0, 0.5, 1.0]), frame=st.sampled_from(["whitened", "identity"]),
    seed=st.integers(0, 1000), logarithm=st.floats(-20, 20),
)  # fmt: skip
@few(20)
def test_the_evidence_of_a_scaled_density(kernel, threshold, frame, seed, logarithm):
    """A density of mass e^c has log evidence c, whatever the settings."""
    density = float(np.exp(logarithm)) * mixture()
    settings = {"num_chains": 64, "levels": 30, "resample_threshold": threshold, "frame": frame}
    run = anneal(jax.random.key(seed), density, kernel, **settings)
    spread = np.sqrt(run.log_evidence_error**2 + 2 / max(run.ess, 2.0))
    assert abs(run.log_evidence - logarithm) < 6 * spread + 0.1
    assert np.all(np.isfinite(run.samples))


@pytest.mark.slow
@pytest.mark.parametrize("made_in_double", quick_among([True, False], [False]))
def test_runs_in_double_precision(made_in_double):
    density = None if made_in_double else mixture()
    with jax.enable_x64(True):
        density = density or mixture()
        run = anneal(density=density, num_chains=256, levels=30)
        assert run.samples.dtype == jnp.float64 and np.all(np.isfinite(run.samples))
        assert abs(run.log_evidence) < 5 * run.log_evidence_error + 0.2


@pytest.mark.slow
@pytest.mark.parametrize("event_shape", [(2, 2), *(pytest.param(s, marks=pytest.mark.slow) for s in ((), (1,)))])
@pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
def test_events_of_any_shape(event_shape):
    """The standard normal stays one under a variance preserving schedule."""
    size = int(np.prod(event_shape, initial=1))

    def normal(x, t):
        return -0.5 * jnp.sum(x**2) - 0.5 * size * jnp.log(2 * jnp.pi)

    density = nd.as_density(normal, event_shape, mean=np.zeros(size), covariance=np.eye(size), normalised=True)
    x = np.random.default_rng(0).normal(size=(4, *event_shape))
    expected = -0.5 * np.sum(x.reshape(4, -1) ** 2, 1) - 0.5 * size * np.log(2 * np.pi)
    np.testing.assert_allclose(density.log_prob(x, 0.3), expected, rtol=1e-5)
    np.testing.assert_allclose(density.score(x, 0.3), -x, rtol=1e-5, atol=1e-6)
    run = anneal(density=density, num_chains=400, levels=4)
    assert run.samples.shape == (400, *event_shape)
    assert abs(run.log_evidence) < 1e-3
    assert abs(float(np.var(run.samples)) - 1) < 5 * np.sqrt(2 / (400 * size))
