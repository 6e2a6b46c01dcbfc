"""What users of NumPyro and ArviZ do with a run: summaries, plots, LOO, scopes; and what is printed of it."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import warnings

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, Predictive
from scipy import stats

import numpyro_diffusion as nd
from benchmarks.faults.ordinary.inputs import KEY, Input, close, refused, require

PRIOR = nd.exact.GaussianMixture([[0.0, 1.0]], [[[1.0, 0.4], [0.4, 2.0]]], name="prior")
Y = np.array([0.3, -0.6, 1.1, 0.8, 0.1, 0.4])
MASK = np.array([True, True, False, True, False, True])


def plain(y=Y):
    x = numpyro.sample("x", nd.DiffusionPrior(PRIOR))
    with numpyro.plate("i", len(Y)):
        numpyro.sample("y", dist.Normal(x[0], 0.7), obs=y)


def masked(y=Y):
    x = numpyro.sample("x", nd.DiffusionPrior(PRIOR))
    with numpyro.plate("i", len(Y)), numpyro.handlers.mask(mask=jnp.asarray(MASK)):
        numpyro.sample("y", dist.Normal(x[0], 0.7), obs=y)


def scoped(y=Y):
    with numpyro.handlers.scope(prefix="part"):
        x = numpyro.sample("x", nd.DiffusionPrior(PRIOR))
        numpyro.deterministic("twice", 2 * x)
    with numpyro.handlers.scope(prefix="a/b.c d"), numpyro.plate("chain", len(Y)):
        numpyro.sample("y", dist.Normal(x[0], 0.7), obs=y)


def of_images(y=0.4):
    x = numpyro.sample("draw", nd.DiffusionPrior(PRIOR))
    numpyro.sample("log_density", dist.Normal(0.0, 1.0))
    numpyro.deterministic("matrix", jnp.outer(x, x))
    numpyro.sample("y", dist.Normal(x[0], 0.7), obs=y)


@functools.cache
def run_of(model, num_chains=400, num_samples=1, **settings):
    mcmc = nd.AnnealedMCMC(model, nd.HMC(0.15), num_chains=num_chains, num_samples=num_samples, progress_bar=False,
                           **{"levels": 12, "metric": "frame"} | settings)  # fmt: skip
    mcmc.run(KEY)
    return mcmc


def printed(call) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        call()
    return out.getvalue()


def posterior(count=6):
    """(mean, sd) of x[0] given that many observations: all, or those that are not masked."""
    y = Y if count == len(Y) else Y[MASK]
    precision = 1 + len(y) / 0.49
    return y.sum() / 0.49 / precision, precision**-0.5


def summaries() -> list[Input]:
    """R-hat and effective sample sizes of particles."""

    def agree(num_chains, num_samples, withheld=False, model=plain, **settings):
        mcmc = run_of(model, num_chains, num_samples, **settings)
        text = printed(mcmc.print_summary)
        row = next(line for line in text.splitlines() if re.match(r"\s*x\[0\]", line)).split()
        n_eff, r_hat = float(row[-2]), float(row[-1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            summary = az.summary(mcmc.to_datatree(log_likelihood=False), var_names=["x"], round_to="none")
        ess, rhat = (float(summary.iloc[0][name]) for name in ("ess_bulk", "r_hat"))
        total = num_chains * num_samples
        if withheld:
            require(np.isnan(r_hat) and 1 <= n_eff <= total, f"n_eff {n_eff}, r_hat {r_hat}")
            return f"n_eff {n_eff:.0f} of {total}, no r_hat"
        # By families of particles, where ArviZ has the spread between islands: of one size, not one number.
        require(0.5 < n_eff / ess < 2, f"n_eff {n_eff} and ess_bulk {ess}")
        require(np.isnan([r_hat, rhat]).all() or abs(r_hat - rhat) < 0.02, f"r_hat {r_hat} and {rhat}")
        require(np.isnan(rhat) or rhat < 1.1, f"r_hat {rhat}")
        require(0.02 * num_chains < ess < 1.5 * total, f"ess_bulk {ess} of {total}")
        mean, sd = posterior()
        require(abs(float(row[1]) - mean) < 5 * sd / np.sqrt(ess), f"mean {row[1]} for {mean:.3f}, ess {ess:.0f}")
        return f"n_eff {n_eff:.0f}, ess_bulk {ess:.0f} of {total}, r_hat {r_hat} and {rhat:.2f}"

    return [
        Input("400 particles", lambda: agree(400, 1)),
        Input("400 particles, 4 draws each", lambda: agree(400, 4)),
        Input("a prime number of particles", lambda: agree(211, 1)),
        Input("6 chains of 100 draws", lambda: agree(6, 100)),
        Input("1,000 particles, metric pilot", lambda: agree(1000, 1, metric="pilot")),
        Input("20 particles", lambda: agree(20, 1, withheld=True)),
        Input("without resampling", lambda: agree(400, 1, withheld=True, resample_threshold=0.0)),
        Input("90 particles, 3 draws each", lambda: agree(90, 3)),
    ]  # fmt: skip


def _figure(plot, mcmc, **settings) -> str:
    """Draw a plot of ArviZ from a run with predictions."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predictions = Predictive(mcmc.model, mcmc.get_samples())(KEY, y=None)
        predictions = {name: values for name, values in predictions.items() if name.endswith("y")}
        plot(mcmc.to_datatree(posterior_predictive=predictions), **settings)
    plt.close("all")
    return "drawn"


