"""Networks that others trained in PyTorch, with their weights: outputs as stored, and the how-to as it stands."""

import contextlib
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import numpyro_diffusion as nd

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = (ROOT / "docs" / "how_to_pytorch_weights.md").read_text(encoding="utf-8")
mnist = pytest.importorskip("benchmarks.any_model.mnist_networks")
needs_data = pytest.mark.skipif(not mnist.FOLDER.is_dir(), reason="the models are not beside this checkout")


@needs_data
def test_outputs_are_the_stored_ones():
    inputs = mnist.reference("epsilon_x"), mnist.reference("epsilon_t")
    assert nd.check_outputs(jax.jit(mnist.epsilon_unet()), inputs, mnist.reference("epsilon_out")) < 1e-4
    expected = mnist.reference("ebm_out").ravel()
    assert nd.check_outputs(mnist.energy_net(), (mnist.reference("ebm_x"),), expected) < 1e-4


@pytest.mark.slow
@needs_data
def test_the_how_to_runs():
    blocks = re.findall(r"^```python\n(.*?)^```", HOW_TO, re.MULTILINE | re.DOTALL)
    names = {}
    with contextlib.redirect_stdout(None):
        for index, block in enumerate(blocks):
            exec(compile(block, f"the how-to, block {index}", "exec"), names)
    assert names["error"] < 1e-4
    # What the last paragraph says of brightness, the flaw and the repair.
    brightness = np.asarray(names["run"].samples).mean((1, 2, 3))
    assert len(blocks) > 5 and np.all(np.abs(brightness + 0.73) < 0.6)


def test_names_of_the_how_to_exist():
    for name in set(re.findall(r"\bnd\.(\w+(?:\.\w+)?)", HOW_TO)):
        thing = nd
        for part in name.split("."):
            assert hasattr(thing, part), f"the how-to names nd.{name}"
            thing = getattr(thing, part)


@pytest.mark.slow
@needs_data
def test_the_repair_holds_brightness_and_nothing_else():
    network = mnist.epsilon_unet()
    repaired = mnist.with_brightness(network, -0.73, 0.1)
    rng = np.random.default_rng(0)
    x, steps = rng.normal(size=(2, *mnist.SHAPE)).astype(np.float32), np.array([100, 900])
    before, after = np.asarray(network(x, steps)), np.asarray(repaired(x, steps))
    np.testing.assert_allclose(np.ptp(after - before, axis=(1, 2, 3)), 0, atol=1e-5)
    # The network's own answer does not know brightness; the repaired one does, as the Gaussian's score.
    np.testing.assert_allclose(network(x + 1, steps), before, atol=2e-3)
    abar = np.cumprod(1 - mnist.BETAS)[steps]
    variance = abar * 0.1**2 + (1 - abar) / 784
    expected = np.sqrt(1 - abar) / 784 * (x.mean((1, 2, 3)) + np.sqrt(abar) * 0.73) / variance
    np.testing.assert_allclose(after.mean((1, 2, 3)), expected, rtol=1e-3, atol=1e-5)
