"""Names that a DataTree cannot hold, axes of every kind, and observations that a mask leaves out."""

import functools
import warnings

import arviz as az
import densities
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from arviz_base.io_numpyro import infer_dims
from numpyro.contrib.control_flow import scan
from numpyro.handlers import condition, mask, scope, seed, trace
from scipy.stats import norm

import numpyro_diffusion as nd
from numpyro_diffusion.infer.arviz import likelihood_dataset
from numpyro_diffusion.infer.arviz_names import named, readable
from numpyro_diffusion.infer.model_call import name_of
from numpyro_diffusion.infer.sites import mask_of

NOISE = 0.5
Y = np.array([[0.9, 1.2, 0.4], [1.5, 0.8, 1.1]], np.float32)
KEPT = np.array([[True, False, True], [True, True, False]])

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")


def annealed(model, *args):
    mcmc = nd.AnnealedMCMC(model, nd.HMC(step_size=0.6), num_chains=64, levels=8, metric="frame", progress_bar=False)
    mcmc.run(jax.random.key(0), *args)
    return mcmc


def awkward(prior, y, kept):
    """Sites in a scope, a name that is a dimension's, a plate called like one, and three kinds of masks."""
    with scope(prefix="a"):
        x = numpyro.sample("x", prior)
        with numpyro.plate("draw", 3), mask(mask=kept[0]):
            numpyro.sample("y", dist.Normal(x[0], NOISE), obs=y[0])
    numpyro.deterministic("chain", x.sum())
    with numpyro.plate("column", 3), numpyro.plate("row", 2):
        numpyro.sample("grid", dist.Normal(x[1], NOISE).mask(kept), obs=y)
        numpyro.sample("whole", dist.Normal(x[1], NOISE), obs=y)
    numpyro.sample("nothing", dist.Normal(x[0], NOISE).mask(False), obs=y[0])
    numpyro.factor("a/pull", -0.01 * x[1] ** 2)


@pytest.fixture(scope="module")
def mcmc():
    return annealed(awkward, nd.DiffusionPrior(densities.gaussian()), jnp.asarray(Y), KEPT)


@pytest.fixture(scope="module")
def tree(mcmc):
    return mcmc.to_datatree()


def flat(values):
    return np.asarray(values).reshape(-1, *np.shape(values)[2:])


@pytest.mark.slow
def test_names_are_replaced_and_remembered(mcmc, tree):
    samples, posterior = mcmc.get_samples(), tree["posterior"]
    np.testing.assert_array_equal(flat(posterior["a.x"]), samples["a/x"])
    np.testing.assert_array_equal(flat(posterior["chain_"]), samples["chain"])
    assert posterior["a.x"].attrs == {"site": "a/x"} and posterior["chain_"].attrs == {"site": "chain"}
    assert set(tree["observed_data"].data_vars) == {"a.y", "grid", "whole", "nothing"}
    assert tree["observed_data"]["a.y"].dims == ("a.draw",)
    assert {"a.x[0]", "chain_"} <= set(az.summary(tree).index)
    assert set(az.from_numpyro(mcmc)["posterior"].data_vars) == {"a.x", "chain_"}


@pytest.mark.slow
def test_masked_entries_are_no_data(mcmc, tree):
    group, x = tree["log_likelihood"], np.asarray(mcmc.get_samples()["a/x"])
    assert set(group.data_vars) == {"a.y", "grid", "whole"}
    assert group["a.y"].dims == ("chain", "draw", "a.draw")
    np.testing.assert_array_equal(group["a.y"]["a.draw"], [0, 2])
    np.testing.assert_allclose(flat(group["a.y"]), norm.logpdf(Y[0, [0, 2]], x[:, :1], NOISE), atol=1e-4)
    assert group["grid"].dims == ("chain", "draw", "grid_entry")
    np.testing.assert_array_equal(group["grid"]["grid_row"], [0, 0, 1, 1])
    np.testing.assert_array_equal(group["grid"]["grid_column"], [0, 2, 0, 1])
    np.testing.assert_allclose(flat(group["grid"]), norm.logpdf(Y[KEPT], x[:, 1:], NOISE), atol=1e-4)
    assert group["whole"].dims == ("chain", "draw", "row", "column")


@pytest.mark.slow
@pytest.mark.parametrize(("site", "points"), [("a.y", 2), ("grid", 4), ("whole", 6)])
def test_loo_counts_what_there_is(tree, site, points):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "All tail values are the same")
        warnings.filterwarnings("ignore", "Estimated shape parameter")
        assert az.loo(tree, var_name=site).n_data_points == points


@pytest.mark.slow
def test_coords_and_dims_of_the_user_are_those_of_the_model(mcmc):
    coords = {"side": ["left", "right"], "a/draw": list("pqr"), "row": ["up", "down"], "column": [10, 20, 30]}
    tree = mcmc.to_datatree(extra_event_dims={"a/x": ["side"]}, coords=coords, prior={"a/x": np.zeros((7, 2))})
    assert tree["posterior"]["a.x"].dims == ("chain", "draw", "side")
    np.testing.assert_array_equal(tree["log_likelihood"]["a.y"]["a.draw"], ["p", "r"])
    np.testing.assert_array_equal(tree["log_likelihood"]["grid"]["grid_row"], ["up", "up", "down", "down"])
    np.testing.assert_array_equal(tree["log_likelihood"]["grid"]["grid_column"], [10, 30, 10, 20])
    assert tree["prior"]["a.x"].shape == (1, 7, 2)
    tree = mcmc.to_datatree(dims={"a/x": ["side"], "a/y": ["a/draw"]}, coords=coords)
    assert list(tree["log_likelihood"]["a.y"]["a.draw"].values) == ["p", "r"]


