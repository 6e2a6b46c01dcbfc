"""More situations in which what a model reads changes between two calls; see tests/changing_models.py for the first thirty."""

from __future__ import annotations

import contextvars
import dataclasses
import decimal
import enum
import fractions
import functools
import importlib.util
import os
import tempfile
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from situations import AFTER, BEFORE, Box, Situation, evidence, observe, setter, situation

from benchmarks.faults.ordinary.observations import (
    a_masked_array,
    a_number_of_trials,
    a_sparse_design,
    booleans,
    counts,
    groups_of_a_frame,
    labels,
    latent,
    small_counts_in_bytes,
)  # fmt: skip


def a_file():
    path = Path(tempfile.mkdtemp()) / "y.npy"
    held = Box(y=BEFORE)
    np.save(path, BEFORE)

    def change():
        held.y = AFTER
        np.save(path, AFTER)

    return situation(held, lambda: observe(np.load(path)), change=change)


def an_environment_variable():
    os.environ["SITUATION_S"] = "0.5"

    def change():
        os.environ["SITUATION_S"] = "2"

    of = lambda _: evidence(BEFORE, float(os.environ["SITUATION_S"]))
    return situation(Box(), lambda: observe(BEFORE, float(os.environ["SITUATION_S"])), change=change, of=of)


def a_context_variable():
    y = contextvars.ContextVar("y", default=BEFORE)
    return situation(Box(), lambda: observe(y.get()), change=lambda: y.set(AFTER), of=lambda _: evidence(y.get()))


def a_property():
    class Study(Box):
        @property
        def s(self):
            return 0.5

    def change():
        Study.s = property(lambda self: 2.0)

    held = Study()
    return situation(held, lambda: observe(BEFORE, held.s), change=change, of=lambda held: evidence(BEFORE, held.s))


def a_namespace_in_a_namespace():
    held = types.SimpleNamespace(data=types.SimpleNamespace(y=BEFORE))

    def change():
        held.data.y = AFTER

    return situation(held, lambda n: observe(n.data.y), (held,), change=change, of=lambda held: evidence(held.data.y))


class Noise(enum.Enum):
    SMALL = 0.5
    LARGE = 2.0


def an_enumeration():
    held = Box(noise=Noise.SMALL)
    call = lambda: (lambda noise: observe(BEFORE, noise.value), (held.noise,), {})
    return Situation(call, setter(held, noise=Noise.LARGE), lambda: evidence(BEFORE, held.noise.value))


@dataclasses.dataclass(frozen=True, eq=False)
class Frozen:
    y: Any
    s: float


def a_frozen_dataclass():
    held = Box(record=Frozen(BEFORE, 0.5))
    call = lambda: (lambda r: observe(r.y, r.s), (), {"r": held.record})
    of = lambda: evidence(held.record.y, held.record.s)
    return Situation(call, setter(held, record=Frozen(AFTER, 2.0)), of)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Registered:
    y: Any
    s: float = dataclasses.field(metadata={"static": True})


def a_registered_pytree():
    held = Box(record=Registered(BEFORE, 0.5))
    call = lambda: (lambda r: observe(r.y, r.s), (held.record,), {})
    return Situation(call, setter(held, record=Registered(AFTER, 2.0)), lambda: evidence(held.record.y, held.record.s))


def a_data_tree():
    tree = xr.DataTree.from_dict({"site/a": xr.Dataset({"y": ("i", BEFORE)})})

    def change():
        tree["site/a"].dataset = xr.Dataset({"y": ("i", AFTER)})

    of = lambda tree: evidence(tree["site/a"]["y"].values)
    return situation(tree, lambda data: observe(data["site/a"]["y"].values), (tree,), change=change, of=of)


def a_list_changed_in_place():
    y = [1.0, 0.4]

    def change():
        y[:] = [-0.7, 1.9]

    return situation(Box(), lambda y: observe(jnp.array(y)), (y,), change=change, of=lambda _: evidence(y))


