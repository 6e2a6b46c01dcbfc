"""Annealed posteriors through ArviZ: groups, names, layout, pointwise log likelihoods, model comparison."""

import warnings

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.infer import Predictive
from quick import quick_among
from scipy.stats import norm

import numpyro_diffusion as nd

CHAINS, LEVELS, POINTS = 128, 10, 5
Y = np.array([0.7, 0.2, 0.9, 0.4, 0.5], np.float32)
V = np.array([0.4, -0.3], np.float32)
NOISE, SD, SCHEDULE = 0.5, 0.5, nd.VariancePreserving.cosine()

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")


def noised_gaussian(mean, x, t):
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    scale = jnp.sqrt((SD * alpha) ** 2 + sigma**2)
    return jnp.sum(jax.scipy.stats.norm.logpdf(x, alpha * mean, scale))


def density(mean):
    """A Gaussian that cannot be sampled in one step, like a trained density; its mean is traced."""
    mean = jnp.asarray(mean)
    moments = {"mean": mean, "covariance": SD**2 * jnp.eye(2)}
    return nd.as_density(noised_gaussian, (2,), SCHEDULE, parameters=mean, normalised=True, name="p", **moments)


def model(prior, y, v):
    x = numpyro.sample("x", nd.DiffusionPrior(prior))
    numpyro.deterministic("first", 2 * x[0])
    numpyro.factor("pull", -0.01 * x[1] ** 2)
    with numpyro.plate("obs", POINTS):
        numpyro.sample("y", dist.Normal(x[0], NOISE), obs=y)
    numpyro.sample("v", dist.Normal(x, 1.0).to_event(1), obs=v, infer={"event_dims": ["axis"]})


def annealed(mean=(0.5, -0.5), seed=0, **settings):
    usual = {"num_chains": CHAINS, "levels": LEVELS, "num_steps": 2, "metric": "frame", "progress_bar": False}
    settings = usual | settings
    mcmc = nd.AnnealedMCMC(model, nd.HMC(step_size=0.6), **settings)
    mcmc.run(jax.random.key(seed), density(mean), Y, V)
    return mcmc


@pytest.fixture(scope="module")
def mcmc():
    return annealed()


@pytest.fixture(scope="module")
def longer():
    return annealed(num_samples=4, thinning=1)


@pytest.fixture(scope="module")
def tree(mcmc):
    return mcmc.to_datatree()


def test_groups_and_dims(tree):
    groups = {"posterior", "sample_stats", "observed_data", "log_likelihood", "estimates", "annealing"}
    assert set(tree.children) == groups
    assert {k: v.dims for k, v in tree["posterior"].data_vars.items()} == {
        "x": ("chain", "draw", "x_dim_0"),
        "first": ("chain", "draw"),
    }
    assert {k: v.dims for k, v in tree["observed_data"].data_vars.items()} == {"y": ("obs",), "v": ("axis",)}
    assert {k: v.dims for k, v in tree["log_likelihood"].data_vars.items()} == {
        "y": ("chain", "draw", "obs"),
        "v": ("chain", "draw"),
    }
    np.testing.assert_array_equal(tree["observed_data"]["y"], Y)


def flat(values):
    """Draws of a tree in the order of get_samples()."""
    return np.asarray(values).reshape(-1, *np.shape(values)[2:])


