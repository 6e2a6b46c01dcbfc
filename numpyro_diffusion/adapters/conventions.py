r"""Which conventions a network follows, if they are not those that were said.

A network that is asked in the wrong way predicts noise badly, and another way of asking, or of reading what it answers,
does better. Both are tried on the same noised data: `questions` are the ways to ask, and every answer is read in all
the ways of `readings`. Of a way w at levels l, in standard deviations of the data so that levels mean the same in all
units,

.. math:: S_w = \frac1L \sum_l \frac{E_{wl} - B_l}{\min(B_l, 1 - B_l)}

is its excess: E is its error, B the least that was found, by any way or by the reference of `best_possible`. At little
noise hardly any of it can be predicted, 1 - B, and at much noise hardly any cannot, B; the excess is measured against
what there is to get wrong. Another way is named if its excess is far less than that of the one that was said.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from . import questions
from .answers import Answers
from .best_possible import BestPossible
from .noised import Noised, by_pair
from .questions import Question, level_of, signal_scales
from .readings import Products, Reading

#: Levels at which ways are compared, in standard deviations of the data: where most can be told of them.
LEVELS = np.geomspace(0.1, 10.0, 7)
#: Levels that two ways must have in common.
FEWEST_LEVELS = 3
#: The least that can be predicted, and that cannot, which excesses are measured against; the most that counts of one.
PREDICTABLE, UNPREDICTABLE, MOST_EXCESS = 0.05, 1e-3, 2.0
#: A way is named if it gains so much, in errors of the mean too, ends below so much, and below a share of what was.
GAIN, SURE, MOST, SHARE = 0.01, 5.0, 0.5, 0.5
#: What an output that is rescaled must gain, over zeros in its place: data near a Gaussian need no output.
EARNED = 0.1
#: Excess that a convention leaves and still explains all.
EXPLAINED = 0.15
#: More conventions than these are not all wrong at once: what they lower is chance.
MOST_CHANGES = 3
#: Ways whose excess is larger by no more than this are as good: the one with the fewest changes is named.
AS_GOOD = 0.02

ADAPTERS = {
    "noise": "nd.from_noise_prediction", "denoiser": "nd.from_denoiser", "velocity": "nd.from_velocity",
    "flow": "nd.from_flow", "score": "nd.from_score", "residual": "nd.from_noise_prediction",
}  # fmt: skip
NAMES = {
    "noise": "noise (epsilon)", "denoiser": "data (x_0)", "velocity": "velocity (v-prediction)",
    "flow": "flow (eps - x_0)", "score": "a score", "residual": "noise times sigma",
}  # fmt: skip


class Way(NamedTuple):
    """A question and a reading, and its errors by level and pair [L, N / 2]; NaN at levels it cannot be asked at.

    `mute` are the errors that the reading has of an output of zeros.
    """

    question: Question
    reading: Reading
    errors: np.ndarray
    mute: np.ndarray

    def changes(self, prediction: str) -> int:
        """Number of conventions that differ from what was said."""
        other = (self.reading.kind != prediction) + (self.reading.factor < 0) + (abs(self.reading.factor) != 1)
        return self.question.changes + other


def other_conventions(answers: Answers, draws: Noised, best: BestPossible) -> str | None:
    """What to change for the network to predict far better than as it was said, in a sentence; None if nothing does."""
    ratios = on_steps(answers, LEVELS * draws.scale)
    there, products = _products(answers, draws, ratios, Question())
    # Only where the network can be asked as it was said, and answers in numbers.
    there = there[products.are_numbers] if products else there
    if len(there) < FEWEST_LEVELS:
        return None
    draws, ratios = draws._replace(noise=draws.noise[there]), ratios[there]
    reference = np.array([_reference(best, draws, *level) for level in zip(draws.noise, ratios, strict=True)])
    ways = list(_ways(answers, draws, ratios, questions.singles(answers, best.data)))
    as_said = ways[0]
    if _named(ways, as_said, reference, answers.prediction) is None and not _is_wrong(as_said, reference):
        return None
    ways += _ways(answers, draws, ratios, questions.pairs(answers, best.data))
    way = _named(ways, as_said, reference, answers.prediction)
    return None if way is None else _sentence(way, as_said, answers, reference)


def _reference(best: BestPossible, draws: Noised, noise: np.ndarray, ratio: float) -> float:
    found = best.at(draws.points + ratio * noise, draws.rows, noise, ratio)
    return float(np.mean((found.noise - noise) ** 2))


def on_steps(answers: Answers, ratios: np.ndarray) -> np.ndarray:
    """Ratios [L] at steps of the network's schedule, where that has steps and reaches them."""
    low, high = answers.schedule.noise_range
    if not answers.steps:
        return ratios
    last = answers.steps - 1
    nearest = answers.schedule.ratios(np.round(level_of(answers, ratios).t * last) / last)
    return np.where((ratios > low) & (ratios < high), nearest, ratios)


