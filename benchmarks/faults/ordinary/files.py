"""Pipes, devices and folders where files are expected, files full of nonsense, and threads at once."""

from __future__ import annotations

import copy
import os
import socket
import tempfile
import threading
from pathlib import Path

import numpy as np
from click.testing import CliRunner

import numpyro_diffusion as nd
from benchmarks.faults.ordinary.inputs import KEY, Input, close, refused, require
from numpyro_diffusion.cli.main import main
from numpyro_diffusion.disk import checkpoint
from numpyro_diffusion.errors import CheckpointError, ParameterError

P = nd.exact.GaussianMixture([[0.2, 0.0]], [[[0.6, 0.1], [0.1, 0.9]]], name="p")
POINTS = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
FEW = {"num_chains": 20, "levels": 4, "progress_bar": False}
NETWORK, TRAINING = nd.NetworkConfig(width=8, num_blocks=1), nd.TrainingConfig(num_steps=3, batch_size=16)


def anneal(**settings):
    settings = FEW | {"rng_key": KEY, "density": P, "kernel": nd.HMC(0.5)} | settings
    return nd.anneal(settings.pop("rng_key"), settings.pop("density"), settings.pop("kernel"), **settings)


def fit(data=POINTS, **settings):
    settings = {"network": NETWORK, "training": TRAINING, "progress_bar": False, "rng_key": KEY} | settings
    return nd.fit(settings.pop("rng_key"), data, **settings)


def command(*arguments) -> str:
    """The command line, in this process; what it refuses is raised as an error of the package."""
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code:
        raise ParameterError(result.output)
    return result.output


def places() -> list[Input]:
    """Pipes, devices, sockets, folders and loops of links, where files are expected; and threads at once."""
    folder = Path(tempfile.mkdtemp(prefix="faults_"))

    def made(name):
        path = folder / name
        if path.exists() or path.is_symlink():
            return path
        if name == "pipe":
            os.mkfifo(path)
        elif name == "loop":
            path.symlink_to(path)
        elif name == "socket":
            held = socket.socket(socket.AF_UNIX)
            held.bind(str(path))
        elif name == "folder":
            path.mkdir()
        elif name == "points.npy":
            np.save(path, POINTS)
        return path

    train = lambda data, output="model.safetensors", *more: command(
        "train", "--data", data, "--output", folder / output, "--steps", 2, "--batch-size", 8, "--width", 8, *more)  # fmt: skip
    words = r"(?i)(pipe|device|socket|folder|directory|regular|link|symbolic).*(?s:.)*"
    zero, full, null = (Path("/") / "dev" / name for name in ("zero", "full", "null"))
    points = lambda: made("points.npy")
    return [
        refused("train on a pipe", lambda: train(made("pipe")), words),
        refused("train on a socket", lambda: train(made("socket")), words),
        refused("train on zeros without end", lambda: train(zero), words),
        refused("train on a loop of links", lambda: train(made("loop")), r"(?i)link|levels"),
        refused("train into a pipe", lambda: train(points(), "pipe"), words),
        refused("train with a checkpoint in a pipe", lambda: train(points(), "m", "--checkpoint", made("pipe")), words),
        refused("sample a model that is a pipe", lambda: command("sample", "--model", made("pipe"), "--output", folder / "x.npy"), words),
        refused("sample into a full device", lambda: command("sample", "--model", "ring", "--output", full, "--force"), words),
        refused("demo into a pipe", lambda: command("demo", "--output", made("pipe")), r"(?i)pipe|file|exists|directory"),
        refused("load a pipe", lambda: nd.load(made("pipe")), words),
        refused("load a folder", lambda: nd.load(made("folder")), words),
        refused("load nothing at all", lambda: nd.load(null), r"(?i)device|regular|empty"),
        refused("save to a device", lambda: nd.save(fit(), null), words),
        refused("an annealing checkpoint in a pipe", lambda: anneal(checkpoint_path=made("pipe")), words),
        refused("a training checkpoint on a device", lambda: fit(checkpoint_path=zero), words),
        refused("a training checkpoint in a folder", lambda: fit(checkpoint_path=made("folder")), words),
        refused("a history where a pipe is", lambda: anneal(keep_history=made("pipe")), r"(?i)pipe|exists|folder"),
        refused("a path with a zero character", lambda: anneal(checkpoint_path="a\0b"), r"zero character"),
        refused("a path that is a number", lambda: anneal(checkpoint_path=3), r"path.*got 3"),
        Input("three threads at once", lambda: _threads(3)),
        Input("six threads, some of which fail", lambda: _threads(6, failing=True)),
        Input("a run inside a limit of the user's", _limited),
        Input("standardised data of equal noise bounds", lambda: _standardised(folder / "training")),
    ]  # fmt: skip


