"""Models that read something which changes between two calls: see `situations`."""

import functools
import types

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from situations import AFTER, BEFORE, PRIOR, Box, Fields, Record, Situation, evidence, observe, setter, situation

import numpyro_diffusion as nd


def a_global():
    held = globals()["HELD"] = Box(y=BEFORE)

    def model():
        observe(HELD.y)  # noqa: F821

    return situation(held, model, change=setter(held, y=AFTER))


def a_global_number():
    held = Box(y=BEFORE, s=0.5)

    def model():
        observe(held.y, held.s)

    of = lambda held: evidence(held.y, held.s)
    return situation(held, model, change=setter(held, s=2.0), of=of, compiles=True)


def a_closure():
    held, y = Box(y=BEFORE), BEFORE

    def model():
        observe(y)

    def change():
        nonlocal y
        y = held.y = AFTER

    return situation(held, model, change=change)


def a_bound_method():
    class Study(Box):
        def model(self):
            observe(self.y)

    held = Study(y=BEFORE)
    return situation(held, held.model, change=setter(held, y=AFTER))


def a_callable_object():
    class Study(Box):
        def __call__(self):
            observe(self.y)

    held = Study(y=BEFORE)
    return situation(held, held, change=setter(held, y=AFTER))


def a_partial():
    held = Box(y=BEFORE)
    record = {"y": BEFORE}

    def change():
        record["y"] = held.y = AFTER

    return situation(held, functools.partial(lambda record: observe(record["y"]), record), change=change)


def an_argument_changed_in_place():
    held = Box(y=BEFORE.copy())

    def change():
        held.y[:] = AFTER

    return situation(held, observe, (held.y,), change=change)


def a_frame():
    frame = pd.DataFrame({"y": BEFORE})

    def change():
        frame["y"] = AFTER

    return situation(
        frame, lambda f: observe(f["y"].to_numpy()), (frame,), change=change, of=lambda f: evidence(f["y"])
    )


def a_series_by_keyword():
    held = Box(y=pd.Series(BEFORE))

    def change():
        held.y[:] = AFTER

    return situation(held, lambda *, y: observe(np.asarray(y)), (), {"y": held.y}, change=change)


def a_data_array():
    held = Box(y=xr.DataArray(BEFORE.copy(), dims="i"))

    def change():
        held.y.values[:] = AFTER

    return situation(held, lambda y: observe(y.values), (held.y,), change=change)


def a_data_set():
    held = xr.Dataset({"y": ("i", BEFORE)})

    def change():
        held["y"] = ("i", AFTER)

    return situation(
        held, lambda data: observe(data["y"].values), (held,), change=change, of=lambda d: evidence(d["y"])
    )


def a_dataclass():
    held = Record(BEFORE)
    return situation(held, lambda r: observe(r.y), (held,), change=setter(held, y=AFTER))


def a_number_in_a_dataclass():
    held = Record(BEFORE, 0.5)
    of = lambda r: evidence(r.y, r.s)
    return situation(
        held, lambda r: observe(r.y, r.s), (held,), change=setter(held, s=2.0), of=of, compiles=True
    )  # fmt: skip


def a_dictionary():
    held = Box(y=BEFORE)
    data = {"nested": [{"y": BEFORE}]}

    def change():
        data["nested"][0]["y"] = held.y = AFTER

    return situation(held, lambda d: observe(d["nested"][0]["y"]), (data,), change=change)


def a_number_among_the_arguments():
    held = Box(s=0.5)
    call = lambda: (lambda s: observe(BEFORE, s), (held.s,), {})
    return Situation(call, setter(held, s=2.0), lambda: evidence(BEFORE, held.s))


def integers():
    held = Box(y=np.array([1, 0]))
    return situation(held, lambda: observe(jnp.asarray(held.y) * 1.0), change=setter(held, y=np.array([-2, 3])))


def an_integer_that_is_a_size():
    held = Box(n=1)
    of = lambda held: evidence(BEFORE[: held.n])
    return situation(held, lambda: observe(BEFORE[: held.n]), change=setter(held, n=2), of=of, compiles=True)


def indices():
    held = Box(rows=np.array([0, 0]))
    of = lambda held: evidence(BEFORE[held.rows])
    model = lambda: observe(jnp.asarray(BEFORE)[jnp.asarray(held.rows)])
    return situation(held, model, change=setter(held, rows=np.array([1, 0])), of=of)


def a_mask():
    held = Box(mask=np.array([True, False]))

    def model():
        x = numpyro.sample("x", nd.DiffusionPrior(PRIOR))
        with numpyro.plate("i", 2), numpyro.handlers.mask(mask=jnp.asarray(held.mask)):
            numpyro.sample("y", dist.Normal(x[0], 1.0), obs=BEFORE)

    of = lambda held: evidence(BEFORE[held.mask])
    return situation(held, model, change=setter(held, mask=np.array([False, True])), of=of)


