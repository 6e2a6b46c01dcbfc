"""Changes between two calls of `anneal` and of `fit`: densities, functions, algorithms, data, labels, samplers."""

from __future__ import annotations

import functools

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from situations import Box

import numpyro_diffusion as nd
from benchmarks.faults.ordinary.identity import Result, Story
from benchmarks.faults.ordinary.inputs import KEY, require

SCHEDULE = nd.VariancePreserving.cosine()
NETWORK, TRAINING = nd.NetworkConfig(width=8, num_blocks=1), nd.TrainingConfig(num_steps=10, batch_size=32)


def normal(mean, sd, x, t):
    """Log density of N(mean, sd^2), noised."""
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    return jax.scipy.stats.norm.logpdf(x[0], alpha * mean, jnp.sqrt(alpha**2 * jnp.asarray(sd) ** 2 + sigma**2))


def density_of(fn):
    return nd.as_density(fn, (1,), SCHEDULE, mean=np.zeros(1), covariance=4 * np.eye(1), normalised=True, name="f")


def annealed(make, moments, **changes) -> Story:
    """The story of a density that `make(held)` gives, whose (mean, sd) are `moments(held)`."""
    held = Box(**{name: before for name, (before, _) in changes.items()})
    kept = Box(density=None)

    def run(path):
        settings = {"num_chains": 400, "levels": 10, "progress_bar": False, "checkpoint_path": path}
        kernel = getattr(held, "kernel", nd.HMC(0.5))
        found = nd.anneal(KEY, make(held, kept), kernel, **settings)
        return Result(np.asarray(found.samples), found)

    def right(result):
        mean, sd = moments(held)
        x = result.array[:, 0]
        require(abs(x.mean() - mean) < 5 * sd / np.sqrt(120), f"mean {x.mean():.3f} for {mean:.3f}")
        require(abs(x.std() / sd - 1) < 5 / np.sqrt(240), f"sd {x.std():.3f} for {sd:.3f}")
        return f"mean {x.mean():.2f} for {mean:.2f}, sd {x.std():.2f} for {sd:.2f}"

    def change():
        held.__dict__.update({name: after for name, (_, after) in changes.items()})

    return Story(run, change, right)


def once(make):
    """A density made once, which then reads what is held."""

    def made(held, kept):
        kept.density = kept.density or make(held)
        return kept.density

    return made


def _gaussian(mean, variance, **settings):
    return nd.exact.GaussianMixture([[mean]], [[[variance]]], **settings)


def _product(held, _):
    return _gaussian(0.0, 1.0) * _gaussian(held.mean, 1.0) ** held.power


def _product_moments(held):
    precision = 1 + held.power
    return held.power * held.mean / precision, precision**-0.5


def _mixture(held, _):
    return held.weight * _gaussian(-1.0, 0.3, name="p") + (1 - held.weight) * _gaussian(1.0, 0.3, name="q")


def _mixture_moments(held):
    mean = 1 - 2 * held.weight
    return mean, (0.3 + 1 - mean**2) ** 0.5


def _branch(held):
    return lambda x, t: normal(0.5, 0.4, x, t) if held.flag else normal(-0.5, 1.2, x, t)


def _table_of(held):
    table = lambda: jnp.asarray(held.frame["mean"].to_numpy())
    return lambda x, t: normal(table().sum(), 0.7, x, t)


