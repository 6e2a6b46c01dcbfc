"""One file that holds named arrays and a configuration, written atomically and read with suspicion.

The file is plain safetensors: an 8-byte length, a JSON header, the bytes of the arrays. Its `__metadata__` holds

    format           "numpyro_diffusion"
    format_version   "1"
    config           JSON text; the key "kind" says what the arrays are
    sha256           over the version, the config and every array's name, dtype, shape and bytes

The digest finds damage and hand edits; it is no signature, as whoever can write the file can also recompute it.
Reading is safe for files of unknown origin all the same: nothing in them is ever executed or unpickled, and no more
memory is asked for than the file is long. This module knows nothing about densities.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from ..checks.text import printable, shown
from ..errors import CheckpointError, ParameterError
from .arrays import NPY_MAGIC
from .paths import checked_path, open_regular, replace_file, told

__all__ = ["load", "plain", "read", "read_state_dict", "save", "to_json", "write"]

FORMAT = "numpyro_diffusion"
FORMAT_VERSION = "1"
MAX_HEADER_BYTES = 100_000_000
#: Most characters of an array's name: the path of a weight in its network.
LONGEST_NAME = 500
METADATA_KEYS = {"format", "format_version", "config", "sha256"}
#: Endings of files that hold pickles, which run code when they are read.
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")

# The names of safetensors. What is missing here (complex, text, objects) no density needs.
DTYPES = {
    "BOOL": np.dtype(bool),
    **{f"I{n}": np.dtype(f"int{n}") for n in (8, 16, 32, 64)},
    **{f"U{n}": np.dtype(f"uint{n}") for n in (8, 16, 32, 64)},
    **{f"F{n}": np.dtype(f"float{n}") for n in (16, 32, 64)},
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
DTYPES_BY_NAME = {dtype.name: dtype for dtype in DTYPES.values()}


def write(path: str | os.PathLike[str], arrays: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Writes arrays and their configuration as one file, entirely or not at all.

    Args:
        path: File to write or to replace; its folder must exist.
        arrays: Name -> array (NumPy, JAX or scalar; booleans, integers or finite floats, any shape).
        config: What JSON can hold. Tuples come back as lists.

    Raises:
        ParameterError: if a name, an array or the config cannot be stored, or an array holds NaN or infinity.
        CheckpointError: if the file cannot be written; the previous file is then intact.
    """
    config_json = to_json("config", config)
    checked = {name: _checked_array(name, value) for name, value in arrays.items()}
    metadata = {"format": FORMAT, "format_version": FORMAT_VERSION, "config": config_json}
    metadata["sha256"] = _digest(config_json, checked)
    content = safetensors.numpy.save(checked, metadata=metadata)
    if (length := int.from_bytes(content[:8], "little")) > MAX_HEADER_BYTES:
        raise ParameterError(f"names and config may take {MAX_HEADER_BYTES} bytes; they take {length}. Shorten them.")
    path, remedy = checked_path("path", path), "What stood there before is intact; check that the folder exists, is"
    with told("cannot write", path, f"{remedy} writable and has space, or choose another path."):
        replace_file(path, content)


def read(path: str | os.PathLike[str], *, kind: str | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a file written by `write`.

    Args:
        path: File to read.
        kind: If given, the value that the config's key "kind" must have.

    Returns:
        The arrays by name, in the dtypes they were written with, and the config.

    Raises:
        CheckpointError: if there is no such file, or it is foreign, truncated, altered, of a newer format version or of
            another kind.
    """
    path = checked_path("path", path)
    with told("cannot read", path, "Check the path and its permissions."):
        header, content = _read_file(path)
    metadata = _checked_metadata(path, header)
    config = _parse_json(path, metadata["config"], "config")
    arrays = _arrays_in(path, content)
    if metadata["sha256"] != _digest(metadata["config"], arrays):
        raise _damaged(path, "its content does not match its sha256")
    for name, array in arrays.items():
        if not _is_name(name):
            raise _damaged(path, f"{shown(name)} is no name of an array")
        if array.dtype.kind not in "biu" and not np.all(np.isfinite(array)):
            raise _damaged(path, f"{shown(name)} holds NaN or infinity, which is never written")
    if kind is not None and (found := config.get("kind")) != kind:
        raise CheckpointError(f"{path} must hold kind {kind!r}; it holds {shown(found)}. Give the file of a {kind}.")
    return arrays, config


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays by name of any safetensors file, such as a PyTorch model's state dict; nothing is unpickled.

    Args:
        path: File to read, customarily `*.safetensors`. Where PyTorch is, it writes one of a state dict with
            `safetensors.torch.save_file(model.state_dict(), path)`. Parts of one model: `read(a) | read(b)`.

    Returns:
        The arrays as they are stored, for `nd.load_state_dict`.

    Raises:
        CheckpointError: if there is no such file, it holds a pickle by its name, or is no intact safetensors file.
    """
    path = checked_path("path", path)
    if path.suffix.lower() in PICKLES:
        raise CheckpointError(
            f"{path} must be a safetensors file: {path.suffix} files hold pickles, which run code when they are read. "
            "Where PyTorch is: safetensors.torch.save_file(torch.load(path, weights_only=True), 'model.safetensors')."
        )
    with told("cannot read", path, "Check the path and its permissions."):
        _, content = _read_file(path)
    return _arrays_in(path, content)


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as it comes back from a file, tuples as lists, or a ParameterError."""
    return json.loads(to_json("config", config))


def save(path: str | os.PathLike[str], arrays: Mapping[str, Any], config: Mapping[str, Any], make: Callable) -> None:
    """Write what `load` with the same `make` reads back: what `make` refuses is not written, nor over a run's state."""
    make(arrays, plain(config))
    if (found := _kind_at(path)) not in (None, config["kind"]):
        raise CheckpointError(
            f"{path} holds something else, of kind {found!r}, that would be lost. Choose another name."
        )
    write(path, arrays, config)


def _kind_at(path) -> str | None:
    """The kind that a file says it is of; None where there is none, or none of ours."""
    try:
        header, _ = _read_file(checked_path("path", path))
        return _parse_json(path, _checked_metadata(path, header)["config"], "config").get("kind")
    except (CheckpointError, OSError):
        return None


def load[T](
    path: str | os.PathLike[str], kind: str, make: Callable[[dict, dict], T], what: str, remedy: str = "Save it again."
) -> T:
    """What `make(arrays, config)` makes of a file of this kind.

    Raises:
        CheckpointError: if the file cannot be read, see `read`, or `make` finds that it does not describe `what`.
    """
    arrays, config = read(path, kind=kind)
    try:
        return make(arrays, config)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is intact but does not describe {what} of this version: {printable(str(error))[:300]}. {remedy}"
        ) from error


