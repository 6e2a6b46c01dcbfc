"""`AnnealedMCMC` in the place of `numpyro.infer.MCMC`: all that has a name there works here, or is refused by name."""

import inspect
import pickle
import re
from pathlib import Path

import arviz as az
import densities
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions.transforms import AffineTransform
from numpyro.handlers import mask
from numpyro.infer import MCMC, NUTS, Predictive, log_likelihood

import numpyro_diffusion as nd
from numpyro_diffusion.annealing.devices import checked_mesh
from numpyro_diffusion.errors import ParameterError
from numpyro_diffusion.infer.arguments import spread
from numpyro_diffusion.infer.posterior import check_fields

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")]

PRIOR, OTHER = nd.DiffusionPrior(densities.gaussian((0.2, -0.3))), nd.DiffusionPrior(densities.mixture("p"))
Y = np.array([0.9, 1.2, 0.4, -0.1], np.float32)
CHAINS = 32


def model(y=None, size=4):
    """Sites of every kind: two priors, one of them in a plate and of unknown location, and a positive one."""
    x = numpyro.sample("x", PRIOR)
    loc, noise = numpyro.sample("loc", dist.Normal()), numpyro.sample("noise", dist.HalfNormal(0.5))
    with numpyro.plate("pair", 2):
        z = numpyro.sample("z", dist.TransformedDistribution(OTHER, AffineTransform(loc, 0.5)))
    total = numpyro.deterministic("total", x[0] + z.sum())
    numpyro.factor("pull", -0.01 * total**2)
    with numpyro.plate("obs", size), mask(mask=jnp.arange(size) != 1):
        return numpyro.sample("y", dist.Normal(x[0] + z[0, 0], noise), obs=y)


def sampler(**settings):
    settings = {"num_chains": CHAINS, "num_warmup": 8, "metric": "frame", "progress_bar": False} | settings
    return nd.AnnealedMCMC(model, nd.HMC(step_size=0.25), **settings)


@pytest.fixture(scope="module")
def warmed():
    mcmc = sampler(num_samples=6, thinning=2)
    mcmc.warmup(jax.random.key(0), Y)
    return mcmc


@pytest.fixture(scope="module")
def mcmc(warmed):
    """Draws that go on from a warm-up."""
    warmed.run(jax.random.key(1), Y, extra_fields=("potential_energy", "z.noise", "~z.loc"))
    return warmed


def test_nothing_public_of_numpyros_is_missing(mcmc):
    theirs = MCMC(NUTS(model), num_warmup=1, num_samples=1)
    public = {name for name in (*dir(MCMC), *vars(theirs)) if not name.startswith("_")}
    assert {"warmup", "post_warmup_state", "transfer_states_to_host", "sampler"} < public
    assert not {name for name in public if not hasattr(mcmc, name)}
    for method in ("__init__", "run", "warmup", "get_samples", "get_extra_fields", "print_summary"):
        ours, wanted = (inspect.signature(getattr(cls, method)).parameters for cls in (nd.AnnealedMCMC, MCMC))
        assert not wanted.keys() - ours.keys() - {"sampler"}, method


def test_deterministic_sites_may_be_left_out(mcmc):
    assert check_fields(["~z.total"], mcmc.last_state.joint) == ["~z.total"]


def test_runs_go_on_from_a_warm_up(mcmc):
    warm, last = mcmc.post_warmup_state, mcmc.last_state
    assert mcmc.get_samples(group_by_chain=True)["x"].shape == (CHAINS, 3, 2)
    # Six steps after the anneal's, of two moves each, with three gradients.
    assert mcmc.evaluations_per_chain == mcmc.annealed.evaluations_per_chain + 6 * 2 * 3
    assert np.all(np.any(np.asarray(last.z["x"]) != np.asarray(warm.z["x"]), axis=1))
    evidence = mcmc.log_evidence
    other = sampler(num_samples=2)
    other.post_warmup_state = last
    other.run(other.post_warmup_state.rng_key, Y)
    assert other.get_samples()["x"].shape == (2 * CHAINS, 2) and other.log_evidence == evidence
    again = pickle.loads(pickle.dumps(last))
    np.testing.assert_array_equal(again.z["noise"], last.z["noise"])


