r"""`check_model`: whether a model predicts the noise in data, level by level, and what it does wrong where it does not.

At noise-to-signal ratio r a point of the data becomes :math:`y = x_0 + r \varepsilon`, and a density says of its noise
:math:`\hat\varepsilon = -r \nabla_y \log p(y, r)`. The mean error :math:`E|\hat\varepsilon - \varepsilon|^2 / d` is at
least that of the posterior mean; `best_possible` brackets it by what the data alone say. An integral of the excess,
:math:`d \int (E - B) \, d \log r`, is the Kullback-Leibler divergence of the reverse diffusion from the data, in nats.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.numbers import real_array
from ..checks.room import make_room
from ..checks.text import shown
from ..density.abstract import check_density
from ..density.density import Density, Expression
from ..diagnose.curl import mean_curl
from ..errors import (
    ArgumentTypeError,
    ParameterError,
    ScheduleError,
    ShapeError,
    check_integer,
    check_key,
    check_untraced,
)  # fmt: skip
from .answers import Answers, scores
from .best_possible import BestPossible
from .conventions import LEVELS, other_conventions
from .noised import Noised, by_pair, noised, spread
from .report import ModelReport

#: Numbers noised per level where nothing else is said, and points at least and at most; those for other conventions.
NUMBERS, FEWEST, MOST = 4096, 32, 512
NUMBERS_TRIED, FEWEST_TRIED = 2048, 16
#: Numbers of the data that stand for their distribution, and points at least and at most.
NUMBERS_KNOWN, FEWEST_KNOWN, MOST_KNOWN = 2**22, 500, 4000
#: Points for curl per level.
MOST_CURL = 32
#: Points of data needed.
FEWEST_DATA = 16
#: Levels where nothing else is said, and their range in standard deviations of the data.
NUM_LEVELS, RANGE = 12, (0.02, 20.0)
#: At a trusted level excess, curl and drift are no larger than this, or not by so many standard errors.
EXCESS, CURL, DRIFT, SURE = 0.2, 0.1, 0.1, 4.0
#: The excess of a model that predicts nothing.
NOTHING = 1.0
#: The least that counts as predictable, or as not: rounded timesteps cost 0.003 of noise that is known for certain.
AT_STAKE = 0.02
#: Noise in standard deviations of the data that annealing should begin with.
DROWNED = 4.0


def check_model(
    density: Density, data: Any, *, rng_key: Any = None, num_points: int | None = None, levels: Any = None
) -> ModelReport:
    """Whether a density's score predicts the noise in noised data, and which convention is wrong where it does not.

    Of networks from elsewhere (`nd.from_noise_prediction` and its siblings) other conventions are tried as well: what
    the output stands for, its sign and scale, what the network is told of the noise, reversed, shifted, counted
    otherwise, the units of the data, the scale of the input. The report names those that would lower the error by far.

    Args:
        density: A density with a score: from elsewhere, trained here, closed form, or of your own; `.given(condition)`
            for a conditional one, with data of that condition.
        data: Points [n, *event_shape] of the distribution that the model is meant for, at least 16. Some that it was
            not trained on: a network that has memorised its data predicts their noise too well. Four
            thousand of them, fewer of large ones, stand for the distribution.
        rng_key: Key of the points and of their noise; a fixed one by default.
        num_points: Noised points at each level; by default such that these hold about 4,000 numbers, 32 to 512 points.
        levels: Times t in (0, 1], or how many; by default twelve, geometric in the noise-to-signal ratio between 0.02
            and 20 standard deviations of the data.

    Returns:
        A `ModelReport`: print it; `findings` are sentences with remedies, `trusted` the range of noise-to-signal ratios
        at which nothing speaks against the model. Small shifts of timesteps and scales that hardly raise the error are
        not found, nor is what several wrong conventions together hide.

    Raises:
        ShapeError: if the data have another shape.
        ParameterError: for too few points, NaN, data that do not vary, or a product, which is no model of data.
        ScheduleError: for levels out of range, or data of a scale that the model's noise does not reach.

    Cost: `num_points` scores per level and a third as many for the curl; for each of about 30 other conventions 6 x 16
    to 6 x 512 calls of the network, and where none of those is right, for about a hundred more. Seconds in the plane.
    """
    check_untraced("nd.check_model", density, data)
    make_room()
    _check_density(density)
    points = _checked_data(data, density.event_shape)
    seed = jax.random.key(0) if rng_key is None else check_key(rng_key)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(seed)).ravel())
    size = points.shape[1]
    known = min(max(NUMBERS_KNOWN // size, FEWEST_KNOWN), MOST_KNOWN)
    points = points[rng.permutation(len(points))[:known]]
    count = min(max(NUMBERS // size, FEWEST), MOST)
    count = count if num_points is None else check_integer("num_points", num_points, 2, remedy="128 are many.")
    times = _times(density, spread(points), levels)
    held = np.arange(min(count // 2, len(points) // 2))
    best = BestPossible(points, held)
    draws = noised(rng, points, held, count, len(times))
    answers = Answers(density)
    found = _statistics(answers.density, best, draws, times, jax.random.fold_in(seed, 1))
    draws = noised(rng, points, held, min(max(NUMBERS_TRIED // size, FEWEST_TRIED), count), len(LEVELS))
    other = other_conventions(answers, draws, best)
    findings = [] if other is None else [other]
    findings += _findings(density, found, draws.scale, is_explained=other is not None)
    return ModelReport(
        name=repr(density), levels=times, is_trusted=_trusted(found) & (other is None), findings=findings,
        num_points=count - count % 2, **found._asdict(),
    )  # fmt: skip


class _Statistics(NamedTuple):
    """By level; see `ModelReport`."""

    ratios: np.ndarray
    error: np.ndarray
    reference: np.ndarray
    floor: np.ndarray
    excess: np.ndarray
    excess_error: np.ndarray
    curl: np.ndarray
    drift: np.ndarray
    drift_error: np.ndarray


def _check_density(density) -> None:
    check_density("nd.check_model", density)
    if isinstance(density, Expression) and any(node.formula.kind == "product" for node in density.nodes):
        raise ParameterError(
            f"check_model compares a model with noised data, and a product at time t is no noised product; got "
            f"{shown(repr(density))}. Check its factors, each with data of its own."
        )


def _checked_data(data, event_shape: tuple[int, ...]) -> np.ndarray:
    """Data as points [n, d] in double precision."""
    try:
        array = real_array(data)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(
            f"data must be an array of real numbers [n, *{event_shape}]; got {shown(data)}. Draw from a sampler first."
        ) from error
    if array.shape[1:] != event_shape or array.ndim == 0:
        moved = array.ndim == 4 and (array.shape[2], array.shape[3], array.shape[1]) == event_shape
        remedy = " Move the channels last: np.moveaxis(data, 1, -1)." if moved else ""
        raise ShapeError(f"data must have shape [n, *{event_shape}]; got {array.shape}.{remedy}")
    if len(array) < FEWEST_DATA:
        raise ParameterError(
            f"check_model needs at least {FEWEST_DATA} points; got {len(array)}. A few hundred tell more."
        )
    if wrong := int(np.sum(~np.isfinite(array))):
        raise ParameterError(f"data must be finite; got {wrong} NaN or infinite values. Leave those points out.")
    array = array.reshape(len(array), -1)
    if not np.any(array.std(axis=0) > 1e-9 * max(np.abs(array).max(), 1e-300)):
        raise ParameterError(f"data must vary; got {len(array)} times the same point. Give a sample of the data.")
    return array


def _times(density: Density, scale: float, levels) -> np.ndarray:
    """Decreasing times; those given, or such that the ratios are geometric."""
    low, high = density.schedule.noise_range
    least = max(low, density.resolution)
    is_number = isinstance(levels, int | np.integer) and not isinstance(levels, bool)
    if levels is not None and not is_number:
        try:
            times = np.unique(real_array(levels))[::-1]
        except (TypeError, ValueError) as error:
            raise ScheduleError(f"levels must be times in (0, 1], or how many; got {shown(levels)}.") from error
        if not len(times) or not np.all((times >= 0) & (times <= 1)) or not np.all(density.schedule.ratios(times) > 0):
            raise ScheduleError(
                f"levels must be times in (0, 1] at which there is noise; got {shown(levels)}. Without noise there is "
                "nothing to predict."
            )
        return times
    count = NUM_LEVELS if levels is None else check_integer("levels", levels, 2)
    bottom, top = max(least, RANGE[0] * scale), min(high, RANGE[1] * scale)
    if not bottom < top:
        raise ScheduleError(
            f"data have standard deviation {scale:.3g}, but {density!r} knows noise-to-signal ratios from {least:.3g} "
            f"to {high:.3g}. Bring the data to the units that it was trained in."
        )
    with jax.ensure_compile_time_eval():
        return np.asarray(density.schedule.time(jnp.geomspace(top, bottom, count)), dtype=np.float64)


def _statistics(density: Density, best: BestPossible, draws: Noised, times: np.ndarray, rng_key) -> _Statistics:
    # Of data with a constant sum it is none: no less than a tenth of what independent coordinates have.
    brightness = max(float(np.std(best.data.mean(axis=1))), 0.1 * draws.scale / best.data.shape[1] ** 0.5)
    unknown = 1 / np.sqrt(best.num_others)  # of the data's own mean
    rows, schedule = [], density.schedule
    ratios = schedule.ratios(times)
    alphas = np.asarray(schedule.alpha(jnp.asarray(times, dtype=float)), dtype=np.float64)
    x = alphas[:, None, None] * (draws.points + ratios[:, None, None] * draws.noise)
    x = x.reshape(*x.shape[:2], *density.event_shape)
    score = scores(density, x.reshape(-1, *density.event_shape), np.repeat(times, x.shape[1]))
    predicted = -(alphas * ratios)[:, None, None] * score.reshape(draws.noise.shape)
    for i, (ratio, noise, found) in enumerate(zip(ratios, draws.noise, predicted, strict=True)):
        y = draws.points + ratio * noise
        reference = best.at(y, draws.rows, noise, ratio)
        known = float(np.mean((reference.noise - noise) ** 2))
        errors = np.mean((found - noise) ** 2, axis=1)
        gaps = errors - np.mean((reference.noise - noise) ** 2, axis=1)
        at_stake = max(min(known, 1 - known), AT_STAKE)
        # Of the Gaussian the denoised mean is right, and at large noise it goes where any model's must.
        drift, drift_error = _mean(np.mean(y - ratio * found - best.gaussian(y, ratio), axis=1) / brightness)
        row = [errors.mean(), known, reference.floor, *_mean(gaps / at_stake), drift, np.hypot(drift_error, unknown)]
        rows.append(row + [_curl(density, x[i], times[i], jax.random.fold_in(rng_key, i))])
    error, known, floor, excess, excess_error, drift, drift_error, curl = np.array(rows).T
    return _Statistics(ratios, error, known, floor, excess, excess_error, curl, drift, drift_error)


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean of values [N] that come in pairs, and its standard error: of one pair, infinite."""
    pairs = by_pair(values[None])[0]
    return float(pairs.mean()), float(pairs.std(ddof=1) / np.sqrt(len(pairs))) if len(pairs) > 1 else np.inf


