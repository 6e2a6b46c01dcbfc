"""What a second run costs: programs that are compiled for new values of equal shapes, and seconds of tracing anew."""

from __future__ import annotations

import contextlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC

import numpyro_diffusion as nd
from benchmarks.faults.ordinary.inputs import KEY, Input, require
from numpyro_diffusion.infer.model_call import ModelCall

#: Seconds that tracing anew may add to a run of the README's model, and how often it is timed.
MOST_TRACING, REPEATS = 0.3, 7
SCHEDULE = nd.VariancePreserving.cosine()
_compiled: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: _compiled.append(name) if name.endswith("backend_compile_duration") else None
)


def compiles_none(call, first, second, allowed: int = 0) -> str:
    """Run with one set of values, then with another: no program may be compiled, or fetched from the disk."""
    call(*first)
    call(*first)  # what is compiled once only, whatever the values
    before = len(_compiled)
    call(*second)
    count = len(_compiled) - before
    require(count <= allowed, f"{count} programs compiled")
    return f"{count} programs" + (", NumPyro's own loop, which it compiles at every call" if count else "")


def readme(ring):
    """The model of README."""

    def model(y):
        x = numpyro.sample("x", nd.DiffusionPrior(ring))
        sigma = numpyro.sample("sigma", dist.HalfNormal(0.2))
        numpyro.sample("y", dist.Normal(x[0] + x[1], sigma), obs=y)

    return model


def posterior(y, ring=None, **settings):
    """README's run."""
    settings = {"num_chains": 500, "progress_bar": False} | settings
    mcmc = nd.AnnealedMCMC(readme(ring or nd.load_pretrained("ring")), nd.HMC(), **settings)
    mcmc.run(KEY, y)
    return mcmc


def tracing() -> str:
    """Seconds of tracing in runs of README's model whose programs are there, side by side with all of the run."""
    spent, traced, whole = [], ModelCall.traced, []

    def timed(self, *args, **kwargs):
        start = _clocks()
        try:
            return traced(self, *args, **kwargs)
        finally:
            spent[-1] += _clocks() - start

    ring = nd.load_pretrained("ring")
    posterior(0.1, ring)
    with _replaced(ModelCall, "traced", timed):
        for i in range(REPEATS):
            spent.append(np.zeros(2))
            start = _clocks()
            posterior(0.1 + 0.01 * i, ring)
            whole.append(_clocks() - start)
    (least, least_cpu), (median, _), of_run = np.min(spent, 0), np.median(spent, 0), np.median(whole, 0)[0]
    text = (
        f"tracing {least:.3f} s at least ({least_cpu:.3f} s of its thread's time), {median:.3f} s in the median, of runs "
        f"of {np.min(whole, 0)[0]:.2f} s and {of_run:.2f} s; {REPEATS} runs"
    )
    # The thread's own time is what it costs; what else the machine does comes on top.
    require(least_cpu <= MOST_TRACING, text)
    return text


def _clocks() -> np.ndarray:
    """Seconds on the wall, and of this thread."""
    return np.array([time.perf_counter(), time.thread_time()])


@contextlib.contextmanager
def _replaced(owner, name, value):
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def costs() -> list[Input]:
    """A second run with new values of equal shapes."""
    held = {"mean": jnp.zeros(2)}

    def fn(x, t):
        alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
        return jnp.sum(jax.scipy.stats.norm.logpdf(x, alpha * held["mean"], jnp.hypot(alpha, sigma)))

    density = nd.as_density(fn, (2,), SCHEDULE, mean=np.zeros(2), covariance=4 * np.eye(2), normalised=True)

    def anneal(mean, levels=12):
        held["mean"] = mean
        nd.anneal(KEY, density, nd.HMC(), num_chains=100, levels=levels, progress_bar=False)

    def fit(scale):
        sampler = lambda key, n: scale * jax.random.normal(key, (n, 2))
        nd.fit(KEY, sampler, network=nd.NetworkConfig(width=8, num_blocks=1), progress_bar=False,
               training=nd.TrainingConfig(num_steps=20, batch_size=16))  # fmt: skip

    def labelled(shift):
        x = np.random.default_rng(0).normal(size=(64, 2)) + shift
        nd.fit(KEY, x, conditions=np.eye(2)[np.arange(64) % 2], progress_bar=False, sigma_min=0.01, sigma_max=20.0,
               network=nd.NetworkConfig(width=8, num_blocks=1), training=nd.TrainingConfig(num_steps=20, batch_size=16))  # fmt: skip

    ring = nd.load_pretrained("ring")
    kernel = nd.AnnealedKernel(readme(ring), nd.HMC())
    mcmc = MCMC(kernel, num_warmup=20, num_samples=5, num_chains=40, chain_method="vectorized", progress_bar=False)

    def by_mcmc(y):
        mcmc.run(KEY, y)

    def in_a_frame(values):
        import pandas as pd

        frame = pd.DataFrame({"y": values})

        def model(frame):
            x = numpyro.sample("x", nd.DiffusionPrior(ring))
            numpyro.sample("y", dist.Normal(x[0], 0.3).expand([3]).to_event(1), obs=frame["y"].to_numpy())

        run = nd.AnnealedMCMC(model, nd.HMC(), num_chains=100, levels=12, progress_bar=False)
        run.run(KEY, frame)

    def counted(counts):
        def model():
            x = numpyro.sample("x", nd.DiffusionPrior(ring))
            numpyro.sample("y", dist.Poisson(jnp.exp(x[0])).expand([3]).to_event(1), obs=counts)

        nd.AnnealedMCMC(model, nd.HMC(), num_chains=100, levels=12, progress_bar=False).run(KEY)

    products = lambda weight: nd.anneal(
        KEY, ring**weight * nd.load_pretrained("bar"), nd.HMC(), num_chains=100, levels=12, progress_bar=False)  # fmt: skip
    return [
        Input("README's model, other data: programs", lambda: compiles_none(lambda y: posterior(y, ring, levels=20), [0.1], [-0.3])),
        Input("a frame of other values: programs", lambda: compiles_none(in_a_frame, [[0.1, 0.2, 0.3]], [[0.5, -0.2, 0.0]])),
        Input("other counts in a closure: programs", lambda: compiles_none(counted, [np.array([0, 1, 2])], [np.array([3, 0, 1])])),
        Input("anneal of a function that reads other values: programs",
              lambda: compiles_none(anneal, [jnp.zeros(2)], [jnp.array([1.0, -1.0])])),
        Input("another exponent: programs", lambda: compiles_none(products, [1.0], [0.7])),
        Input("fit with a sampler of other values: programs", lambda: compiles_none(fit, [jnp.array(1.0)], [jnp.array(1.7)])),
        Input("fit to other points: programs", lambda: compiles_none(labelled, [0.0], [0.3])),
        Input("AnnealedKernel in NumPyro's MCMC, other data: programs", lambda: compiles_none(by_mcmc, [0.1], [-0.3], allowed=1)),
        Input("README's model: seconds of tracing anew", tracing),
    ]  # fmt: skip
