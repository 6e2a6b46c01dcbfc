"""What the processes of `faults.py` run: training, annealing, damaged files and failing energies, each with its report."""

from __future__ import annotations

import copy
import dataclasses
import io
import itertools
import json
import math
import os
import pickle
import resource
import signal
import sys
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

import numpyro_diffusion as nd
from numpyro_diffusion import checkpoint
from numpyro_diffusion.errors import CheckpointError, DiagnosticWarning, DiffusionError

KEY = jax.random.key(0)
MOMENTS = {"mean": np.zeros(2), "covariance": np.eye(2)}
SECONDS, MEGABYTES = 5.0, 200.0  # what one damaged file may take


def child(connection, program: str, arguments: dict) -> None:
    """Run a program of this module and send how it ended: (kind, value, warnings)."""
    caught: list[Any] = []
    try:
        connection.send("begin")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = globals()[program](**arguments)
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


# Training and annealing


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
    return {k: np.asarray(v) for k, v in checkpoint.named_leaves(density.state).items()}


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
    return nd.EnergyDensity(
        jax.random.key(1), (2,), nd.VariancePreserving.cosine(), np.zeros(2), np.eye(2), 0.01, 20.0, network(width),
        "l2", True,
    )  # fmt: skip


# Damaged checkpoint files