own = lambda held: (float(held.mean), float(held.sd))
ANNEALED = {
    "a function's closure": functools.partial(
        annealed, once(lambda h: density_of(lambda x, t: normal(h.mean, h.sd, x, t))), own,
        mean=(jnp.array(0.0), jnp.array(-1.0)), sd=(1.0, 0.5)),
    "a function's boolean": functools.partial(
        annealed, once(lambda h: density_of(_branch(h))), lambda h: (0.5, 0.4) if h.flag else (-0.5, 1.2),
        flag=(True, False)),
    "a frame that a function reads": functools.partial(
        annealed, once(lambda h: density_of(_table_of(h))), lambda h: (float(h.frame["mean"].sum()), 0.7),
        frame=(pd.DataFrame({"mean": [0.1, 0.2]}), pd.DataFrame({"mean": [0.5, -2.0]}))),
    "another compiled function of one name": functools.partial(
        annealed, lambda h, _: density_of(jax.jit(lambda x, t: normal(h.mean, h.sd, x, t))), own,
        mean=(0.3, -0.7), sd=(0.6, 0.6)),
    "parameters of a function": functools.partial(
        annealed, lambda h, _: nd.as_density(lambda p, x, t: normal(p["m"], p["s"], x, t), (1,), SCHEDULE, name="f",
                                             parameters={"m": h.mean, "s": h.sd}, mean=[0.0], covariance=[[4.0]]), own,
        mean=(jnp.array(0.3), jnp.array(-0.7)), sd=(jnp.array(0.6), jnp.array(0.9))),
    "a partial's keyword": functools.partial(
        annealed, lambda h, _: density_of(functools.partial(normal, h.mean, h.sd)), own, mean=(0.3, -0.7), sd=(0.6, 0.6)),
    "a function in a composition": functools.partial(
        annealed, once(lambda h: density_of(lambda x, t: normal(h.mean, 1.0, x, t)) * _gaussian(0.0, 1.0)),
        lambda h: (float(h.mean) / 2, 0.5**0.5), mean=(jnp.array(1.0), jnp.array(-1.0))),
    "an exponent": functools.partial(annealed, _product, _product_moments, mean=(1.0, 1.0), power=(1.0, 3.0)),
    "means of a factor": functools.partial(annealed, _product, _product_moments, mean=(1.0, -1.0), power=(1.0, 1.0)),
    "weights of a mixture": functools.partial(annealed, _mixture, _mixture_moments, weight=(0.5, 0.8)),
    "a density's schedule": functools.partial(
        annealed, lambda h, _: _gaussian(0.4, 0.5, schedule=h.schedule), lambda _: (0.4, 0.5**0.5),
        schedule=(SCHEDULE, nd.VariancePreserving.linear())),
    "an algorithm of BlackJAX": functools.partial(
        annealed, lambda h, _: _gaussian(0.4, 0.5), lambda _: (0.4, 0.5**0.5),
        kernel=(nd.BlackJAX(blackjax.barker, step_size=0.8), nd.BlackJAX(blackjax.mala, step_size=0.3))),
    "an algorithm's settings": functools.partial(
        annealed, lambda h, _: _gaussian(0.4, 0.5), lambda _: (0.4, 0.5**0.5),
        kernel=(nd.BlackJAX(blackjax.hmc, step_size=0.5, num_integration_steps=2, inverse_mass_matrix=jnp.ones(1)),
                nd.BlackJAX(blackjax.hmc, step_size=0.5, num_integration_steps=4, inverse_mass_matrix=jnp.ones(1)))),
}  # fmt: skip

POINTS = np.random.default_rng(0).normal(size=(64, 2))
CLASSES = np.eye(2)[np.arange(64) % 2]


def weights(density) -> np.ndarray:
    return np.concatenate([np.ravel(a) for a in jax.tree.leaves((density.state, density.mean))])


def trained(before, after=None, change=None, fresh=lambda settings: settings) -> Story:
    """The story of a training: right is what data copied, and samplers written anew, give."""
    held = Box(settings={"data": POINTS, "conditions": CLASSES} | before)
    settings = lambda: {"network": NETWORK, "training": TRAINING, "rng_key": KEY, "progress_bar": False} | held.settings

    def run(path):
        found = nd.fit(checkpoint_path=path, **settings())
        return Result(weights(found), found)

    def right(result):
        copied = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in settings().items()}
        require(np.array_equal(result.array, weights(nd.fit(**fresh(copied)))), "not the weights of this training")
        return "the weights of this training"

    def changed():
        held.settings = held.settings | (after or {})
        if change is not None:
            change(held.settings)

    return Story(run, changed, right)


