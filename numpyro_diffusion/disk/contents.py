"""What the file of a trained network may hold: ranges, order and units of its numbers, lengths of its texts.

A digest says that a file is as it was written, not that what was written makes sense. `save` checks by the same rules
as `load`, and so refuses what could not be read back. All errors are ParameterError; `load` says which file it is.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.text import check_name, shown
from ..density.schedule import NoiseSchedule, VarianceExploding, VariancePreserving
from ..errors import ParameterError

SCHEDULES = {cls.__name__: cls for cls in (VariancePreserving, VarianceExploding)}
#: Ranges of a schedule's numbers; what they may be together the schedule itself checks.
SCHEDULE_RANGES = {
    "sigma_min": (0.0, 1e18), "sigma_max": (1e-18, 1e18), "rho": (0.1, 100.0), "beta_min": (1e-18, 1e3),
    "beta_max": (1e-18, 1e3),
}  # fmt: skip
#: Lengths, variances, weights and log normalisers of whatever is trained lie far within these.
LENGTHS, VARIANCES, LARGEST_WEIGHT, LARGEST_LOG_Z = (1e-12, 1e12), (1e-24, 1e24), 1e6, 1e7
#: Most axes of a point, and most characters of a card as JSON.
MOST_AXES, LONGEST_CARD = 8, 1_000_000
#: Types that weights can be stored in.
WEIGHT_DTYPES = ("float16", "bfloat16", "float32", "float64")


def check_texts(name, card) -> None:
    """A name that prints, and a card of moderate length."""
    check_name(name)
    if not isinstance(card, dict):
        raise ParameterError(f"card must be a dict of what JSON can hold; got {shown(card)}.")
    try:
        length = len(json.dumps(card, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"card must be a dict of finite numbers, text, lists and dicts; got {shown(card)} ({error})."
        ) from error
    if length > LONGEST_CARD:
        raise ParameterError(f"a card may take {LONGEST_CARD} characters as JSON; it takes {length}. Shorten it.")


def schedule_of(fields: Any) -> NoiseSchedule:
    """The schedule that a file names, its numbers within `SCHEDULE_RANGES`."""
    fields = dict(fields)
    kind = fields.pop("type")
    if not isinstance(kind, str) or kind not in SCHEDULES:
        raise ParameterError(f"the schedule must be one of {', '.join(SCHEDULES)}; got {shown(kind)}")
    for name, (low, high) in SCHEDULE_RANGES.items():
        # A number, neither boolean nor text.
        if name in fields and not (type(fields[name]) in (int, float) and low <= fields[name] <= high):
            raise ParameterError(f"{name} must be a number in [{low:g}, {high:g}]; got {shown(fields[name])}")
    return SCHEDULES[kind](**fields)


def event_shape_of(value: Any) -> tuple[int, ...]:
    """The shape of a point."""
    if not isinstance(value, list) or not all(type(n) is int and 1 <= n <= 2**31 for n in value):
        raise ParameterError(f"event_shape must be whole numbers >= 1; got {shown(value)}")
    if len(value) > MOST_AXES:
        raise ParameterError(f"event_shape may have {MOST_AXES} axes; it has {len(value)}")
    return tuple(value)


def network_of(fields: Any, configs: Mapping[str, type], num_arrays: int, default: str) -> Any:
    """The architecture that a file names, which may not have more layers than the file has arrays."""
    fields = dict(fields)
    kind = fields.pop("type", default)
    if not isinstance(kind, str) or kind not in configs:
        raise ParameterError(f"the network must be one of {', '.join(configs)}; got {shown(kind)}")
    if unknown := set(fields) - {field.name for field in dataclasses.fields(configs[kind])}:
        raise ParameterError(f"{kind} knows no {shown(sorted(map(str, unknown)))}")
    # Before anything is made of them.
    for name in ("num_blocks", "multipliers", "widths"):
        value = fields.get(name, 0)
        if (len(value) if isinstance(value, list) else value) > num_arrays:
            raise ParameterError(f"{name} = {shown(value)} needs more than the {num_arrays} arrays there are")
    return configs[kind](**fields)


def named_leaves(state) -> dict[str, Any]:
    """The leaves of a network's or a training's state by their path, as they are written."""
    return {f"state{jax.tree_util.keystr(where)}": leaf for where, leaf in jax.tree_util.tree_leaves_with_path(state)}


def restored(abstract, arrays: Mapping[str, np.ndarray]):
    """The state with the structure and types of `abstract`, from arrays written under the names of `named_leaves`.

    Raises:
        KeyError, ParameterError: if an array is missing or has another shape.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(abstract)
    state = []
    for where, leaf in leaves:
        array = arrays[f"state{jax.tree_util.keystr(where)}"]
        if array.shape != leaf.shape:
            raise ParameterError(f"weight {where} has shape {array.shape}, the architecture {leaf.shape}")
        if jnp.issubdtype(array.dtype, jnp.floating) != jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ParameterError(f"weight {where} has dtype {array.dtype}, the architecture {leaf.dtype}")
        state.append(jnp.asarray(array, dtype=leaf.dtype))
    return jax.tree_util.tree_unflatten(treedef, state)