@pytest.mark.parametrize("method", ["vectorized", pytest.param("sequential", marks=pytest.mark.slow)])
def test_the_first_draw_ends_the_anneal_whatever_the_chain_method(mcmc, method):
    cold = sampler(chain_method=method)
    cold.run(jax.random.key(0), Y)
    at_end = mcmc.post_warmup_state.z["x"]
    np.testing.assert_allclose(cold.get_samples()["x"], at_end, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(cold.last_state.z["x"], cold.get_samples()["x"])


def test_data_written_to_after_a_warm_up_are_other_data(mcmc):
    y, other = Y.copy(), sampler()
    other.warmup(jax.random.key(0), y)
    y[0] = 5.0
    with pytest.raises(ParameterError, match="annealed for another model or other arguments"):
        other.run(jax.random.key(0), y)


def test_fields_and_left_out_sites(mcmc):
    fields = mcmc.get_extra_fields(group_by_chain=True)
    np.testing.assert_allclose(np.exp(fields["z.noise"]), mcmc.get_samples(group_by_chain=True)["noise"], rtol=1e-5)
    assert "diverging" in fields and "loc" not in mcmc.get_samples() and {"x", "z", "noise"} < set(mcmc.get_samples())


def test_predictions_likelihoods_and_arviz(mcmc):
    samples = mcmc._found.samples
    flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in samples.items()}
    predicted = Predictive(model, flat)(jax.random.key(2), size=7)
    assert predicted["y"].shape == (3 * CHAINS, 7)
    np.testing.assert_allclose(predicted["total"], flat["total"], rtol=1e-4, atol=1e-5)
    tree, names = mcmc.to_datatree(), ("pull", "y")
    ours = np.asarray(tree["log_likelihood"]["y"]).reshape(-1, 3)
    theirs = log_likelihood(model, flat, Y)
    assert set(theirs) == set(names)
    np.testing.assert_allclose(ours, theirs["y"][:, [0, 2, 3]], rtol=1e-4, atol=1e-4)
    assert az.from_numpyro(mcmc)["posterior"]["z"].dims == ("chain", "draw", "pair", "z_dim_0")


@pytest.mark.slow
def test_weighted_draws_are_resampled_by_one_line():
    mcmc = sampler(resample_threshold=0.0, num_samples=2)
    mcmc.run(jax.random.key(0), Y)
    log_weight = mcmc.get_extra_fields()["log_weight"]
    chosen = jax.random.categorical(jax.random.key(1), log_weight, shape=(20_000,))
    share = np.exp(log_weight - jax.scipy.special.logsumexp(log_weight))
    x = np.asarray(mcmc.get_samples()["x"])
    mean = share @ x
    error = np.sqrt(share @ (x - mean) ** 2 / 20_000)
    assert len(np.unique(log_weight)) == CHAINS
    assert np.all(np.abs(x[chosen].mean(0) - mean) < 5 * error)


def test_own_postprocessing_and_the_host(mcmc):
    own = sampler(postprocess_fn=lambda z: {"double": 2 * z["x"]})
    own.run(jax.random.key(0), Y)
    own.transfer_states_to_host()
    assert type(own.get_samples()["double"]) is np.ndarray and own.get_samples().keys() == {"double"}
    np.testing.assert_allclose(own.get_samples()["double"], 2 * own.last_state.z["x"], rtol=1e-6)


