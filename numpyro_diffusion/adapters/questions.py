"""Ways to ask a network: what it may have been trained to be told of the noise, which units it may expect.

A question changes the units of the data, the scale of the signal, or what is told. Nothing is known of a network but
its answers, so each of these is tried; `conventions` compares what comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..density.schedule import VariancePreserving
from ..density.tabulated import NoiseSchedule, TabulatedSchedule
from .answers import Answers
from .timesteps import told

#: Shifts of time, as shares of its range; in discrete time also by a step or two.
SHIFTS = (0.02, 0.05, 0.1, 0.2)
#: What is told is one and the same up to this share of the largest.
ALIKE = 5e-3


class Units(NamedTuple):
    """The network expects factor * x + shift for the data x: `text` says so."""

    factor: float = 1.0
    shift: float = 0.0
    text: str = ""


class Level(NamedTuple):
    """Noise-to-signal ratios r [L], and the times t and signal scales alpha of the network's schedule."""

    r: np.ndarray
    t: np.ndarray
    alpha: np.ndarray


class Telling(NamedTuple):
    """What the network is told: what it is told at another `time`, or a `number`, both functions of a `Level`."""

    words: str = ""
    remedy: str = ""
    time: Callable[[Level], np.ndarray] | None = None
    number: Callable[[Level], np.ndarray] | None = None
    changes: int = 0


class Question(NamedTuple):
    """One way to ask; `scaling` is one of `density.tabulated.SCALINGS`, or "" for the schedule's own."""

    units: Units = Units()
    scaling: str = ""
    telling: Telling = Telling()

    @property
    def changes(self) -> int:
        """Number of conventions that differ from what was said."""
        return (self.units.text != "") + (self.scaling != "") + self.telling.changes


def singles(answers: Answers, data: np.ndarray) -> Iterator[Question]:
    """The question as the density asks it, and those that differ in one respect."""
    yield Question()
    yield from (Question(units=units) for units in units_of(data))
    if not answers.is_ours:
        yield from (Question(telling=telling) for telling in tellings(answers))
        yield from (Question(scaling=scaling) for scaling in scalings(answers.schedule))


def pairs(answers: Answers, data: np.ndarray) -> Iterator[Question]:
    """Those that differ in two respects."""
    if answers.is_ours:
        return
    for units in units_of(data):
        yield from (Question(units=units, telling=telling) for telling in tellings(answers))
        yield from (Question(units=units, scaling=scaling) for scaling in scalings(answers.schedule))
    for scaling in scalings(answers.schedule):
        yield from (Question(scaling=scaling, telling=telling) for telling in tellings(answers))


def units_of(data: np.ndarray) -> list[Units]:
    """Units that data [n, d] in these may have to be brought to."""
    low, high = np.quantile(data, (0.005, 0.995))
    mean, scale = float(data.mean()), float(np.sqrt(data.var(axis=0).mean()))
    found = []
    if low > -0.25 and high < 1.25:
        found += [Units(2.0, -1.0, "2 * x - 1"), Units(255.0, 0.0, "255 * x")]
    elif low > -50 and 25 < high < 300:
        found += [Units(2 / 255, -1.0, "x / 127.5 - 1"), Units(1 / 255, 0.0, "x / 255")]
    elif low > -1.5 and high < 1.5:
        found += [Units(0.5, 0.5, "(x + 1) / 2"), Units(127.5, 127.5, "127.5 * (x + 1)")]
    if abs(mean) > 0.1 * scale:
        found.append(Units(1.0, -mean, f"x - {mean:.3g}, of mean zero"))
    if abs(scale - 1) > 0.1 or abs(mean) > 0.1 * scale:
        found.append(Units(1 / scale, -mean / scale, f"(x - {mean:.3g}) / {scale:.3g}, of mean zero and variance one"))
    return found


def scalings(schedule) -> list[str]:
    """Scales of the signal that are not the schedule's."""
    one = np.array([1.0])
    own = _numpy(lambda r: schedule.alpha(schedule.time(r)), one)
    return [name for name, alpha in signal_scales(one).items() if abs(alpha - own)[0] > 1e-2]


def signal_scales(r: np.ndarray) -> dict[str, np.ndarray]:
    """alpha by convention, at noise-to-signal ratios r."""
    return {
        "variance_preserving": 1 / np.sqrt(1 + r**2),
        "variance_exploding": np.ones_like(r),
        "linear_flow": 1 / (1 + r),
    }


def level_of(answers: Answers, r: np.ndarray) -> Level:
    """What the network's schedule makes of noise-to-signal ratios [L]."""
    t = _numpy(answers.schedule.time, r)
    return Level(r, t, _numpy(answers.schedule.alpha, t))


def _numpy(fn, *arrays: np.ndarray) -> np.ndarray:
    with jax.ensure_compile_time_eval():
        return np.asarray(fn(*(jnp.asarray(a, dtype=float) for a in arrays)), dtype=np.float64)


def tellings(answers: Answers) -> list[Telling]:
    """What the network may have to be told instead."""
    found = [*_other_times(answers), *_other_schedules(answers)]
    if answers.can_be_told:
        found += _other_numbers(answers)
    return found


