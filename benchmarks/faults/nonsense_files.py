"""Checkpoint files whose digest is right, and whose content no density has."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import safetensors.numpy

from numpyro_diffusion.disk import checkpoint

#: How the names of these damages begin: no such file may be accepted.
NONSENSE = "nonsense"
ESCAPES = "\x1b[31mred\x1b[0m"


def sealed(arrays: dict, config: dict) -> bytes:
    """A file with this content and a digest that is right."""
    text = json.dumps(config)
    metadata = {"format": checkpoint.FORMAT, "format_version": checkpoint.FORMAT_VERSION, "config": text}
    arrays = {k: np.array(a, order="C") for k, a in arrays.items()}
    metadata["sha256"] = checkpoint._digest(text, arrays)
    return safetensors.numpy.save(arrays, metadata=metadata)


#: Content that has the right types and shapes, and that no density has: never to be accepted.
NUMBERS = {
    "eigenvalues": (lambda a: -a, lambda a: 0 * a, lambda a: a[::-1] * [2, 1], lambda a: a * 1e30),
    "sigmas": (lambda a: a[::-1], lambda a: -a, lambda a: a[[0, 0]], lambda a: a * [0, 1]),
    "eigenvectors": (lambda a: 0 * a, lambda a: a[:, [0, 0]], lambda a: a * 1.01, lambda a: a + 0.1),
    "log_z": (lambda a: a[:, ::-1], lambda a: a * [[0], [1]], lambda a: a + [[0], [1e20]]),
    "mean": (lambda a: a + 1e20, lambda a: a * 1e-30 + 1e30),
}
TEXTS = {
    ("name",): (ESCAPES, "x" * 10**6, "two\nlines", 3, ["ring"]),
    ("card",): ("x", [1], {"x": "y" * 10**7}),
    ("event_shape",): ([], [0], [True, True], [2, *[1] * 9], [2**40, 2**40], [1] * 10**5),
    ("network", "width"): (10**9, 2**60, True, "8", 0),
    ("network", "expansion"): (10**9, True, 1.5),
    ("network", "embedding_size"): (10**9, 3, True),
    ("network", "condition_size"): (10**9, True, -1),
    ("schedule", "sigma_max"): (1e300, 10**30, 0, -1.0, True, "100", math.nan, math.inf),
    ("schedule", "beta_max"): (0.01, 1e5, math.nan, True),
    ("schedule", "shape"): (ESCAPES, "", 3),
}


def nonsensical(rng, arrays: dict, config: dict) -> tuple[str, bytes]:
    """Numbers out of range, order or unit, and texts that do not print, under a digest that matches them."""
    arrays, config = dict(arrays), copy.deepcopy(config)
    if rng.random() < 0.5:
        name = sorted(NUMBERS)[rng.integers(len(NUMBERS))]
        number = rng.integers(len(NUMBERS[name]))
        arrays[name] = np.asarray(NUMBERS[name][number](arrays[name]), dtype=arrays[name].dtype)
        return f"{NONSENSE}, {name} no. {number}", sealed(arrays, config)
    where = sorted(TEXTS)[rng.integers(len(TEXTS))]
    value = TEXTS[where][rng.integers(len(TEXTS[where]))]
    holder = config
    for key in where[:-1]:
        holder = holder[key]
    holder[where[-1]] = value
    return f"{NONSENSE}, {'.'.join(where)} = {str(value)[:40]!r}", sealed(arrays, config)
