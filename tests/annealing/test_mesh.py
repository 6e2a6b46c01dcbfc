"""Chains shared among devices and processes: the same samples, and nothing exchanged within a level."""

import json
import os
import re
import socket
import subprocess
import sys
from unittest.mock import create_autospec

import jax
import numpy as np
import pytest
from densities import mixture
from jax.sharding import Mesh

import numpyro_diffusion as nd
from numpyro_diffusion.annealing.devices import checked_mesh

PROGRAM = """
import json, sys, jax, numpy as np

devices, processes, port, number = map(int, sys.argv[1:])
if processes > 1:
    # First of all: BlackJAX computes while it is imported.
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, number)
import numpyro_diffusion as nd
from numpyro_diffusion.density.exact import GaussianMixture

means = [[-1.0, 0.5], [1.0, -0.5], [0.3, 1.0]]
p = GaussianMixture(means, [0.01 * np.eye(2)] * 3, [0.5, 0.3, 0.2])
q = GaussianMixture([[0.0, 0.0]], [[[0.5, 0.2], [0.2, 0.4]]])
mesh = jax.make_mesh((devices,), ("chains",)) if devices > 1 else None
run = nd.anneal(
    jax.random.key(0), p * q, nd.HMC(), num_chains=64, levels=12, num_steps=2, mesh=mesh, chain_batch_size=8,
    progress_bar=False, resample_threshold=0.9, keep_history=True,
)
reverse = nd.anneal(jax.random.key(1), p, nd.Reverse(), num_chains=64, levels=5, mesh=mesh, progress_bar=False)
program = ""
if devices > processes:
    from numpyro_diffusion.annealing.devices import checked_mesh, everywhere
    from numpyro_diffusion.annealing.plan import PlannedLevel
    from numpyro_diffusion.annealing.settings import Settings
    from numpyro_diffusion.annealing import advance as onward
    from numpyro_diffusion.annealing import population as populations

    auto = checked_mesh(mesh, 64)
    density, kernel, key = everywhere((p * q, nd.HMC().without_step_size(), jax.random.key(0)), auto)
    population = populations.start(density, key, num_chains=64, frame_kind="whitened", mesh=auto)
    program = onward.advance.lower(
        density, kernel, population, key, PlannedLevel(0.9, 0.3), 0.5, Settings(chain_batch_size=8, mesh=auto)
    ).compile().as_text()
if number == 0:
    print(json.dumps({
        "samples": np.asarray(run.samples).tolist(), "log_evidence": run.log_evidence,
        "error": run.log_evidence_error, "ancestors": np.asarray(run.ancestors).tolist(),
        "resampled": run.stats["resampled"].tolist(), "reverse": np.asarray(reverse.samples).tolist(),
        "history": run.history["log_weight_increment"].tolist(), "devices": len(run.samples.devices()),
        "program": program,
    }))
"""


def start(devices, *, processes=1, port=0, number=0, program=PROGRAM):
    flags = f"--xla_force_host_platform_device_count={devices // processes} --xla_llvm_disable_expensive_passes=true"
    # Rounding of 64 bits: what the dynamics make of it stays far below the tolerance.
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program, *map(str, (devices, processes, port, number))]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    return {k: np.asarray(v) for k, v in json.loads(out.splitlines()[-1]).items()}


def assert_same(found, expected, tolerance):
    assert found["resampled"].any() and (found["resampled"] == expected["resampled"]).all()
    assert (found["ancestors"] == expected["ancestors"]).all()
    for name in ("samples", "reverse", "history", "log_evidence", "error"):
        np.testing.assert_allclose(found[name], expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.fixture(scope="module")
def one_device():
    return result(start(1))


@pytest.fixture(scope="module")
def two_devices():
    return result(start(2))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 8])
def test_devices_share_the_chains(one_device, two_devices, devices):
    shared = two_devices if devices == 2 else result(start(devices))
    assert int(shared["devices"]) == devices
    assert_same(shared, one_device, 1e-8)


def computations(program):
    """Name -> text of every computation of a compiled program."""
    return dict(re.findall(r"^(?:ENTRY )?(%[^\s(]+) \(.*?\{\n(.*?)^\}", program, re.M | re.S))


def reached(found, name):
    """Text of a computation and of all that it calls."""
    text = found[name]
    inner = {n for n in re.findall(r"(?:calls|to_apply|body|condition)=(%[\w.\-]+)", text) if n != name}
    return text + "".join(reached(found, n) for n in inner)


@pytest.mark.slow
def test_devices_exchange_nothing_within_a_level(two_devices):
    exchange = re.compile(r" (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)[\w-]*\(")
    found = computations(str(two_devices["program"]))
    loops = [n for text in found.values() for n in re.findall(r"body=(%[\w.\-]+)", text)]
    assert loops and exchange.search(str(two_devices["program"]))  # there is a loop, and resampling exchanges
    assert not [n for n in loops if exchange.search(reached(found, n))]


def test_shares_must_be_equal():
    # A stand-in for four devices: a mesh asks for its size only.
    four = create_autospec(Mesh, instance=True, size=4)
    with pytest.raises(nd.errors.ParameterError, match="101 chains for 4 devices. Take 100 or 104"):
        checked_mesh(four, 101)
    with pytest.raises(TypeError, match="jax.make_mesh"):
        nd.anneal(jax.random.key(0), mixture(), nd.HMC(), mesh=4, num_chains=8)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(one_device):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    first, second = (start(4, processes=2, port=port, number=number) for number in range(2))
    found = result(first)
    second.communicate(timeout=60)
    assert second.returncode == 0
    assert_same(found, one_device, 1e-8)


POSTERIOR = """
import json, sys, jax, numpy as np, numpyro, numpyro.distributions as dist
import numpyro_diffusion as nd

p = nd.exact.GaussianMixture([[-1.0, 0.5], [1.0, -0.5]], [0.05 * np.eye(2)] * 2)

def model(y):
    x = numpyro.sample("x", nd.DiffusionPrior(p))
    sigma = numpyro.sample("sigma", dist.HalfNormal(0.2))
    numpyro.sample("y", dist.Normal(x[0] + x[1], sigma), obs=y)

mesh = jax.make_mesh((jax.device_count(),), ("chains",))
mcmc = nd.AnnealedMCMC(
    model, nd.HMC(), num_chains=16, num_samples=3, levels=6, mesh=mesh, chain_batch_size=4, progress_bar=False
)
mcmc.run(jax.random.key(0), 0.1)
samples = {k: np.asarray(v).tolist() for k, v in mcmc.get_samples().items()}
print(json.dumps(samples | {"log_evidence": mcmc.log_evidence}))
"""


@pytest.mark.slow
def test_a_posterior_on_two_devices_is_that_on_one():
    one, two = (result(start(devices, program=POSTERIOR)) for devices in (1, 2))
    assert one["x"].shape == (48, 2)
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-8, atol=1e-8, err_msg=name)
