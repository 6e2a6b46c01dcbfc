r"""Sculpting of score-only models by a joint classifier (Garipov et al. 2023, Section 5).

Of models :math:`p_i` with scores :math:`s_i` the noised mixture has the score

.. math:: \nabla \log \sum_i w_i p_i(x, t) = \sum_i Q(y_1 = i | x, t) \, s_i(x, t) ,

and the sculpted density is that mixture times :math:`Q(y_1, ..., y_k | x, t)^\gamma`, whose score is the guided one,
:math:`\sum_i Q(y_1 = i | x, t) s_i + \gamma \nabla \log Q(y_1, ..., y_k | x, t)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from ..checks.numbers import is_traced
from ..checks.text import shown
from ..compose.conditions import guided
from ..compose.sculpting import checked_labels
from ..density.density import Density
from ..density.energy import zero_with_gradient
from ..density.function import as_density
from ..density.gaussian import gaussian_mixture
from ..density.operands import check_densities
from ..density.schedule import NoiseSchedule
from ..errors import ArgumentTypeError, ParameterError, ShapeError
from ..pytree import register, replace


class Answers(Protocol):
    """A pytree that gives joint answers, `JointClassifier` or one in closed form."""

    @property
    def event_shape(self) -> tuple[int, ...]: ...
    @property
    def num_models(self) -> int: ...
    @property
    def num_labels(self) -> int: ...
    @property
    def resolution(self) -> Any:
        """Noise-to-signal ratio below which answers stay what they are."""
        ...

    def log_prob(self, x: jax.Array, r: jax.Array) -> jax.Array:
        """log Q [n, ..., n] of one point in variance exploding units at noise-to-signal ratio r."""
        ...


@register(("densities", "answers"), ("schedule", "event_shape", "name"))
class ClassifiedMixture(Density):
    """The mixture of score-only models, whose shares at a point a classifier knows."""

    has_log_density = False

    def __init__(self, densities: tuple[Density, ...], answers: Answers, name: str | None = None):
        self.densities, self.answers, self.name = densities, answers, name
        self.schedule, self.event_shape = densities[0].schedule, densities[0].event_shape

    @property
    def resolution(self):
        """That of the classifier, or the coarsest of the densities: below, not all that is mixed is known."""
        known = [self.answers.resolution, *(density.resolution for density in self.densities)]
        return jnp.max(jnp.stack([jnp.asarray(r) for r in known])) if is_traced(known) else max(known)

    def log_density(self, x, t):
        # Below the resolution the density stays what it is there, in variance exploding units.
        there = jnp.maximum(t, self.schedule.time(self.resolution))
        alpha, alpha_there = self.schedule.alpha(t), self.schedule.alpha(there)
        y = x / alpha
        shares = jnp.exp(_first(self.answers.log_prob(y, self.schedule.noise_to_signal(there)), 1))
        scores = jnp.stack([jax.grad(density.log_density)(alpha_there * y, there) for density in self.densities])
        return zero_with_gradient(x, alpha_there / alpha * jnp.tensordot(shares, scores, 1))

    def with_schedule(self, schedule):
        return replace(self, densities=tuple(d.with_schedule(schedule) for d in self.densities), schedule=schedule)

    def gaussian(self, t):
        known = [gaussian for density in self.densities if (gaussian := density.gaussian(t)) is not None]
        # A frame and no more: the weights that the classifier was trained with are not asked for.
        return gaussian_mixture([(gaussian, jnp.asarray(1 / len(known))) for gaussian in known]) if known else None


def sculpted(
    densities: Sequence[Density],
    classifier: Answers,
    labels: Sequence[int],
    *,
    scale: Any = 1.0,
    name: str | None = None,
) -> Density:
    r"""Density :math:`p(x, t) \, Q(y_1, ..., y_k | x, t)^\gamma` of score-only models, p their noised mixture.

    At scale :math:`\gamma` = 1, with a perfect classifier, it is at every noise level the *noised* sculpted density:
    what noise makes of draws of :math:`p(x | y_1, ..., y_k)`, with mass :math:`P(y_1, ..., y_k)`. Reverse diffusion
    samples it, and log evidence, by `nd.Reverse(weighted=True)` or a kernel, is :math:`\log P(y_1, ..., y_k)`, which
    counts factors :math:`w_{y_j}` that `nd.sculpt` leaves out. `nd.sculpt` of calibrated densities is the same at t =
    0, and another above: there it is the formula of the noised densities, as compositions are. Any other scale targets
    :math:`p \, Q^\gamma`: at t = 0 the mixture with every answer to the power of the scale, and above no noised
    density, so that reverse diffusion alone is biased; the scales 10 to 75 in use sample neither that nor p(x | y).

    A formula of a score-only mixture and a factor: HMC, MALA, ULA and `nd.Reverse(weighted=True)` take it.

    Args:
        densities: The n models whose samples the classifier was trained on, in order; energies will do as well.
        classifier: Of `train_joint_classifier`, or answers in closed form.
        labels: As of `nd.sculpt`, at most as many as the classifier's.
        scale: Guidance scale, finite.
        name: Name of the mixture for formulas.

    Raises:
        ParameterError: for labels outside the models or more than the classifier's, or another number of models.
        ShapeError: if the densities' points are not the classifier's.
    """
    if not isinstance(densities, list | tuple):
        raise ArgumentTypeError(f"sculpting takes a list of densities; got {type(densities).__name__}.")
    check_densities("sculpting", densities)
    first = densities[0]
    if not isinstance(first, Density):
        raise ArgumentTypeError(f"scores are those of points; got densities of {first.kind()}. Use nd.gflownet.guided.")
    if not callable(getattr(classifier, "log_prob", None)) or not hasattr(classifier, "num_labels"):
        raise ArgumentTypeError(f"classifier must be one of train_joint_classifier; got {shown(classifier)}.")
    if classifier.num_models != len(densities):
        raise ParameterError(f"the classifier knows {classifier.num_models} models; got {len(densities)}. Give those.")
    if classifier.event_shape != first.event_shape:
        raise ShapeError(f"the classifier takes points of shape {classifier.event_shape}; got {first.event_shape}.")
    numbers = tuple(label - 1 for label in checked_labels(labels, len(densities)))
    if len(numbers) > classifier.num_labels:
        raise ParameterError(
            f"the classifier knows {classifier.num_labels} answers; got {len(numbers)} labels. Train one with "
            f"num_labels={len(numbers)}."
        )
    shares = name or f"({' + '.join(map(repr, densities))})"
    mixture = ClassifiedMixture(tuple(densities), classifier, shares)
    factor = as_density(
        _factor(numbers, first.schedule), first.event_shape, first.schedule, parameters=classifier,
        name=f"Q({', '.join(str(n + 1) for n in numbers)}|x)",
    )  # fmt: skip
    return guided(mixture, factor, scale)


@lru_cache
def _factor(numbers: tuple[int, ...], schedule: NoiseSchedule):
    def log_answers(classifier, x, t):
        logs = classifier.log_prob(x / schedule.alpha(t), schedule.noise_to_signal(t))
        return _first(logs, len(numbers))[numbers]

    return log_answers


def _first(logs: jax.Array, count: int) -> jax.Array:
    """Log probabilities of the first answers, of those of all."""
    return logsumexp(logs, axis=tuple(range(count, logs.ndim))) if count < logs.ndim else logs