def stored_weights(state, dtype: str | None) -> dict[str, np.ndarray]:
    """The weights of a network by name, in the type they are stored in.

    Raises:
        ParameterError: if there is no such type, or it does not hold them.
    """
    arrays = {k: np.asarray(v) for k, v in named_leaves(state).items()}
    if dtype is None:
        return arrays
    if not isinstance(dtype, str) or dtype not in WEIGHT_DTYPES:
        raise ParameterError(f"dtype must be one of {', '.join(WEIGHT_DTYPES)}; got {shown(dtype)}.")
    with np.errstate(over="ignore"):
        stored = {k: v.astype(jnp.dtype(dtype)) for k, v in arrays.items()}
    for k, v in stored.items():
        if np.all(np.isfinite(arrays[k])) and not np.all(np.isfinite(v)):
            largest = float(np.max(np.abs(arrays[k])))
            raise ParameterError(f"{dtype} does not hold weights up to {largest:g}, as in {k}. Leave out dtype.")
    return stored


def network_in(arrays: Mapping[str, np.ndarray], build: Callable, others: Collection[str] = ()) -> tuple[Any, Any]:
    """(graph definition, state) of a network that `build(rng_key)` makes, from arrays among which are `others`."""
    # Built abstractly: no weights are drawn, and no memory is taken that the file does not fill.
    graphdef, abstract = jax.eval_shape(build, jax.random.key(0))
    state, names = restored(abstract, arrays), set(named_leaves(abstract))
    if unknown := set(arrays) - names - set(others):
        raise ParameterError(f"there is no place for {shown(sorted(unknown))}")
    for name in names:
        # Of order one, as all that training ends with.
        largest = float(np.max(np.abs(arrays[name].astype(np.float64)), initial=0.0))
        if not largest <= LARGEST_WEIGHT:
            raise ParameterError(f"weights must lie within {LARGEST_WEIGHT:g}; {shown(name)} reaches {largest:g}")
    return graphdef, state


def check_fields(arrays: Mapping[str, np.ndarray], size: int, network, *, has_base: bool) -> None:
    """The arrays beside the network: shapes, and what each may hold."""
    log_z, has_axes = arrays["log_z"], not network.takes_images
    if log_z.ndim != 2 or log_z.shape[0] != 2 or log_z.shape[1] < 2:
        raise ParameterError(f"log_z has shape {log_z.shape}, expected [2, knots]")
    shapes = {"mean": (size,), "eigenvalues": (size,), "sigmas": (2,)}
    shapes |= {"eigenvectors": (size, size)} if has_axes else {}
    shapes |= {"class_log_z": (network.condition_size, log_z.shape[1])} if "class_log_z" in arrays else {}
    _check_shapes(arrays, shapes)
    _check_within("mean", arrays["mean"], -LENGTHS[1], LENGTHS[1])
    _check_within("eigenvalues", arrays["eigenvalues"], *VARIANCES)
    low, high = map(float, arrays["sigmas"])
    if not LENGTHS[0] <= low < high <= LENGTHS[1]:
        raise ParameterError(f"sigmas must increase within [{LENGTHS[0]:g}, {LENGTHS[1]:g}]; got {low:g} and {high:g}")
    if has_axes:
        # Beside a mixture they are the variances along the data's own axes, in no order.
        if not has_base and np.any(np.diff(arrays["eigenvalues"]) < 0):
            raise ParameterError("eigenvalues must not decrease, as their axes are in that order")
        _check_orthonormal("eigenvectors", arrays["eigenvectors"])
    if not np.all(np.diff(log_z[0]) > 0):
        raise ParameterError("the knots of log_z must increase")
    for name in ("log_z", "class_log_z"):
        if name in arrays:
            _check_within(name, arrays[name], -LARGEST_LOG_Z, LARGEST_LOG_Z)


def check_base(found: Mapping[str, np.ndarray], size: int, condition_size: int) -> None:
    """The arrays of a mixture base, by field."""
    count, rows = found["means"].shape[0], found["weights"].shape[0]
    shapes = {"means": (count, size), "eigenvalues": (count, size), "eigenvectors": (count, size, size)}
    _check_shapes(found, shapes | {"weights": (rows, count)}, "base.")
    if rows not in (1, condition_size + 1):
        raise ParameterError(f"the base has {rows - 1} classes, the network {condition_size}")
    _check_within("base.means", found["means"], -LENGTHS[1], LENGTHS[1])
    _check_within("base.eigenvalues", found["eigenvalues"], *VARIANCES)
    for vectors in found["eigenvectors"]:
        _check_orthonormal("base.eigenvectors", vectors)
    _check_within("base.weights", found["weights"], 0.0, 1.0 + 1e-3)
    sums = np.sum(found["weights"], axis=1, dtype=np.float64)
    if not np.all(np.abs(sums - 1) < 1e-3):
        raise ParameterError(
            f"each row of base.weights must sum to one; got sums from {sums.min():g} to {sums.max():g}"
        )


def _check_shapes(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], prefix: str = "") -> None:
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ParameterError(f"{prefix}{name} has shape {arrays[name].shape}, expected {shape}")


def _check_within(name: str, array: np.ndarray, low: float, high: float) -> None:
    if array.size == 0 or not (low <= float(array.min()) and float(array.max()) <= high):
        found = f"{array.min():g} to {array.max():g}" if array.size else "nothing"
        raise ParameterError(f"{name} must lie in [{low:g}, {high:g}]; got {found}")


def _check_orthonormal(name: str, vectors: np.ndarray) -> None:
    """V'V = 1 by what it does to a few random vectors: d^2 operations, where the product would take d^3."""
    probes = np.random.default_rng(0).standard_normal((len(vectors), 4)).astype(np.float32)
    with np.errstate(all="ignore"):
        off = float(np.max(np.abs(vectors.T @ (vectors @ probes) - probes)))
    if not off < 1e-3:
        raise ParameterError(f"{name} must be orthonormal; they are off by {off:.2g}")