def arviz() -> list[Input]:
    """ArviZ on a run as on one of NumPyro's own."""

    def loo(model, mask):
        tree = run_of(model, 400, 4).to_datatree()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = az.loo(tree, pointwise=True)
        y, n = Y[mask], int(mask.sum())
        # Leave-one-out predictive densities of normal data with a normal prior on the mean, in closed form.
        elpd = 0.0
        for i in range(n):
            rest = np.delete(y, i)
            precision = 1 + len(rest) / 0.49
            elpd += stats.norm(rest.sum() / 0.49 / precision, np.sqrt(1 / precision + 0.49)).logpdf(y[i])
        require(found.n_data_points == n, f"{found.n_data_points} data points of {n}")
        require(abs(found.elpd - elpd) < 0.3, f"elpd {found.elpd:.2f} for {elpd:.2f}")
        return f"elpd {found.elpd:.2f} for {elpd:.2f}, {n} points"

    def names(model, *words):
        tree = run_of(model).to_datatree()
        found = " ".join(str(name) for group in tree.children.values() for name in group.ds.variables)
        require(all(word in found for word in words), f"{words} not in {found}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            summary = az.summary(tree)
        require(np.isfinite(summary["mean"].astype(float)), "means that are not finite")
        return f"groups {', '.join(tree.children)}; {found[:120]}"

    def converted(model):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = az.from_numpyro(run_of(model))
        mean, sd = posterior(len(Y) if model is plain else int(MASK.sum()))
        close(float(tree.posterior["x"][..., 0].mean()), mean, 5 * sd / np.sqrt(100))
        require(tree.posterior.sizes["chain"] == 4, f"{dict(tree.posterior.sizes)}")
        return str(dict(tree.posterior.sizes))

    def kernel():
        mcmc = MCMC(nd.AnnealedKernel(plain, nd.HMC(0.3)), num_warmup=12, num_samples=20, num_chains=20,
                    chain_method="vectorized", progress_bar=False)  # fmt: skip
        mcmc.run(KEY)
        close(float(az.from_numpyro(mcmc).posterior["x"][..., 0].mean()), posterior()[0], 0.25)
        return "of NumPyro's own MCMC"

    def stored():
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.nc"
            tree = run_of(scoped).to_datatree()
            tree.to_netcdf(path)
            import xarray as xr

            with xr.open_datatree(path) as again:
                again.load()
            for name, values in tree.posterior.data_vars.items():
                close(again.posterior[name].values, values.values, 1e-6)
        return "written and read"

    everyone = np.ones(len(Y), bool)
    return [
        Input("loo", lambda: loo(plain, everyone)),
        Input("loo of masked data", lambda: loo(masked, MASK)),
        Input("from_numpyro", lambda: converted(plain)),
        Input("from_numpyro of masked data", lambda: converted(masked)),
        Input("from_numpyro of an MCMC with an AnnealedKernel", kernel),
        Input("scopes with '/', '.' and a blank, a plate named chain", lambda: names(scoped, "part")),
        Input("sites named draw and log_density, a matrix", lambda: names(of_images, "matrix")),
        Input("a file and back", stored),
        Input("plot_rank", lambda: _figure(az.plot_rank, run_of(plain), var_names=["x"])),
        Input("plot_trace_dist", lambda: _figure(az.plot_trace_dist, run_of(plain), var_names=["x"])),
        Input("plot_rank of scopes", lambda: _figure(az.plot_rank, run_of(scoped))),
        Input("plot_forest", lambda: _figure(az.plot_forest, run_of(plain), var_names=["x"])),
        Input("plot_ess_evolution", lambda: _figure(az.plot_ess_evolution, run_of(plain), var_names=["x"])),
        Input("plot_ppc_pit of predictions", lambda: _figure(az.plot_ppc_pit, run_of(plain))),
        Input("plot_ppc_tstat of predictions", lambda: _figure(az.plot_ppc_tstat, run_of(masked))),
        Input("plot_loo_pit", lambda: _figure(az.plot_loo_pit, run_of(plain))),
        Input("plot_pair", lambda: _figure(az.plot_pair, run_of(plain), var_names=["x"])),
        Input("plot_convergence_dist", lambda: _figure(az.plot_convergence_dist, run_of(plain))),
    ]  # fmt: skip


def vmapped() -> list[Input]:
    """Kept with habits: what people try around a run, and are told."""

    def over_data(y):
        mcmc = nd.AnnealedMCMC(plain, nd.HMC(0.3), num_chains=20, levels=5, progress_bar=False)
        mcmc.run(KEY, y)
        return mcmc.get_samples()["x"]

    words = r"(?i)(loop|plate|traced)"
    return [
        refused("vmap over data", lambda: jax.vmap(over_data)(jnp.stack([Y, Y])), words),
        refused("jit of a run", lambda: jax.jit(over_data)(jnp.asarray(Y)), words),
        refused("the gradient of a run", lambda: jax.grad(lambda y: over_data(y).sum())(jnp.asarray(Y)), words),
        refused("vmap over keys", lambda: jax.vmap(
            lambda k: nd.anneal(k, PRIOR, nd.HMC(0.5), num_chains=5, levels=3, progress_bar=False).samples)(
            jax.random.split(KEY, 2)), words),
        refused("vmap of AnnealedKernel over data", lambda: jax.vmap(_by_kernel)(jnp.stack([Y, Y])), words),
        refused("scan of bounds", lambda: jax.lax.scan(
            lambda c, k: (c, nd.ais_bound(k, PRIOR, levels=3, progress_bar=False).lower), 0, jax.random.split(KEY, 2)), words),
    ]  # fmt: skip


def _by_kernel(y):
    mcmc = MCMC(nd.AnnealedKernel(plain, nd.HMC(0.3)), num_warmup=5, num_samples=2, progress_bar=False)
    mcmc.run(KEY, y)
    return mcmc.get_samples()["x"]
