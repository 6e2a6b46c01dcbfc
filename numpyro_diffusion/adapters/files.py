"""Densities on disk: `save` and `load` of trained densities, and of networks from elsewhere.

Of a network from elsewhere a file holds the weights by name, how the network is called, and what it predicts at a few
points. Its function is code, which no file holds: `load` is given it. Where a function has no parameters, its weights
are the arrays that it captured, in the order of its operations.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.fields import check_choice, check_flag
from ..checks.text import shown
from ..density.adapted import PREDICTIONS, AdaptedModel
from ..density.axes import CosineAxes, DenseAxes
from ..density.density import Density
from ..density.gaussian import Gaussian
from ..disk import checkpoint, contents, densities
from ..errors import CheckpointError, ParameterError
from ..program import Traced, trace
from .adapters import adapted
from .networks import Network, check_fit, network_of
from .probe import PointFunction, arguments, check_network, noised_points, predicted
from .structure import rebuilt, structure_of
from .timesteps import checked_timesteps, written

#: Kinds of networks by what their weights are, and those whose weights the file gives a structure.
KINDS, STRUCTURED = ("function", "linen", "nnx", "equinox", "captured"), ("function", "linen")
_PROBE = ("probe.y", "probe.r", "probe.noise")
_OTHERS = {"mean", "variance", "vectors", "null", "timesteps", *_PROBE}
#: What a loaded network predicts may differ by this share of its size, as processors and versions compute it.
TOLERANCE = 0.01


def save(density: Density, path: str | os.PathLike[str], *, card: dict | None = None, dtype: str | None = None) -> None:
    """Save a trained density, or a network from elsewhere and how it is called, entirely or not at all.

    Args:
        density: An `EnergyDensity`, a `ScoreModel` or what `nd.from_*` made; not conditioned.
        path: File to write, customarily `*.safetensors`.
        card: What made it: script, seed, figures; JSON, kept in the file.
        dtype: Store the network's weights in this type: "float16" halves the file, and "int8" quarters it (large
            arrays as whole numbers with a scale per output channel; see `contents.stored_weights`). Computation is in
            JAX's default type all the same.

    Raises:
        TypeError: for a density without trained weights; save its parts.
        ParameterError: for what `load` would refuse: a name that does not print, a condition, weights out of range; and
            for timesteps that are a function of continuous time.
        CheckpointError: if the file cannot be written.
    """
    if not isinstance(density, AdaptedModel):
        return densities.save(density, path, card=card, dtype=dtype)
    if not isinstance(density.fn, PointFunction):
        raise ParameterError(
            f"{density!r} has been through jax.jit or jax.tree.map, which leave no function. Save what nd.from_* made."
        )
    timesteps = written(density.fn.timesteps, density.origin)
    if isinstance(timesteps, str) and timesteps == "function":
        raise ParameterError(
            "timesteps= is a function of continuous time, which no file holds. Put it into the network's own function, "
            "and leave timesteps= out."
        )
    network = _explicit(density)
    arrays, config = _written(density, network, timesteps, dtype)
    config["card"] = {} if card is None else card
    stored = _density(arrays, config, network)
    y, r = noised_points(stored)
    arrays |= dict(zip(_PROBE, map(np.asarray, (y, r, predicted(stored, y, r))), strict=True))
    checkpoint.save(path, arrays, config, partial(_density, network=network))


def load(path: str | os.PathLike[str], *, network: Any = None, parameters: Any = None) -> Density:
    """The density that `save` wrote.

    Args:
        path: File to read.
        network: Of a network from elsewhere its function or module, as `nd.from_*` was given it. Its weights are
            replaced by those of the file.
        parameters: Weights in the form that the function takes, to be replaced as well; needed where they are no nested
            dicts, lists and tuples.

    Raises:
        CheckpointError: if the file is missing, damaged, foreign, does not fit the architecture it names, or holds
            numbers or texts that no density has. If it is of a network from elsewhere: if there is no function, the
            weights do not fit it, or it predicts something else than when it was saved.
    """

    def make(arrays, config):
        arrays = contents.floating(arrays)
        if config["class"] != AdaptedModel.__name__:
            density = densities.described(arrays, config)
            if network is not None:
                raise ParameterError("its network is one of this package. Leave out network=")
            return density
        if network is None:
            raise CheckpointError(
                f"{path} holds the weights of {shown(config['name'])}, a network from elsewhere, but not its function. "
                "Give that: nd.load(path, network=function_or_module)."
            )
        is_known = parameters is not None or config["network"] not in STRUCTURED
        weights = parameters if is_known else rebuilt(config["structure"], arrays)
        density = _density(arrays, config, network_of(network, weights))
        _check_probe(density, *(arrays[name] for name in _PROBE))
        return density

    return checkpoint.load(path, "density", make, "a density")


def _explicit(density: AdaptedModel) -> Network:
    """The density's network with its weights as they are now; what a function captured are weights."""
    network = density.fn.network
    if network.weights is not None:
        return network._replace(weights=network.read())
    traced = trace(lambda *args: network.call(None, *args), *arguments(density))
    call = lambda captured, *args: Traced(tuple(captured), traced.program)(*args)
    return Network(call, list(traced.captured), "captured")


