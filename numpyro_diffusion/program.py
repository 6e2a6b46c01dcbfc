"""A function as what it computes: traced once, its captured arrays made arguments, compared by its operations.

A compiled program that is looked up by a Python function belongs to what that function read when it was compiled.
Users' functions read globals, attributes, closures, data frames; so before a run each of them becomes a `Traced`: a
pytree whose leaves are the arrays it captured, of whatever type, and whose static part is the `Program`, equal to
another if both do the same operations. Then `jax.jit` does the rest: other values of the same shapes compile nothing,
another program compiles anew, and a checkpoint knows both by their digests.

Numbers of Python are part of the program. So is what a `jax.jit` inside of the function has captured: its arrays are
compared by content. JAX itself remembers what such an inner function read when it was first called.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from .errors import CheckpointError, NotRunError, ShapeError
from .pytree import register

#: Packages whose functions with derivatives of their own are known by their operations.
LIBRARIES = ("jax", "numpyro", "flax", __name__.partition(".")[0])
#: Parameters of an operation that are names for people, or functions whose results stand in another parameter.
IGNORED = {"name", "debug_info", "out_trees", "ctx_mesh"}


class Program:
    """Operations on flat arrays: first those a function captured, then its arguments.

    Attributes:
        digest: Of the operations, those of the derivative included where the user gives rules for it.
        is_portable: Whether the digest means the same in another process: not if the host is called back.
    """

    def __init__(self, jaxpr: Any, out_tree: Any, digest: str, is_portable: bool):
        self.jaxpr, self.out_tree, self.digest, self.is_portable = jaxpr, out_tree, digest, is_portable

    def __eq__(self, other):
        return isinstance(other, Program) and self.digest == other.digest

    def __hash__(self):
        return hash(self.digest)

    def __deepcopy__(self, memo):
        return self  # nothing in it changes

    def __reduce__(self):
        # Operations hold functions of JAX, which cannot be pickled: what comes back has a digest, and is not called.
        return Program, (None, None, self.digest, self.is_portable)

    def __repr__(self):
        return f"Program({self.digest})"


@register(data=("captured",), static=("program",))
class Traced:
    """A function of arrays, made by `trace`: called like the function, and independent of what that reads later."""

    def __init__(self, captured: tuple, program: Program):
        self.captured, self.program = captured, program

    def __call__(self, *args):
        jaxpr = self.program.jaxpr
        if jaxpr is None:
            raise NotRunError(
                "results that were pickled hold samples, but not the model. Run it again here, or ask for what needs "
                "none: to_datatree(log_likelihood=False), get_samples(), print_summary()."
            )
        flat = [*self.captured, *jax.tree.leaves(args)]
        typed = [_as_type(a, v.aval) for a, v in zip(flat, jaxpr.jaxpr.invars, strict=True)]
        return jax.tree.unflatten(self.program.out_tree, jax.core.eval_jaxpr(jaxpr.jaxpr, [], *typed))

    def captured_from(self, other: Traced) -> Traced:
        """This function with what another like it has captured, but for what is being traced; itself if unlike."""
        if self.program != other.program:
            return self
        pairs = zip(self.captured, other.captured, strict=True)
        return Traced(tuple(a if isinstance(a, jax.core.Tracer) else b for a, b in pairs), self.program)

    def __repr__(self):
        return f"Traced({self.program.digest}, {len(self.captured)} arrays captured)"


#: What JAX raises where values that are not there yet are asked for, by NumPy, `float`, `if`, an index or a mask.
ASKS_FOR_VALUES = (
    jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError, jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
)  # fmt: skip


@contextmanager
def indices_checked() -> Iterator[None]:
    """Where x[5] of three numbers is a ShapeError, and not the last of them, as JAX has it."""
    before = jax.config.jax_check_static_indices  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_check_static_indices", True)
    try:
        yield
    except ASKS_FOR_VALUES:
        raise  # one of these is an IndexError, too
    except IndexError as error:
        what = str(error).partition(" (")[0]
        raise ShapeError(f"a function asks for what is not there: {what}. Axes count from 0.") from error
    finally:
        jax.config.update("jax_check_static_indices", before)


def trace(fn: Callable, *args: Any, arrays: dict[int, Any] | None = None, differentiated: bool = True) -> Traced:
    """The function as it computes now.

    Args:
        fn: Function of pytrees of arrays.
        *args: Arguments of the shapes and types it will be called with; `jax.ShapeDtypeStruct` will do.
        arrays: Arrays captured so far, by identity: several functions that read one array then hold it once.
        differentiated: Whether its gradient will be asked for; the derivative is then part of what it computes.

    ShapeError for a whole index beyond the end of an axis.
    """
    # A fresh function, because JAX remembers what it has traced.
    with indices_checked():
        closed, shapes = jax.make_jaxpr(lambda *a: fn(*a), return_shape=True)(*args)
    arrays = {} if arrays is None else arrays
    captured = tuple(arrays.setdefault(id(a), (a, _as_array(a)))[1] for a in closed.consts)
    # Traced again with what it captured as arguments: the program then holds no data.
    pure = jax.make_jaxpr(lambda held, a: jax.core.eval_jaxpr(closed.jaxpr, held, *jax.tree.leaves(a)))(captured, args)
    text = _Text()
    text.add(pure)
    if text.has_rules and differentiated:
        # A rule of differentiation is a function of Python. What it computes shows in the derivative.
        text.add(jax.make_jaxpr(lambda held, a: _derivative(pure, [*held, *jax.tree.leaves(a)]))(captured, args))
    out_tree = jax.tree.structure(shapes)
    text.lines.append(str(out_tree))
    digest = hashlib.sha256("\n".join(text.lines).encode()).hexdigest()[:16]
    return Traced(captured, Program(pure, out_tree, digest, text.is_portable))


def _as_array(value):
    if isinstance(value, jax.Array):
        return value
    with jax.ensure_compile_time_eval():
        return jnp.asarray(value)


def _as_type(value, aval):
    return value if getattr(value, "dtype", None) == aval.dtype else jnp.asarray(value, dtype=aval.dtype)


def _is_float(a) -> bool:
    return bool(jnp.issubdtype(a.dtype, jnp.floating))


def _derivative(pure, flat):
    """Gradient of the sum of all results, with respect to all arguments of floating-point type."""

    def total(moving):
        values = iter(moving)
        results = jax.core.eval_jaxpr(pure.jaxpr, [], *(next(values) if _is_float(a) else a for a in flat))
        return sum((jnp.sum(r) for r in results if _is_float(r)), start=jnp.zeros(()))

    return jax.grad(total)([a for a in flat if _is_float(a)])


class _Text:
    """A program's operations as lines of text, the same in every process; variables are numbered as they come."""

    def __init__(self):
        self.lines: list[str] = []
        self.has_rules, self.is_portable = False, True

    def add(self, jaxpr) -> None:
        captured, jaxpr = list(getattr(jaxpr, "consts", ())), getattr(jaxpr, "jaxpr", jaxpr)
        numbers: dict[Any, int] = {}

        def name(v):
            if hasattr(v, "val"):
                return f"{v.aval} {self.value(v.val)}"
            return f"%{numbers.setdefault(v, len(numbers))}"

        inputs = [*jaxpr.constvars, *jaxpr.invars]
        self.lines.append(f"in {[(name(v), str(v.aval)) for v in inputs]} {[self.value(a) for a in captured]}")
        for equation in jaxpr.eqns:
            self.has_rules |= "custom_" in equation.primitive.name and not _is_of_a_library(equation)
            operands = [name(v) for v in equation.invars]
            self.lines.append(f"{equation.primitive.name} {operands} {[str(v.aval) for v in equation.outvars]}")
            for key in sorted(equation.params):
                if key not in IGNORED:
                    self.lines.append(f"  {key}={self.value(equation.params[key], equation.primitive.name)}")
            for v in equation.outvars:
                name(v)
        self.lines.append(f"out {[name(v) for v in jaxpr.outvars]}")

    def value(self, value, where: str = "") -> str:
        """A parameter as text; programs within are added as lines of their own."""
        if hasattr(getattr(value, "jaxpr", value), "eqns"):
            self.add(value)
            return "program above"
        if isinstance(value, np.ndarray | np.generic | jax.Array) or hasattr(value, "__array__"):
            return array_digest(value)
        if isinstance(value, dict):
            return str(sorted((str(k), self.value(v, where)) for k, v in value.items()))
        if isinstance(value, set | frozenset):
            return str(sorted(self.value(v, where) for v in value))
        if isinstance(value, tuple | list):
            return str([self.value(v, where) for v in value])
        if "callback" in where and (callable(value) or hasattr(value, "callback_func")):
            self.is_portable = False
            return str(id(getattr(value, "callback_func", value)))
        if (callable(value) or hasattr(value, "call_wrapped")) and not isinstance(value, type):
            return "function"
        return re.sub(r"0x[0-9a-f]+", "", f"{type(value).__name__} {value!r}")


