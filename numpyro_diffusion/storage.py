"""Trained densities on disk: `save`, `load` and the pretrained ones that ship with the package.

One file holds weights (safetensors) and architecture (JSON); see `checkpoint` for how it is written and checked.
"""

from __future__ import annotations

import dataclasses
import json
import os
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np

from . import checkpoint
from .base import MixtureBase
from .density import Density
from .energy import PARAMETERISATIONS, EnergyDensity, ScoreModel
from .errors import CheckpointError, ParameterError, UnknownNameError
from .networks.config import CONFIGS
from .schedule import VarianceExploding, VariancePreserving
from .typical import QUANTILES

_CLASSES = {cls.__name__: cls for cls in (EnergyDensity, ScoreModel)}
_SCHEDULES = {cls.__name__: cls for cls in (VariancePreserving, VarianceExploding)}
_FIELDS = ("mean", "eigenvalues", "eigenvectors", "sigmas", "log_z")


def save(density: Density, path: str | os.PathLike[str], *, card: dict | None = None, dtype: str | None = None) -> None:
    """Save a trained density, entirely or not at all.

    Args:
        density: An `EnergyDensity` or `ScoreModel`, not conditioned.
        path: File to write, customarily `*.safetensors`.
        card: What made it: script, seed, figures; JSON, kept in the file.
        dtype: Store the network's weights in this type ("float16" halves the file).

    Raises:
        TypeError: for a density without trained weights; save its parts.
        CheckpointError: if the file cannot be written.
    """
    if type(density).__name__ not in _CLASSES:
        raise TypeError(f"only trained leaves can be saved, {', '.join(_CLASSES)}; got {density!r}. Save its leaves.")
    assert isinstance(density, EnergyDensity | ScoreModel)
    arrays = {k: np.asarray(v) for k, v in checkpoint.named_leaves(density.state).items()}
    if dtype is not None:
        arrays = {k: v.astype(dtype) for k, v in arrays.items()}
    # Axes are not kept where they are cosines.
    arrays |= {k: np.asarray(v) for k in _FIELDS if (v := getattr(density, k)) is not None}
    if density.base is not None:
        arrays |= {f"base.{k}": np.asarray(v) for k, v in density.base._asdict().items()}
    if density.class_log_z is not None:
        arrays["class_log_z"] = np.asarray(density.class_log_z)
    if density.typical is not None:
        arrays["typical"] = np.asarray(density.typical)
    schedule = {"type": type(density.schedule).__name__} | dataclasses.asdict(density.schedule)  # pyright: ignore
    config = {
        "kind": "density",
        "class": type(density).__name__,
        "event_shape": list(density.event_shape),
        "schedule": schedule,
        "network": {"type": type(density.config).__name__} | dataclasses.asdict(density.config),
        "parameterisation": density.parameterisation,
        "calibrated": density.is_calibrated,
        "name": density.name,
        "card": card or {},
    }
    checkpoint.write(path, arrays, config)


def load(path: str | os.PathLike[str]) -> Density:
    """The density that `save` wrote.

    Raises:
        CheckpointError: if the file is missing, damaged, foreign, or does not fit the architecture it names.
    """
    arrays, config = checkpoint.read(path, kind="density")
    try:
        cls, architecture = _CLASSES[config["class"]], dict(config["network"])
        network = CONFIGS[architecture.pop("type", "NetworkConfig")](**architecture)
        fields = dict(config["schedule"])
        schedule = _SCHEDULES[fields.pop("type")](**fields)
        event_shape = tuple(config["event_shape"])
        if not all(type(n) is int and n >= 1 for n in event_shape):
            raise ParameterError(f"event_shape must be whole numbers >= 1; got {event_shape}")
        size = int(np.prod(event_shape, initial=1))
        form, calibrated = config["parameterisation"], config["calibrated"]
        if not isinstance(calibrated, bool):
            raise ParameterError(f"calibrated must be true or false; got {calibrated!r}")
        if any(type(n) is int and n > len(arrays) for k, n in architecture.items() if k == "num_blocks"):
            raise ParameterError(f"{architecture['num_blocks']} blocks need more than {len(arrays)} arrays")
        if form not in (*PARAMETERISATIONS, "score") if network.form is None else form != network.form:
            raise ParameterError(f"unknown parameterisation {form!r}")
        # Built abstractly: no weights are drawn, and no memory is taken that the file does not fill.
        graphdef, abstract = jax.eval_shape(lambda key: _Graph(*network.build(size, key)), jax.random.key(0)).pair
        state = checkpoint.restored(abstract, arrays)
        shapes: dict[str, tuple[int, ...]] = {"mean": (size,), "eigenvalues": (size,), "sigmas": (2,)}
        if not network.takes_images:
            shapes["eigenvectors"] = (size, size)
        name = config["name"]
        if not (name is None or isinstance(name, str)):
            raise ParameterError(f"its name must be text or null; got {name!r}")
        if arrays["log_z"].ndim != 2:
            raise ParameterError(f"log_z has shape {arrays['log_z'].shape}, expected [2, knots]")
        if kinds := {k for k, a in arrays.items() if not jnp.issubdtype(a.dtype, jnp.floating)}:
            raise ParameterError(f"{', '.join(sorted(kinds))} must be floating-point numbers")
        for field, shape in shapes.items():
            if arrays[field].shape != shape:
                raise ParameterError(f"{field} has shape {arrays[field].shape}, expected {shape}")
        base = _load_base(arrays, size, network.condition_size)
        by_class = arrays.get("class_log_z")
        if by_class is not None and by_class.shape != (network.condition_size, arrays["log_z"].shape[1]):
            raise ParameterError(f"class_log_z has shape {by_class.shape}, not one row a class")
        typical = _load_typical(arrays, cls, network.condition_size)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is intact but does not describe a density of this version: {error}. Save it again."
        ) from error
    density = object.__new__(cls)
    density.graphdef, density.state = graphdef, state
    density.event_shape, density.schedule, density.config = event_shape, schedule, network
    density.parameterisation, density.is_calibrated, density.name = form, calibrated, name
    density.condition = jnp.zeros(network.condition_size + 1) if network.condition_size else None
    density.base, density.class_log_z = base, None if by_class is None else jnp.asarray(by_class, dtype=float)
    density.typical = typical
    for field in _FIELDS:
        absent = field == "eigenvectors" and network.takes_images
        setattr(density, field, None if absent else jnp.asarray(arrays[field], dtype=float))
    return density


