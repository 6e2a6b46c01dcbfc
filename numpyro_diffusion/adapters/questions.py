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
    """Noise-to-signal ratios r [L], and of the network's schedule times t, steps k = (K - 1) t, and alpha."""

    r: np.ndarray
    t: np.ndarray
    k: np.ndarray
    alpha: np.ndarray


class Telling(NamedTuple):
    """What the network is told: what it is told at another `time`, or a `number`, both functions of a `Level`."""

    words: str = ""
    remedy: str = ""
    time: Callable[[Level], np.ndarray] | None = None
    number: Callable[[Level], np.ndarray] | None = None
    changes: int = 0


class Question(NamedTuple):
    """One way to ask; `scaling` is a scale of the signal, see `density.tabulated.SCALINGS`, or "" for the schedule's."""

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
    yield from (Question(telling=telling) for telling in tellings(answers))
    yield from (Question(scaling=scaling) for scaling in scalings(answers.schedule))
    yield from (Question(units=units) for units in units_of(data))


def pairs(answers: Answers, data: np.ndarray) -> Iterator[Question]:
    """Those that differ in two respects."""
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
    if abs(scale - 1) > 0.1 or abs(mean) > 0.1 * scale:
        found.append(Units(1 / scale, -mean / scale, f"(x - {mean:.3g}) / {scale:.3g}, of mean zero and variance one"))
    return found


def scalings(schedule) -> list[str]:
    """Scales of the signal that are not the schedule's."""
    alphas = signal_scales(np.array([1.0]))
    with jax.ensure_compile_time_eval():
        own = float(schedule.alpha(schedule.time(jnp.asarray(1.0))))
    return [name for name, alpha in alphas.items() if abs(alpha[0] - own) > 1e-2]


def signal_scales(r: np.ndarray) -> dict[str, np.ndarray]:
    """alpha by convention, at noise-to-signal ratios r."""
    return {
        "variance_preserving": 1 / np.sqrt(1 + r**2),
        "variance_exploding": np.ones_like(r),
        "linear_flow": 1 / (1 + r),
    }


def level_of(answers: Answers, r: np.ndarray) -> Level:
    """What the network's schedule makes of noise-to-signal ratios [L]."""
    schedule = answers.schedule
    with jax.ensure_compile_time_eval():
        t = np.asarray(schedule.time(jnp.asarray(r, dtype=float)), dtype=np.float64)
        alpha = np.asarray(schedule.alpha(jnp.asarray(t, dtype=float)), dtype=np.float64)
    return Level(r, t, t * ((answers.steps or 1000) - 1), alpha)


def tellings(answers: Answers) -> list[Telling]:
    """What the network may have to be told instead."""
    found = [*_other_times(answers), *_other_schedules(answers)]
    if answers.can_be_told:
        found += _other_numbers(answers)
    return found


def _other_times(answers: Answers) -> Iterator[Telling]:
    """Time reversed or shifted, told in the way it is."""
    steps = answers.steps
    what = f"jnp.arange({steps})" if steps else "lambda t: "
    reverse = f"timesteps={what}[::-1]" if steps else f"timesteps={what}1 - t"
    yield Telling("timesteps run the other way", reverse, time=lambda level: 1 - level.t, changes=1)
    shares = [n / (steps - 1) for n in (1, 2)] if steps else []
    shares = sorted({*shares, *(share for share in SHIFTS if not shares or share > 1.5 * shares[-1])})
    for shift in [sign * share for share in shares for sign in (1, -1)]:
        by = f"{round(shift * (steps - 1)):+d} steps" if steps else f"{shift:+g}"
        remedy = f"timesteps=jnp.clip({what} {by[:-6]}, 0, {steps - 1})" if steps else f"timesteps={what}t {shift:+g}"
        yield Telling(
            f"timesteps are shifted: the network expects about {by}", remedy,
            time=lambda level, shift=shift: np.clip(level.t + shift, 0, 1), changes=1,
        )  # fmt: skip


def _other_schedules(answers: Answers) -> Iterator[Telling]:
    """What other common schedules of one scaling tell at the same noise."""
    steps, schedule = answers.steps, answers.schedule
    own = level_of(answers, np.geomspace(0.05, 20, 16))
    if "variance_preserving" in scalings(schedule) or not isinstance(schedule, TabulatedSchedule | VariancePreserving):
        return
    for text, other in _schedules(steps):
        times = lambda level, other=other: np.asarray(other.time(jnp.asarray(level.r, dtype=float)), dtype=np.float64)
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


def _other_numbers(answers: Answers) -> list[Telling]:
    """Numbers of another kind, running either way."""
    schedule, steps = answers.schedule, answers.steps
    last = (steps or 1000) - 1
    network_time = lambda t: np.asarray(schedule.network_time(jnp.asarray(t, dtype=float)), dtype=np.float64)
    index = "timesteps='fractional'" if steps else "timesteps=lambda t: 999 * t"
    of_time = [
        ("its time t in [0, 1]", "timesteps='time'", network_time),
        ("the index of its step", index, lambda t: t * last),
        ("1000 t", "timesteps=lambda t: 1000 * t", lambda t: 1000.0 * t),
    ]
    found = [
        Telling("the network is told sigma", "timesteps='sigma'", number=lambda level: level.alpha * level.r),
        Telling("the network is told sigma / alpha", "timesteps=schedule.noise_to_signal", number=lambda level: level.r),
        Telling("the network is told log sigma", "timesteps='log_sigma'", number=lambda level: np.log(level.alpha * level.r)),
        Telling(
            "the network is told log(sigma / alpha) / 4", "timesteps=lambda t: jnp.log(schedule.noise_to_signal(t)) / 4",
            number=lambda level: np.log(level.r) / 4,
        ),
        Telling("the network is told the log SNR", "timesteps='log_snr'", number=lambda level: -2 * np.log(level.r)),
    ]  # fmt: skip
    for what, remedy, number in of_time:
        found.append(Telling(f"the network is told {what}", remedy, number=lambda level, n=number: n(level.t)))
    own = level_of(answers, np.geomspace(0.05, 20, 16))
    said = _as_told(answers, own)
    found = [t._replace(changes=1) for t in found if not _alike(t.number(own), said)]  # pyright: ignore
    # A way to count that runs the other way, too, is two changes; one that counts as now is among `_other_times`.
    for what, remedy, number in of_time:
        if not _alike(number(own.t), said):
            words = f"the network is told {what}, and that the other way"
            found.append(
                Telling(words, f"{remedy}, of 1 - t", number=lambda level, n=number: n(1 - level.t), changes=2)
            )
    return found


def _as_told(answers: Answers, level: Level) -> np.ndarray:
    """What the network is told as it is."""
    tell = told(answers.timesteps, answers.schedule)
    t, r = (jnp.asarray(a, dtype=float) for a in (level.t, level.r))
    return np.asarray(jax.vmap(lambda t, r: tell(t, r)[0][0])(t, r), dtype=np.float64)


def _alike(numbers, others) -> bool:
    return bool(np.max(np.abs(numbers - others)) <= ALIKE * np.max(np.abs(others)))
