r"""Whether the samples of a run look like data to the energies that were trained on them, and its evidence like 1.

See `typical` for what is recorded of the data. Samples are compared at the noise level of the run's last level.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...density.abstract import batch_log_prob
from ...density.density import Density, Expression, Seen
from ...density.energy import is_energy
from ...density.formula import fold

__all__ = ["off_evidence", "untypical"]

#: Nats beyond the outer quantiles, beside the distance from there to the median, that samples may lie.
MARGIN = 5.0
#: Share of samples beyond that which is too many, and samples at which the densities are evaluated.
MOST_BEYOND, MOST_SAMPLES = 0.25, 256
#: A normalised density's log evidence is zero to so many standard errors, or so many nats.
MOST_ERRORS, LEAST_OFF, LEAST_OFF_BY_SCORE = 3.0, 0.02, 0.1
#: What unlikely samples mean.
UNARRIVED = "The chains have not arrived: use more levels or num_steps, smaller steps, or an adjusted kernel (nd.HMC)."


def untypical(density: Density, samples, t: float) -> list[str]:
    """Trained energies under which samples are far likelier, or unlikelier, than the data they were trained on.

    The density is an energy, or a composition or a model's joint density with energies in it; samples
    [N, *event_shape] are those at time t. Energies without the field `typical` are not judged. Cost: one evaluation of
    every energy at up to 256 samples.
    """
    found = []
    for leaf, points, time, above, below in _judged(density, np.asarray(samples), t):
        table = _table_at(leaf, time)
        points = points[np.isfinite(points.reshape(len(points), -1)).all(axis=1)]
        if table is None or not len(points):
            continue
        points = points[:: -(-len(points) // MOST_SAMPLES)]
        log_prob = np.asarray(batch_log_prob(leaf, jnp.asarray(points), time), dtype=np.float64)
        log_prob = log_prob[~np.isnan(log_prob)]
        low, median, high = table[0], table[2], table[4]
        if _is_beyond(log_prob - (high + MARGIN + (high - median) + above)):
            how, end, remedy = "likelier", f"most {high:.0f}", _remedy_of_well(leaf)
        elif _is_beyond(low - MARGIN - (median - low) - below - log_prob):
            how, end, remedy = "unlikelier", f"least {low:.0f}", UNARRIVED
        else:
            continue
        found.append(
            f"samples are far {how} under `{leaf!r}` than the data it was trained on: their median log density at "
            f"t = {time:.3g} is {np.median(log_prob):.0f} nats, where data have {median:.0f} and all but one in a "
            f"thousand at {end}. {remedy}"
        )
    return found


def _is_beyond(excess) -> bool:
    return len(excess) > 0 and float(np.mean(excess > 0)) > MOST_BEYOND


def _remedy_of_well(leaf) -> str:
    bounded = "residual" if leaf.is_calibrated and leaf.base is None else "l2"
    train = (
        f"train longer, or with parameterisation='{bounded}', which is bounded, and TrainingConfig(outlier_share=0.25)"
    )
    if leaf.parameterisation != "inner_product":
        train = "train longer, with more data or a larger sigma_min"
    return f"That is a false well of the energy, no better sample: {train}, and look at samples beside data."


def _table_at(leaf, t: float):
    """Quantiles [Q] of the leaf's own log p of data at time t; None where they are not known."""
    table = getattr(leaf, "typical", None)
    ratio = float(leaf.schedule.noise_to_signal(t))
    if table is None or ratio > 1.01 * float(leaf.sigmas[1]):
        return None
    rows = np.asarray(table, dtype=np.float64)[-1 if _is_given(leaf) else 0]
    # Below the trained range the density stays what it is at its end, as does interpolation.
    log_r = np.log(max(ratio, float(leaf.sigmas[0])))
    normaliser = np.interp(log_r, *np.asarray(leaf.log_z, dtype=np.float64))
    shift = normaliser + leaf.mean.size * np.log(float(leaf.schedule.alpha(t)))
    return np.array([np.interp(log_r, rows[0], row) for row in rows[1:]]) - shift


def _is_given(leaf) -> bool:
    """Whether a trained density is taken under a condition."""
    condition = getattr(leaf, "condition", None)
    return condition is not None and float(condition[-1]) > 0.5


