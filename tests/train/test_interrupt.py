"""Training that is interrupted by Ctrl-C."""

import signal
import warnings

import jax
import numpy as np
import pytest
from densities import NETWORK

import numpyro_diffusion as nd
from numpyro_diffusion.disk.runs import sole_writer
from numpyro_diffusion.errors import CheckpointError, DiagnosticWarning
from numpyro_diffusion.train import optimise

KEY = jax.random.key(0)
DATA = np.random.default_rng(0).normal(size=(64, 2))


def train(**changes):
    settings = {
        "network": nd.NetworkConfig(**NETWORK), "training": nd.TrainingConfig(num_steps=250, batch_size=8),
        "progress_bar": False,
    }  # fmt: skip
    return nd.fit(KEY, DATA, **settings | changes)


@pytest.mark.slow
def test_interrupted_training_leaves_a_density_and_goes_on(tmp_path, monkeypatch, interruptible):
    path, original, calls = tmp_path / "training", optimise._train_chunk, []

    def chunk(*args, **kwargs):
        calls.append(None)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(optimise, "_train_chunk", chunk)
        with pytest.warns(DiagnosticWarning, match="interrupted after step 100 of 250"):
            partial = train(checkpoint_path=path)
    assert np.isfinite(partial.log_prob(np.zeros(2)))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "interrupted", DiagnosticWarning)
        whole, expected = train(checkpoint_path=path), train()
    for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(expected.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_runs_do_not_share_a_file(tmp_path):
    path = tmp_path / "run"
    with sole_writer(path), pytest.raises(CheckpointError, match="another run is writing"):
        train(checkpoint_path=path)
