"""Islands that differ by more than their errors say: what single populations cannot know of themselves."""

from __future__ import annotations

import numpy as np
from scipy.special import chdtri

from ..result_fields import RunFields
from ..weights import normalised
from .statistics import closer_levels

#: Probability of a finding about islands whose errors are right.
FALSE_ALARM = 1e-5


def disagreeing(run: RunFields):
    """Islands whose log evidences differ by more than the standard error of their mean."""
    if run.num_islands < 2 or not run.is_weighted or not np.isfinite(run.log_evidence_error):
        return
    count, shares = run.num_islands, normalised(run.island_log_evidences)
    between = float(np.sqrt(np.sum((shares - 1 / count) ** 2) * count / (count - 1)))
    limit = np.sqrt(chdtri(count - 1, FALSE_ALARM) / (count - 1))
    # NaN shares, of islands of which none is alive, are another finding's.
    if between > limit * run.log_evidence_error:
        each = ", ".join(f"{share:.2f}" for share in shares)
        yield (
            f"islands disagree: their shares of the evidence are {each}, which puts the error of log evidence at "
            f"{between:.2f} nats where families of chains say {run.log_evidence_error:.2f}. Each may have seen modes "
            f"that others have not. Use {closer_levels(run)}, more num_steps, more num_chains."
        )
