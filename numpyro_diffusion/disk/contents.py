"""What the file of a trained network may hold: ranges, order and units of its numbers, lengths of its texts.

A digest says that a file is as it was written, not that what was written makes sense. `save` checks by the same rules
as `load`, and so refuses what could not be read back. All errors are ParameterError; `load` says which file it is.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.fields import check_choice, check_flag, check_integers
from ..checks.text import check_name, shown
from ..density.schedule import LinearFlow, NoiseSchedule, TabulatedSchedule, VarianceExploding, VariancePreserving
from ..errors import ParameterError, check_number
from .checkpoint import to_json

SCHEDULES = {cls.__name__: cls for cls in (VariancePreserving, VarianceExploding, LinearFlow, TabulatedSchedule)}
#: Ranges of a schedule's numbers; what they may be together the schedule itself checks.
SCHEDULE_RANGES = {
    "sigma_min": (0.0, 1e18), "sigma_max": (1e-18, 1e18), "rho": (0.1, 100.0), "beta_min": (1e-18, 1e3),
    "beta_max": (1e-18, 1e3),
}  # fmt: skip
#: Lengths, variances, weights and log normalisers of whatever is trained lie far within these.
LENGTHS, LARGEST_WEIGHT = (1e-12, 1e12), 1e6
RANGES = {
    "mean": (-1e12, 1e12), "eigenvalues": (1e-24, 1e24), "log_z": (-1e7, 1e7), "class_log_z": (-1e7, 1e7),
    "base.means": (-1e12, 1e12), "base.eigenvalues": (1e-24, 1e24), "base.weights": (0.0, 1.001),
    "base.mean_weights": (-1e12, 1e12), "base.spread_weights": (-1e6, 1e6), "base.variance": (1e-24, 1e24),
    "base.centre": (-1e30, 1e30), "base.scale": (1e-30, 1e30), "base.low": (-1e30, 1e30), "base.high": (-1e30, 1e30),
    "base.frequencies": (-1e6, 1e6), "base.phases": (-7.0, 7.0),
}  # fmt: skip
#: Most axes of a point, and most characters of a card as JSON.
MOST_AXES, LONGEST_CARD = 8, 1_000_000
#: Types that weights can be stored in.
WEIGHT_DTYPES = ("float16", "bfloat16", "float32", "float64", "int8")
#: Fewest numbers of an array that "int8" stores as whole ones: smaller arrays hardly matter to the size of a file, and
#: outputs follow their errors most.
FEWEST_WHOLE = 8192
SCALE = ".scale"


def check_texts(name, card) -> None:
    """A name that prints, and a card of moderate length."""
    check_name(name)
    if (length := len(to_json("card", card))) > LONGEST_CARD:
        raise ParameterError(f"a card may take {LONGEST_CARD} characters as JSON; it takes {length}. Shorten it.")


def schedule_fields(schedule: NoiseSchedule) -> dict[str, Any]:
    """What a file says about a schedule: its type and fields, a table as a list of numbers."""
    kind = check_choice("the schedule", type(schedule).__name__, SCHEDULES)
    fields = dataclasses.asdict(schedule)  # pyright: ignore[reportArgumentType]
    if isinstance(schedule, TabulatedSchedule):
        fields["table"] = schedule.levels_of_noise.tolist()
    return {"type": kind} | fields


def schedule_of(fields: Any) -> NoiseSchedule:
    """The schedule that a file names, its numbers within `SCHEDULE_RANGES`."""
    fields = dict(fields)
    kind = check_choice("the schedule", fields.pop("type"), SCHEDULES)
    if kind == TabulatedSchedule.__name__:
        table = [check_number("a ratio of the schedule's table", r, 1e-18, 1e18) for r in fields.pop("table")]
        check_flag("is_discrete", fields["is_discrete"])
        return TabulatedSchedule.of(table, **fields)
    for name, span in SCHEDULE_RANGES.items():
        if name in fields:
            check_number(name, fields[name], *span)
    return SCHEDULES[kind](**fields)


def event_shape_of(value: Any) -> tuple[int, ...]:
    """The shape of a point."""
    shape = check_integers("event_shape", value, high=2**31)
    if len(shape) > MOST_AXES:
        raise ParameterError(f"event_shape may have {MOST_AXES} axes; it has {len(shape)}")
    return shape


def network_of(fields: Any, configs: Mapping[str, type], num_arrays: int) -> Any:
    """The architecture that a file names, the first where it names none, of no more layers than the file has arrays."""
    fields = dict(fields)
    kind = check_choice("the network", fields.pop("type", next(iter(configs))), configs)
    if unknown := set(fields) - {field.name for field in dataclasses.fields(configs[kind])}:
        raise ParameterError(f"{kind} knows no {shown(sorted(map(str, unknown)))}")
    # Before anything is made of them.
    text = fields.get("text")
    parts = (fields, text if isinstance(text, dict) else {})
    for name, part in itertools.product(("num_blocks", "multipliers", "widths"), parts):
        value = part.get(name, 0)
        if (len(value) if isinstance(value, list) else value) > num_arrays:
            raise ParameterError(f"{name} = {shown(value)} needs more than the {num_arrays} arrays there are")
    return configs[kind](**fields)


def named_leaves(state) -> dict[str, Any]:
    """The leaves of a network's or a training's state by their path, as they are written."""
    return {f"state{jax.tree_util.keystr(where)}": leaf for where, leaf in jax.tree_util.tree_leaves_with_path(state)}


def restored(abstract, arrays: Mapping[str, np.ndarray]):
    """The state with structure and types of `abstract`, from arrays named by `named_leaves`; KeyError if one lacks."""
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
    """The weights of a network by name, in the type they are stored in; refused where that does not hold them.

    "int8" means :math:`w_{ij} = s_j q_{ij}` for arrays of at least `FEWEST_WHOLE` numbers, with whole q in [-127, 127]
    and a scale s for each channel of output, the last axis; errors are below half a scale. All others are float16.
    """
    arrays = {k: np.asarray(v) for k, v in named_leaves(state).items()}
    if dtype is None:
        return arrays
    check_choice("dtype", dtype, WEIGHT_DTYPES, "Leave it out to keep that of the weights.")
    stored, kept = {}, "float16" if dtype == "int8" else dtype
    for k, v in arrays.items():
        if not jnp.issubdtype(v.dtype, jnp.floating):
            stored[k] = v
        elif dtype == "int8" and v.ndim > 1 and v.size >= FEWEST_WHOLE:
            stored |= _whole(k, v)
        else:
            with np.errstate(over="ignore"):
                stored[k] = v.astype(jnp.dtype(kept))
            if np.all(np.isfinite(v)) and not np.all(np.isfinite(stored[k])):
                largest = float(np.max(np.abs(v)))
                raise ParameterError(f"{kept} does not hold weights up to {largest:g}, as in {k}. Leave out dtype.")
    return stored


def _whole(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    # What is not finite is not so in the scale either, and refused when that is written.
    with np.errstate(all="ignore"):
        scale = (np.max(np.abs(array), axis=tuple(range(array.ndim - 1))) / 127).astype(np.float32)
        whole = np.rint(np.nan_to_num(array / np.where(scale > 0, scale, 1))).astype(np.int8)
    return {name: whole, name + SCALE: scale}


def floating(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a file, weights that `stored_weights` made whole numbers of as float32."""
    result = dict(arrays)
    for name in [k for k, v in arrays.items() if v.dtype == np.int8 and k + SCALE in arrays]:
        scale = result.pop(name + SCALE)
        check_range(name + SCALE, scale, arrays[name].shape[-1:], (0.0, LARGEST_WEIGHT))
        result[name] = arrays[name].astype(np.float32) * scale.astype(np.float32)
    return result


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


