"""Networks of any make as one kind of callable, `(weights, x, time, condition) -> output`, in evaluation mode.

A flax nnx module is read when it is needed, so that further training shows in the next run: its state is the weights,
and what is called is a copy in which dropout is off and batch norm uses its running averages. A flax linen module takes
its variables as parameters, and its flags (`train`, `deterministic`, ...) are set by the names of its arguments. An
equinox module cannot change: its arrays are the weights, and it is put into inference mode. What else can be called is
taken as it is; what a function without parameters reads is read when a run begins.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.errors
import flax.linen
import jax
import numpy as np
from flax import nnx

from ..checks.text import shown
from ..density.adapted import Live
from ..errors import ArgumentTypeError, ParameterError, WeightsError

#: Flags of a network's call by their names, as they are in evaluation.
FLAGS = {
    "train": False, "training": False, "is_training": False, "deterministic": True, "use_running_average": True,
    "inference": True, "is_train": False,
}  # fmt: skip


class Network(NamedTuple):
    """A network as a function of its weights.

    Attributes:
        call: `(weights, x, [time], [condition]) -> output`.
        weights: A pytree of arrays, `Live`, or None.
        kind: "function", "nnx", "linen" or "equinox".
    """

    call: Callable
    weights: Any
    kind: str

    def read(self) -> Any:
        """The weights as they are now."""
        return self.weights.read() if isinstance(self.weights, Live) else self.weights


def network_of(fn: Any, parameters: Any) -> Network:
    """The network that `fn` and `parameters` of `nd.from_*` stand for.

    Raises:
        ArgumentTypeError: if nothing that can be called is given, or parameters that are no arrays.
        ParameterError: if a linen module comes without its variables.
    """
    _check_arrays(parameters)
    if isinstance(fn, type) and issubclass(fn, nnx.Module | flax.linen.Module):
        raise ArgumentTypeError(
            f"a network must be a module, not its class {fn.__name__}. Make one, {fn.__name__}(...)."
        )
    if isinstance(fn, nnx.Module):
        return _nnx(fn, parameters)
    if isinstance(fn, flax.linen.Module):
        return _linen(fn, parameters)
    equinox = sys.modules.get("equinox")
    if equinox is not None and isinstance(fn, equinox.Module):
        return _equinox(equinox, fn, parameters)
    if not callable(fn):
        raise ArgumentTypeError(
            f"a network must be callable, fn([parameters,] x, time[, condition]); got {shown(fn)}. Give a function or "
            "a flax or equinox module, and weights as parameters=."
        )
    if parameters is None:
        return Network(lambda _, *args: fn(*args), None, "function")
    return Network(fn, parameters, "function")


def _check_arrays(parameters) -> None:
    for where, leaf in jax.tree_util.tree_leaves_with_path(parameters):
        is_array = isinstance(leaf, jax.Array | np.ndarray | np.generic | int | float)
        if not is_array or (isinstance(leaf, np.ndarray) and leaf.dtype.kind not in "biufV"):
            raise ArgumentTypeError(
                f"parameters must be a pytree of arrays; got {shown(leaf)} at "
                f"{jax.tree_util.keystr(where) or 'the top'}. Leave out what is no weight, or close over it."
            )


def _flags(call: Callable) -> dict[str, bool]:
    """The flags among the arguments of a call, as they are in evaluation."""
    try:
        names = inspect.signature(call).parameters
    except (TypeError, ValueError):
        return {}
    return {name: value for name, value in FLAGS.items() if name in names}


def _nnx(module, parameters) -> Network:
    def split():
        return nnx.split(module, nnx.Not(nnx.RngState), ...)

    graphdef, state, rest = split()
    flags = _flags(module.__call__)

    def call(state, *args):
        # Merged anew: the user's module is left in the mode it is in.
        graphdef, _, rest = split()
        network = nnx.merge(graphdef, state, rest)
        network.eval()
        return network(*args, **flags)

    if parameters is None:
        return Network(call, Live(lambda: split()[1]), "nnx")
    check_fit(parameters, state)
    return Network(call, parameters, "nnx")


def _linen(module, parameters) -> Network:
    if parameters is None:
        raise ParameterError(
            f"{type(module).__name__} is a flax linen module, which holds no weights. Give parameters=variables, as "
            "module.init returned them or training left them."
        )
    flags = _flags(type(module).__call__)

    def call(variables, *args):
        try:
            return module.apply(variables, *args, **flags)
        except flax.errors.FlaxError:
            key = jax.random.key(0)
            check_fit(variables, jax.eval_shape(lambda: module.init({"params": key, "dropout": key}, *args, **flags)))
            raise

    return Network(call, parameters, "linen")


def _equinox(equinox, module, parameters) -> Network:
    weights, rest = equinox.partition(equinox.nn.inference_mode(module), equinox.is_array)
    if parameters is not None:
        check_fit(parameters, weights)
        weights = parameters
    return Network(lambda weights, *args: equinox.combine(weights, rest)(*args), weights, "equinox")


def check_fit(given, expected) -> None:
    """Raise WeightsError unless two pytrees of weights have the same names and shapes; says which differ."""
    found, wanted = _named(given), _named(expected)
    missing, unknown = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    shapes = [
        f"{name} {np.shape(found[name])} instead of {np.shape(wanted[name])}"
        for name in wanted if name in found and np.shape(found[name]) != np.shape(wanted[name])
    ]  # fmt: skip
    if missing or unknown or shapes:
        parts = [("missing", missing), ("without a place", unknown), ("of another shape", shapes)]
        text = "; ".join(f"{what}: {_few(names)}" for what, names in parts if names)
        raise WeightsError(f"these weights do not fit the network. {text}. Give those of this architecture.")


def _named(tree) -> dict[str, Any]:
    """The leaves of a pytree by their path."""
    return {jax.tree_util.keystr(where): leaf for where, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
