"""What users of NumPyro do with the results of a run."""

import copy
import functools
import pickle

import densities
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.handlers import condition, substitute
from numpyro.infer import MCMC, Predictive, log_likelihood
from quick import quick_among

import numpyro_diffusion as nd

Y = np.array([0.9, 1.2, 0.4], np.float32)
CHAINS = 64

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
PRIOR = nd.DiffusionPrior(densities.gaussian())


def model(y=None, noise=0.5):
    x = numpyro.sample("x", PRIOR)
    numpyro.deterministic("twice", 2 * x)
    with numpyro.plate("obs", 3):
        return numpyro.sample("y", dist.Normal(x[0], noise), obs=y)


def annealed(model, *args, settings=None, extra_fields=(), **kwargs):
    settings = {"num_chains": CHAINS, "levels": 8, "metric": "frame", "progress_bar": False} | (settings or {})
    mcmc = nd.AnnealedMCMC(model, nd.HMC(step_size=0.6), **settings)
    mcmc.run(jax.random.key(0), *args, extra_fields=extra_fields, **kwargs)
    return mcmc


@pytest.fixture(scope="module")
def mcmc():
    fields = ("potential_energy", "log_weight", "diverging", "accept_prob")
    return annealed(model, jnp.asarray(Y), extra_fields=fields, settings={"num_samples": 3})


def test_predictions_and_likelihoods_from_samples(mcmc):
    samples, grouped = mcmc.get_samples(), mcmc.get_samples(group_by_chain=True)
    assert Predictive(model, samples)(jax.random.key(1))["y"].shape == (CHAINS * 3, 3)
    assert Predictive(model, grouped, batch_ndims=2)(jax.random.key(1))["y"].shape == (CHAINS, 3, 3)
    ours = np.asarray(mcmc.to_datatree()["log_likelihood"]["y"]).reshape(-1, 3)
    np.testing.assert_allclose(ours, log_likelihood(model, samples, jnp.asarray(Y))["y"], rtol=1e-5, atol=1e-6)


def test_fields_under_the_names_of_numpyro(mcmc):
    fields = mcmc.get_extra_fields(group_by_chain=True)
    assert {v.shape for v in fields.values()} == {(CHAINS, 3)}
    np.testing.assert_array_equal(fields["potential_energy"], -fields["log_density"])
    np.testing.assert_array_equal(fields["accept_prob"], fields["acceptance_rate"])
    np.testing.assert_array_equal(fields["diverging"], fields["is_divergent"])
    assert "potential_energy" not in mcmc.to_datatree()["sample_stats"]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda mcmc: pickle.loads(pickle.dumps(mcmc))])
def test_copies_keep_the_results(mcmc, copied):
    other = copied(mcmc)
    np.testing.assert_array_equal(other.get_samples()["x"], mcmc.get_samples()["x"])
    assert other.log_evidence == mcmc.log_evidence and repr(other) == repr(mcmc)


MODELS = {
    "keywords": (model, (), {"y": jnp.asarray(Y), "noise": 0.5}),
    "condition": (condition(model, data={"y": jnp.asarray(Y)}), (), {}),
    "substitute": (substitute(model, data={"unused": jnp.zeros(())}), (jnp.asarray(Y),), {}),
    "partial": (functools.partial(model, noise=0.5), (jnp.asarray(Y),), {}),
}


@pytest.mark.parametrize("name", quick_among(MODELS, ["condition"]))
def test_models_in_wrappers_are_the_model(name, mcmc):
    wrapped, args, kwargs = MODELS[name]
    other = annealed(wrapped, *args, **kwargs)
    assert other.log_evidence == pytest.approx(mcmc.log_evidence, abs=1e-3)
    tree = other.to_datatree()
    np.testing.assert_array_equal(tree["observed_data"]["y"], Y)
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "obs")


def test_summary_ends_with_the_findings(capsys):
    mcmc = annealed(model, jnp.asarray(Y), settings={"levels": 60, "num_steps": 1})
    mcmc.print_summary()
    quiet = capsys.readouterr().out.splitlines()
    assert quiet[-1] == "findings none"
    mcmc.annealed.stats["ess"] = np.full(60, 0.01)
    mcmc.print_summary()
    loud = capsys.readouterr().out.splitlines()
    assert loud[-2] == "findings 1" and loud[-1].startswith("  - weights collapse")


def test_summary_says_what_is_withheld(capsys):
    annealed(model, jnp.asarray(Y), settings={"resample_threshold": 0.0}).print_summary()
    text = capsys.readouterr().out
    assert "weigh unequally" in text and text.count("nan") == 2
    with pytest.raises(nd.errors.ParameterError, match=r"prob must lie in \[0, 1\]; got 1.5"):
        annealed(model, jnp.asarray(Y)).print_summary(prob=1.5)


@pytest.mark.parametrize("prob", [0.0, 0.5, 1.0])
def test_interval_of_any_mass(mcmc, prob, capsys):
    mcmc.print_summary(prob=prob)
    line = capsys.readouterr().out.splitlines()[1].split()
    x = np.asarray(mcmc.get_samples()["x"][:, 0])
    low, high = float(line[5]), float(line[6])
    assert np.mean((x >= low - 0.006) & (x <= high + 0.006)) >= prob


def test_short_texts():
    assert repr(PRIOR) == "DiffusionPrior(g)" and repr(PRIOR.at(0.25)).endswith(", t=0.25)")
    assert jax.jit(lambda t: repr(PRIOR.at(t)).endswith(", t=...)"))(0.5)
    text = repr(nd.AnnealedMCMC(model, nd.HMC(step_size=0.1), num_chains=10, num_samples=4))
    assert text.startswith("AnnealedMCMC(model, HMC(step_size=0.1") and text.endswith("num_chains=10, num_samples=4)")


@pytest.mark.slow
def test_numpyros_own_mcmc_goes_to_arviz():
    az = pytest.importorskip("arviz")
    mcmc = MCMC(
        nd.AnnealedKernel(model, nd.HMC(step_size=0.6)), num_warmup=30, num_samples=20, num_chains=8,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.key(0), jnp.asarray(Y), extra_fields=("log_weight", "potential_energy"))
    tree = az.from_numpyro(mcmc, log_likelihood=True)
    assert tree["posterior"]["x"].shape == (8, 20, 2) and "lp" in tree["sample_stats"]
    assert np.isfinite(az.summary(tree, round_to="none").astype(float)).all(axis=None)
    assert az.loo(tree).n_data_points == 3
