r"""Weights of PyTorch networks in JAX ones: names, layouts, and a check of what comes out.

A state dict names arrays by where they are in a network, and so do JAX libraries. What differs is the last part, as
flax calls a `weight` a kernel, a scale or an embedding, and the order of axes:

======================  ===========================  ===================================
layer                   PyTorch                      flax
======================  ===========================  ===================================
linear                  [out, in]                    [in, out]
convolution             [out, in, *space]            [*space, in, out]
transposed convolution  [in, out, *space]            [*space, in, out], space reversed
norm of whole images    [channels, *space]           [*space, channels]
======================  ===========================  ===================================

A transposed convolution of PyTorch with kernel size k and padding p has padding k - 1 - p in flax.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ..checks.numbers import array_of
from ..checks.text import shown
from ..errors import ArgumentTypeError, ParameterError, WeightsError, check_number

#: Axes of PyTorch's arrays turned into flax's, by the name of the layout.
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "same": lambda w: w,
    "kernel": lambda w: np.moveaxis(w, (0, 1), (-1, -2)) if w.ndim > 1 else w,
    "transposed_kernel": lambda w: (
        np.flip(np.moveaxis(w, (0, 1), (-2, -1)), tuple(range(w.ndim - 2))) if w.ndim > 1 else w
    ),
    "channels_last": lambda w: np.moveaxis(w, 0, -1) if w.ndim else w,
}
#: What flax calls PyTorch's weights and statistics.
LEAVES = {"weight": ("kernel", "scale", "embedding"), "running_mean": ("mean",), "running_var": ("var",)}
#: Names of a kind that an error lists.
MOST_NAMES = 50


def load_state_dict[T](
    network: T,
    state_dict: Mapping[str, Any],
    *,
    names: Mapping[str, str | None] | None = None,
    layouts: Mapping[str, str | Callable[[np.ndarray], np.ndarray]] | None = None,
) -> T:
    """The network with the weights of a state dict, such as `nd.read_state_dict` reads; the one given stays as it is.

    A weight goes where the network has one of its name, `weight` being a kernel, a scale or an embedding as well,
    `running_mean` a mean and `running_var` a variance. Kernels get flax's order of axes, those of nnx's transposed
    convolutions too; in other libraries a layout must say that a convolution is transposed.

    Args:
        network: A flax nnx module, the variables of a linen one, an equinox module, or any pytree of arrays; of arrays
            or of their shapes (`nnx.eval_shape`).
        state_dict: Arrays by name. Every one must have a place, and every array of the network a source.
        names: Where other names go: pattern -> name in the network, parts joined by dots, or None for what is to be
            left out. `*` stands for any text, which the name repeats: `{"model.*": "*", "ema.*": None}`. The first
            pattern that fits counts.
        layouts: Other orders of axes, pattern -> "same", "kernel", "transposed_kernel" (transposed convolutions),
            "channels_last" ([channels, *space] -> [*space, channels]), or a function of the NumPy array.

    Raises:
        WeightsError: if weights of the network are missing, or some of the state dict have no place, another shape, or
            are not finite: all are named, with both shapes.
        ParameterError: for a layout or a pattern that is none.
    """
    renamed, laid_out = _table("names", names), _table("layouts", layouts)
    arrays = {name: _array(name, value) for name, value in _dict(state_dict).items()}
    graphdef, tree, rest, transposed = None, network, None, set()
    if isinstance(network, nnx.Module):
        graphdef, tree, rest = nnx.split(network, nnx.Not(nnx.RngState), ...)
        transposed = _transposed(network)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
    places = {_name(where): leaf for where, leaf in leaves if _is_weight(leaf)}
    found, wrong = {}, []
    for source, array in sorted(arrays.items()):
        target = _target(source, renamed, places)
        if target is None:
            continue
        if target not in places:
            wrong.append(f"{source} {list(array.shape)} has no place" + (f" at {target}" if target != source else ""))
        elif target in found:
            wrong.append(f"{source} goes to {target}, as another one does")
        else:
            array = _laid_out(source, target, array, laid_out, transposed)
            found[target] = array
            wrong += _misfits(source, target, array, places[target])
    wrong += [f"{name} {list(leaf.shape)} is missing" for name, leaf in places.items() if name not in found]
    if wrong:
        raise WeightsError(
            f"every weight must have its place in the network, with its shape; {len(wrong)} do not fit. Map names, or "
            f"leave some out, with names={{...}}, axes with layouts={{...}}.\n  {_listed(wrong)}"
        )
    new = [jnp.asarray(found[n], leaf.dtype) if (n := _name(where)) in found else leaf for where, leaf in leaves]
    tree = jax.tree_util.tree_unflatten(treedef, new)
    return tree if graphdef is None else nnx.merge(graphdef, tree, rest)  # pyright: ignore[reportReturnType]


def check_outputs(fn: Callable, inputs: tuple, outputs: Any, *, tolerance: float = 1e-4) -> float:
    """The largest difference between `fn(*inputs)` and stored outputs, refused where it exceeds a tolerance.

    Args:
        fn: The network.
        inputs: Its arguments.
        outputs: What the original returned for them, in the axes of `fn`.
        tolerance: Of the largest absolute difference.

    Raises:
        WeightsError: if shapes differ or the difference is larger.
    """
    check_number("tolerance", tolerance, 0, ends="()", remedy="1e-4 is usual for float32.")
    if not isinstance(inputs, tuple | list):
        raise ArgumentTypeError(f"inputs must be a tuple of arguments; got {shown(inputs)}. Write (x,) for one.")
    expected, found = array_of("outputs", outputs, "an array"), np.asarray(fn(*inputs), dtype=np.float64)
    if found.shape != expected.shape:
        raise WeightsError(
            f"outputs must have one shape; the network gives {found.shape}, stored are {expected.shape}. Move the axes "
            "of one: images of PyTorch have channels before height and width."
        )
    error = float(np.max(np.abs(found - expected), initial=0.0))
    if not error <= tolerance:
        scale = float(np.sqrt(np.mean(expected**2)))
        with np.errstate(all="ignore"):
            correlation = float(np.sum(found * expected) / np.sqrt(np.sum(found**2) * np.sum(expected**2)))
        raise WeightsError(
            f"outputs must agree to {tolerance:g}; they differ by up to {error:.3g} at a scale of {scale:.3g} (cosine "
            f"{correlation:.3g}). Compare layer by layer: epsilon of norms, padding, exact or approximate GELU, "
            "transposed kernels."
        )
    return error


def _dict(state_dict) -> dict[str, Any]:
    if not isinstance(state_dict, Mapping) or not all(isinstance(name, str) for name in state_dict):
        raise ArgumentTypeError(
            f"state_dict must be arrays by name; got {shown(state_dict)}. Read a file with nd.read_state_dict(path)."
        )
    return dict(state_dict)


def _array(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
        fine = array.dtype.kind in "biu" or jnp.issubdtype(array.dtype, jnp.floating)
    except (TypeError, ValueError, RuntimeError):
        fine = False
    if not fine:
        raise WeightsError(f"{shown(name)} must be an array of numbers; got {shown(value)}. Leave it out.")
    return array


def _table(what: str, table: Mapping[str, Any] | None) -> list[tuple[re.Pattern, Any]]:
    """Patterns as regular expressions, each with what it says."""
    if table is not None and not (isinstance(table, Mapping) and all(isinstance(key, str) for key in table)):
        raise ArgumentTypeError(f"{what} must be a dict of patterns; got {shown(table)}.")
    rules = []
    for pattern, value in (table or {}).items():
        if what == "names" and not (
            value is None or (isinstance(value, str) and value.count("*") <= pattern.count("*"))
        ):
            raise ParameterError(
                f"names must map a pattern to a name that repeats its *, or to None; got {pattern!r}: {shown(value)}."
            )
        if what == "layouts" and not (callable(value) or (isinstance(value, str) and value in LAYOUTS)):
            raise ParameterError(
                f"a layout must be one of {', '.join(LAYOUTS)} or a function of the array; got {shown(value)} of "
                f"{pattern!r}."
            )
        rules.append((re.compile("(.*)".join(map(re.escape, pattern.split("*")))), value))
    return rules


def _first(rules: list[tuple[re.Pattern, Any]], name: str) -> tuple[re.Match | None, Any]:
    return next(((match, value) for pattern, value in rules if (match := pattern.fullmatch(name))), (None, None))


def _target(source: str, names, places) -> str | None:
    """Where a weight goes, or None where it is left out; what is in no place goes by its own name."""
    match, target = _first(names, source)
    if match is not None and target is None:
        return None
    if match is not None:
        texts = iter(match.groups())
        target = re.sub(r"\*", lambda _: next(texts), target)
    else:
        target = source
    stem, _, leaf = target.rpartition(".")
    candidates = [target, *(f"{stem}.{other}".lstrip(".") for other in LEAVES.get(leaf, ()))]
    return next((candidate for candidate in candidates if candidate in places), target)


def _transposed(network: nnx.Module) -> set[str]:
    """Names of the kernels of transposed convolutions; flax itself turns those that have `transpose_kernel`."""
    modules = ((path, m) for path, m in nnx.iter_modules(network) if isinstance(m, nnx.ConvTranspose))
    return {".".join(map(str, (*path, "kernel"))) for path, module in modules if not module.transpose_kernel}


def _laid_out(source: str, target: str, array: np.ndarray, layouts, transposed: set[str]) -> np.ndarray:
    match, layout = _first(layouts, source)
    if match is None:
        is_kernel = target.rpartition(".")[2] == "kernel"
        layout = "transposed_kernel" if target in transposed else "kernel" if is_kernel else "same"
    return np.asarray(layout(array) if callable(layout) else LAYOUTS[layout](array))


def _misfits(source: str, target: str, array: np.ndarray, leaf) -> list[str]:
    """What is wrong with an array at its place."""
    if array.shape != leaf.shape:
        return [f"{source} has shape {list(array.shape)} as laid out for {target} {list(leaf.shape)}"]
    if jnp.issubdtype(array.dtype, jnp.floating) and not jnp.issubdtype(leaf.dtype, jnp.floating):
        return [f"{source} holds {array.dtype}, {target} {leaf.dtype}"]
    with np.errstate(over="ignore"):
        kept = array.astype(leaf.dtype)
    if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.all(np.isfinite(kept.astype(np.float64))):
        return [f"{source} holds NaN or infinity, as {leaf.dtype}"]
    return []


def _is_weight(leaf) -> bool:
    """Whether a leaf is an array of numbers, or its shape: equinox modules have functions among theirs."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and hasattr(leaf, "shape") and not jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _name(where) -> str:
    """The path of a leaf, parts joined by dots, without what nnx adds to it."""
    return jax.tree_util.keystr(where, simple=True, separator=".").removesuffix(".value")


def _listed(lines: list[str]) -> str:
    more = [f"and {len(lines) - MOST_NAMES} more"] if len(lines) > MOST_NAMES else []
    return "\n  ".join(lines[:MOST_NAMES] + more)