def _blas() -> list[int]:
    from threadpoolctl import threadpool_info

    return [info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"]


def _threads(count: int, failing: bool = False) -> str:
    import scipy.linalg  # noqa: F401  its library must be there before limits are looked at

    anneal()
    before, found = _blas(), []

    def one(i):
        try:
            found.append(anneal(num_steps=1 + i, levels=-1 if failing and i % 2 else 4).log_evidence)
        except nd.errors.DiffusionError:
            found.append(0.0)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    require(_blas() == before, f"threads {before} before, {_blas()} after")
    close(found, np.zeros(count), 0.5)
    return f"{before} before and after, {count} results"


def _limited() -> str:
    from threadpoolctl import threadpool_limits

    before = _blas()
    with threadpool_limits(1, user_api="blas"):
        anneal()
        require(set(_blas()) <= {1}, f"{_blas()} for 1")
    require(_blas() == before, f"threads {before} before, {_blas()} after")
    return f"1 within, {before} after"


def _standardised(path) -> str:
    rng = np.random.default_rng(1)
    first, second = (a - a.mean(0) for a in (rng.normal(size=(64, 2)), rng.uniform(-1, 1, size=(64, 2))))
    first, second = first / first.std(), second / second.std()
    bounds = {"sigma_min": 0.01, "sigma_max": 20.0, "checkpoint_path": path}
    fit(first, **bounds)
    try:
        fit(second, **bounds)
    except CheckpointError as error:
        require("other data" in str(error), str(error))
        return str(error).replace(str(path.parent), "")
    raise ParameterError("taken for the same data")


def nonsense() -> list[Input]:
    """Files whose digest is right and whose content is nonsense."""

    def stored(**settings):
        path = Path(tempfile.mkdtemp(prefix="faults_")) / "file.safetensors"
        nd.save(fit(conditions=None, **settings), path)
        arrays, config = checkpoint.read(path)
        return path, {k: np.array(a) for k, a in arrays.items()}, copy.deepcopy(config)

    def changed(what, **settings):
        def call():
            path, arrays, config = stored(**settings)
            what(arrays, config)
            try:
                checkpoint.write(path, arrays, config)
            except ParameterError as error:  # not even written
                raise CheckpointError(f"not written: {error}") from error
            density = nd.load(path)
            value = density.log_prob(np.zeros(2)) if density.has_log_density else density.score(np.zeros(2))
            return f"loads, and gives {value}"

        return call

    def put(name, change):
        def what(arrays, config):
            arrays[name] = np.asarray(change(arrays[name]), dtype=arrays[name].dtype)

        return what

    def field(name, value):
        def what(arrays, config):
            config[name] = value

        return what

    def schedule(**values):
        def what(arrays, config):
            config["schedule"] = config["schedule"] | values

        return what

    def weight(value):
        def what(arrays, config):
            name = next(k for k in arrays if k.startswith("state"))
            arrays[name] = np.full_like(arrays[name], value)

        return what

    words = r".+"
    rows = {
        "one negative eigenvalue": put("eigenvalues", lambda a: np.array([-0.5, 1.0])),
        "eigenvalues of 1e-45": put("eigenvalues", lambda a: 0 * a + 1e-45),
        "axes that are not orthonormal": put("eigenvectors", lambda a: 2 * a),
        "sigmas exchanged": put("sigmas", lambda a: a[::-1]),
        "equal sigmas": put("sigmas", lambda a: 0 * a + 1.0),
        "a mean of 1e35": put("mean", lambda a: a + 1e35),
        "a normaliser of 1e9 nats": put("log_z", lambda a: a + 1e9),
        "knots that fall": put("log_z", lambda a: a[:, ::-1]),
        "weights of 1e38": weight(1e38),
        "NaN weights": weight(np.nan),
        "a name of a megabyte with escapes": field("name", "\x1b[31m" * 200_000),
        "a name that is a number": field("name", 3.0),
        "a name with a line break": field("name", "ring\nhacked"),
        "a negative noise": schedule(sigma_max=-1.0),
        "no schedule": field("schedule", None),
        "an event of another shape": field("event_shape", [3]),
        "an event of a million numbers": field("event_shape", [10**6]),
        "calibrated: 'yes'": field("calibrated", "yes"),
        "a class of another module": field("class", "os.system"),
        "a network of another size": field("network", {"width": 10**9}),
    }
    return [refused(name, changed(what), words) for name, what in rows.items()]
