r"""What speaks against training on data as they are: what no number of steps mends, said before these are taken.

Most of it is of vectors: pictures have thousands of coordinates, many of which hardly vary, and networks of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..density.base import Base
from ..density.regression import RegressionBase

#: Rows looked at, spread over all: data may be sorted.
LOOKED_AT = 4096
#: Different rows that are too few for a network by itself: held-out points of 30 in the plane lay 3 to 170 nats off.
FEWEST_ROWS = 100
#: Standard deviation by the quartiles over that by squares, below which a few rows decide what "one" is.
LEAST_CORE = 0.2
#: Different values over all, above which a column is none of a few.
MOST_VALUES = 1 / 3


def doubts(x, covariance, sigma_min: float, base: Base | None, *, decays: bool) -> list[str]:
    """Sentences with remedies about data x [n, *event_shape] with a covariance [d, d], and the least noise.

    `decays`: whether training draws the network towards its base, which few rows ask for.
    """
    index = np.linspace(0, len(x) - 1, min(len(x), LOOKED_AT)).astype(int)
    rows = np.asarray(x)[index].astype(np.float64).reshape(len(index), -1)
    found = [*_narrow(covariance, len(x), sigma_min), *_far_out(rows, covariance), *_stepped(rows, sigma_min)]
    found += [] if found or not isinstance(base, RegressionBase) else _determined(base, sigma_min)
    return found if decays else [*found, *_few(rows, base)]


def doubts_of_images(shape: tuple[int, ...]) -> list[str]:
    """The same about images of a shape."""
    if len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] > 4:
        return [
            f"images of shape {shape} are {shape[0]} pixels high with {shape[2]} channels: channels come last. If "
            "these came first, move them: np.moveaxis(data, 1, -1)."
        ]
    return []


def _narrow(covariance, count: int, sigma_min: float) -> Iterator[str]:
    r"""At the least noise the density of data of deviation s is :math:`\log\sqrt{1 + \sigma_{min}^2 / s^2}` too low."""
    std = np.sqrt(np.diag(covariance))
    there = (
        f"narrower than sigma_min = {sigma_min:.3g}, the least noise that is learnt: there the density is wider than "
        "the data."
    )
    if len(narrow := np.flatnonzero(std < sigma_min)):
        constant = "some constant, " if np.any(std[narrow] == 0) else ""
        yield (
            f"{len(narrow)} of {len(std)} coordinates ({_listed(narrow)}; {constant}standard deviations from "
            f"{std.min():.3g}) are {there} Scale coordinates to about one spread, as by data / data.std(0), leave "
            "constant ones out, or give a smaller sigma_min."
        )
    elif count > len(std):
        variances, axes = np.linalg.eigh(covariance)
        if number := int(np.sum(variances < sigma_min**2)):
            deviation, along = np.sqrt(max(variances[0], 0.0)), np.argsort(-np.abs(axes[:, 0]), kind="stable")[:2]
            yield (
                f"{number} of {len(std)} directions (one mainly of coordinates {_listed(np.sort(along))}; standard "
                f"deviations from {deviation:.3g}) are {there} Where coordinates are functions of others leave them "
                "out; else whiten the data, or give a smaller sigma_min."
            )


def _far_out(rows, covariance) -> Iterator[str]:
    low, high = np.quantile(rows, (0.25, 0.75), axis=0)
    core, std = (high - low) / 1.349, np.sqrt(np.diag(covariance))
    share = np.where(core > 0, core / np.where(std > 0, std, 1.0), np.inf)
    if len(far := np.flatnonzero(share < LEAST_CORE)):
        i = int(np.argmin(share))
        yield (
            f"coordinates {_listed(far)} have heavy tails or rows far out: of coordinate {i} the standard deviation "
            f"is {std[i]:.3g}, by its quartiles {core[i]:.3g}. The network works in units of the former, in which most "
            "of the data are a spike. Leave such rows out, or transform the coordinate, as by np.arcsinh(x / "
            f"{core[i]:.2g})."
        )


def _stepped(rows, sigma_min: float) -> Iterator[str]:
    values = [np.unique(column) for column in rows.T]
    # Rows that repeat are another matter, as are values that lie as close as the least noise.
    stepped = [
        i for i, v in enumerate(values) if 1 < len(v) <= MOST_VALUES * len(rows) and np.min(np.diff(v)) > 2 * sigma_min
    ]
    if stepped:
        i = stepped[0]
        yield (
            f"coordinates {_listed(np.array(stepped))} take few values, coordinate {i} {len(values[i])} of them: a "
            "density of these is spikes as high as sigma_min lets them be. To counts and rounded numbers add uniform "
            "noise of one step, x + step * (rng.uniform(size=x.shape) - 0.5); of categories make conditions=."
        )


def _determined(base: RegressionBase, sigma_min: float) -> Iterator[str]:
    if (least := float(np.sqrt(np.min(base.variance)))) < sigma_min:
        yield (
            f"the condition determines a direction of the data to {least:.3g}, which is narrower than sigma_min = "
            f"{sigma_min:.3g}, the least noise that is learnt: there the density is wider than the data. Leave out "
            "what is a function of the condition, or give a smaller sigma_min."
        )


def _few(rows, base: Base | None) -> Iterator[str]:
    count = len(np.unique(rows, axis=0))
    if count < FEWEST_ROWS:
        begin = "Begin from a mixture and hold the network near it: base=nd.MixtureBase.fit(x), "
        yield (
            f"{count} different rows are few: a network by itself learns them by heart, and is nats too low at others. "
            f"{begin if base is None else 'Hold the network near what it stands on: '}"
            "training=nd.TrainingConfig(weight_decay=1.0)."
        )


def _listed(numbers) -> str:
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
