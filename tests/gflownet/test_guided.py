"""The classifier-guided policy: what it is for a perfect classifier, and that it learns."""

import jax
import numpy as np
import pytest
from flows import GRID, exact, shares

import numpyro_diffusion as nd
from numpyro_diffusion import gflownet
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError

FLOWS = [exact(0), exact(1)]


def trained(labels, num_steps):
    training = nd.TrainingConfig(num_steps=num_steps, batch_size=32, learning_rate=5e-3, ema_decay=0.99)
    network = gflownet.PolicyNetwork(width=32)
    return gflownet.guided(
        jax.random.key(0), FLOWS, labels, network=network, training=training, weights=[0.3, 0.7], progress_bar=False
    )


@pytest.mark.slow
def test_learns_what_it_guides():
    truth = shares(nd.sculpt(FLOWS, [1, 2], weights=[0.3, 0.7]))[0]
    early, late = (np.sum(np.abs(shares(trained([1, 2], n))[0] - truth)) for n in (1, 1000))
    assert late < 0.15 < 0.3 < early


@pytest.mark.slow
def test_is_a_flow():
    guided = trained([2], 5)
    assert guided.log_sum() == pytest.approx(0, abs=1e-5)
    assert guided.sample(jax.random.key(0), 3).shape == (3, GRID.dim)


def test_refused():
    with pytest.raises(ParameterError, match="labels"):
        gflownet.guided(jax.random.key(0), FLOWS, [3])
    with pytest.raises(ArgumentTypeError, match="no compositions"):
        gflownet.guided(jax.random.key(0), [exact(0) * exact(1), exact(1)], [1])
