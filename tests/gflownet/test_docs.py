"""The example of docs/gflownets.md, as it stands there."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from numpyro_diffusion import gflownet

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gflownets.md"


@pytest.mark.slow
def test_an_environment_of_ones_own():
    codes = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = (code for code in codes if "gflownet.Environment" in code)
    names = {"__name__": "example"}
    exec(code, names)
    flow, few = names["flow"], names["few"]
    assert flow.log_sum() == 0 or abs(flow.log_sum()) < 1e-5
    logs = np.asarray(flow.log_probs())
    assert np.isfinite(logs).sum() == 1 + 10 + 45 + 120
    run = gflownet.sample(jax.random.key(0), flow * few, num_samples=2000, proposal="routing")
    assert abs(run.log_evidence - (flow * few).log_sum()) < 5 * run.log_evidence_error + 1e-5
