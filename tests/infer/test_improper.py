"""Which compositions can be priors."""

import densities
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from infer.models import classifier
from numpyro.infer.util import log_density

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ParameterError, ScoreOnlyError

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
X = jnp.array([[0.1, 0.2], [-1.2, 0.9], [0.7, -0.3]])
P_, Q_ = densities.bump("p", 0.2, 0.7), densities.bump("q", -0.3, 1.2)
IMPROPER = ["p / q", "p / q ** 2", "1 / p", "p * c / q", "p / (p + q)", "p / q + q", "(p / q) ** 2"]
PROPER = [
    "p * q", "p ** 0.1", "p * q / (p + q)", "p ** 2 / (p + q)", "p / q ** 0.5", "1 / (1 / p + 1 / q)", "p * c ** 3",
    "p / c", "p + q", "p * q / p", "c",
]  # fmt: skip


def composed(formula):
    return eval(formula, {"p": P_, "q": Q_, "c": classifier()})


@pytest.mark.parametrize("formula", IMPROPER)
def test_improper_compositions_are_refused(formula):
    with pytest.raises(ParameterError, match=r"improper: the exponents of its factors sum to .*floor"):
        nd.DiffusionPrior(composed(formula))


@pytest.mark.parametrize("formula", PROPER)
def test_proper_compositions_pass(formula):
    assert nd.DiffusionPrior(composed(formula)).event_shape == (2,)


def test_a_score_alone_has_no_log_prob():
    prior = nd.DiffusionPrior(densities.network("score"))
    with pytest.raises(ScoreOnlyError, match="nd.DiffusionPrior.log_prob needs a log density"):
        prior.log_prob(X)
    with pytest.raises(ScoreOnlyError):
        log_density(lambda: numpyro.sample("x", prior), (), {}, {"x": X[0]})
    # The annealer binds it, and then its score is all there is to follow.
    bound = prior.bind(prior.density)
    np.testing.assert_allclose(jax.grad(bound.log_prob)(X[0]), prior.density.score(X[0]), rtol=1e-4, atol=1e-5)