def _judged(density, samples, t: float) -> Iterator[tuple[Any, np.ndarray, float, float, float]]:
    """(energy, its samples, their time, nats that they may lie above and below what is typical, beside the margin)."""
    if is_energy(density):
        yield density, samples, t, 0.0, 0.0
    elif isinstance(density, Expression):
        for leaf, exponent, is_alone in _numerators(density):
            energy, points, time = (leaf, samples, t) if not isinstance(leaf, Seen) else _shown(leaf, samples, t)
            size = float(np.prod(energy.event_shape))
            # A power p^a of a Gaussian has samples d/2 (1 - 1/a) nats likelier than p's own: at most d/2. Factors
            # beside it may ask for unlikely points of it, which is for `overlap` to judge.
            sharper = 0.0 if exponent == 1 and is_alone else size
            below = size * max(1 / exponent - 1, 0.0) if is_alone else np.inf
            yield energy, points, time, sharper, below
    elif (bound := getattr(density, "bound", None)) is not None:
        # A model's joint density: its priors at their places in the flat point.
        values = jax.vmap(density.unravel)(jnp.asarray(samples))
        for name, prior in bound.items():
            inner = prior.density
            points = np.asarray(values[name]).reshape(-1, *inner.event_shape)
            size = float(np.prod(inner.event_shape))
            yield from (
                (leaf, at, time, above + size, np.inf) for leaf, at, time, above, _ in _judged(inner, points, t)
            )


def _shown(leaf: Seen, samples, t: float) -> tuple[Density, np.ndarray, float]:
    """The density of a window, what samples show there, and the time at which it is read."""
    points, times, _ = jax.vmap(lambda x: leaf.read(x, jnp.asarray(t, dtype=float)))(jnp.asarray(samples))
    return leaf.density, np.asarray(points), float(times[0])


def _numerators(density: Expression) -> list[tuple[Density, float, bool]]:
    """Energies with a positive exponent in a formula: (energy, exponent, whether it is all there is)."""
    coefficients = np.asarray(density.coefficients)

    def leaf(leaf):
        energy = density.leaf(leaf)
        return [(energy, 1.0, True)] if is_energy(energy.density if isinstance(energy, Seen) else energy) else []

    def node(node, parts):
        powers = node.own(coefficients).tolist() if node.kind == "product" else [1.0] * len(parts)
        return [
            (e, a * c, one and len(parts) == 1) for c, part in zip(powers, parts, strict=True) for e, a, one in part
        ]

    return [found for found in fold(density.formula, leaf, node) if found[1] > 0]


def off_evidence(run) -> list[str]:
    """Whether a run of one normalised density found another evidence than 1; at most one sentence."""
    density, error = run.density, run.log_evidence_error
    # What scores gain along paths is normalised, if all of them are of one diffusion.
    by_score = not density.has_log_density and not isinstance(density, Expression)
    is_one = (density.is_calibrated or by_score) and getattr(density, "bound", None) is None
    if not (run.is_weighted and is_one and np.isfinite(run.log_evidence) and np.isfinite(error)):
        return []
    if abs(run.log_evidence) <= max(MOST_ERRORS * error, LEAST_OFF_BY_SCORE if by_score else LEAST_OFF):
        return []
    if by_score:
        cause = "Its scores at different noise levels are not those of one diffusion (see nd.check_model)"
    elif is_energy(density) and _is_given(density):
        cause = (
            "The normaliser was measured without a condition, or not at all: given this one it is another. Measure it "
            "with nd.recalibrate(rng_key, density.given(condition)), or compare conditions by nd.calibration_report"
        )
    elif is_energy(density):
        cause = "Its normaliser is off (see nd.calibration_report; nd.recalibrate takes it out)"
    else:
        cause = "It is not normalised at every noise level (see nd.calibration_report)"
    return [
        f"log evidence is {run.log_evidence:.3f} +- {error:.3f} nats, where the normalised density {density!r} has 0, "
        f"more than {MOST_ERRORS:.0f} errors away. {cause}, or the run missed or favoured "
        "modes: use more num_chains and levels."
    ]
