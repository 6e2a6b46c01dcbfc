"""Priors, models and runs of inference: bad input."""

import blackjax
import densities
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from densities import gaussian, network, unknown
from infer.linear_gaussian import PRIOR, Y, model
from infer.models import P, Q
from numpyro.handlers import seed, substitute
from numpyro.infer import MCMC
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ParameterError, ShapeError

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")


#: What is refused: (call, error, words of the message: rule, value, remedy).
REFUSED = {
    "level": (lambda: nd.DiffusionPrior(P, -0.1), ParameterError, r"\[0, 1\].*-0.1"),
    "NaN level": (lambda: nd.DiffusionPrior(P, np.nan), ParameterError, r"\[0, 1\].*nan"),
    "named level": (lambda: nd.DiffusionPrior(P, "noise"), ParameterError, r"\[0, 1\].*noise"),
    "no density": (lambda: nd.DiffusionPrior(None), TypeError, "takes a density; got NoneType"),
    "function": (lambda: nd.DiffusionPrior(lambda x, t: 0.0), TypeError, "got function.*nd.as_density"),
    "distribution": (lambda: nd.DiffusionPrior(dist.Normal(0, 1)), TypeError, "got Normal"),
    "sampler": (
        lambda: nd.DiffusionPrior(P, sampler=np.zeros((5, 2))),
        TypeError,
        "nd.anneal or a function; got ndarr",
    ),
    "a number of draws": (
        lambda: nd.DiffusionPrior(P).sample(jax.random.key(0), 3), TypeError, r"must be a tuple, \(3,\) say; got 3"),
    "value": (lambda: nd.DiffusionPrior(P).log_prob(jnp.zeros((3, 5))), ShapeError, r"\(2,\).*\(3, 5\)"),
    "a prior of one": (lambda: nd.DiffusionPrior(unknown()), TypeError, "got Unknown.*register"),
    "no model": (lambda: nd.AnnealedMCMC(gaussian()), TypeError, "must be a NumPyro model"),
    "no kernel": (lambda: nd.AnnealedMCMC(print, "HMC"), TypeError, "must be a kernel such as nd.HMC"),
    "a density for a model": (lambda: nd.AnnealedKernel(PRIOR), TypeError, "model must be"),
    "no model for NumPyro": (lambda: nd.AnnealedKernel(None), TypeError, "must be a NumPyro model"),
    "no kernel for NumPyro": (lambda: nd.AnnealedKernel(print, nd.Reverse()), TypeError, "must be a kernel"),
    "results before a run": (lambda: nd.AnnealedMCMC(print).log_evidence, RuntimeError, "Call run"),
    "a pilot before a run": (lambda: nd.AnnealedKernel(print).pilot, RuntimeError, "no pilot yet.*Run the MCMC first"),
    "a density for a prior": (
        lambda: nd.AnnealedMCMC(lambda: numpyro.sample("x", P), progress_bar=False).run(jax.random.key(0)),
        TypeError, r"sample takes a distribution; got the density .*nd.DiffusionPrior\("),
    "draws of an energy": (
        lambda: nd.DiffusionPrior(network()).sample(np.zeros(2, np.uint32)), NotImplementedError, "sampler=run"),
    "moments of a product": (
        lambda: nd.DiffusionPrior(gaussian() * gaussian(name="h")).mean, NotImplementedError, "Estimate them"),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)


@pytest.mark.parametrize("num_warmup", [0, 1])
def test_too_few_levels(num_warmup):
    mcmc = MCMC(nd.AnnealedKernel(model), num_warmup=num_warmup, num_samples=5, progress_bar=False)
    with pytest.raises(nd.errors.ParameterError, match=rf"at least 2.*got {num_warmup}"):
        mcmc.run(jax.random.key(0), Y)


def test_initial_values_are_refused():
    mcmc = MCMC(nd.AnnealedKernel(model), num_warmup=5, num_samples=5, progress_bar=False)
    with pytest.raises(nd.errors.ParameterError, match="init_params"):
        mcmc.run(jax.random.key(0), Y, init_params={"x": jnp.zeros(2)})


@pytest.mark.parametrize(("name", "value"), [("num_islands", 2), ("predictor", True)])
def test_replicas_have_no_islands_and_no_predictor(name, value):
    with pytest.raises(nd.errors.ParameterError, match=f"engine='tempering' takes no {name}"):
        nd.AnnealedMCMC(model, engine="tempering", **{name: value})


def test_models_without_a_diffusion_prior():
    def plain(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("x", dist.Normal()), 1.0), obs=y)

    mcmc = MCMC(nd.AnnealedKernel(plain), num_warmup=5, num_samples=5, progress_bar=False)
    with pytest.raises(nd.errors.UnsupportedModelError, match="no latent site with a diffusion prior"):
        mcmc.run(jax.random.key(0), 1.0)


