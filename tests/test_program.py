"""Functions of `as_density`, samplers of `fit`, algorithms of `BlackJAX`: known by what they compute now."""

import itertools

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from counting import compilations
from numpyro.infer import MCMC, NUTS
from quick import quick_among
from situations import AFTER, BEFORE, PRIOR, Box, evidence, observe

import numpyro_diffusion as nd
from numpyro_diffusion import program as identity
from numpyro_diffusion.errors import CheckpointError, ParameterError

KEY, SCHEDULE = jax.random.key(0), PRIOR.schedule


def bump(mean, sd, x, t):
    """log density of N(mean, sd^2), noised."""
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    return jax.scipy.stats.norm.logpdf(x[0], alpha * mean, jnp.sqrt(alpha**2 * jnp.asarray(sd) ** 2 + sigma**2))


def density_of(fn):
    return nd.as_density(fn, (1,), SCHEDULE, mean=np.zeros(1), covariance=4 * np.eye(1), normalised=True)


class Holder(Box):
    def log_prob(self, x, t):
        return bump(self.mean, self.sd, x, t)


def a_bound_method(held):
    return held.log_prob


def a_closure(held):
    return lambda x, t: bump(held.mean, held.sd, x, t)


def a_partial(held):
    return lambda x, t, held=held: bump(held.mean, held.sd, x, t)


def a_callable_object(held):
    class Callable:
        def __call__(self, x, t):
            return bump(held.mean, held.sd, x, t)

    return Callable()


FUNCTIONS = {"bound method": a_bound_method, "closure": a_closure, "default": a_partial, "object": a_callable_object}
#: What is changed, and whether that changes the program.
CHANGES = {
    "an array": ({"mean": jnp.array(1.5)}, False),
    "an integer array": ({"mean": jnp.array(2)}, True),
    "a number": ({"sd": 0.3}, True),
    "a NumPy array": ({"mean": np.array([1.5])[0:1].sum(keepdims=True)[0]}, True),
}


def moments(density, path=None):
    run = nd.anneal(
        KEY, density, nd.HMC(step_size=0.5), num_chains=400, levels=10, checkpoint_path=path, progress_bar=False
    )
    return float(run.samples.mean()), float(run.samples.std())


def assert_moments(found, held):
    mean, sd = float(held.mean), float(held.sd)
    assert abs(found[0] - mean) < 5 * sd / np.sqrt(150) and abs(found[1] / sd - 1) < 5 / np.sqrt(300)


#: The other pairs are slow.
PAIRS = {("closure", "a number")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "change"),
    quick_among([*itertools.product(FUNCTIONS, CHANGES)], PAIRS),
)
def test_functions(kind, change, tmp_path):
    held = Holder(mean=jnp.array(0.0), sd=1.0)
    density, path, (values, compiles) = density_of(FUNCTIONS[kind](held)), tmp_path / "run", CHANGES[change]
    alone, double = (lambda d: d), (lambda d: 0.5 * d + 0.5 * d)
    for compose in (alone, double):
        assert_moments(moments(compose(density)), held)
    moments(density, path)
    held.__dict__.update(values)
    with compilations() as compiled:
        assert_moments(moments(density), held)
    assert compiles or not compiled
    assert_moments(moments(double(density)), held)
    # Alone, in a composition, under another schedule, in the user's own compiled function.
    x = jnp.array([0.7])
    expected = float(bump(held.mean, held.sd, x, 0.0))
    for form in (density, double(density), density.with_schedule(nd.VariancePreserving.cosine(50.0))):
        assert float(form.log_prob(x)) == pytest.approx(expected, rel=1e-5)
        assert float(jax.jit(lambda p, x: p.log_prob(x))(form, x)) == pytest.approx(expected, rel=1e-5)
        assert float(form.potential_fn(0.0)(x)) == pytest.approx(-expected, rel=1e-5)
    with pytest.raises(CheckpointError, match="other (computation|weights)"):
        moments(density, path)


