"""What the processes of `faults.py` run, with its report: training, annealing, saving."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from numpyro_diffusion.density.base import data_gaussian
from numpyro_diffusion.disk import checkpoint
from numpyro_diffusion.disk.contents import named_leaves

KEY = jax.random.key(0)


def child(connection, program: Callable, arguments: dict) -> None:
    """Run a program and send how it ended: (kind, value, warnings)."""
    caught: list[Any] = []
    try:
        connection.send("begin")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = program(**arguments)
        report = ("returned", value)
    except KeyboardInterrupt:
        report = ("interrupted", None)
    except Exception as error:
        names = [cls.__name__ for cls in type(error).__mro__]
        report = ("raised", {"type": names[0], "typed": "DiffusionError" in names, "text": str(error)})
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection.send((*report, [(w.category.__name__, str(w.message)) for w in caught]))


def die_at(operation: int, folder: str):
    """Kill this process before its n-th operation on files below a folder (0: never); counts them."""
    counter, seen = itertools.count(1), []
    kinds = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}

    def hook(event, arguments):
        if event in kinds and arguments and str(arguments[0]).startswith(folder):
            seen.append(next(counter))
            if seen[-1] == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return seen


def network(width: int = 8):
    return nd.NetworkConfig(width=width, num_blocks=1, embedding_size=4)


def fit(folder: str | None = None, num_steps: int = 16_000, file_limit: int = 0) -> dict[str, np.ndarray]:
    """Train a small density, with its state in `folder`; its weights by name."""
    limit_files(file_limit)
    data = np.random.default_rng(0).normal(size=(256, 2))
    density = nd.fit(
        KEY, data, network=network(), training=nd.TrainingConfig(num_steps=num_steps, batch_size=32),
        checkpoint_path=folder and Path(folder) / "run", checkpoint_every_seconds=0.02, progress_bar=False,
    )  # fmt: skip
    assert np.isfinite(density.log_prob(np.zeros(2)))
    return {k: np.asarray(v) for k, v in named_leaves(density.state).items()}


def gaussians():
    means = [[-1.0, 0.5], [1.0, 0.0], [0.2, -1.0]]
    return nd.exact.GaussianMixture(means, [0.1 * np.eye(2)] * 3, [0.2, 0.5, 0.3])


def anneal(
    folder: str | None = None, history: str | None = None, levels: int = 120, die: int = 0, file_limit: int = 0,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Anneal a mixture, with its state in `folder`; every figure of the run by name."""
    limit_files(file_limit)
    seen = die_at(die, folder) if folder else []
    run = nd.anneal(
        KEY, gaussians(), nd.HMC(), num_chains=64, num_steps=10, levels=levels, num_pilot_chains=16, progress_bar=False,
        checkpoint_path=folder and Path(folder) / "run", checkpoint_every_seconds=0.0,
        keep_history=bool(history) if folder is None or history == "memory" else history or False,
    )  # fmt: skip
    operations = len(seen)
    names = ("samples", "log_weights", "ancestors", "log_evidence", "log_evidence_error", "levels", "is_complete")
    found = {name: np.asarray(getattr(run, name)) for name in names}
    found |= {f"stats.{k}": np.asarray(v) for k, v in run.stats.items()}
    found |= {f"history.{k}": np.asarray(v) for k, v in (run.history or {}).items()}
    run.to_datatree()  # a partial result must be usable, too
    return found | {"operations": np.asarray(operations)}


def save(folder: str, width: int, file_limit: int = 0) -> None:
    """Save a density under one name."""
    limit_files(file_limit)
    nd.save(density_of(width), Path(folder) / "density")


def write(folder: str, size: int, file_limit: int = 0) -> None:
    """Write a checkpoint under one name."""
    limit_files(file_limit)
    checkpoint.write(Path(folder) / "file", {"w": np.zeros(size)}, {"kind": "test"})


def limit_files(size: int) -> None:
    """Let no file grow beyond `size` bytes, as on a full disk; 0 sets no limit."""
    if size:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def density_of(width: int = 32):
    """An untrained density; its file has some 40 kB."""
    config = network(width)
    return nd.EnergyDensity.fresh(
        jax.random.key(1), config, (2,), schedule=nd.VariancePreserving.cosine(), parameterisation="l2",
        is_calibrated=True, sigmas=jnp.array([0.01, 20.0]), moments=data_gaussian(np.zeros(2), np.eye(2), config),
    )  # fmt: skip
