r"""Ancestral sampling: reverse diffusion with a density's score, the baseline and the predictor.

In variance exploding units y = x / alpha the step from ratio r to r' < r draws

.. math:: y' \sim N\!\left(\hat y + \frac{r'^2}{r^2} (y - \hat y),\; r'^2 \left(1 - \frac{r'^2}{r^2}\right) I\right),
          \qquad \hat y = y + r^2 \nabla_y \log p(y, r),

the posterior of Ho et al. (2020) under any schedule. It is right for a diffusion model and for mixtures of them; for
products, powers and quotients the noised composition is not the composition of the noised, and it is biased.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from ..checks.calls import CheckedCall
from ..checks.fields import check_flag
from ..density.density import Density
from ..density.equal import EqualDensity
from ..errors import ParameterError
from ..pytree import register


@register(data=(), static=("weighted",))
@dataclasses.dataclass(frozen=True)
class Reverse(CheckedCall):
    """Reverse diffusion in place of a kernel: `nd.anneal(rng_key, density, nd.Reverse())`.

    A predictor that no steps follow: there is nothing to tune or to accept, and nothing of Python that it reads.

    Args:
        weighted: Whether to track log densities along the paths and to weigh these, which makes products, powers,
            guidance and mixtures of score-only models right and gives their evidence; see `tracked`. None is False,
            one evaluation per level as usual, but for mixtures of score-only models, which need it.
    """

    weighted: bool | None = None

    is_adjusted = False
    program_digest = None
    num_nodes = None

    def __post_init__(self):
        if self.weighted is not None:
            check_flag("weighted", self.weighted)

    def without_step_size(self) -> Reverse:
        return self

    def suited(self, density: Density) -> Reverse:
        """With `weighted` decided; ParameterError where there is no density to weigh by."""
        if isinstance(density, EqualDensity):
            if self.weighted:
                raise ParameterError(f"{density!r} is no density, and has no weights. Leave out weighted=True.")
            return Reverse(False)
        return Reverse(not density.has_increments if self.weighted is None else self.weighted)

    def tracks(self, density: Density) -> bool:
        """Whether log densities of leaves are tracked along the paths."""
        return bool(self.weighted) or isinstance(density, EqualDensity)

    def frozen(self, size: int) -> Reverse:
        return self

    def __repr__(self):
        return "Reverse()" if self.weighted is None else f"Reverse(weighted={self.weighted})"


def reverse_step(density: Density, rng_key, x, t_from, t_to):
    """One ancestral step of one point x [*event_shape] from time `t_from` to `t_to`."""
    schedule = density.schedule
    alpha, alpha_to = schedule.alpha(t_from), schedule.alpha(t_to)
    r, r_to = schedule.noise_to_signal(t_from), schedule.noise_to_signal(t_to)
    y = x / alpha
    denoised = y + r**2 * alpha * jax.grad(density.log_density)(x, t_from)
    keep = (r_to / r) ** 2
    noise = jax.random.normal(rng_key, x.shape, x.dtype)
    return alpha_to * (denoised + keep * (y - denoised) + r_to * jnp.sqrt(jnp.maximum(1 - keep, 0.0)) * noise)