def test_a_function_that_calls_back_has_no_checkpoint(tmp_path):
    def fn(x, t):
        jax.debug.callback(lambda v: None, t)
        return bump(0.0, 1.0, x, t)

    assert_moments(moments(density_of(fn)), Box(mean=0.0, sd=1.0))
    with pytest.raises(CheckpointError, match="host callback"):
        moments(density_of(fn), tmp_path / "run")


@pytest.mark.parametrize("primal", [lambda x: 1.0 * x, jnp.positive], ids=["own", "of a library"])
def test_gradients_written_by_hand_are_part_of_what_a_function_computes(primal):
    held, same = Box(slope=1.0), jax.custom_vjp(primal)
    same.defvjp(lambda x: (x, None), lambda _, ct: (held.slope * ct,))
    density = density_of(lambda x, t: bump(0.0, 1.0, same(x), t))
    score = jax.jit(lambda p, x: p.score(x))
    before = float(score(density, jnp.array([1.0]))[0])
    held.slope = 3.0
    assert float(score(density, jnp.array([1.0]))[0]) == pytest.approx(3 * before, rel=1e-5)


# Samplers and labels.

NETWORK, TRAINING = nd.NetworkConfig(width=8, num_blocks=1), nd.TrainingConfig(num_steps=20, batch_size=32)


def fit(data, path=None, **settings):
    settings = {"network": NETWORK, "training": TRAINING, "progress_bar": False} | settings
    return nd.fit(KEY, data, checkpoint_path=path, **settings)


def weights(density):
    return np.concatenate([np.ravel(a) for a in jax.tree.leaves((density.state, density.mean))])


@pytest.mark.slow
@pytest.mark.parametrize("change", ["array", pytest.param("number", marks=pytest.mark.slow)])
def test_samplers(change, tmp_path):
    held = Box(mean=jnp.array([0.0, 0.0]), sd=1.0)

    def sampler(rng_key, num_samples):
        return held.mean + held.sd * jax.random.normal(rng_key, (num_samples, 2))

    fit(sampler, tmp_path / "training")
    held.__dict__.update({"mean": jnp.array([3.0, 0.0])} if change == "array" else {"sd": 2.0})
    with compilations() as compiled:
        again = fit(sampler)
    assert change == "number" or not compiled
    fresh = fit(lambda key, n: held.mean + held.sd * jax.random.normal(key, (n, 2)))
    np.testing.assert_array_equal(weights(again), weights(fresh))
    with pytest.raises(CheckpointError, match="other (sampler|what the sampler reads)"):
        fit(sampler, tmp_path / "training")


POINTS = np.random.default_rng(0).normal(size=(64, 2))
LABELS = np.eye(2)[np.arange(64) % 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"conditions": LABELS[::-1].copy()}, "conditions"),
        ({"conditions": LABELS.astype(np.int32)}, "conditions"),
        ({"data": POINTS[::-1].copy()}, "data"),
        ({"schedule": nd.VarianceExploding(0.0, 20.0)}, "schedule"),
        ({"sigma_max": 25.0}, "sigma_max"),
        ({"training": nd.TrainingConfig(num_steps=20, batch_size=32, weight_decay=0.1)}, "training"),
    ],
    ids=["labels swapped", "integer labels", "rows in another order", "schedule", "sigma_max", "weight decay"],
)
def test_training_files_know_their_data(change, what, tmp_path):
    settings = {"data": POINTS, "conditions": LABELS}
    fit(path=tmp_path / "training", **settings)
    with pytest.raises(CheckpointError, match=f"other .*{what}"):
        fit(path=tmp_path / "training", **settings | change)
    np.testing.assert_array_equal(weights(fit(**settings)), weights(fit(path=tmp_path / "training", **settings)))


@pytest.mark.slow
@pytest.mark.parametrize("run", ["anneal", "fit"])
def test_another_version_of_the_package(run, tmp_path, monkeypatch):
    call = {"anneal": lambda: moments(PRIOR, tmp_path / "run"), "fit": lambda: fit(POINTS, tmp_path / "run")}[run]
    call()
    monkeypatch.setattr(nd, "__version__", "99.0")
    with pytest.raises(CheckpointError, match="other version of numpyro_diffusion"):
        call()
    assert identity.versions()["version of numpyro_diffusion"] == "99.0"


