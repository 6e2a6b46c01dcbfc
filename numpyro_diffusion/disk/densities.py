"""Trained densities on disk: `save`, `load` and the pretrained ones that ship with the package.

One file holds weights (safetensors) and architecture (JSON); see `checkpoint` for how it is written and checked.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
from importlib import resources
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..checks.fields import check_choice, check_flag
from ..checks.text import shown
from ..density.axes import CosineAxes, DenseAxes
from ..density.density import Conditional, Density
from ..density.energy import PARAMETERISATIONS, EnergyDensity, ScoreModel
from ..density.gaussian import Gaussian
from ..density.mixture import MixtureBase
from ..density.regression import RegressionBase
from ..density.typical import QUANTILES
from ..errors import ArgumentTypeError, ParameterError, UnknownNameError
from ..networks.config import CONFIGS
from . import checkpoint, contents

_CLASSES = {cls.__name__: cls for cls in (EnergyDensity, ScoreModel)}
_FIELDS = ("mean", "eigenvalues", "eigenvectors", "sigmas", "log_z", "class_log_z", "typical")
#: What a base is made of; the first array tells which one a file holds.
_BASES = {MixtureBase: ("means", "eigenvalues", "eigenvectors", "weights"), RegressionBase: RegressionBase._fields}
_KNOWN = {*_FIELDS, *(f"base.{field}" for fields in _BASES.values() for field in fields)}


def save(density: Density, path: str | os.PathLike[str], *, card: dict | None = None, dtype: str | None = None) -> None:
    """Save a trained density, entirely or not at all.

    Args:
        density: An `EnergyDensity` or `ScoreModel`, not conditioned.
        path: File to write, customarily `*.safetensors`.
        card: What made it: script, seed, figures; JSON, kept in the file.
        dtype: Store the network's weights in this type: "float16" halves the file, and "int8" quarters it (large
            arrays as whole numbers with a scale per output channel; see `contents.stored_weights`). Computation is in
            JAX's default type all the same.

    Raises:
        TypeError: for a density without trained weights; save its parts.
        ParameterError: for what `load` would refuse: a name that does not print, a condition, weights out of range.
        CheckpointError: if the file cannot be written.
    """
    if isinstance(density, Conditional):
        raise ParameterError(
            f"a file holds no condition; got {shown(density)}. Save the density as it was trained, .given(None), and "
            "give the condition after loading."
        )
    if not isinstance(density, EnergyDensity | ScoreModel):
        raise ArgumentTypeError(
            f"only trained leaves and adapted models can be saved, no closed forms; got {shown(density)}. "
            "Of a composition save the models that it is made of, and keep the formula in code."
        )
    arrays = contents.stored_weights(density.state, dtype)
    # What is None is not kept: axes where they are cosines, and what was not measured.
    arrays |= {k: np.asarray(v) for k in _FIELDS if (v := getattr(density, k)) is not None}
    if density.base is not None:
        arrays |= {f"base.{k}": np.asarray(getattr(density.base, k)) for k in _BASES[type(density.base)]}
    card = {} if card is None else card
    contents.check_texts(density.name, card)
    config = {
        "kind": "density",
        "class": type(density).__name__,
        "event_shape": density.event_shape,
        "schedule": contents.schedule_fields(density.schedule),
        "network": {"type": type(density.config).__name__} | dataclasses.asdict(density.config),
        "parameterisation": density.parameterisation,
        "calibrated": density.is_calibrated,
        "name": density.name,
        "card": card,
    }
    checkpoint.save(path, arrays, config, described)


def load(path: str | os.PathLike[str]) -> Density:
    """The density that `save` wrote.

    Raises:
        CheckpointError: if the file is missing, damaged, foreign, does not fit the architecture it names, or holds
            numbers or texts that no density has.
    """
    return checkpoint.load(path, "density", described, "a density")


def described(arrays, config) -> Density:
    """The density of arrays and a config, which hold what they may hold."""
    name, arrays = config["name"], contents.floating(arrays)
    kind = check_choice("the class", config["class"], _CLASSES)
    calibrated = check_flag("calibrated", config["calibrated"])
    contents.check_texts(name, config.get("card", {}))
    network = contents.network_of(config["network"], CONFIGS, len(arrays))
    schedule, event_shape = contents.schedule_of(config["schedule"]), contents.event_shape_of(config["event_shape"])
    size = math.prod(event_shape)
    if calibrated and kind == "ScoreModel":
        raise ParameterError("a score model has no normaliser, and so is not calibrated")
    if network.takes_images and event_shape != network.shape:
        raise ParameterError(f"the network takes images of shape {network.shape}; points have shape {event_shape}")
    forms = ("score",) if kind == "ScoreModel" else PARAMETERISATIONS if network.form is None else (network.form,)
    form = check_choice("the parameterisation", config["parameterisation"], forms)
    if kinds := {k for k, a in arrays.items() if not jnp.issubdtype(a.dtype, jnp.floating)}:
        raise ParameterError(f"{', '.join(sorted(kinds))} must be floating-point numbers")
    graphdef, state = contents.network_in(arrays, lambda key: network.build(size, key), _KNOWN)
    contents.check_arrays(arrays, size, network)
    # Files of version 0.1 have neither a base nor typical log densities.
    bases = [kind for kind, fields in _BASES.items() if f"base.{fields[0]}" in arrays]
    base = next((b.of_arrays(**{k: arrays[f"base.{k}"] for k in _BASES[b]}) for b in bases), None)
    if "typical" in arrays:
        _check_typical(arrays["typical"], kind, network.condition_size)
    fields: dict[str, Any] = {k: jnp.asarray(arrays[k], dtype=float) if k in arrays else None for k in _FIELDS}
    vectors = fields.pop("eigenvectors")
    axes = CosineAxes(network.shape) if network.takes_images else DenseAxes(vectors)
    moments = Gaussian(fields.pop("mean"), fields.pop("eigenvalues"), axes)
    return _CLASSES[kind](
        graphdef, state, network, event_shape, schedule, form, moments,
        is_calibrated=calibrated, base=base, name=name, **fields,
    )  # fmt: skip


def _check_typical(table, kind: str, condition_size: int) -> None:
    if kind != "EnergyDensity":
        raise ParameterError("a score model has no typical log densities")
    tables = 2 if condition_size else 1
    if table.ndim != 3 or table.shape[0] > tables or table.shape[1] != len(QUANTILES) + 1 or 0 in table.shape:
        raise ParameterError(f"typical has shape {table.shape}, expected [1..{tables}, {len(QUANTILES) + 1}, levels]")
    if not (np.all(np.diff(table[:, 0]) > 0) and np.all(np.diff(table[:, 1:], axis=1) >= 0)):
        raise ParameterError("levels of typical must increase, and so must quantiles at each of them")


#: Where the densities lie that ship with the package.
PRETRAINED = resources.files("numpyro_diffusion") / "pretrained"
#: Those that only benchmarks and tests need, "ring_paper" and "ring_score" among them: in a clone alone.
IN_A_CLONE = Path(__file__).parents[2] / "benchmarks" / "weights"
IN_THE_REPOSITORY = (
    " Names that end in _paper or _score are of densities that do not ship: a clone of the repository has them in "
    "benchmarks/weights, and nd.load(path) reads their files."
)


def list_pretrained() -> list[str]:
    """Names that `load_pretrained` knows."""
    folders = (folder for folder in (PRETRAINED, IN_A_CLONE) if folder.is_dir())
    names = (place.name for folder in folders for place in folder.iterdir())
    return sorted(name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors"))


def load_pretrained(name: str) -> Density:
    """A density that ships with the package, such as "ring".

    In a clone there are also those that benchmarks need: trained as in the paper, "ring_paper", and scores alone,
    "ring_score".

    Raises:
        UnknownNameError: if there is none of that name.
    """
    with resources.as_file(_pretrained(name, "safetensors")) as path:
        return load(path)


def pretrained_card(name: str) -> dict:
    """How a pretrained density was made and what it measured: script, seed, settings, figures.

    Raises:
        UnknownNameError: if there is none of that name.
    """
    return json.loads(_pretrained(name, "json").read_text(encoding="utf-8"))


def _pretrained(name: str, suffix: str):
    if name not in (known := list_pretrained()):
        where = "" if IN_A_CLONE.is_dir() or not str(name).endswith(("_paper", "_score")) else IN_THE_REPOSITORY
        near = difflib.get_close_matches(str(name), known, 1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownNameError(
            f"no pretrained density is called {shown(name)}. There are {', '.join(known)}.{meant}{where}"
        )
    file = f"{name}.{suffix}"
    return PRETRAINED / file if (PRETRAINED / file).is_file() else IN_A_CLONE / file