def _is_of_a_library(equation) -> bool:
    """Whether a function with a derivative of its own, and the rules of that, come from a library and never change."""
    infos = [v.debug_info for v in equation.params.values() if hasattr(v, "debug_info")]
    places = [str(getattr(info, "func_src_info", "")) for info in infos]
    files = (getattr(sys.modules.get(name), "__file__", None) for name in LIBRARIES)
    roots = [os.path.dirname(file) for file in files if file is not None]
    return bool(places) and all(any(root in place for root in roots) for place in places)


def array_digest(array) -> str:
    """Type, shape and content of an array, keys included."""
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return f"{jax.random.key_impl(array)} {array_digest(np.asarray(jax.random.key_data(array)))}"
    array = np.asarray(array)
    return f"{array.dtype}{array.shape}{hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]}"


def fingerprint(tree) -> str:
    """Digest of all arrays and programs in a pytree: types, shapes, contents; random keys too.

    Raises:
        CheckpointError: for a program that calls back into Python, which no other process can compare.
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, Program) and not leaf.is_portable:
            raise CheckpointError(
                "a checkpoint must know what a run computes, and a host callback (jax.pure_callback, io_callback, "
                "debug.print) hides that. Leave out checkpoint_path, or write the function in JAX."
            )
        digest.update((leaf.digest if isinstance(leaf, Program) else array_digest(leaf)).encode())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of this package and of JAX, which decide how a run goes on bit for bit."""
    package = sys.modules[__name__.partition(".")[0]]
    return {"version of numpyro_diffusion": package.__version__, "version of jax": jax.__version__}