def test_a_sampler_that_ignores_its_key():
    fixed = jnp.asarray(POINTS)
    with pytest.raises(ParameterError, match="draw with the key"):
        fit(lambda key, n: fixed[:n])


@pytest.mark.parametrize(
    "data", [POINTS * 1e30, POINTS + 1e9, POINTS * 1e-20, 0 * POINTS], ids=["1e30", "far", "tiny", "one"]
)
def test_data_that_float32_cannot_resolve(data):
    with pytest.raises(ParameterError, match="data must (be of order one|vary)"):
        fit(data)


# NumPyro's own algorithms.


@pytest.mark.slow
@pytest.mark.parametrize("again", ["the same MCMC", "another MCMC"])
def test_annealed_kernel(again):
    held = Box(y=BEFORE, s=jnp.array(0.5))

    def model():
        observe(held.y, held.s)
        numpyro.deterministic("shifted", held.y + 1.0)

    def made():
        kernel = nd.AnnealedKernel(model, nd.HMC(step_size=0.5))
        return MCMC(kernel, num_warmup=20, num_samples=5, num_chains=200, chain_method="vectorized", progress_bar=False)

    def check(mcmc):
        mcmc.run(KEY, extra_fields=("log_weight",))
        weight = np.exp(np.asarray(mcmc.get_extra_fields(group_by_chain=True)["log_weight"])[:, 0])
        truth = np.exp(evidence(held.y, held.s))
        assert abs(weight.mean() - truth) < 5 * weight.std() / np.sqrt(200)
        np.testing.assert_allclose(mcmc.get_samples()["shifted"][0], np.asarray(held.y) + 1.0, rtol=1e-6)

    mcmc = made()
    check(mcmc)
    for change in ({"y": AFTER}, {"s": jnp.array(2.0)}, {"y": 2 * BEFORE, "s": jnp.array(1.0)}):
        held.__dict__.update(change)
        mcmc = mcmc if again == "the same MCMC" else made()
        check(mcmc)


@pytest.mark.slow
def test_nuts_reads_the_density_as_it_is():
    held = Holder(mean=jnp.array(0.0), sd=1.0)
    density = density_of(held.log_prob)
    for mean in (0.0, 4.0):
        held.mean = jnp.array(mean)
        mcmc = MCMC(NUTS(lambda: numpyro.sample("x", nd.DiffusionPrior(density))), num_warmup=100, num_samples=200,
                    progress_bar=False)  # fmt: skip
        mcmc.run(KEY)
        assert abs(mcmc.get_samples()["x"].mean() - mean) < 0.6


@pytest.mark.slow
def test_a_function_is_traced_a_few_times_a_run():
    traces = []

    def fn(x, t):
        traces.append(1)
        return bump(0.0, 1.0, x, t)

    density = density_of(fn)
    model = lambda: observe(BEFORE, prior=density)
    mcmc = nd.AnnealedMCMC(model, nd.HMC(step_size=0.5), num_chains=20, levels=3, progress_bar=False)
    for call in (lambda: moments(density), lambda: mcmc.run(KEY)):
        call()
        traces.clear()
        call()
        assert 0 < len(traces) < 6


@pytest.mark.slow
def test_algorithms():
    held = Box(scale=1.0)

    class Algorithm:
        """A user's algorithm: Barker's, with a step of its own."""

        build_kernel = staticmethod(blackjax.barker.build_kernel)

        def __call__(self, logdensity_fn, step_size):
            return blackjax.barker(logdensity_fn, step_size=held.scale * step_size)

    kernel = nd.BlackJAX(Algorithm(), step_size=0.5)
    run = lambda: nd.anneal(KEY, PRIOR, kernel, num_chains=100, levels=5, progress_bar=False).samples
    first = run()
    held.scale = 0.1
    second = run()
    fresh = nd.anneal(
        KEY, PRIOR, nd.BlackJAX(blackjax.barker, step_size=0.05), num_chains=100, levels=5, progress_bar=False
    )
    assert np.max(np.abs(first - second)) > 0.1
    np.testing.assert_allclose(second, fresh.samples, rtol=1e-4, atol=1e-5)