@pytest.mark.slow
def test_scores_are_metropolised_by_line_integrals_alone():
    density = densities.network("score")

    def scored(y):
        x = numpyro.sample("x", nd.DiffusionPrior(density))
        numpyro.sample("y", dist.Normal(x[0], 1.0), obs=y)

    def run(kernel):
        mcmc = MCMC(nd.AnnealedKernel(scored, kernel), num_warmup=5, num_samples=5, progress_bar=False)
        mcmc.run(jax.random.key(0), 1.0)
        return mcmc

    with pytest.raises(nd.errors.ScoreOnlyError, match="accepts by log densities"):
        run(nd.BlackJAX(blackjax.barker))
    assert np.all(np.isfinite(run(nd.MALA()).get_samples()["x"]))


def test_data_must_be_known():
    mcmc = MCMC(nd.AnnealedKernel(model), num_warmup=5, num_samples=5, progress_bar=False)
    with pytest.raises(nd.errors.ParameterError, match="got traced values"):
        jax.vmap(lambda y: mcmc.run(jax.random.key(0), y))(jnp.ones((3, 1)))


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"kernel": "hmc"}, TypeError, "kernel must be a kernel"),
        ({"kernel": nd.HMC(step_size=[0.1, 0.2])}, nd.errors.ParameterError, "one number"),
        ({"num_steps": 0}, nd.errors.ParameterError, "num_steps"),
        ({"level_ess": 1.0}, nd.errors.ParameterError, "level_ess"),
        ({"metric": "mass"}, nd.errors.ParameterError, "metric"),
        ({"view": "blurred"}, nd.errors.ParameterError, "view"),
    ],
)
def test_settings_out_of_range(kwargs, error, message):
    with pytest.raises(error, match=message):
        nd.AnnealedKernel(model, **kwargs)


@pytest.mark.parametrize("density", [P * Q, densities.network("l2")], ids=["product", "network"])
def test_without_a_sampler_the_error_says_what_to_do(density):
    with pytest.raises(NotImplementedError, match=r"nd.anneal.*sampler=run.*nd.AnnealedMCMC"):
        seed(lambda: numpyro.sample("x", nd.DiffusionPrior(density)), 0)()


@pytest.mark.parametrize("name", ["x", "scale"])
def test_a_latent_that_is_no_draw_is_refused(name):
    """Chains would all start at its value, with the weights of draws of its distribution."""

    def model(y):
        x = numpyro.sample("x", nd.DiffusionPrior(densities.gaussian()))
        numpyro.sample("y", dist.Normal(x[0], numpyro.sample("scale", dist.HalfNormal())), obs=y)

    values = {"x": jnp.zeros(2), "scale": jnp.array(0.5)}
    fixed = substitute(model, data={name: values[name]})
    with pytest.raises(nd.errors.UnsupportedModelError, match=f"latent site '{name}' has one value in every draw"):
        nd.AnnealedMCMC(fixed).run(jax.random.key(0), jnp.asarray(0.3))


def test_a_prior_at_another_level_is_refused():
    def model(y):
        x = numpyro.sample("x", nd.DiffusionPrior(densities.gaussian(), 0.5))
        numpyro.sample("y", dist.Normal(x[0], 1.0), obs=y)

    with pytest.raises(nd.errors.UnsupportedModelError, match="site 'x' stands at noise level t = 0.5; annealing"):
        nd.AnnealedMCMC(model).run(jax.random.key(0), 0.3)


def test_a_prior_that_depends_on_a_latent_is_refused():
    density = densities.gaussian()

    def model(y):
        power = numpyro.sample("power", dist.Uniform(0.5, 2.0))
        x = numpyro.sample("x", nd.DiffusionPrior(density**power))
        numpyro.sample("y", dist.Normal(x[0], 1.0), obs=y)

    with pytest.raises(nd.errors.UnsupportedModelError, match="density of site 'x' depends on another latent"):
        nd.AnnealedMCMC(model).run(jax.random.key(0), jnp.asarray(0.3))


def test_a_latent_condition_is_refused_with_what_samples_it():
    config = nd.NetworkConfig(width=8, num_blocks=1, condition_size=1)
    density = densities.untrained(config, (2,), mean=np.zeros(2), covariance=np.eye(2))

    def model(y):
        c = numpyro.sample("c", dist.Normal(0.0, 1.0))
        x = numpyro.sample("x", nd.DiffusionPrior(density.given(c[None])))
        numpyro.sample("y", dist.Normal(x[0], 1.0), obs=y)

    with pytest.raises(nd.errors.UnsupportedModelError, match=r"numpyro.infer.NUTS samples the model as it is"):
        nd.AnnealedMCMC(model).run(jax.random.key(0), jnp.asarray(0.3))
