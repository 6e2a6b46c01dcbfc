"""Several devices: the same training as on one."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import json, jax, numpy as np
import numpyro_diffusion as nd

data = np.random.default_rng(0).normal(size=(256, 2))
density = nd.fit(
    jax.random.key(0), data, network=nd.NetworkConfig(width=8, num_blocks=1, embedding_size=4),
    training=nd.TrainingConfig(num_steps=30, batch_size=24), progress_bar=False,
)
devices = {str(d) for leaf in jax.tree.leaves(density.state) for d in leaf.devices()}
print(json.dumps([len(devices), [np.asarray(a).ravel().tolist() for a in jax.tree.leaves(density.state)]]))
"""


def trained(num_devices):
    flags = f"--xla_force_host_platform_device_count={num_devices} --xla_llvm_disable_expensive_passes=true"
    environment = {**os.environ, "XLA_FLAGS": flags}
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    count, weights = json.loads(run.stdout.splitlines()[-1])
    return count, np.concatenate(weights)


@pytest.mark.slow
def test_training_on_four_devices_is_that_on_one():
    (one, expected), (many, weights) = trained(1), trained(4)
    assert (one, many) == (1, 4)  # 4 divides the batch of 24
    np.testing.assert_allclose(weights, expected, rtol=1e-3, atol=1e-4)