@pytest.mark.slow
def test_survives_a_file(tree, tmp_path):
    tree.to_netcdf(tmp_path / "posterior.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "posterior.nc") as back:
        for name in tree.children:
            xr.testing.assert_identical(back[name].to_dataset(), tree[name].to_dataset())


def test_readable_names_are_unique():
    names = ["a/b", "a.b", "draw", "draw_", "x", "a b", "a/b/c"]
    found = readable(names)
    assert found == {
        "a/b": "a.b_", "a.b": "a.b", "draw": "draw__", "draw_": "draw_", "x": "x", "a b": "a b", "a/b/c": "a.b.c",
    }  # fmt: skip


def test_every_axis_gets_the_name_of_its_plate():
    def many(y):
        with numpyro.plate("column", 3, dim=-1):
            a = numpyro.sample("a", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))
            with numpyro.plate("row", 4, dim=-3):
                numpyro.sample("gap", dist.Normal(0, 1))
            numpyro.deterministic("norm", (a**2).sum(-1))

        def step(carry, value):
            with numpyro.plate("column", 3):
                numpyro.sample("y", dist.Normal(carry, 1), obs=value)
            return carry, None

        scan(step, 0.0, y)
        numpyro.sample("box", dist.Normal(jnp.zeros((2, 5)), 1).to_event(2), infer={"event_dims": ["up", "side"]})
        # Axes that are called like a site, like each other, and like an axis of another size.
        numpyro.sample("k", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)), infer={"event_dims": ["k"]})
        numpyro.sample("L", dist.LKJCholesky(2), infer={"event_dims": ["j", "j"]})
        with numpyro.plate("column", 6):
            numpyro.sample("wide", dist.Normal(0, 1))

    sites = trace(seed(many, 0)).get_trace(jnp.zeros((6, 3)))
    names = {name: name for name, site in sites.items() if site["type"] != "plate"}
    assert infer_dims(named(many, names), (jnp.zeros((6, 3)),)) == {
        "a": ["column", "a_dim_0"],
        "gap": ["row", "gap_dim_0", "column"],
        "norm": ["column"],
        "y": ["y_dim_0", "column"],
        "box": ["up", "side"],
        "k": ["k_"],
        "L": ["j", "j_"],
        "wide": ["wide_column"],
    }


MASKED = {
    "method": lambda: dist.Normal(jnp.zeros(3), 1).mask(KEPT[0]),
    "expanded": lambda: dist.Normal(0, 1).mask(KEPT[0, 0]).expand((3,)),
    "broadcast": lambda: dist.Normal(jnp.zeros((2, 1)), 1).mask(KEPT),
    "twice": lambda: dist.Normal(jnp.zeros((2, 3)), 1).mask(KEPT).mask(KEPT[0]),
    "event": lambda: dist.Normal(jnp.zeros((2, 3)), 1).mask(np.array([[True], [False]])).to_event(1),
    "whole": lambda: dist.Normal(jnp.zeros(3), 1).mask(False),
    "none": lambda: dist.Normal(jnp.zeros(3), 1),
}


@pytest.mark.parametrize("name", MASKED)
def test_what_counts_has_a_log_likelihood(name):
    fn = MASKED[name]()
    found = mask_of({"fn": fn, "value": Y[0]})
    # Of values of positive density everywhere, what is left out has log likelihood zero.
    np.testing.assert_array_equal(found, np.asarray(fn.log_prob(jnp.asarray(Y[0]))) != 0)


@pytest.mark.slow
def test_a_mask_of_a_scan():
    def model(prior, y, kept):
        x = numpyro.sample("x", prior)

        def step(carry, row):
            with mask(mask=row[1]):
                numpyro.sample("y", dist.Normal(carry, NOISE), obs=row[0])
            return carry, None

        scan(step, x[0], (y, jnp.asarray(kept)))

    group = annealed(model, nd.DiffusionPrior(densities.gaussian()), jnp.asarray(Y[0]), KEPT[0]).to_datatree()
    np.testing.assert_array_equal(group["log_likelihood"]["y"]["y_dim_0"], [0, 2])


def test_sites_of_one_plate_keep_labels_of_their_own():
    values = {name: np.zeros((2, 5, 3)) for name in "abc"}
    masks = {"a": KEPT[0], "b": KEPT[1]}
    found = likelihood_dataset(values, masks, {name: ["obs"] for name in "abc"}, None)
    assert {name: found[name].dims[2] for name in "abc"} == {"a": "a_obs", "b": "b_obs", "c": "obs"}
    np.testing.assert_array_equal(found["b_obs"], [0, 1])
    without_c = {name: values[name] for name in "ab"}
    found = likelihood_dataset(without_c, masks, {name: ["obs"] for name in "abc"}, None)
    assert {name: found[name].dims[2] for name in "ab"} == {"a": "obs", "b": "b_obs"}


def test_names_of_models():
    assert name_of(awkward) == "awkward"
    assert name_of(condition(awkward, data={})) == "awkward"
    assert name_of(functools.partial(awkward, kept=KEPT)) == "partial(awkward)"
    assert name_of(Callable()) == "Callable"


class Callable:
    def __call__(self):
        numpyro.sample("x", dist.Normal(0, 1))