def test_a_kernel_of_ours_brings_its_model():
    kernel = nd.AnnealedKernel(model, nd.MALA(), num_steps=3, metric="frame", view="scaled")
    mcmc = nd.AnnealedMCMC(kernel, num_warmup=60, num_samples=100, num_chains=64)
    assert mcmc.model is model and mcmc.kernel is kernel.kernel and mcmc.view == "scaled"
    same = mcmc.sampler
    assert (same.num_steps, same.metric, same.view, same.kernel) == (3, "frame", "scaled", kernel.kernel)
    assert same.sample_field == "z" and same.model is model


def test_parallel_chains_share_the_devices_there_are():
    mesh, _ = spread("parallel", CHAINS, None, None)
    assert (mesh is None) == (jax.local_device_count() == 1) and spread("sequential", CHAINS, None, None)[1] == 1
    given = jax.make_mesh((1,), ("chains",))
    assert spread("parallel", CHAINS, given, 8) == (checked_mesh(given, CHAINS), 8)


def going_on(mcmc, *args):
    mcmc.run(jax.random.key(0), *args)


REFUSED = {
    "NUTS": (lambda _: nd.AnnealedMCMC(NUTS(model)), TypeError, r"NUTS moves .*write nd\.AnnealedMCMC\(model, nd\.HMC"),
    "kernel first": (lambda _: nd.AnnealedMCMC(nd.MALA(), model), TypeError, r"first: .*AnnealedMCMC\(model, MALA"),
    "kernel twice": (
        lambda _: nd.AnnealedMCMC(nd.AnnealedKernel(model), nd.MALA()), ParameterError, "kernel is the Annealed",
    ),
    "steps twice": (
        lambda _: nd.AnnealedMCMC(nd.AnnealedKernel(model), num_steps=7), ParameterError, "num_steps is the Annealed",
    ),
    "levels twice": (lambda _: sampler(levels=9), ParameterError, "num_warmup and levels, not both"),
    "no levels": (lambda _: sampler(num_warmup=0), ParameterError, "num_warmup must be an integer >= 2; got 0. It is"),
    "thinning": (lambda _: sampler(num_samples=2, thinning=3), ParameterError, "thinning must be .* from 1 to 2"),
    "chain method": (lambda _: sampler(chain_method=jax.vmap), ParameterError, "chain_method must be one of.*mesh="),
    "postprocess": (lambda _: sampler(postprocess_fn=3), ParameterError, "postprocess_fn must be a function"),
    "collected": (lambda m: m.warmup(jax.random.key(0), Y, collect_warmup=True), ParameterError, "collect_warmup is"),
    "state": (lambda m: setattr(m, "post_warmup_state", {"x": 0}), TypeError, "last_state of an AnnealedMCMC"),
    "other data": (lambda m: going_on(m, Y + 1), ParameterError, "other arguments.*post_warmup_state = None"),
    "field": (lambda m: m.run(jax.random.key(0), Y, extra_fields=("z.k",)), ParameterError, "extra_fields .*'z.k'"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_has_no_meaning_is_refused(mcmc, call, error, words):
    with pytest.raises(error, match=words):
        call(mcmc)


HOW_TO = (Path(__file__).resolve().parents[2] / "docs" / "how_to_numpyro.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_how_to_runs():
    blocks, names = re.findall(r"^```python\n(.*?)^```", HOW_TO, re.MULTILINE | re.DOTALL), {}
    for index, block in enumerate(blocks):
        exec(compile(block, f"the how-to, block {index}", "exec"), names)
    assert names["predicted"].shape == (200, 5) and names["likelihoods"].shape == (200, 3)
    # Rings of radius a half about the location.
    found = names["hierarchy"].get_samples()
    radius = np.linalg.norm((found["x"] - found["loc"][:, None, None]) / found["scale"][:, None, None], axis=-1)
    assert np.all(np.abs(radius - 0.5) < 0.2)


def test_names_of_the_how_to_exist():
    names = set(re.findall(r"\bnd\.(\w+)", HOW_TO))
    assert len(names) > 5 and all(hasattr(nd, name) for name in names)
