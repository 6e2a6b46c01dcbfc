"""Networks from elsewhere: bad input is refused when the density is made, with a remedy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from adapters.closed_form import BETAS
from flax import nnx
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ParameterError, ScheduleError, ShapeError

COSINE, TABLE = nd.VariancePreserving.cosine(), nd.NoiseSchedule.from_betas(BETAS)
KEY = jax.random.key(0)


def noise(fn=lambda x, t: x, event_shape=(2,), schedule=COSINE, **options):
    return nd.from_noise_prediction(fn, event_shape, schedule, **options)


class Dense(nn.Module):
    width: int = 3

    @nn.compact
    def __call__(self, x, t):
        return nn.Dense(2)(nn.Dense(self.width)(x))


class Net(nnx.Module):
    def __init__(self, width=3):
        self.a = nnx.Linear(2, width, rngs=nnx.Rngs(0))
        self.b = nnx.Linear(width, 2, rngs=nnx.Rngs(1))

    def __call__(self, x, t):
        return self.b(self.a(x))


DROPOUT = nnx.Dropout(0.5, rngs=nnx.Rngs(0))


def linen(width=3):
    return Dense(width).init(KEY, jnp.zeros(2), 0.0)


def without(variables):
    return {"params": {k: v for k, v in variables["params"].items() if k != "Dense_1"}}


def nan_above(ratio):
    """A network that breaks at much noise."""
    return lambda x, t: jnp.where(COSINE.noise_to_signal(t) > ratio, jnp.nan, x)


def broken(x, t):
    raise RuntimeError("out of luck")


#: What is refused: (call, error, words of the message: rule, value, remedy).
REFUSED = {
    "no network": (lambda: noise(3), TypeError, r"callable.*got 3. Give a function"),
    "a class": (lambda: noise(Net), TypeError, r"not its class Net. Make one, Net\("),
    "an event shape that is a number": (lambda: noise(event_shape=2), ParameterError, r"event_shape.*got 2"),
    "an event shape of zero": (lambda: noise(event_shape=(0,)), ParameterError, r"event_shape.*got 0"),
    "no schedule": (lambda: noise(schedule=BETAS), TypeError, r"schedule must be a NoiseSchedule; got.*trained under"),
    "discrete without timesteps": (
        lambda: noise(schedule=TABLE), ParameterError, r"1000 discrete levels.*timesteps='integer'.*\[1000\]"),
    "timesteps unknown": (lambda: noise(timesteps="steps"), ParameterError, r"one of time, integer.*got 'steps'"),
    "an index in continuous time": (
        lambda: noise(timesteps="integer"), ParameterError, r"counts the levels.*continuous time.*'time'"),
    "timesteps too few": (
        lambda: noise(schedule=TABLE, timesteps=np.arange(10)), ShapeError, r"\[1000\]; got shape \(10,\)"),
    "timesteps NaN": (lambda: noise(timesteps=[1.0, np.nan]), ParameterError, r"timesteps must be finite"),
    "timesteps that fail": (
        lambda: noise(timesteps=lambda t: [][0]), ParameterError, r"cannot be called.*IndexError"),
    "another shape": (
        lambda: noise(lambda x, t: jnp.append(x, t)), ShapeError, r"must return shape \(2,\) for x \(2,\); got \(3,\)"),
    "another shape of batches": (
        lambda: noise(lambda x, t: x[:, :1], batched=True), ShapeError, r"return shape \(1, 2\).*got \(1, 1\)"),
    "an energy of every pixel": (
        lambda: nd.from_energy(lambda x, t: x, (2,), COSINE), ShapeError, r"must return shape \(\).*got \(2,\)"),
    "batches only": (
        lambda: noise(lambda x, t: x + t[:, None]), ParameterError, r"batches only, not one point. Give batched=True"),
    "batches only, an energy": (
        lambda: nd.from_energy(lambda x, t: jnp.sum(x, axis=1), (2,), COSINE), ParameterError, r"Give batched=True"),
    "points only": (
        lambda: noise(lambda x, t: jnp.array([x[0], x[1]]) * t.reshape(()), batched=True), ParameterError,
        r"one point at a time, not a batch. Give batched=False"),
    "what fails": (lambda: noise(broken), ParameterError, r"cannot be called.*RuntimeError: out of luck"),
    "a function of a module that is in training": (
        lambda: noise(lambda x, t: DROPOUT(x)), ParameterError, r"cannot be called.*Call module.eval\(\)"),
    "too few arguments": (lambda: noise(lambda x: x), ParameterError, r"cannot be called.*TypeError.*positional"),
    "a condition that is not taken": (
        lambda: noise(conditions=np.zeros(3)), ParameterError, r"cannot be called.*positional"),
    "NaN at some levels": (
        lambda: noise(nan_above(5.0)), ParameterError, r"NaN or infinity at noise-to-signal.*100, of 0.002.*timesteps"),
    "NaN everywhere": (lambda: noise(lambda x, t: x / 0.0), ParameterError, r"NaN or infinity"),
    "a linen module without weights": (
        lambda: noise(Dense()), ParameterError, r"Dense is a flax linen module.*parameters=variables"),
    "linen weights of another shape": (
        lambda: noise(Dense(), parameters=linen(4)), ParameterError,
        r"do not fit.*of another shape: .*Dense_0.*\(4,\) instead of \(3,\)"),
    "linen weights missing": (
        lambda: noise(Dense(), parameters=without(linen())), ParameterError, r"do not fit.*missing: .*Dense_1"),
    "linen weights without their collection": (
        lambda: noise(Dense(), parameters=linen()["params"]), ParameterError,
        r"missing: \['params'\].*without a place"),
    "nnx weights of another shape": (
        lambda: noise(Net(), parameters=nnx.state(Net(4))), ParameterError,
        r"do not fit.*'a'.*\(4,\) instead of \(3,\)"),
    "weights of a function of another shape": (
        lambda: noise(lambda w, x, t: w @ x, parameters=np.ones((2, 3))), ParameterError,
        r"cannot be called.*got \(3,\) and \(2,\)"),
    "weights that are text": (
        lambda: noise(lambda w, x, t: x, parameters={"a": "text"}), TypeError,
        r"pytree of arrays; got 'text' at \['a'\]"),
    "weights NaN": (
        lambda: noise(lambda w, x, t: w * x, parameters=jnp.nan), ParameterError, r"NaN or infinity at.*weights"),
    "a flow of another schedule": (
        lambda: nd.from_flow(lambda x, t: x, (2,), COSINE), ScheduleError, r"add up to.*nd.NoiseSchedule.linear_flow"),
    "conditions that are text": (
        lambda: noise(lambda x, t, c: x, conditions="none"), ParameterError,
        r"conditions.*stands for none.*got 'none'"),
    "a scale of zero": (lambda: noise(data_scale=0.0), ParameterError, r"data_scale must be positive"),
    "a scale of another shape": (
        lambda: noise(data_scale=np.ones(3)), ShapeError, r"shape of a point, \(2,\); got \(3,\)"),
    "a scale of text": (lambda: noise(data_scale="one"), ParameterError, r"data_scale must be a positive number"),
    "data of another shape": (
        lambda: noise(data=np.random.default_rng(0).normal(size=(9, 3))), ShapeError,
        r"data must have shape.*got \(9, 3\)"),
    "data NaN": (lambda: noise(data=np.full((9, 2), np.nan)), ParameterError, r"data must be finite"),
    "batched by a word": (lambda: noise(batched="yes"), ParameterError, r"batched must be True or False; got 'yes'"),
    "a name that does not print": (lambda: noise(name="\x1b"), ParameterError, r"name must be printable"),
    "a schedule beyond": (
        lambda: noise(schedule=nd.VarianceExploding(0.01, 5.0)).with_schedule(COSINE), ScheduleError,
        r"ratios up to 5, but.*asks for 100. Read it under"),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)
