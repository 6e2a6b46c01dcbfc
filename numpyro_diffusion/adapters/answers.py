"""What a density's network answers when it is asked otherwise than the density asks it.

Of an adapted model that is the network's own output. Any other density answers with its score, and is told its time t.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..density.adapted import AdaptedModel
from ..density.density import Conditional, Density
from ..density.energy import EnergyDensity, ScoreModel
from ..density.tabulated import NoiseSchedule
from ..pytree import replace
from .probe import PointFunction
from .timesteps import num_levels

#: Numbers in a piece: points that a network is called on at once, times their size.
PIECE = 2**18

#: What a network is told by a number, whatever that is: as a float, or to the nearest whole number.
TELLINGS: tuple[Callable, ...] = (lambda t: t, lambda t: jnp.round(t).astype(jnp.int32))


class Answers:
    """The network of a density.

    Attributes:
        density: The density, its functions as they compute now.
        prediction: What its output is said to be, one of `density.adapted.PREDICTIONS` but "energy".
        schedule: The schedule that it was trained under, and `steps` its number of steps, None in continuous time.
        is_ours: Whether it was trained by `nd.fit`, which leaves no conventions but the units open.
        timesteps: What it is said to be told, as `nd.from_*` was given it; None where that is not known.
    """

    def __init__(self, density: Density):
        # Users' functions are traced here, once for all calls.
        self.density, self._given = jax.tree.map(lambda a: a, density), density
        model = density.model if isinstance(density, Conditional) else density
        self.is_adapted = isinstance(model, AdaptedModel) and model.prediction != "energy"
        self.is_ours = isinstance(model, EnergyDensity | ScoreModel)
        self.prediction, self.schedule, self.timesteps = "score", density.schedule, None
        self._told: Density | None = None
        self._whole = False
        if isinstance(model, AdaptedModel) and self.is_adapted:
            self.prediction, self.schedule = model.prediction, model.origin
            if isinstance(model.fn, PointFunction):
                self.timesteps = model.fn.timesteps

    @property
    def steps(self) -> int | None:
        return num_levels(self.schedule) if isinstance(self.schedule, NoiseSchedule) else None

    def at(self, x: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Outputs [M, *event_shape] at points x [M, *event_shape] in the network's units, told of `times` [M]."""
        return _in_pieces(_outputs if self.is_adapted else _scores, self.density, x, times)

    @property
    def can_be_told(self) -> bool:
        """Whether the network can be told any number, as `told` does."""
        return self.timesteps is not None and not (isinstance(self.timesteps, str) and self.timesteps == "none")

    @property
    def takes_whole_numbers(self) -> bool:
        """Whether the network can be told whole numbers alone."""
        self._told = self._told or self._told_anything()
        return self._whole

    def told(self, x: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Outputs [M, *event_shape] when the network is told `numbers` [M] as they are.

        Rounded where it takes none but whole ones.
        """
        self._told = self._told or self._told_anything()
        return _in_pieces(_outputs, self._told, x, numbers)

    def _told_anything(self) -> Density:
        conditional = self._given if isinstance(self._given, Conditional) else None
        model = self._given if conditional is None else conditional.model
        for telling in TELLINGS:
            other = replace(model, fn=dataclasses.replace(model.fn, timesteps=telling))  # pyright: ignore
            density = other if conditional is None else replace(conditional, model=other)
            try:
                density = jax.tree.map(lambda a: a, density)
            except Exception:  # a table of embeddings wants whole numbers, and says so in whatever way its library does
                continue
            self._whole = telling is TELLINGS[1]
            return density
        return self.density


def scores(density: Density, x: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Scores [M, *event_shape] of points x [M, *event_shape] at `times` [M], a piece at a time."""
    return _in_pieces(_scores, density, x, times)


def _in_pieces(fn, density, x, numbers) -> np.ndarray:
    size = min(max(PIECE // max(x[0].size, 1), 1), len(x))
    # Whole pieces, so that one compiled program serves all.
    index = np.arange(-(-len(x) // size) * size) % len(x)
    parts = [fn(density, jnp.asarray(x[i], float), jnp.asarray(numbers[i], float)) for i in index.reshape(-1, size)]
    return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])[: len(x)]


@jax.jit
def _scores(density, x, times):
    return jax.vmap(jax.grad(density.log_density))(x, times)


@jax.jit
def _outputs(density, x, numbers):
    model: Any = density.model if isinstance(density, Conditional) else density
    condition = density.condition if isinstance(density, Conditional) else None
    given = () if model.condition is None else (model.no_condition if condition is None else condition,)
    weights = model.weights

    def output(x, t):
        return model.fn(weights, x, t, model.origin.noise_to_signal(t), *given)

    return jax.vmap(output)(x, numbers)