def _ways(answers: Answers, draws: Noised, ratios: np.ndarray, asked: Iterable[Question]) -> Iterable[Way]:
    for question in asked:
        there, products = _products(answers, draws, ratios, question)
        if products is None:
            continue
        # As it was said comes first.
        for reading in sorted(products.readings(), key=lambda r: r != Reading(answers.prediction, 1.0)):
            errors = np.full((2, len(ratios), draws.noise.shape[1] // 2), np.nan)
            for row, factor in zip(errors, (reading.factor, 0.0), strict=True):
                row[there] = by_pair(products.errors(reading._replace(factor=factor)))
            yield Way(question, reading, *errors)


def _products(answers: Answers, draws: Noised, ratios: np.ndarray, question: Question):
    """(Levels at which it can be asked, inner products there or None where these are too few)."""
    units, telling = question.units, question.telling
    low, high = answers.schedule.noise_range
    r = ratios * units.factor
    there = np.flatnonzero((r > 0.99 * low) & (r < 1.01 * high))
    if len(there) < FEWEST_LEVELS:
        return there, None
    r, noise = r[there], draws.noise[there]
    level = level_of(answers, r)
    alpha = signal_scales(r)[question.scaling] if question.scaling else level.alpha
    x = alpha[:, None, None] * (units.factor * draws.points + units.shift + r[:, None, None] * noise)
    shaped = x.reshape(-1, *answers.density.event_shape)
    if telling.number is not None:
        output = answers.told(shaped, np.repeat(telling.number(level), noise.shape[1]))
    else:
        time = level.t if telling.time is None else telling.time(level)
        output = answers.at(shaped, np.repeat(time, noise.shape[1]))
    return there, Products(output.reshape(x.shape), x, noise, alpha, alpha * r)


def _excess(errors: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Excess [..., L] of errors [..., L] over the best ones [L]."""
    return np.clip((errors - best) / _at_stake(best), 0, MOST_EXCESS)


def _at_stake(best: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(best, UNPREDICTABLE), np.maximum(1 - best, PREDICTABLE))


def _is_wrong(as_said: Way, reference: np.ndarray) -> bool:
    """Whether the network as it is asked now is worse than the reference."""
    return float(np.nanmean(_excess(np.mean(as_said.errors, axis=1), reference))) > GAIN


def _named(ways: list[Way], as_said: Way, reference: np.ndarray, prediction: str) -> Way | None:
    """The way that predicts best, with the fewest changes, if it is far better than the one that was said."""
    errors = np.array([np.mean(way.errors, axis=1) for way in ways])
    best = np.minimum(np.nanmin(errors, axis=0), reference)
    excess = _excess(errors, best)
    counted = np.where(np.isnan(excess), np.nan, _excess(np.mean(as_said.errors, axis=1), best))
    totals, said = np.nanmean(excess, axis=1), np.nanmean(counted, axis=1)
    changes = np.array([way.changes(prediction) for way in ways])
    fine = (said - totals > GAIN) & (changes <= MOST_CHANGES) & (totals < SHARE * said)
    fine &= (totals < MOST / np.maximum(changes, 1) ** 2) & (np.sum(~np.isnan(excess), axis=1) >= FEWEST_LEVELS)
    # A convention is wrong at more than one level: what is wrong at one alone is a hole in the network.
    fine &= np.sum(counted - excess > GAIN, axis=1) > 1
    candidates = [
        i
        for i in np.flatnonzero(fine)
        if _gains(ways[i], as_said.errors, best) > 0
        and (abs(ways[i].reading.factor) == 1 or _gains(ways[i], ways[i].mute, best) > EARNED)
    ]
    if not candidates:
        return None
    least = min(totals[i] for i in candidates)
    as_good = [i for i in candidates if totals[i] <= least + AS_GOOD]
    return ways[min(as_good, key=lambda i: (changes[i], totals[i]))]


def _gains(way: Way, errors: np.ndarray, best: np.ndarray) -> float:
    """What a way gains over errors [L, N / 2], at least: the mean less some standard errors."""
    gains = np.nanmean((errors - way.errors) / _at_stake(best)[:, None], axis=0)
    return float(np.mean(gains) - SURE * np.std(gains) / np.sqrt(len(gains)))


def _sentence(way: Way, as_said: Way, answers: Answers, reference: np.ndarray) -> str:
    there = ~np.isnan(way.errors[:, 0])
    before, after = (float(np.mean(w.errors[there])) for w in (as_said, way))
    found, remedies = [], []
    kind, factor = way.reading
    units, scaling, telling = way.question
    if kind != answers.prediction:
        found.append(f"its output looks like {NAMES[kind]}, not {NAMES[answers.prediction]}")
        remedies.append(_reading_remedy(kind, answers))
    if factor < 0:
        found.append("its sign is flipped")
        remedies.append("give the network's output the other sign")
    if abs(factor) != 1:
        found.append(f"its output is {1 / abs(factor):.3g} times as large as it should be")
        remedies.append(f"multiply the output by {abs(factor):.3g}")
    if units.text:
        found.append(f"the data seem to be in other units than the network's, {units.text}")
        remedies.append(f"bring the data to {units.text}, and compose in these units")
    if scaling:
        found.append(f"the network expects its input scaled as {scaling.replace('_', ' ')}")
        remedies.append(f"give the schedule with scaling='{scaling}', as NoiseSchedule.from_log_snr does")
    if telling.changes:
        found.append(telling.words)
        remedies.append(f"give {telling.remedy}" if answers.is_adapted else f"the same for its t ({telling.remedy})")
    what, how = "; ".join(found), "; ".join(remedies)
    left, rest = float(np.nanmean(_excess(np.mean(way.errors, axis=1), reference))), ""
    if left > EXPLAINED:
        rest = (
            f" That does not explain all of it, {np.mean(reference[there]):.2g} or less is possible: something else is "
            "wrong as well, or instead, such as the units of the data."
        )
    return (
        f"{what}: the predicted noise would have the mean squared error {after:.2g} in place of {before:.2g}. "
        f"{how[0].upper()}{how[1:]}.{rest}"
    )


def _reading_remedy(kind: str, answers: Answers) -> str:
    if not answers.is_adapted:
        return f"make the density with {ADAPTERS[kind]}"
    return f"use {ADAPTERS[kind]}" + (", of the output over sigma" if kind == "residual" else "")