def _other_times(answers: Answers) -> Iterator[Telling]:
    """Time reversed or shifted, told in the way it is."""
    steps = answers.steps
    half = float(_numpy(answers.schedule.network_time, np.array([0.5]))[0])
    backward = "1 - t" if abs(half - 0.5) < 1e-6 else "1 - schedule.network_time(t)"
    reverse = f"timesteps=jnp.arange({steps})[::-1]" if steps else f"timesteps=lambda t: {backward}"
    yield Telling("timesteps run the other way", reverse, time=lambda level: 1 - level.t, changes=1)
    shares = [n / (steps - 1) for n in (1, 2)] if steps else []
    shares += [share for share in SHIFTS if not shares or share > 1.5 * shares[-1]]
    for shift in [sign * share for share in shares for sign in (1, -1)]:
        by = round(shift * ((steps or 1) - 1))
        words = f"timesteps are shifted: the network expects about {f'{by:+d} steps' if steps else f'{shift:+g}'}"
        moved = f"jnp.clip(jnp.arange({steps}) {by:+d}, 0, {(steps or 1) - 1})" if steps else f"lambda t: t {shift:+g}"
        time = lambda level, shift=shift: np.clip(level.t + shift, 0, 1)
        yield Telling(words, f"timesteps={moved}", time=time, changes=1)


def _other_schedules(answers: Answers) -> Iterator[Telling]:
    """What other common schedules of one scaling tell at the same noise."""
    steps, schedule = answers.steps, answers.schedule
    own = level_of(answers, np.geomspace(0.05, 20, 16))
    if "variance_preserving" in scalings(schedule) or not isinstance(schedule, TabulatedSchedule | VariancePreserving):
        return
    for text, other in _schedules(steps):
        times = lambda level, other=other: _numpy(other.time, level.r)
        if np.max(np.abs(times(own) - own.t)) > 0.01:
            yield Telling("the network was trained under another schedule", f"schedule={text}", time=times, changes=1)


def _schedules(steps: int | None) -> Iterator[tuple[str, NoiseSchedule]]:
    if steps is None:
        yield "nd.VariancePreserving.linear()", VariancePreserving.linear()
        yield "nd.VariancePreserving.cosine()", VariancePreserving.cosine()
        return
    make = "nd.NoiseSchedule.from_diffusers_config"
    for name, low, high in (("linear", 1e-4, 0.02), ("scaled_linear", 0.00085, 0.012), ("squaredcos_cap_v2", 0, 0)):
        config = {"beta_schedule": name, "num_train_timesteps": steps}
        config |= {"beta_start": low, "beta_end": high} if high else {}
        yield f"{make}({config})", NoiseSchedule.from_diffusers_config(config)


#: Numbers that a table of embeddings can be told, to the nearest whole one.
WHOLE = ("the index of its step", "1000 t")


def _other_numbers(answers: Answers) -> Iterator[Telling]:
    """Numbers of another kind, those of time running either way."""
    schedule, steps = answers.schedule, answers.steps
    # In continuous time an index of one in a thousand is alike.
    kinds = {"the index of its step": ("timesteps='fractional'", lambda level: (steps - 1) * level.t)} if steps else {}
    kinds |= {
        "its time t in [0, 1]": ("timesteps='time'", lambda level: _numpy(schedule.network_time, level.t)),
        "1000 t": ("timesteps=lambda t: 1000 * t", lambda level: 1000 * level.t),
    }
    num_times = len(kinds)
    kinds |= {
        "sigma": ("timesteps='sigma'", lambda level: level.alpha * level.r),
        "sigma / alpha": ("timesteps=schedule.noise_to_signal", lambda level: level.r),
        "log sigma": ("timesteps='log_sigma'", lambda level: np.log(level.alpha * level.r)),
        "log(sigma / alpha) / 4": (
            "timesteps=lambda t: jnp.log(schedule.noise_to_signal(t)) / 4", lambda level: np.log(level.r) / 4
        ),
        "the log SNR": ("timesteps='log_snr'", lambda level: -2 * np.log(level.r)),
    }  # fmt: skip
    own = level_of(answers, np.geomspace(0.05, 20, 16))
    said = _as_told(answers, own)
    for i, (what, (remedy, number)) in enumerate(kinds.items()):
        if _alike(number(own), said) or (answers.takes_whole_numbers and what not in WHOLE):
            continue
        words = f"the network expects to be told {what}"
        yield Telling(words, remedy, number=number, changes=1)
        if i < num_times:
            other = lambda level, number=number: number(level._replace(t=1 - level.t))
            yield Telling(f"{words}, and that the other way", f"{remedy}, of 1 - t", number=other, changes=2)


def _as_told(answers: Answers, level: Level) -> np.ndarray:
    """What the network is told as it is."""
    tell = told(answers.timesteps, answers.schedule)
    return _numpy(jax.vmap(lambda t, r: tell(t, r)[0][0]), level.t, level.r)


def _alike(numbers, others) -> bool:
    return bool(np.max(np.abs(numbers - others)) <= ALIKE * np.max(np.abs(others)))
