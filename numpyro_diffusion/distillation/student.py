r"""Where a student begins: its form, its units, and the weights of a teacher of the same architecture.

A score model's network f enters as s / (r sqrt(r^2 + s^2)) f, an energy's as -(s / r) E(u) with u = y / sqrt(r^2 + s^2)
about. Were f linear and symmetric, E = -u . f / 2 would have the teacher's score, and so the output of "inner_product"
begins at -f / 2. The other forms take the teacher's features: "l2" with a tenth of its output, for an energy |f|^2 / 2
that is small, "dae" as they are. Measured: on the ring 800 steps of "l2" from there reach what 1,500 reach from random
weights; on the bar there is little to choose.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ..density.base import Base, data_gaussian
from ..density.density import Conditional, Density
from ..density.energy import EnergyDensity, ScoreModel
from ..errors import ParameterError, check_number
from ..networks.config import NetworkConfig
from ..train.conditional import conditioned
from ..train.data import moments
from ..train.fit import SIGMAS

#: What the teacher's output is multiplied by; one where nothing is said.
OUTPUT = {"inner_product": -0.5, "l2": 0.1}


def fresh_student(
    rng_key, teacher: Density, x, conditions, *, network, parameterisation: str, base: Base | None,
    sigmas, name: str,
) -> EnergyDensity:  # fmt: skip
    """An energy density for data x [n, *event_shape] under conditions [n, c] or None, before training.

    `sigmas` are as given, or None.
    """
    model = teacher.model if isinstance(teacher, Conditional) else teacher
    theirs = model if isinstance(model, ScoreModel) else None
    config = network or (NetworkConfig() if theirs is None else theirs.config)
    form = config.form or parameterisation
    config = conditioned(config, conditions, form, is_calibrated=base is not None)
    heir = theirs if theirs is not None and base is None and config == theirs.config else None
    gaussian = data_gaussian(*moments(x, config), config, base) if heir is None else heir.moments
    student = EnergyDensity.fresh(
        rng_key, config, teacher.event_shape, schedule=teacher.schedule,
        parameterisation=form, sigmas=_noise_range(teacher, theirs, gaussian, *sigmas),
        is_calibrated=True, base=base, name=name, moments=gaussian,
    )  # fmt: skip
    return student if heir is None else student._replace(state=_inherited(heir.state, student.parameterisation))


def _noise_range(teacher, theirs: ScoreModel | None, gaussian, low, high) -> jax.Array:
    """Noise-to-signal ratios [2] at which the teacher is asked."""
    least, most = teacher.schedule.noise_range
    least = max(least, teacher.resolution)
    if theirs is not None:
        usual = float(theirs.sigmas[0]), float(theirs.sigmas[1])
    else:
        std = float(np.sqrt(np.mean(gaussian.variance)))
        usual = SIGMAS[0] * std, SIGMAS[1] * std
    usual = max(usual[0], least), min(usual[1], most)
    remedy = f"Leave it out for {usual[0]:.3g} or {usual[1]:.3g}."
    low = usual[0] if low is None else check_number("sigma_min", low, 0.0, remedy=remedy)
    high = usual[1] if high is None else check_number("sigma_max", high, 0.0, remedy=remedy)
    if not 0 < low < high:
        raise ParameterError(f"need 0 < sigma_min < sigma_max; got {low} and {high}. {remedy}")
    if low < least * (1 - 1e-4) or high > most * (1 + 1e-4):
        raise ParameterError(
            f"sigma_min and sigma_max must lie within the teacher's noise-to-signal ratios [{least:.3g}, {most:.3g}]; "
            f"got {low:.3g} and {high:.3g}. {remedy}"
        )
    return jnp.array([low, high], dtype=float)


def _inherited(state, parameterisation: str):
    """The teacher's weights, as distinct arrays; the network's last layer as the form wants it."""
    factor = OUTPUT.get(parameterisation, 1.0)

    def scaled(path, leaf):
        is_output = "network" in (keys := jax.tree_util.keystr(path)) and "'head'" in keys
        return factor * leaf if is_output else jnp.array(leaf)

    return jax.tree_util.tree_map_with_path(scaled, state)