def sampled(write, **changes) -> Story:
    """The story of a sampler that reads what is held."""
    held = Box(**{name: before for name, (before, _) in changes.items()})

    def update(_):
        held.__dict__.update({name: after for name, (_, after) in changes.items()})

    before = {"data": write(held), "conditions": None}
    return trained(before, change=update, fresh=lambda s: s | {"data": write(Box(**held.__dict__))})


def _in_place(name):
    def change(settings):
        settings[name][:] = settings[name][::-1].copy()

    return lambda: trained({name: {"data": POINTS, "conditions": CLASSES}[name].copy()}, change=change)


def _cloud(held):
    return lambda key, n: held.shift + held.scale * jax.random.normal(key, (n, 2))


def _labelled(held):
    def sample(key, n):
        label = jnp.arange(n) % 2
        shift = (2.0 * label - 1.0) * held.sign
        return jax.random.normal(key, (n, 2)) + shift[:, None], jax.nn.one_hot(label, 2)

    return sample


def _rows(held):
    return lambda key, n: jnp.asarray(held.frame.to_numpy())[jax.random.randint(key, (n,), 0, 64)]


FRAMES = pd.DataFrame(POINTS), pd.DataFrame(POINTS + 1.0)
BASES = [
    nd.MixtureBase.of(np.array([[-m, 0.0], [m, 0.0]]), np.stack([np.eye(2)] * 2), np.full((1, 2), 0.5)) for m in (1, 2)
]
TRAINED = {
    "labels swapped in place": _in_place("conditions"),
    "rows swapped in place": _in_place("data"),
    "other labels": lambda: trained({}, {"conditions": CLASSES[::-1].copy()}),
    "labels as integers": lambda: trained({}, {"conditions": CLASSES.astype(int)}),
    "labels as booleans": lambda: trained({"conditions": CLASSES.astype(np.uint8)}, {"conditions": CLASSES.astype(np.int64)}),
    "without labels": lambda: trained({}, {"conditions": None}),
    "other data of equal moments": lambda: trained({}, {"data": -POINTS + 2 * POINTS.mean(0)}),
    "data in single precision": lambda: trained({}, {"data": POINTS.astype(np.float32)}),
    "another training key": lambda: trained({}, {"rng_key": jax.random.key(5)}),
    "an old key": lambda: trained({}, {"rng_key": jax.random.PRNGKey(0)}),
    "another weighting": lambda: trained({}, {"training": nd.TrainingConfig(10, 32, weighting="score")}),
    "another learning rate": lambda: trained({}, {"training": nd.TrainingConfig(10, 32, learning_rate=0.01)}),
    "another width": lambda: trained({}, {"network": nd.NetworkConfig(width=16, num_blocks=1)}),
    "another parameterisation": lambda: trained({}, {"parameterisation": "inner_product"}),
    "a score": lambda: trained({}, {"model": "score"}),
    "not calibrated": lambda: trained({}, {"calibrated": False}),
    "another range of noise": lambda: trained({}, {"sigma_min": 0.02}),
    "another schedule of training": lambda: trained({}, {"schedule": nd.VarianceExploding()}),
    "a base": lambda: trained({"conditions": None}, {"base": BASES[0]}),
    "another base": lambda: trained({"conditions": None, "base": BASES[0]}, {"base": BASES[1]}),
    "a sampler's array": lambda: sampled(_cloud, shift=(jnp.zeros(2), jnp.array([3.0, 0.0])), scale=(1.0, 1.0)),
    "a sampler's number": lambda: sampled(_cloud, shift=(jnp.zeros(2), jnp.zeros(2)), scale=(1.0, 2.0)),
    "a sampler's labels": lambda: sampled(_labelled, sign=(jnp.array(1.0), jnp.array(-1.0))),
    "a frame that a sampler reads": lambda: sampled(_rows, frame=FRAMES),
    "another sampler of one name": lambda: trained(
        {"data": _cloud(Box(shift=0.0, scale=1.0)), "conditions": None}, {"data": _cloud(Box(shift=2.0, scale=1.0))}),
}  # fmt: skip
MORE_STORIES = ANNEALED | TRAINED
