"""Results depend on what is computed and on what data: not on what Python held in an earlier call."""

import jax
import pytest
from changing_models import SITUATIONS
from counting import compilations
from quick import quick_among

import numpyro_diffusion as nd
from numpyro_diffusion.errors import CheckpointError


def anneal(call, path=None, **settings):
    model, args, kwargs = call()
    settings = {"num_chains": 400, "levels": 10, "progress_bar": False} | settings
    mcmc = nd.AnnealedMCMC(model, nd.HMC(step_size=0.5), metric="frame", checkpoint_path=path, **settings)
    mcmc.run(jax.random.key(0), *args, **kwargs)
    return mcmc


def assert_right(mcmc, log_evidence):
    assert abs(mcmc.log_evidence - log_evidence) < 5 * max(mcmc.log_evidence_error, 0.02)


#: One of each kind; the others are slow.
QUICK = {"a global", "a dataclass"}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("name", quick_among(SITUATIONS, QUICK))
def test_what_is_read_is_read_now(name, tmp_path):
    situation = SITUATIONS[name]()
    path = tmp_path / "run"
    assert_right(anneal(situation.call, path), situation.log_evidence())
    assert_right(anneal(situation.call, path), situation.log_evidence())
    situation.change()
    with compilations() as compiled:
        assert_right(anneal(situation.call), situation.log_evidence())
    assert situation.compiles or not compiled
    with pytest.raises(CheckpointError, match="belongs to a run with other (model|data|priors|schedule)"):
        anneal(situation.call, path)