def a_boolean():
    held = Box(wide=False)
    of = lambda held: evidence(BEFORE, 2.0 if held.wide else 0.5)
    model = lambda: observe(BEFORE, 2.0 if held.wide else 0.5)
    return situation(held, model, change=setter(held, wide=True), of=of, compiles=True)


def a_text():
    held = Box(name="narrow")
    sds = {"narrow": 0.5, "wide": 2.0}
    call = lambda: (lambda name: observe(BEFORE, sds[name]), (held.name,), {})
    return Situation(call, setter(held, name="wide"), lambda: evidence(BEFORE, sds[held.name]), True)


def a_named_tuple():
    held = Box(fields=Fields(BEFORE))
    call = lambda: (lambda f: observe(f.y), (held.fields,), {})
    return Situation(call, setter(held, fields=Fields(AFTER)), lambda: evidence(held.fields.y))


def another_function_of_the_same_name():
    def defined(s):
        def model(y):
            observe(y, s)

        return model

    held = Box(model=defined(0.5), s=0.5)
    call = lambda: (held.model, (BEFORE,), {})
    return Situation(call, setter(held, model=defined(2.0), s=2.0), lambda: evidence(BEFORE, held.s), True)


def an_edited_model():
    module = types.ModuleType("study")
    source = "def model(y):\n    observe(y, {})\n"
    held = Box(s=0.5)

    def load(s):
        module.__dict__["observe"], held.s = observe, s
        exec(compile(source.format(s), "study.py", "exec"), module.__dict__)

    load(0.5)
    return Situation(lambda: (module.model, (BEFORE,), {}), lambda: load(2.0), lambda: evidence(BEFORE, held.s), True)


def a_helper_of_the_model():
    held = Box(s=0.5)
    sd = lambda: held.s
    of = lambda held: evidence(BEFORE, held.s)
    return situation(held, lambda: observe(BEFORE, sd()), change=setter(held, s=2.0), of=of, compiles=True)


def a_default_argument():
    held = Box(y=BEFORE)

    def model(y=BEFORE):
        observe(y)

    def change():
        model.__defaults__, held.y = (AFTER,), AFTER

    return situation(held, model, change=change)


def a_class_attribute():
    class Settings:
        y = BEFORE

    def change():
        Settings.y = AFTER

    return situation(Settings, lambda: observe(Settings.y), change=change)


def another_prior():
    held = Box(prior=PRIOR, mean=0.0)
    other = nd.exact.GaussianMixture([[1.5]], [[[1.0]]], name="prior")
    of = lambda held: evidence(BEFORE, mean=held.mean)
    return situation(held, lambda: observe(BEFORE, prior=held.prior), change=setter(held, prior=other, mean=1.5), of=of)


def a_prior_under_another_schedule():
    held = Box(prior=PRIOR)
    other = PRIOR.with_schedule(nd.VarianceExploding(0.0, 30.0))
    model = lambda: observe(BEFORE, prior=held.prior)
    return situation(held, model, change=setter(held, prior=other), of=lambda _: evidence(BEFORE), compiles=True)


def a_function_as_a_prior():
    held = Box(mean=jnp.array(0.0))

    def fn(x, t):
        alpha, sigma = PRIOR.schedule.alpha(t), PRIOR.schedule.sigma(t)
        return dist.Normal(alpha * held.mean, jnp.sqrt(alpha**2 + sigma**2)).log_prob(x[0])

    prior = nd.as_density(fn, (1,), mean=np.zeros(1), covariance=4 * np.eye(1), normalised=True)
    of = lambda held: evidence(BEFORE, mean=float(held.mean))
    return situation(held, lambda: observe(BEFORE, prior=prior), change=setter(held, mean=jnp.array(1.5)), of=of)


SITUATIONS = {
    make.__name__.replace("_", " "): make
    for make in (
        a_global, a_global_number, a_closure, a_bound_method, a_callable_object, a_partial,
        an_argument_changed_in_place, a_frame, a_series_by_keyword, a_data_array, a_data_set, a_dataclass,
        a_number_in_a_dataclass, a_dictionary, a_number_among_the_arguments, integers, an_integer_that_is_a_size,
        indices, a_mask, a_boolean, a_text, a_named_tuple, another_function_of_the_same_name, an_edited_model,
        a_helper_of_the_model, a_default_argument, a_class_attribute, another_prior, a_prior_under_another_schedule,
        a_function_as_a_prior,
    )
}  # fmt: skip