def _written(density: AdaptedModel, network: Network, timesteps, dtype) -> tuple[dict, dict]:
    """Arrays and config of a density, but for what its network predicts."""
    arrays = contents.stored_weights(network.weights, dtype)
    mean, variance, axes = density.moments
    arrays |= {"mean": np.asarray(mean), "variance": np.asarray(variance)}
    if isinstance(axes, DenseAxes):
        arrays["vectors"] = np.asarray(axes.vectors)
    if density.null is not None:
        arrays["null"] = np.asarray(density.null)
    if not isinstance(timesteps, str):
        arrays["timesteps"] = timesteps
    condition = density.condition
    config = {
        "kind": "density",
        "class": AdaptedModel.__name__,
        "event_shape": density.event_shape,
        "prediction": density.prediction,
        "schedule": contents.schedule_fields(density.schedule),
        "origin": contents.schedule_fields(density.origin),
        "timesteps": timesteps if isinstance(timesteps, str) else None,
        "batched": density.fn.batched,
        "condition": None if condition is None else {"shape": condition.shape, "dtype": condition.dtype.name},
        "network": network.kind,
        "structure": structure_of(network.weights),
        "name": density.name,
    }
    return arrays, config


def _density(arrays, config, network: Network) -> AdaptedModel:
    """The density of arrays and a config, of a network whose weights are replaced by those among the arrays."""
    contents.check_texts(config["name"], config.get("card", {}))
    arrays = contents.floating(arrays)
    kind = check_choice("the network", config["network"], KINDS)
    event_shape = contents.event_shape_of(config["event_shape"])
    schedule, origin = (contents.schedule_of(config[key]) for key in ("schedule", "origin"))
    prediction = check_choice("the prediction", config["prediction"], PREDICTIONS)
    timesteps = checked_timesteps(arrays.get("timesteps", config["timesteps"]), origin)
    rest = (
        prediction, origin, timesteps, check_flag("batched", config["batched"]),
        _condition_in(arrays, config["condition"]), _moments_in(arrays, event_shape), event_shape, config["name"],
    )  # fmt: skip
    if network.weights is None:
        network = _explicit(adapted(network, *rest))
    if network.kind != kind:
        raise ParameterError(
            f"it holds weights of a {kind} network; network= is a {network.kind} one. Give the one that it was saved "
            "with, or save that one"
        )
    weights = {name: array for name, array in arrays.items() if name not in _OTHERS}
    expected = jax.tree.map(jnp.asarray, network.read())
    check_fit(weights, contents.named_leaves(expected))
    density = adapted(network._replace(weights=contents.restored(expected, weights)), *rest)
    check_network(density)
    return density.with_schedule(schedule)


def _condition_in(arrays, layout):
    """The condition that stands for none, its shape and dtype where there is none, or None."""
    if layout is None:
        return None
    shape = contents.event_shape_of(layout["shape"])
    dtype = checkpoint.DTYPES_BY_NAME[check_choice("the condition's dtype", layout["dtype"], checkpoint.DTYPES_BY_NAME)]
    if "null" not in arrays:
        return jax.ShapeDtypeStruct(shape, dtype)
    if arrays["null"].shape != shape or arrays["null"].dtype != dtype:
        raise ParameterError(f"null is {arrays['null'].dtype}{arrays['null'].shape}, expected {dtype}{shape}")
    return jnp.asarray(arrays["null"])


def _moments_in(arrays, event_shape) -> Gaussian:
    size = int(np.prod(event_shape))
    contents.check_range("mean", arrays["mean"], (size,), contents.RANGES["mean"])
    contents.check_range("variance", arrays["variance"], (size,), contents.RANGES["eigenvalues"])
    if "vectors" not in arrays:
        axes = CosineAxes(event_shape)  # pyright: ignore[reportArgumentType]
    else:
        contents.check_range("vectors", arrays["vectors"], (size, size), (-1.001, 1.001))
        contents.check_orthonormal("vectors", arrays["vectors"])
        axes = DenseAxes(jnp.asarray(arrays["vectors"], dtype=float))
    return Gaussian(jnp.asarray(arrays["mean"], dtype=float), jnp.asarray(arrays["variance"], dtype=float), axes)


def _check_probe(density: AdaptedModel, y, r, noise) -> None:
    """Raise CheckpointError unless the network predicts what it did when it was saved."""
    found = np.asarray(predicted(density, jnp.asarray(y), jnp.asarray(r)))
    if found.shape != noise.shape:
        raise ParameterError(f"probe.noise has shape {noise.shape}, expected {found.shape}")
    axes = tuple(range(1, found.ndim))
    error, size = (np.sqrt(np.mean(a**2, axis=axes)) for a in (found - noise, noise))
    if not np.all(error <= TOLERANCE * np.maximum(size, 1e-6 * size.max())):
        worst = int(np.argmax(error / np.maximum(size, 1e-30)))
        raise ParameterError(
            f"the network predicts something else than when it was saved: noise of size {size[worst]:.2g} at "
            f"noise-to-signal ratio {float(r[worst]):.3g} differs by {error[worst]:.2g}"
        )