def check_arrays(arrays: Mapping[str, np.ndarray], size: int, network) -> None:
    """The arrays beside the network: shapes, and what each may hold."""
    knots, is_mixture = max(2, arrays["log_z"].size // 2), "base.means" in arrays
    shapes: dict[str, tuple[int, ...]] = {"mean": (size,), "eigenvalues": (size,), "sigmas": (2,), "log_z": (2, knots)}
    shapes |= {} if network.takes_images else {"eigenvectors": (size, size)}
    shapes |= {"class_log_z": (network.condition_size, knots)} if "class_log_z" in arrays else {}
    shapes |= _base_shapes(arrays, size, network.condition_size)
    for name, shape in shapes.items():
        array = arrays[name]
        check_range(name, array, shape, RANGES.get(name, (-np.inf, np.inf)))
        if name.endswith("vectors"):
            for vectors in array.reshape(-1, size, size):
                check_orthonormal(name, vectors)
    low, high = map(float, arrays["sigmas"])
    if not LENGTHS[0] <= low < high <= LENGTHS[1]:
        raise ParameterError(f"sigmas must increase within [{LENGTHS[0]:g}, {LENGTHS[1]:g}]; got {low:g} and {high:g}")
    # Beside a mixture they are the variances along the data's own axes, in no order.
    if not (network.takes_images or is_mixture) and np.any(np.diff(arrays["eigenvalues"]) < 0):
        raise ParameterError("eigenvalues must not decrease, as their axes are in that order")
    if not np.all(np.diff(arrays["log_z"][0]) > 0):
        raise ParameterError("the knots of log_z must increase")
    sums = np.sum(arrays["base.weights"], axis=1, dtype=np.float64) if is_mixture else np.ones(1)
    if not np.all(np.abs(sums - 1) < 1e-3):
        raise ParameterError(
            f"each row of base.weights must sum to one; got sums from {sums.min():g} to {sums.max():g}"
        )


def _base_shapes(arrays: Mapping[str, np.ndarray], size: int, known: int) -> dict[str, tuple[int, ...]]:
    """Shapes of what a base is made of, for points of `size` numbers under `known` conditions; none without a base."""
    if "base.means" in arrays:
        count, rows = len(arrays["base.means"]), len(arrays["base.weights"])
        if rows not in (1, known + 1):
            raise ParameterError(f"the base has {rows - 1} classes, the network {known}")
        shapes = {"means": (count, size), "eigenvalues": (count, size), "eigenvectors": (count, size, size)}
        shapes |= {"weights": (rows, count)}
    elif "base.mean_weights" in arrays:
        cosines = arrays["base.phases"].size
        shapes = dict.fromkeys(("centre", "scale", "low", "high"), (known,))
        shapes |= dict.fromkeys(("mean_weights", "spread_weights"), (1 + known + cosines, size))
        shapes |= {"variance": (size,), "vectors": (size, size), "frequencies": (cosines, known), "phases": (cosines,)}
    else:
        return {}
    return {f"base.{name}": shape for name, shape in shapes.items()}


def check_range(name: str, array: np.ndarray, shape: tuple[int, ...], span: tuple[float, float]) -> None:
    """The shape of an array, and where its numbers lie."""
    if array.shape != shape or array.size == 0:
        raise ParameterError(f"{name} has shape {array.shape}, expected {shape}")
    (low, high), least, most = span, float(array.min()), float(array.max())
    if not (low <= least and most <= high):
        raise ParameterError(f"{name} must lie in [{low:g}, {high:g}]; got {least:g} to {most:g}")


def check_orthonormal(name: str, vectors: np.ndarray) -> None:
    """V'V = 1 by what it does to a few random vectors: d^2 operations, where the product would take d^3."""
    probes = np.random.default_rng(0).standard_normal((len(vectors), 4)).astype(np.float32)
    with np.errstate(all="ignore"):
        off = float(np.max(np.abs(vectors.T @ (vectors @ probes) - probes)))
    if not off < 1e-3:
        raise ParameterError(f"{name} must be orthonormal; they are off by {off:.2g}")
