"""Compositions may be made anywhere and used anywhere: every operator, in every place, under every algorithm.

What is decided about a composition (is it proper, calibrated, what does it print) must not depend on what is being
traced around it: JAX traces operations on known arrays, too.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from densities import gaussian, network
from numpyro.infer import AIES, HMC, MCMC, NUTS, SVI, Predictive, Trace_ELBO, autoguide
from numpyro.infer.util import initialize_model
from quick import quick_among

import numpyro_diffusion as nd
from numpyro_diffusion.density.abstract import narrowest
from numpyro_diffusion.diagnose.findings.overlap import numerator

pytestmark = pytest.mark.filterwarnings("ignore")

KEY, X, T = jax.random.key(0), jnp.array([0.3]), 0.4
P, Q = (gaussian((m,), ((v,),), name=name) for m, v, name in ((0.5, 1.0, "p"), (-0.5, 2.0, "q")))
N = network(condition_size=2, event_shape=(2,))
C = nd.as_density(lambda x, t: jax.nn.log_sigmoid(x[0]), (1,), name="c")

# Every operator, of two densities in one dimension.
OPERATORS = {
    "product": lambda p, q: p * q,
    "quotient": lambda p, q: p / q**0.5,
    "power": lambda p, q: p**0.7,
    "scaled": lambda p, q: 2.5 * p,
    "divided": lambda p, q: p / 4,
    "inverse": lambda p, q: 2 / (1 / p + 1 / q),
    "sum": lambda p, q: 0.3 * p + 0.7 * q,
    "nd.product": lambda p, q: nd.product(p, q, exponents=[1.0, -0.2]),
    "mixture": lambda p, q: nd.mixture(p, q, weights=[1, 3]),
    "negation": lambda p, q: nd.negation(p, q, 0.4),
    "negation with a floor": lambda p, q: nd.negation(p, q, 0.4, floor=0.1),
    "temper": lambda p, q: nd.temper(p, 2.0),
    "harmonic mean": lambda p, q: nd.harmonic_mean(p, q, alpha=0.3),
    "harmonic mean by weights": lambda p, q: nd.harmonic_mean(p, q, weights=[1, 2]),
    "contrast": lambda p, q: nd.contrast(p, q),
    "guided": lambda p, q: nd.guided(p, C, 1.5),
}
CONDITIONAL = {
    "classifier-free guidance": lambda n: nd.classifier_free_guided(n, [1.0, 0.0], 2.0),
    "conditions": lambda n: nd.compose_conditions(n, [[1.0, 0.0], [0.0, 1.0]], [0.5, 1.0]),
}
MADE = {name: make(P, Q) for name, make in OPERATORS.items()} | {name: make(N) for name, make in CONDITIONAL.items()}
MAKE = {name: functools.partial(make, P, Q) for name, make in OPERATORS.items()}
MAKE |= {name: functools.partial(make, N) for name, make in CONDITIONAL.items()}

# How a function of a point is called.
PLACES = {
    "jit": lambda f: lambda x: jax.jit(f)(x),
    "vmap": lambda f: lambda x: jax.vmap(f)(x[None])[0],
    "grad": lambda f: lambda x: jax.value_and_grad(lambda y: f(y))(x)[0],
    "scan": lambda f: lambda x: jax.lax.scan(lambda carry, _: (carry, f(carry)), x, None, length=1)[1][0],
    "cond": lambda f: lambda x: jax.lax.cond(x[0] > -9, f, lambda x: 0.0 * x[0], x),
    "jit of vmap of grad": lambda f: lambda x: jax.jit(jax.vmap(lambda y: jax.value_and_grad(f)(y)[0]))(x[None])[0],
}


def facts(density):
    """All that is decided about a density in Python."""
    return (
        repr(density), density.is_calibrated, density.resolution, density.schedule.noise_range,
        density.schedule.levels(5).tolist(), narrowest(density), [(repr(d), a) for d, a in numerator(density)],
    )  # fmt: skip


#: A program of twelve evaluations is seconds to compile, and the others are slow.
QUICK = {"sum", "guided"}


@pytest.mark.parametrize("name", quick_among(MADE, QUICK))
def test_a_composition_is_the_same_in_every_place(name):
    made = MADE[name]
    x, known = jnp.resize(X, made.event_shape), facts(made)

    def captured(x):
        assert facts(made) == known
        return nd.DiffusionPrior(made).log_prob(x)

    def made_inside(x):
        density = MAKE[name]()
        assert facts(density) == known
        return nd.DiffusionPrior(density).log_prob(x)

    # All places in one program: where nothing is compiled, known arrays stay known by themselves.
    values = jax.jit(lambda x: {p: [call(f)(x) for f in (captured, made_inside)] for p, call in PLACES.items()})(x)
    for place, found in values.items():
        np.testing.assert_allclose(found, nd.DiffusionPrior(made).log_prob(x), rtol=1e-4, atol=1e-5, err_msg=place)


@pytest.mark.parametrize("place", PLACES)
def test_an_improper_composition_is_refused_in_every_place(place):
    improper = P / Q
    with pytest.raises(nd.errors.ParameterError, match="improper: the exponents of its factors sum to 0"):
        PLACES[place](lambda x: nd.DiffusionPrior(improper).log_prob(x))(X)


# Every operator is a term of one prior, in one model: what they share is evaluated once.


def with_data(priors):
    def model(y=None):
        x = [numpyro.sample(name, prior) for name, prior in priors().items()]
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(x[0][0], sigma), obs=y)

    return model


def together(made):
    for density in made.values():
        nd.DiffusionPrior(density)
    summed, multiplied = ([made[name] for name in part] for part in (OPERATORS, CONDITIONAL))
    with warnings.catch_warnings():  # that a classifier is no density of its own
        warnings.simplefilter("ignore", nd.errors.DiagnosticWarning)
        return {"x": nd.DiffusionPrior(nd.mixture(*summed)), "z": nd.DiffusionPrior(nd.product(*multiplied))}


TOGETHER = together(MADE)
MODELS = {
    "captured": with_data(lambda: TOGETHER),
    "made inside": with_data(lambda: together({name: make() for name, make in MAKE.items()})),
}
Y = jnp.array(0.3)
GUIDES = ["AutoNormal", "AutoDiagonalNormal", "AutoMultivariateNormal", "AutoLowRankMultivariateNormal", "AutoDelta"]
QUIET = {"progress_bar": False}


def kernel_run(kernel, model, num_chains=1, **settings):
    mcmc = MCMC(kernel(model), num_chains=num_chains, chain_method="vectorized", **settings, **QUIET)
    mcmc.run(KEY, Y)
    return mcmc.get_samples()


def annealed(model):
    mcmc = nd.AnnealedMCMC(model, nd.HMC(0.1), num_chains=20, levels=3, **QUIET)
    mcmc.run(KEY, Y)
    return mcmc.get_samples()


def guided(name, model):
    guide = getattr(autoguide, name)(model)
    result = SVI(model, guide, numpyro.optim.Adam(1e-2), Trace_ELBO()).run(KEY, 3, Y, **QUIET)
    assert np.all(np.isfinite(result.losses))
    return guide.sample_posterior(KEY, result.params, sample_shape=(2,))


def initialised(model):
    info = initialize_model(KEY, model, model_args=(Y,))
    assert np.isfinite(info.potential_fn(info.param_info.z))
    draws = {name: jnp.stack([value] * 3) for name, value in info.param_info.z.items()}
    assert Predictive(model, posterior_samples=draws)(KEY)["y"].shape == (3,)
    return draws


ALGORITHMS = {
    "HMC": functools.partial(kernel_run, HMC, num_warmup=3, num_samples=3),
    "NUTS": functools.partial(kernel_run, NUTS, num_warmup=3, num_samples=3),
    "AIES": functools.partial(kernel_run, AIES, num_chains=8, num_warmup=2, num_samples=3),
    "AnnealedMCMC": annealed,
    "AnnealedKernel": functools.partial(
        kernel_run, lambda m: nd.AnnealedKernel(m, nd.HMC(0.1)), num_chains=20, num_warmup=3, num_samples=1
    ),
    "initialize_model and Predictive": initialised,
    **{name: functools.partial(guided, name) for name in GUIDES},
}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_operator_in_one_model(algorithm, model):
    samples = ALGORITHMS[algorithm](MODELS[model])
    for name, size in (("x", 1), ("z", 2)):
        values = np.asarray(samples[name])
        assert values.shape[-1] == size and np.all(np.isfinite(values))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["captured", "made inside"])
@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("algorithm", ["NUTS", "AutoNormal", "AnnealedMCMC", "AnnealedKernel"])
def test_every_operator_alone(algorithm, name, place):
    make = MAKE[name] if place == "made inside" else lambda: MADE[name]
    samples = ALGORITHMS[algorithm](with_data(lambda: {"x": nd.DiffusionPrior(make())}))
    assert np.all(np.isfinite(np.asarray(samples["x"])))
