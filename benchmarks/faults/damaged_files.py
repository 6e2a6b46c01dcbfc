"""Damaged checkpoint files, and what loading them does."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import pickle
import resource
import signal
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import safetensors.numpy

import numpyro_diffusion as nd
from benchmarks.faults.nonsense_files import NONSENSE, nonsensical, sealed
from benchmarks.faults.programs import density_of
from numpyro_diffusion.disk import checkpoint
from numpyro_diffusion.errors import CheckpointError, DiffusionError

SECONDS, MEGABYTES = 5.0, 200.0  # what one damaged file may take


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
        if kind.startswith(NONSENSE) and verdict != "refused":
            verdict = f"accepted ({verdict})"
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
    twice = (edited_header, resealed, nonsensical)
    kinds = (*(fn for fn in BYTES for _ in range(3)), *twice, *twice, foreign)
    fn = kinds[rng.integers(len(kinds))]
    content = bytearray(intact)
    if fn in BYTES:
        return fn.__name__, bytes(fn(rng, content))
    if fn is edited_header:
        return "edited header", edited_header(rng, intact)
    if fn in (resealed, nonsensical):
        return fn(rng, *original)
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
    return f"resealed, {what}", sealed(arrays, config)


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
