"""Whether the scores that stood for log densities in a run are gradients of any: their curl at its samples."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ...density.density import Density, Expression
from ..curl import mean_curl
from ..result_fields import RunFields

__all__ = ["curl_of", "rotating"]

#: Samples at which curls are measured, and relative curl from which on line integrals depend on the path.
MOST_SAMPLES, MOST_CURL = 64, 0.2


def curl_of(run: RunFields) -> dict[str, float]:
    """Relative curl at samples, by name, of the score-only densities whose line integrals a run has used.

    Cost: three scores at up to 64 samples.
    """
    density = run.density
    if density.has_log_density or hasattr(density, "bound") or not (run.is_weighted or run.has_acceptance):
        return {}
    # A mixture of score-only models has no score at a point.
    parts: tuple[Density, ...] = (density,)
    if isinstance(density, Expression) and not density.has_increments:
        parts = tuple(leaf for leaf in density.leaves if not leaf.has_log_density)
    x = np.asarray(run.samples)
    x = x[np.isfinite(x.reshape(len(x), -1)).all(axis=1)]
    x = jnp.asarray(x[:: max(1, len(x) // MOST_SAMPLES)][:MOST_SAMPLES])
    if not len(x):
        return {}
    return {repr(leaf): mean_curl(leaf, x, float(run.levels[-1]), jax.random.key(0)) for leaf in parts}


def rotating(run: RunFields):
    """Scores with a curl, or with one that cannot be told."""
    curls = curl_of(run)
    if unknown := [name for name, curl in curls.items() if np.isnan(curl)]:
        yield (
            f"the Jacobian of the score of {', '.join(unknown)} is not finite at some samples, so that nobody knows "
            "whether line integrals of it hold there. Its gradient divides by zero, say, or takes the root of zero."
        )
    wrong = {name: curl for name, curl in curls.items() if curl > MOST_CURL}
    if wrong:
        found = ", ".join(f"{name} {curl:.0%}" for name, curl in wrong.items())
        yield (
            f"the score is no gradient: of its Jacobian at the samples so much is a rotation: {found}. Metropolis "
            "steps and weights by line integrals then depend on the path. Look at nd.check_model(density, data), "
            "train longer, or make an energy of it with nd.distil."
        )