def to_json(what: str, config: Mapping[str, Any]) -> str:
    """A dict as JSON, or a ParameterError."""
    try:
        return json.dumps({**config}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"{what} must be a dict of finite numbers, text, lists and dicts; got {shown(config)} ({error}). "
            "Write arrays as lists: array.tolist()."
        ) from error


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name.isprintable() and name != "__metadata__" and 0 < len(name) <= LONGEST_NAME


def _checked_array(name: Any, value: Any) -> np.ndarray:
    if not _is_name(name):
        raise ParameterError(
            f'array names must be text that prints, neither empty nor "__metadata__", of at most {LONGEST_NAME} '
            f"characters; got {shown(name)}. Rename it."
        )
    try:
        # "C" because safetensors stores bare memory; unlike ascontiguousarray this leaves scalars scalars.
        array = np.asarray(value, order="C")
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"{name!r} must be a numeric array; got {type(value).__name__} ({error}). "
            "Convert PRNG keys with jax.random.key_data."
        ) from error
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if array.dtype not in DTYPES.values():
        names = ", ".join(str(dtype) for dtype in DTYPES.values())
        raise ParameterError(f"{name!r} must have a dtype among {names}; got {array.dtype}. Convert it.")
    if array.dtype.kind not in "biu" and (wrong := int(np.sum(~np.isfinite(array)))):
        raise ParameterError(
            f"{name!r} must be finite; {wrong} of its {array.size} values are NaN or infinite. "
            "Go back to the last finite state."
        )
    return array


def _digest(config_json: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()

    def add(part: bytes | memoryview) -> None:
        # The length in front keeps two neighbours from being read as one: ("ab", "c") is not ("a", "bc").
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)

    add(FORMAT_VERSION.encode())
    add(config_json.encode())
    for name in sorted(arrays):
        array = arrays[name]
        add(name.encode())
        add(json.dumps([array.dtype.name, array.shape]).encode())
        add(memoryview(array.reshape(-1).view(np.uint8)))
    return digest.hexdigest()


def _read_file(path: Path) -> tuple[dict[str, Any], bytes]:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        # Some files of the system call themselves empty and wait when they are read.
        prefix = file.read(8) if size else b""
        length = int.from_bytes(prefix, "little")
        if prefix.startswith(NPY_MAGIC):
            raise CheckpointError(f"{path} is an .npy file: points, and no trained density. Give the file of a model.")
        if len(prefix) < 8 or not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
            raise _damaged(path, f"its {size} bytes cannot hold a header of {length} (at most {MAX_HEADER_BYTES})")
        header_bytes = file.read(length)
        header = _parse_json(path, header_bytes, "header")
        return header, prefix + header_bytes + file.read(size - 8 - length)


def _arrays_in(path: Path, content: bytes) -> dict[str, np.ndarray]:
    try:
        # safetensors itself checks names, dtypes, shapes and that the arrays fill the file without gap or overlap.
        stored = safetensors.deserialize(content)
        return {k: np.frombuffer(v["data"], dtype=DTYPES[v["dtype"]]).reshape(v["shape"]) for k, v in stored}
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"its arrays cannot be read ({printable(str(error))[:200]})") from error


def _checked_metadata(path: Path, header: dict[str, Any]) -> dict[str, str]:
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is safetensors, but not a checkpoint of {FORMAT}. Give a file this package wrote."
        )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {shown(metadata.get('format_version'))}; this release reads "
            f"{FORMAT_VERSION!r}. Update the package or write the file anew."
        )
    if set(metadata) != METADATA_KEYS or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(path, f"its metadata must have the keys {sorted(METADATA_KEYS)}")
    return metadata


def _parse_json(path: Path, text: str | bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its {what} is not JSON") from error
    if not isinstance(value, dict):
        raise _damaged(path, f"its {what} is not a JSON object")
    return value


def _finite(text: str) -> float:
    """JSON knows neither NaN nor infinity, Python's reader does: by name, and where a number has too many digits."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no finite number")
    return value


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is no intact checkpoint: {why}. It is truncated, altered or foreign; take a fresh copy."
    )