class Trap:
    """Leaves a folder behind when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Hang(BaseException):
    """A file took too long."""


def damaged_files(folder: str, first: int, count: int) -> dict:
    """Load damaged files `first` ... `first + count - 1`: how many were refused, and what went wrong with the rest."""
    path, executed = Path(folder) / "density", []
    nd.save(density_of(), path)
    intact, original = path.read_bytes(), as_saved(nd.load(path), Path(folder) / "again")
    suspicious = {"pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"}
    sys.addaudithook(lambda event, arguments: executed.append(event) if event in suspicious else None)
    signal.signal(signal.SIGALRM, _hang)
    memory = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_virtual_memory() + 4 * 2**30, memory[1]))
    tally = {"tries": 0, "refused": 0, "identical": 0, "as it says": 0, "slowest": 0.0, "growth": 0.0}
    wrong: list[str] = []
    for number in range(first, first + count):
        rng = np.random.default_rng([20, number])
        kind, content = damage(rng, intact, original, folder)
        path.write_bytes(content)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            verdict = _loaded(path, original, Path(folder) / "again")
        except CheckpointError as error:
            verdict = "refused" if str(path) in str(error) else "refused, but the message names no file"
        except Hang:
            verdict = f"no end within {SECONDS:.0f} s"
        except BaseException as error:
            verdict = f"{type(error).__name__}: {str(error)[:80]}"
        signal.setitimer(signal.ITIMER_REAL, 0)
        seconds = time.perf_counter() - start
        growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        if growth > MEGABYTES and verdict == "refused":
            verdict = f"refused, but took {growth:.0f} MB"
        if executed:
            verdict = f"ran {executed.pop()}"
        tally["tries"] += 1
        tally["slowest"], tally["growth"] = max(tally["slowest"], seconds), max(tally["growth"], growth)
        if verdict in tally:
            tally[verdict] += 1
        else:
            wrong.append(f"no. {number}, {kind}: {verdict}")
    if (Path(folder) / "executed").exists():
        wrong.append("a pickle was executed")
    return tally | {"wrong": wrong}


def _hang(*_):
    raise Hang


def _virtual_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def as_saved(density, path: Path):
    """(arrays, config) that a density is saved as: what it is, in plain numbers."""
    nd.save(density, path)
    return checkpoint.read(path)


def same(a: tuple[dict, dict], b: tuple[dict, dict]) -> bool:
    """Whether two files hold the same, bit for bit."""
    arrays = a[0].keys() == b[0].keys() and all(
        v.dtype == b[0][k].dtype and v.shape == b[0][k].shape and v.tobytes() == b[0][k].tobytes()
        for k, v in a[0].items()
    )
    return arrays and json.dumps(a[1], sort_keys=True) == json.dumps(b[1], sort_keys=True)


def _loaded(path: Path, original, again: Path) -> str:
    """What was accepted: the original, what the altered file says (saved again it is that file), or anything else."""
    density = nd.load(path)
    if not isinstance(repr(density), str):
        return "accepted, without a text"
    try:
        found = as_saved(density, again)
    except DiffusionError:
        return "accepted, though what it holds cannot be saved"
    if same(found, original):
        return "identical"
    return "as it says" if same(found, checkpoint.read(path)) else "accepted, as something else than it says"


def damage(rng, intact: bytes, original, folder: str) -> tuple[str, bytes]:
    """A damaged copy of a file, and what was done to it."""
    kinds = (*(fn for fn in BYTES for _ in range(3)), edited_header, edited_header, resealed, resealed, foreign)
    fn = kinds[rng.integers(len(kinds))]
    content = bytearray(intact)
    if fn in BYTES:
        return fn.__name__, bytes(fn(rng, content))
    if fn is edited_header:
        return "edited header", edited_header(rng, intact)
    if fn is resealed:
        return resealed(rng, *original)
    return foreign(rng, folder)


def flipped(rng, content):
    for _ in range(rng.integers(1, 9)):
        # Half of them in the header, where they do most.
        end = len(content) if rng.random() < 0.5 else 2000
        content[rng.integers(end)] ^= 1 << int(rng.integers(8))
    return content if rng.random() < 0.99 else content[::-1]


def cut(rng, content):
    return content[: rng.integers(len(content))]


def inserted(rng, content):
    at, piece = rng.integers(len(content) + 1), rng.bytes(int(rng.integers(1, 65)))
    return content[:at] + piece + content[at:]


def zeroed(rng, content):
    at, length = rng.integers(len(content) - 1), rng.integers(1, 4096)
    part = content[at : at + length]
    # Zeros over zeros change nothing.
    content[at : at + length] = bytes(len(part)) if any(part) else b"\1" * len(part)
    return content


def removed(rng, content):
    at = rng.integers(len(content))
    return content[:at] + content[at + int(rng.integers(1, 257)) :]


def overwritten(rng, content):
    at, piece = rng.integers(len(content) - 64), rng.bytes(64)
    content[at : at + 64] = piece
    return content


BYTES = (flipped, cut, inserted, zeroed, removed, overwritten)
SIZES = (-1, 0, 1, 2**31, 2**32 + 1, 2**60, 2**63, 2**64, 10**30, 1.5, "2", None, [], True)


def edited_header(rng, intact: bytes) -> bytes:
    """Other shapes, types or offsets in the header of arrays; the digest is left as it was."""
    length = int.from_bytes(intact[:8], "little")
    header = json.loads(intact[8 : 8 + length])
    names = [name for name in header if name != "__metadata__"]
    entry = header[names[rng.integers(len(names))]]
    value = SIZES[rng.integers(len(SIZES))]
    match rng.integers(6):
        case 0:
            entry["shape"] = [value]
        case 1:
            entry["shape"] = [*entry["shape"], value if value != 1 else 2]
        case 2:
            entry["data_offsets"][rng.integers(2)] = value if value != 0 else 4
        case 3:
            entry["dtype"] = ("F64", "I32", "BF16", "C64", "object", 7)[rng.integers(6)]
        case 4:
            entry |= {"shape": [2**60, 2**60], "data_offsets": [0, 2**60]}
        case 5:
            header[str(names[rng.integers(len(names))]) + "x"] = entry
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + intact[8 + length :]


ABSURD = (None, "", "x", -1, 0, 1.5, 2**40, 2**60, 1e308, math.nan, -math.inf, [], {}, [[]], True, "__class__", 10**30)


def resealed(rng, arrays: dict, config: dict) -> tuple[str, bytes]:
    """Absurd content under a digest that matches it."""
    arrays, config = dict(arrays), copy.deepcopy(config)
    if rng.random() < 0.6:
        where = places(config)
        path = where[rng.integers(len(where))]
        value = ABSURD[rng.integers(len(ABSURD))]
        what = f"config {'.'.join(map(str, path))} = {value!r}"
        holder = config
        for key in path[:-1]:
            holder = holder[key]
        if rng.random() < 0.15:
            holder.pop(path[-1])
            what = f"config without {'.'.join(map(str, path))}"
        else:
            holder[path[-1]] = value
    else:
        names = sorted(arrays)
        name = names[rng.integers(len(names))]
        what, arrays[name] = _absurd_array(rng, arrays[name])
        what = f"{name} {what}"
        if arrays[name] is None:
            del arrays[name]
    text = json.dumps(config)
    metadata = {"format": checkpoint.FORMAT, "format_version": checkpoint.FORMAT_VERSION, "config": text}
    metadata["sha256"] = checkpoint._digest(text, arrays)
    return f"resealed, {what}", safetensors.numpy.save(arrays, metadata=metadata)


def places(config, before=()) -> list[tuple]:
    """The path of every value in nested dicts and lists."""
    items = config.items() if isinstance(config, dict) else enumerate(config)
    found = []
    for key, value in items:
        found.append((*before, key))
        if isinstance(value, dict | list):
            found += places(value, (*before, key))
    return found


def _absurd_array(rng, array):
    match rng.integers(7):
        case 0:
            return "missing", None
        case 1:
            return "of another shape", array.reshape(*array.shape, 1)
        case 2:
            return "flat", np.ascontiguousarray(array.reshape(-1)[: max(array.size - 1, 0)])
        case 3:
            return "all NaN", np.full_like(array, np.nan)
        case 4:
            return "infinite", np.full_like(array, np.inf)
        case 5:
            return "of booleans", np.ones(array.shape, dtype=bool)
        case _:
            return "empty", np.zeros((0, *array.shape[1:]), array.dtype)


def foreign(rng, folder: str) -> tuple[str, bytes]:
    """A file that something else wrote."""
    buffer = io.BytesIO()
    match rng.integers(8):
        case 0:
            return "random bytes", rng.bytes(int(rng.integers(0, 40_000)))
        case 1:
            with zipfile.ZipFile(buffer, "w") as file:
                file.writestr("data.pkl", pickle.dumps(Trap(f"{folder}/executed")))
            return "zip", buffer.getvalue()
        case 2:
            np.save(buffer, rng.normal(size=10))
            return "npy", buffer.getvalue()
        case 3:
            return "pickle", pickle.dumps(Trap(f"{folder}/executed")) * int(rng.integers(1, 50))
        case 4:
            return "empty", b""
        case 5:
            return "another library's safetensors", safetensors.numpy.save({"w": rng.normal(size=5)}, {"format": "pt"})
        case 6:
            text = b"[" * 50_000
            return "deeply nested header", len(text).to_bytes(8, "little") + text
        case _:
            return "a header of absurd length", int(rng.integers(2**62)).to_bytes(8, "little") + rng.bytes(100)


# Energies that fail


@dataclasses.dataclass
class Fault:
    """A run with something wrong in it: its name, how to call it, and the true log evidence where there is one."""

    name: str
    call: Any
    log_evidence: float | None = None


def standard(log_density, x):
    return -0.5 * jnp.sum(x**2) - jnp.log(2 * jnp.pi)


def broken(parameters, x, t):
    """N(0, I) that has another value where x[0] > `beyond`, at times below `until`."""
    bad = (x[0] > parameters["beyond"]) & (t < parameters["until"])
    return jnp.where(bad, parameters["value"], standard(None, x))


def half_square(scale, x, t):
    """N(0, I) computed in single halves: (scale x)^2 overflows beyond 256 / scale."""
    y = x.astype(jnp.float16) * jnp.float16(scale)
    return (-0.5 * jnp.sum(y * y) / jnp.float16(scale) / jnp.float16(scale)).astype(x.dtype) - jnp.log(2 * jnp.pi)


def half_exponential(scale, x, t):
    """log of an exponential that overflows, in half precision: +inf where x[0] > 11 / scale."""
    y = x.astype(jnp.float16)
    return (-0.5 * jnp.sum(y * y) + 0 * jnp.log(jnp.exp(jnp.float16(scale) * y[0]))).astype(x.dtype)


def half_result(scale, x, t):
    """Half precision to the end: the log density itself is float16."""
    y = x.astype(jnp.float16) * jnp.float16(scale)
    return -0.5 * jnp.sum(y * y)


def energies(quick: bool) -> dict:
    """Run every fault: how each of them ended, by section. Without a fault nothing is to be said."""
    control = verdict(Fault("no fault", _annealed(_broken_density(0.0, np.inf, 0.0), nd.HMC()), 0.0))
    assert control == "right", control
    verdicts: dict[str, list[str]] = {}
    for group, fault in [(group, fault) for group, faults in fault_list(quick).items() for fault in faults]:
        verdicts.setdefault(group, []).append(f"{verdict(fault)}: {fault.name}")
    return verdicts


def _annealed(density, kernel, **settings):
    settings = {"num_chains": 256, "levels": 20, "num_pilot_chains": 32, "progress_bar": False} | settings
    return lambda: nd.anneal(KEY, density, kernel, **settings)


def _broken_density(value, beyond, until):
    parameters = {"value": jnp.asarray(value), "beyond": jnp.asarray(beyond), "until": jnp.asarray(until)}
    return nd.as_density(broken, (2,), parameters=parameters, **MOMENTS)


def fault_list(quick: bool) -> dict[str, list[Fault]]:
    """Faults by section."""
    kernels = {"HMC": nd.HMC(), "ULA": nd.ULA()} if quick else {
        "HMC": nd.HMC(), "MALA": nd.MALA(), "ULA": nd.ULA(), "UHMC": nd.UHMC(),
    }  # fmt: skip
    # P(x[0] <= 1) of N(0, 1).
    part = math.log(0.8413447)

    found: dict[str, list[Fault]] = {"NaN or infinite energies": [], "a step size that always rejects": []}
    for (kernel, settings), value in itertools.product(kernels.items(), (np.nan, np.inf, -np.inf)):
        for where, beyond, until, truth in (
            ("in some chains", 1.0, 2.0, part), ("in all chains", -np.inf, 2.0, None),
            ("in some chains below t = 0.5", 1.0, 0.5, part), ("in all chains below t = 0.5", -np.inf, 0.5, None),
        ):  # fmt: skip
            for threshold in (0.5, 0.0):
                name = f"{value} {where}, {kernel}, resample_threshold {threshold}"
                run = _annealed(_broken_density(value, beyond, until), settings, resample_threshold=threshold)
                found["NaN or infinite energies"].append(Fault(name, run, truth))
    plain = _broken_density(0.0, np.inf, 0.0)
    for kernel in (nd.HMC, nd.MALA, nd.ULA, nd.UHMC):
        for step in (1e4, 1e30):
            name = f"{kernel.__name__}(step_size={step:g})"
            found["a step size that always rejects"].append(Fault(name, _annealed(plain, kernel(step)), 0.0))
    orders = {
        "increasing": [0.0, 0.5, 1.0], "repeated": [1.0, 0.5, 0.5, 0.0], "beyond 1": [2.0, 1.0, 0.0],
        "negative": [1.0, 0.5, -0.1], "with NaN": [1.0, np.nan, 0.0], "one": [1.0], "none": [], "text": "many",
        "nested": [[1.0, 0.0]], "one number": 1, "no number": 0,
    }  # fmt: skip
    found["levels out of order"] = [
        Fault(f"{name}, {type(kernel).__name__}", _annealed(plain, kernel, levels=levels))
        for name, levels in orders.items() for kernel in (nd.HMC(0.5), nd.Reverse())
    ]  # fmt: skip
    found["overflow in half precision"] = []
    for fn, scales in (
        (half_square, (10.0, 100.0, 300.0)),
        (half_exponential, (1.0, 12.0)),
        (half_result, (1.0, 300.0)),
    ):
        for scale, kernel in itertools.product(scales, (nd.HMC(), nd.ULA())):
            half = nd.as_density(fn, (2,), parameters=jnp.asarray(scale), **MOMENTS)
            name = f"{fn.__name__}, scale {scale:g}, {type(kernel).__name__}"
            truth = _half_truth(fn, scale)
            found["overflow in half precision"].append(Fault(name, _annealed(half, kernel), truth))
    return found


def _half_truth(fn, scale: float) -> float:
    """Log evidence of what a function in half precision is, by quadrature, leaving out where it is infinite."""
    axis = np.linspace(-12, 12, 961)
    points = jnp.asarray(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2), jnp.float32)
    values = np.asarray(jax.vmap(lambda x: fn(jnp.asarray(scale), x, 0.0))(points), dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(np.log(np.sum(np.exp(values)) * (axis[1] - axis[0]) ** 2)) if len(values) else -math.inf


def verdict(fault: Fault) -> str:
    """How a run with a fault in it ended: error, warned, right or SILENT."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            run = fault.call()
        except Exception as error:
            typed = isinstance(error, DiffusionError | TypeError | ValueError)
            return f"error ({type(error).__name__})" if typed else f"SILENT ({type(error).__name__}: {error})"
    if any(issubclass(w.category, DiagnosticWarning) for w in caught):
        return "warned"
    if not np.all(np.isfinite(np.asarray(run.samples))):
        return "SILENT (samples not finite)"
    if fault.log_evidence is None or not run.is_weighted:
        return "SILENT (no warning)"
    off = abs(run.log_evidence - fault.log_evidence)
    # Five standard errors, and the noise of 256 chains where no resampling has told any.
    right = off < 5 * run.log_evidence_error + 0.4
    return "right" if right else f"SILENT (log evidence {run.log_evidence:.2f} for {fault.log_evidence:.2f})"
