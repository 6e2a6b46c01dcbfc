"""What `fit` trains on: an array or a sampler, checked, and its moments."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.numbers import MASKED, real_array
from ..density.axes import CosineAxes
from ..errors import ParameterError, ShapeError
from ..program import Traced, fingerprint, trace

#: Spread of the data, and distance of their mean from zero in spreads, that float32 can compute with.
SPREADS, MOST_OFFSET = (1e-8, 1e8), 1e4


class Points(NamedTuple):
    """Data of a density: `data` [n, *event_shape] and `conditions` [n, c] or None."""

    data: Any
    conditions: Any = None

    @classmethod
    def of(cls, drawn):
        """What a sampler returns: points, or points and conditions."""
        return cls(*drawn) if isinstance(drawn, tuple) else cls(drawn)


class Rows(NamedTuple):
    """Data in memory, a NamedTuple of arrays of one length or None, drawn from with replacement."""

    arrays: Any

    def draw(self, rng_key, num_samples: int):
        """Rows drawn at random."""
        index = jax.random.randint(rng_key, (num_samples,), 0, len(self.arrays[0]))
        return jax.tree.map(lambda a: a[index], self.arrays)


class Sampled(NamedTuple):
    """A sampler as it computed when training began, for batches of one size; what it has read is data, like arrays."""

    program: Traced

    @classmethod
    def of(cls, sampler, rng_key, num_samples: int, form):
        """Of `sampler(rng_key, num_samples)`, as a `form`."""
        return cls(trace(lambda key: form(sampler(key, num_samples)), rng_key, differentiated=False))

    def draw(self, rng_key, num_samples: int):
        """A batch; `num_samples` is that of the program."""
        return self.program(rng_key)

    def identity(self) -> dict[str, str]:
        """Digests by name."""
        program = self.program
        return {"sampler": fingerprint(program.program), "what the sampler reads": fingerprint(program.captured)}


def digests(arrays: NamedTuple) -> dict[str, str]:
    """Digests of arrays by name."""
    return {name: fingerprint(values) for name, values in arrays._asdict().items()}


def check_data(rng_key, data, conditions, num_moments: int, batch_size: int):
    """(where batches are drawn from, a sample to take moments of, what it depends on as digests by name)."""
    if callable(data):
        if conditions is not None:
            raise ParameterError("a sampler returns its conditions itself: (x, conditions). Drop `conditions`.")
        points = _sample(data, jax.random.fold_in(rng_key, 0x5EED), num_moments)
        _check_points(*points)
        sampled = Sampled.of(data, rng_key, batch_size, Points.of)
        return sampled, points, sampled.identity()
    points = Points(_array("data", data), None if conditions is None else _array("conditions", conditions))
    _check_points(*points)
    return Rows(jax.tree.map(lambda a: jnp.asarray(a, dtype=float), points)), points, digests(points)


def _array(what: str, value) -> np.ndarray:
    """An array, or a data frame, as an array: booleans among conditions are 0 and 1, columns of numbers are numbers."""
    if np.ma.is_masked(value):
        masked = MASKED.format(what, np.ma.count_masked(value))
        raise ParameterError(f"{masked} Leave those points out: {what}[~{what}.mask.any(axis=1)].")
    array = np.asarray(value)
    if array.dtype == bool and what == "conditions":
        return array.astype(np.float32)
    if array.dtype != object:
        return array
    # What frames of nullable types and of several types are.
    try:
        return real_array(array)
    except (TypeError, ValueError) as error:
        if all(isinstance(v, bool | np.bool_) or _are_numbers([v]) for v in array.flat):
            if what == "conditions":
                return array.astype(float)
            raise ShapeError(
                f"{what} must be real numbers; got columns of booleans among others. Make them 0 and 1, frame.astype("
                "float), or better leave them to conditions=."
            ) from error
        columns = list(getattr(value, "columns", range(array.shape[-1]))) if array.ndim == 2 else []
        wrong = [str(name) for name, column in zip(columns, array.T, strict=False) if not _are_numbers(column)]
        where = f" in column {', '.join(wrong[:5])}" if wrong else ""
        raise ShapeError(
            f"{what} must be real numbers; got objects of other kinds{where}. Drop them, code names by numbers, and "
            "leave out rows with missing values."
        ) from error


def _are_numbers(column) -> bool:
    try:
        return real_array(column) is not None
    except (TypeError, ValueError):
        return False


def _sample(sampler, rng_key, count: int) -> Points:
    """Points and conditions as NumPy's; the sampler must draw other ones with another key."""
    first, second = (np.asarray(Points.of(sampler(key, 16)).data) for key in jax.random.split(rng_key))
    if np.array_equal(first, second) and np.ptp(first) > 0:
        raise ParameterError(
            "a sampler must draw with the key it is given; two keys gave the same points. Use jax.random with its "
            "first argument, or pass the points themselves as an array."
        )
    return jax.tree.map(np.asarray, Points.of(sampler(rng_key, count)))