def _curl(density: Density, x: np.ndarray, t: float, rng_key) -> float:
    if density.has_log_density:
        return 0.0
    count = min(MOST_CURL, max(NUMBERS // x[0].size, 4), len(x))
    return mean_curl(density, x[:count], float(t), rng_key)


def _too_bad(found: _Statistics) -> np.ndarray:
    """Levels [L] whose excess is too large, beyond doubt."""
    return found.excess - SURE * found.excess_error > EXCESS


def _is_open(found: _Statistics) -> np.ndarray:
    """Levels [L] at which the model may be as wrong as one that predicts nothing, but so few points do not tell."""
    return (found.excess > NOTHING) & ~_too_bad(found)


def _drifts(found: _Statistics) -> np.ndarray:
    return np.abs(found.drift) - SURE * found.drift_error > DRIFT


def _trusted(found: _Statistics) -> np.ndarray:
    return np.isfinite(found.error) & ~_too_bad(found) & ~_is_open(found) & ~_drifts(found) & ~(found.curl > CURL)


def _findings(density: Density, found: _Statistics, scale: float, *, is_explained: bool) -> list[str]:
    finite, high = np.isfinite(found.error), density.schedule.noise_range[1]
    sentences = []
    if not finite.all():
        sentences.append(
            f"scores are NaN or infinite at noise-to-signal ratios {_span(found.ratios[~finite])}. Check the weights "
            "and what the network is told there (timesteps=), or sample at levels of less noise."
        )
    bad = _too_bad(found)
    if bad.any() and not is_explained:
        worst = int(np.nanargmax(np.where(bad, found.excess, -np.inf)))
        sentences.append(
            f"the predicted noise is worse than what the data alone say of it at noise-to-signal ratios "
            f"{_span(found.ratios[bad])}: at {found.ratios[worst]:.3g} its error is {found.error[worst]:.3g}, where "
            f"{found.reference[worst]:.3g} or less is possible. No other convention explains it: check that these data "
            "are what it was trained on, in the same units; else train longer."
        )
    unknown = _is_open(found)
    if unknown.any() and not is_explained:
        worst = int(np.argmax(np.where(unknown, found.excess, -np.inf)))
        sentences.append(
            f"too few points to judge noise-to-signal ratios {_span(found.ratios[unknown])}: the excess at "
            f"{found.ratios[worst]:.3g} is {found.excess[worst]:.3g} +- {found.excess_error[worst]:.2g}. "
            "Raise num_points, or check that these data are what it was trained on."
        )
    drifts = _drifts(found)
    if drifts.any() and not is_explained:
        worst = int(np.nanargmax(np.where(drifts, np.abs(found.drift), -np.inf)))
        sentences.append(
            f"the mean brightness drifts at noise-to-signal ratios {_span(found.ratios[drifts])}: at "
            f"{found.ratios[worst]:.3g} denoised points are off by {found.drift[worst]:.2g} standard deviations of "
            "the data's. Begin at a level of less noise, or give data of the mean that it was trained on."
        )
    if (curled := found.curl > CURL).any():
        sentences.append(
            f"the score is not a gradient at noise-to-signal ratios {_span(found.ratios[curled])}: its relative curl "
            f"is up to {np.nanmax(found.curl):.2g}. Metropolis steps along its line integrals are then biased; train "
            "longer, or make an energy of it."
        )
    if high < DROWNED * scale:
        sentences.append(
            f"the most noise that the model knows, a noise-to-signal ratio of {high:.3g}, does not drown data of "
            f"standard deviation {scale:.3g}: annealing would begin at the wrong place. Scale the data down to the "
            "units that the model was trained in."
        )
    return sentences


def _span(ratios: np.ndarray) -> str:
    low, high = ratios.min(), ratios.max()
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
