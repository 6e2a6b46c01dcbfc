r"""Tapestries: a density of a canvas by densities of its windows (after Du et al. 2023, Section 5 and Figure 7).

Window w shows :math:`A_w x`, h x w pixels of the canvas or means over k x k of k h x k w (`density.views`), and

.. math:: \log \pi(x, t) = \sum_w a_w \log p_w(A_w x, t \mid c_w), \qquad
          a_w = b_w \, \frac{1}{|w|} \sum_{i \in w} \frac{1}{n_i}

with weights b_w and :math:`n_i` the number of windows of that scale which show pixel i. Where those of one scale cover
the canvas and have weight one, the exponents of what overlaps at a pixel sum to one on average over all pixels, and at
every pixel where windows tile the canvas or lie on each other. The published tapestries taper averages of noise vectors
pixel by pixel instead, of which there is no density: a window has one log density, and so one exponent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..checks.fields import check_flag, check_instance, check_integers
from ..checks.numbers import exponent, positive
from ..checks.text import shown
from ..density.algebra import combine
from ..density.density import Density
from ..density.operands import check_densities
from ..density.proper import check_proper
from ..density.views import crop, pool
from ..errors import ArgumentTypeError, ShapeError, check_integer


def tapestry(
    canvas_shape: tuple[int, ...], windows: Sequence[tuple], *, taper: bool = True, wrap: bool = False
) -> Density:
    r"""Density :math:`\prod_w p_w(A_w x | c_w)^{a_w}` (unnormalised) of a canvas x, see the module for the exponents.

    A density like any other, whose windows of one network are evaluated in one call::

        nd.tapestry((32, 32, 3), [
            (cubes, (0, 0), 1, [0.5, 0.5]), (cubes, (0, 16), 1, [0.3, 0.7]),
            (cubes, (16, 0)), (cubes, (16, 16)), (cubes, (0, 0), 2, [0.5, 0.5], 0.25),
        ])

    Args:
        canvas_shape: Shape of x, of as many axes as the densities' points have, and of as many channels.
        windows: Tuples (density, place, scale, caption, weight), of which the last three may be left out: the place of
            the window's first pixel (row, column); k >= 1, means over k x k pixels are shown, 1 by default; a condition
            for `density.given`, none by default; b > 0, 1 by default.
        taper: Whether weights are shared among windows that overlap; else :math:`a_w = b_w`.
        wrap: Whether windows that reach over a side of the canvas go on at the other, so that as many overlap at its
            sides as elsewhere.

    Raises:
        ArgumentTypeError: for what is no window, or a caption for a density that takes none.
        ShapeError: for densities of points of other axes or channels, and windows that reach outside the canvas.
        ScheduleError: for densities under several schedules.
        ParameterError: for scales and weights out of range, and pixels that no window of scale 1 shows.
    """
    canvas_shape = check_integers("canvas_shape", canvas_shape)
    check_flag("taper", taper)
    check_instance("windows", windows, list, tuple, remedy="Give a list of (density, place, scale, caption, weight).")
    read = [_window(window, canvas_shape, wrap) for window in windows]
    check_densities("a tapestry", [density for density, *_ in read])
    shares = _shares(read, canvas_shape) if taper else np.ones(len(read))
    terms = [(d, exponent(weight * share)) for (d, _, _, weight), share in zip(read, shares, strict=True)]
    woven = combine("product", terms)
    check_proper(woven)
    return woven


def _window(window: Any, canvas_shape: tuple[int, ...], wrap: bool) -> tuple[Density, tuple, int, Any]:
    """(density of the canvas, the index of the pixels that it shows, scale, weight)."""
    if not isinstance(window, tuple | list) or not 2 <= len(window) <= 5 or not isinstance(window[0], Density):
        raise ArgumentTypeError(
            f"a window must be a tuple (density, place, scale, caption, weight); got {shown(window)}. The last three "
            "may be left out."
        )
    density, place, *rest = window
    scale, caption, weight = (*rest, *(1, None, 1.0)[len(rest) :])
    shape = density.event_shape
    if len(shape) != len(canvas_shape) or shape[2:] != canvas_shape[2:]:
        raise ShapeError(
            f"a window must have the axes and channels of the canvas, {canvas_shape}; {density!r} has points of shape "
            f"{shape}."
        )
    scale = check_integer("the scale of a window", scale, remedy="It averages over so many pixels each way.")
    place = (place,) if isinstance(place, int | np.integer) else place
    spatial = min(len(shape), 2)
    place = check_integers("the place of a window", place, 0, axes="row, column" if spatial == 2 else "place")
    if caption is not None:
        if not hasattr(density, "given"):
            raise ArgumentTypeError(
                f"{density!r} takes no captions; got {shown(caption)}. Train with nd.fit(..., conditions=...), or give "
                "None."
            )
        density = density.given(caption)  # pyright: ignore[reportAttributeAccessIssue]
    weight = positive("the weight of a window", weight, "Leave out what has none.")
    size = tuple(scale * n for n in shape[:spatial])
    covered = (*size, *shape[spatial:])
    ends = [n if wrap else start + n for start, n in zip(place, size, strict=True)]
    if any(end > most or start >= most for start, end, most in zip(place, ends, canvas_shape, strict=False)):
        raise ShapeError(
            f"a window of {size} pixels at {place} (scale {scale} of {density!r}) reaches outside the canvas of "
            f"{canvas_shape[:spatial]}. Place it further up or left, or lower its scale."
        )
    seen = density if scale == 1 else density.seen(pool(scale), covered)
    pixels = np.ix_(*((start + np.arange(n)) % most for start, n, most in zip(place, size, canvas_shape, strict=False)))
    return seen.seen(crop(*place, wrap=wrap), canvas_shape), pixels, scale, weight


def _shares(windows, canvas_shape: tuple[int, ...]) -> np.ndarray:
    """Means over the pixels of every window of 1 / n."""
    counts: dict[int, np.ndarray] = {}
    for _, pixels, scale, _ in windows:
        counts.setdefault(scale, np.zeros(canvas_shape[: len(pixels)]))[pixels] += 1
    return np.array([np.mean(1 / counts[scale][pixels]) for _, pixels, scale, _ in windows])