def _check_points(x, condition) -> None:
    if not np.issubdtype(x.dtype, np.floating):
        raise ShapeError(
            f"data must be floating point; got dtype {x.dtype}. Convert and scale it to order "
            "one; counts need uniform noise of one unit."
        )
    if x.ndim < 2 or len(x) < 2 or x.size == 0:
        remedy = " Of numbers: data[:, None]." if x.ndim == 1 else ""
        raise ShapeError(
            f"data must have shape [n, *event_shape], no axis of length 0 and n >= 2; got {x.shape}.{remedy}"
        )
    if condition is not None and condition.dtype.kind not in "iuf":
        raise ShapeError(f"conditions must be numbers; got dtype {condition.dtype}. One-hot encode classes.")
    check_finite(Points(x, condition))
    if condition is not None and (condition.ndim != 2 or len(condition) != len(x)):
        raise ShapeError(
            f"conditions must have shape [{len(x)}, c]; got {condition.shape}. One-hot encode classes "
            "(jax.nn.one_hot); of numbers: conditions[:, None]."
        )
    if condition is not None:
        _check_resolved(condition)
    largest = float(np.max(np.abs(x)))
    if largest > 1e15:
        raise ParameterError(f"data must be of order one; got values up to {largest:.3g}. Standardise them first.")
    flat = x.reshape(len(x), -1).astype(np.float64)
    spread, offset = float(np.sqrt(np.mean(np.var(flat, axis=0)))), float(np.max(np.abs(flat.mean(0))))
    if spread == 0:
        raise ParameterError("data must vary; every point is the same.")
    if not SPREADS[0] <= spread <= SPREADS[1] or offset > MOST_OFFSET * spread:
        raise ParameterError(
            f"data must be of order one; got a spread of {spread:.3g} about means up to {offset:.3g}, which float32 "
            "cannot resolve. Standardise them first: (data - mean) / spread."
        )


def _check_resolved(conditions) -> None:
    """Raise ParameterError where conditions [n, c] differ by less than float32 resolves at their size."""
    values = np.asarray(conditions, dtype=np.float64)
    spread, offset = np.std(values, axis=0), np.abs(values.mean(0))
    if len(close := np.flatnonzero(offset * (spread > 0) > MOST_OFFSET * spread)):
        i = close[0]
        raise ParameterError(
            f"conditions must differ by what float32 resolves; column {i} has a spread of {spread[i]:.3g} about "
            f"{values[:, i].mean():.8g}. Subtract that mean, here and from what .given takes."
        )


def check_finite(arrays: NamedTuple) -> None:
    """Raise ParameterError if there is NaN or infinity in an array; those that are None are left out."""
    for what, values in arrays._asdict().items():
        if values is not None and (bad := int(np.sum(~np.isfinite(values)))):
            raise ParameterError(f"{what} must be finite; got {bad} NaN or infinite values. Remove those rows.")


def check_scale(images, most: float) -> None:
    """Raise ParameterError for images in units in which they reach beyond `most`."""
    if (largest := float(np.max(np.abs(images)))) > most:
        raise ParameterError(
            f"images must be of order one, in [-1, 1] say; got values up to {largest:.3g}. Scale them: x / 127.5 - 1 "
            "takes 0..255 there."
        )


def _image_remedy(x, network) -> str:
    if (*x.shape[1:], 1) == network.shape:
        return "Add the axis of channels: data[..., None]."
    if x.ndim == 4 and (*x.shape[2:], x.shape[1]) == network.shape:
        return "Move the channels last: np.moveaxis(data, 1, -1)."
    return f"Give the network the shape of the data: shape={x.shape[1:]}."


def moments(x, network):
    """Mean [d] and covariance [d, d] of data, or along cosines the variances [d]."""
    flat = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    if not network.takes_images:
        return flat.mean(0), np.atleast_2d(np.cov(flat.T))
    check_scale(flat, 10.0)
    if x.shape[1:] != network.shape:
        raise ShapeError(
            f"the network takes images of shape {network.shape}; the data have {x.shape[1:]}. "
            f"{_image_remedy(x, network)}"
        )
    coordinates = jax.lax.map(CosineAxes(network.shape).coordinates, jnp.asarray(flat - flat.mean(0)), batch_size=256)
    return flat.mean(0), np.var(np.asarray(coordinates, dtype=np.float64), axis=0)