def a_function_of_a_module():
    module = types.ModuleType("units")
    module.scale = lambda y: y
    held = Box(y=BEFORE)

    def change():
        module.scale = lambda y: -2.0 * y
        held.y = -2.0 * BEFORE

    return situation(held, lambda: observe(module.scale(jnp.asarray(BEFORE))), change=change)


def a_module_read_again():
    path = Path(tempfile.mkdtemp()) / "study.py"
    held = Box(s=0.5)

    def load(s):
        path.write_text(f"from situations import observe, BEFORE\nS = {s}\ndef model():\n    observe(BEFORE, S)\n")
        spec = importlib.util.spec_from_file_location("study", path)
        assert spec is not None and spec.loader is not None
        held.module, held.s = importlib.util.module_from_spec(spec), s
        # From the text, not from bytecode of the same second.
        exec(compile(path.read_text(), str(path), "exec"), held.module.__dict__)

    load(0.5)
    return Situation(lambda: (held.module.model, (), {}), lambda: load(2.0), lambda: evidence(BEFORE, held.s))


def functions_in_functions():
    s = 0.5

    def outer():
        def inner():
            def innermost():
                observe(BEFORE, s)

            innermost()

        return inner

    def change():
        nonlocal s
        s = 2.0

    return situation(Box(), outer(), change=change, of=lambda _: evidence(BEFORE, s))


def another_compiled_helper():
    held = Box(f=jax.jit(lambda x: 1.0 * x), slope=1.0)
    model = lambda: numpyro.sample("y", dist.Normal(held.f(latent()), 1.0).expand([2]).to_event(1), obs=BEFORE)
    of = lambda held: evidence(BEFORE, variance=held.slope**2)
    return situation(held, model, change=setter(held, f=jax.jit(lambda x: -3.0 * x), slope=-3.0), of=of)


def a_conditioned_model():
    def model():
        numpyro.sample("y", dist.Normal(latent(), 1.0).expand([2]).to_event(1))

    held = Box(y=BEFORE)
    call = lambda: (numpyro.handlers.condition(model, {"y": held.y}), (), {})
    return Situation(call, setter(held, y=AFTER), lambda: evidence(held.y))


def a_parameter():
    held = Box(s=0.5)

    def model():
        observe(BEFORE, numpyro.param("s", 1.0))

    call = lambda: (numpyro.handlers.substitute(model, {"s": jnp.array(held.s)}), (), {})
    return Situation(call, setter(held, s=2.0), lambda: evidence(BEFORE, held.s))


def a_fraction_and_a_decimal():
    held = Box(s=fractions.Fraction(1, 2), m=decimal.Decimal("0"))
    of = lambda held: evidence(BEFORE - float(held.m), float(held.s))
    model = lambda: observe(BEFORE - float(held.m), float(held.s))
    return situation(held, model, change=setter(held, s=fractions.Fraction(2), m=decimal.Decimal("0.7")), of=of)


def a_longer_data_set():
    held = Box(y=BEFORE)
    longer = np.array([1.0, 0.4, -0.7, 0.2, 2.0])
    call = lambda: (observe, (held.y,), {})
    return Situation(call, setter(held, y=longer), lambda: evidence(held.y))


def keyword_arguments_of_a_partial():
    held = Box(model=functools.partial(observe, s=0.5), s=0.5)
    call = lambda: (held.model, (BEFORE,), {})
    return Situation(
        call, setter(held, model=functools.partial(observe, s=2.0), s=2.0), lambda: evidence(BEFORE, held.s)
    )


MORE = {
    make.__name__.replace("_", " "): make
    for make in (
        a_file, an_environment_variable, a_context_variable, a_property, a_namespace_in_a_namespace, an_enumeration,
        a_frozen_dataclass, a_registered_pytree, a_data_tree, groups_of_a_frame, counts, small_counts_in_bytes, booleans,
        labels, a_number_of_trials, a_list_changed_in_place, a_masked_array, a_sparse_design, a_function_of_a_module,
        a_module_read_again, functions_in_functions, another_compiled_helper, a_conditioned_model, a_parameter,
        a_fraction_and_a_decimal, a_longer_data_set, keyword_arguments_of_a_partial,
    )
}  # fmt: skip