def test_particles_are_draws_of_four_islands(mcmc, tree):
    assert dict(tree["posterior"].sizes) == {"chain": 4, "draw": CHAINS // 4, "x_dim_0": 2}
    np.testing.assert_array_equal(flat(tree["posterior"]["x"]), mcmc.get_samples()["x"])
    np.testing.assert_array_equal(tree["posterior"]["first"], 2 * tree["posterior"]["x"][..., 0])
    np.testing.assert_array_equal(flat(tree["sample_stats"]["particle"]), np.arange(CHAINS))
    assert "4 islands" in tree["posterior"].attrs["layout"]
    assert "weights" not in tree["posterior"].attrs


@pytest.mark.slow
def test_further_draws_stay_with_their_particle(longer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = longer.to_datatree()
    assert dict(tree["posterior"].sizes) == {"chain": 4, "draw": CHAINS, "x_dim_0": 2}
    assert tree["log_likelihood"]["y"].shape == (4, CHAINS, POINTS)
    grouped = np.asarray(longer.get_samples(group_by_chain=True)["x"])
    np.testing.assert_array_equal(flat(tree["posterior"]["x"]), grouped.reshape(-1, 2))
    np.testing.assert_array_equal(flat(tree["sample_stats"]["particle"]), np.repeat(np.arange(CHAINS), 4))
    expected = norm.logpdf(Y, grouped[..., :1], NOISE).reshape(-1, POINTS)
    np.testing.assert_allclose(flat(tree["log_likelihood"]["y"]), expected, atol=1e-4)


def test_relatives_share_an_island(mcmc, tree):
    ancestors = np.asarray(tree["sample_stats"]["ancestor"])
    shared = sum(len(np.intersect1d(a, b)) for i, a in enumerate(ancestors) for b in ancestors[:i])
    assert shared <= 3 and len(np.unique(ancestors)) < CHAINS
    np.testing.assert_array_equal(ancestors.ravel(), mcmc.annealed.ancestors)


def test_sample_stats_carry_arviz_names(mcmc, tree):
    stats, fields = tree["sample_stats"], mcmc.get_extra_fields()
    wanted = {"log_weight", "weight", "acceptance_rate", "diverging", "lp", "ancestor", "particle"}
    assert set(stats.data_vars) == wanted
    assert all(stats[k].dims == ("chain", "draw") for k in wanted)
    np.testing.assert_array_equal(flat(stats["lp"]), fields["log_density"])
    np.testing.assert_array_equal(flat(stats["log_weight"]), fields["log_weight"])
    assert stats["diverging"].dtype == bool
    assert float(stats["weight"].sum()) == pytest.approx(1)


def test_unequal_weights_are_pointed_out():
    mcmc = annealed(resample_threshold=0.0)
    tree = mcmc.to_datatree(log_likelihood=False)
    assert "log_likelihood" not in tree.children
    assert "estimates" in tree["posterior"].attrs["weights"]
    mean = float(tree["estimates"]["x"].sel(statistic="mean")[0])
    assert mean == pytest.approx(float((tree["posterior"]["x"][..., 0] * tree["sample_stats"]["weight"]).sum()))
    log_weights = np.asarray(mcmc.log_weights, dtype=float)
    expected = np.exp(log_weights - log_weights.max())
    np.testing.assert_allclose(flat(tree["sample_stats"]["weight"]), expected / expected.sum(), rtol=1e-4)
    # ESS and R-hat of draws that weigh unequally mean nothing.
    assert np.isnan(az.rhat(tree)["x"]).all() and np.isnan(az.ess(tree)["x"]).all()


def test_annealing_group_and_attributes(mcmc, tree):
    group = tree["annealing"]
    assert dict(group.sizes) == {"noise_level": LEVELS}
    np.testing.assert_array_equal(group["t"], mcmc.annealed.levels)
    for name, values in mcmc.annealed.stats.items():
        np.testing.assert_array_equal(group[name], values)
    assert tree.attrs["log_evidence"] == mcmc.log_evidence
    assert tree.attrs["log_evidence_error"] == mcmc.log_evidence_error
    assert tree.attrs["evaluations_per_chain"] == mcmc.evaluations_per_chain
    assert tree.attrs["model"] == "model" and "HMC" in tree.attrs["kernel"]


def test_log_likelihood_is_that_of_the_model(mcmc, tree):
    x = np.asarray(mcmc.get_samples()["x"])
    np.testing.assert_allclose(flat(tree["log_likelihood"]["y"]), norm.logpdf(Y, x[:, :1], NOISE), atol=1e-4)
    np.testing.assert_allclose(flat(tree["log_likelihood"]["v"]), norm.logpdf(V, x, 1.0).sum(-1), atol=1e-4)


@pytest.mark.parametrize("as_adapter", [False, True])
def test_from_numpyro_takes_it_as_it_is(mcmc, tree, as_adapter):
    other = az.from_numpyro(mcmc.arviz_adapter() if as_adapter else mcmc, log_likelihood=True)
    for name in ("y", "v"):
        xr.testing.assert_allclose(other["log_likelihood"][name], tree["log_likelihood"][name], rtol=1e-4)
    for group in ("posterior", "sample_stats"):
        xr.testing.assert_equal(other[group].to_dataset(), tree[group].to_dataset())
    assert "annealing" not in other.children
    # NumPyro's own surface is as it was.
    assert mcmc.get_samples()["x"].shape == (CHAINS, 2) and mcmc.model is model


def test_loo_and_compare_prefer_the_prior_near_the_data(tree):
    far = annealed(mean=(-2.5, -0.5)).to_datatree()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A prior far off makes the Pareto tails long, as it should.
        near_loo, far_loo = (az.loo(t, var_name="y") for t in (tree, far))
        table = az.compare({"near": tree, "far": far}, var_name="y")
    assert near_loo.n_data_points == POINTS
    assert near_loo.elpd > far_loo.elpd + 1
    assert list(table.index) == ["near", "far"]


def test_loo_is_close_to_the_exact_predictive_density(tree):
    # Posterior of x[0] given all but one of y, and v: Gaussian; each y left out has a Gaussian predictive density.
    exact = 0.0
    for i in range(POINTS):
        rest = np.delete(Y, i)
        precision = 1 / SD**2 + len(rest) / NOISE**2 + 1.0
        mean = (0.5 / SD**2 + rest.sum() / NOISE**2 + V[0]) / precision
        exact += norm.logpdf(Y[i], mean, np.sqrt(1 / precision + NOISE**2))
    # Over seeds the estimate has a standard deviation of 0.1 nats.
    assert float(az.loo(tree, var_name="y").elpd) == pytest.approx(exact, abs=0.5)


def test_predictive_and_prior_draws_of_the_user(mcmc):
    predictive = Predictive(model, mcmc.get_samples())(jax.random.key(1), density((0.5, -0.5)), None, None)
    prior = {"x": np.zeros((7, 2)), "first": np.zeros(7), "y": np.zeros((7, POINTS)), "v": np.zeros((7, 2))}
    tree = mcmc.to_datatree(posterior_predictive=predictive, prior=prior, constant_data={"c": np.arange(3.0)})
    assert tree["posterior_predictive"]["y"].shape == (4, CHAINS // 4, POINTS)
    assert tree["posterior_predictive"]["y"].dims == ("chain", "draw", "obs")
    np.testing.assert_array_equal(flat(tree["posterior_predictive"]["v"]), predictive["v"])
    assert tree["prior"]["x"].shape == (1, 7, 2) and set(tree["prior"].data_vars) == {"x", "first"}
    assert tree["prior_predictive"]["v"].dims == ("chain", "draw", "axis")
    assert tree["constant_data"]["c"].shape == (3,)


def test_dims_and_coords_of_the_user(mcmc):
    coords = {"side": ["left", "right"], "obs": list("abcde")}
    tree = mcmc.to_datatree(dims={"x": ["side"], "y": ["obs"]}, coords=coords)
    assert float(tree["posterior"]["x"].sel(side="right")[0, 3]) == float(mcmc.get_samples()["x"][3, 1])
    assert list(tree["log_likelihood"]["obs"].values) == list("abcde")
    tree = mcmc.to_datatree(extra_event_dims={"x": ["side"]}, coords=coords)
    assert tree["posterior"]["x"].dims == ("chain", "draw", "side") and tree["observed_data"]["y"].dims == ("obs",)


def test_summary_sees_the_posterior(mcmc, tree):
    table = az.summary(tree, round_to="none", kind="stats")
    samples = np.asarray(mcmc.get_samples()["x"], dtype=float)
    assert set(table.index) == {"first", "x[0]", "x[1]"}
    assert float(table.loc["x[1]", "mean"]) == pytest.approx(samples[:, 1].mean(), abs=1e-4)


def test_survives_a_file(tree, tmp_path):
    tree.to_netcdf(tmp_path / "posterior.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "posterior.nc") as back:
        assert back.attrs["log_evidence"] == tree.attrs["log_evidence"]
        for name in tree.children:
            xr.testing.assert_equal(back[name].to_dataset(), tree[name].to_dataset())


@pytest.mark.parametrize("call", ["to_datatree", "arviz_adapter", "print_summary", "get_samples", "get_sample_stats"])
def test_before_a_run(call):
    with pytest.raises(RuntimeError, match="Call run"):
        getattr(nd.AnnealedMCMC(model), call)()
    with pytest.raises(RuntimeError, match="Call run"):
        az.from_numpyro(nd.AnnealedMCMC(model))


@pytest.mark.parametrize("which", ["mcmc", "longer"])
def test_printed_summary_is_that_of_arviz(which, request, capsys):
    mcmc = request.getfixturevalue(which)
    mcmc.print_summary(exclude_deterministic=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    table = az.summary(mcmc.to_datatree(), round_to="none")
    assert lines[0] == ["mean", "mcse", "std", "median", "5.0%", "95.0%", "n_eff", "r_hat"]
    printed = {name: dict(zip(lines[0], map(float, row), strict=True)) for name, *row in lines[1:4]}
    assert set(printed) == set(table.index)
    for name, row in printed.items():
        for ours, theirs in {"mean": "mean", "std": "sd", "r_hat": "r_hat"}.items():
            assert row[ours] == pytest.approx(table.loc[name, theirs], rel=0.01, abs=0.006)
    found = nd.expectation(mcmc)
    for name, row in printed.items():
        site, *index = name.removesuffix("]").split("[")
        place = tuple(map(int, index))
        assert row["mcse"] == pytest.approx(found[site].error[place], rel=0.05)
        assert row["n_eff"] == pytest.approx(found[site].num_effective[place], abs=0.006)


PLOTS = ["rank", "forest", "ess", "trace_dist", "pair", "rank_dist", "autocorr"]


@pytest.mark.parametrize("plot", quick_among(PLOTS, PLOTS[:2]))
@pytest.mark.parametrize("which", quick_among(["mcmc", "longer"], ["longer"]))
def test_plots(plot, which, request):
    pytest.importorskip("matplotlib").use("Agg")
    drawn = getattr(az, f"plot_{plot}")(az.from_numpyro(request.getfixturevalue(which)), backend="matplotlib")
    assert drawn.viz["figure"].item().axes