def _load_base(arrays, size: int, condition_size: int) -> MixtureBase | None:
    """The mixture base of a checkpoint, or None: checkpoints of version 0.1.0 have none."""
    if "base.means" not in arrays:
        return None
    found = {field: arrays[f"base.{field}"] for field in MixtureBase._fields}
    count, rows = found["means"].shape[0], found["weights"].shape[0]
    shapes = ((count, size), (count, size), (count, size, size), (rows, count))
    for (field, array), shape in zip(found.items(), shapes, strict=True):
        if array.shape != shape:
            raise ParameterError(f"base.{field} has shape {array.shape}, expected {shape}")
    if rows not in (1, condition_size + 1):
        raise ParameterError(f"the base has {rows - 1} classes, the network {condition_size}")
    return MixtureBase(**{field: jnp.asarray(array, dtype=float) for field, array in found.items()})


def _load_typical(arrays, cls, condition_size: int) -> jax.Array | None:
    """Quantiles of log densities of data, or None: files of version 0.1 have none."""
    table = arrays.get("typical")
    if table is None:
        return None
    if cls is not EnergyDensity:
        raise ParameterError("a score model has no typical log densities")
    tables = 2 if condition_size else 1
    if table.ndim != 3 or table.shape[0] > tables or table.shape[1] != len(QUANTILES) + 1 or 0 in table.shape:
        raise ParameterError(f"typical has shape {table.shape}, expected [1..{tables}, {len(QUANTILES) + 1}, levels]")
    if not (np.all(np.diff(table[:, 0]) > 0) and np.all(np.diff(table[:, 1:], axis=1) >= 0)):
        raise ParameterError("levels of typical must increase, and so must quantiles at each of them")
    return jnp.asarray(table, dtype=float)


class _Graph:
    """Carries a static graph definition out of `eval_shape` beside the abstract state."""

    def __init__(self, graphdef, state):
        self.pair = (graphdef, state)


jax.tree_util.register_pytree_node(
    _Graph, lambda g: ((g.pair[1],), g.pair[0]), lambda graphdef, children: _Graph(graphdef, children[0])
)


def _pretrained():
    return resources.files(__package__) / "pretrained"


def list_pretrained() -> list[str]:
    """Names that `load_pretrained` knows."""
    return sorted(
        p.name.removesuffix(".safetensors") for p in _pretrained().iterdir() if p.name.endswith(".safetensors")
    )


def load_pretrained(name: str) -> Density:
    """A density that ships with the package, such as "ring" (calibrated), "ring_paper" or "ring_score".

    Raises:
        UnknownNameError: if there is none of that name.
    """
    _check_name(name)
    with resources.as_file(_pretrained() / f"{name}.safetensors") as path:
        return load(path)


def pretrained_card(name: str) -> dict:
    """How a pretrained density was made and what it measured: script, seed, settings, figures.

    Raises:
        UnknownNameError: if there is none of that name.
    """
    _check_name(name)
    return json.loads((_pretrained() / f"{name}.json").read_text(encoding="utf-8"))


def _check_name(name: str) -> None:
    known = list_pretrained()
    if name not in known:
        raise UnknownNameError(f"no pretrained density is called {name!r}. There are {', '.join(known)}.")
