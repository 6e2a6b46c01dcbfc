"""The 8x8 handwritten digits that ship with scikit-learn (1,797 scans), scaled to [-1, 1] and dequantised.

Grey values 0..16 are integers; uniform noise of one grey value makes their density finite, and log likelihoods of
different models comparable.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.text import shown
from ..errors import ParameterError, check_integer, check_key

#: One grey value in units of the scaled images.
STEP = 1 / 8
NUM_TRAIN, NUM_FIT, NUM_CLASSES = 1500, 1250, 10
SPLITS = {"train": (0, NUM_TRAIN), "test": (NUM_TRAIN, None), "fit": (0, NUM_FIT), "validation": (NUM_FIT, NUM_TRAIN)}


def images(split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 64] in [-1, 1] and labels [n] of a split of `SPLITS`, else ParameterError.

    The first 1,500 of a fixed shuffle are "train", the rest "test". To choose settings without looking at the test
    scans, "train" parts into "fit", its first 1,250, and "validation".
    """
    if not isinstance(split, str) or split not in SPLITS:
        raise ParameterError(f"split must be one of {', '.join(SPLITS)}; got {shown(split)}.")
    from sklearn.datasets import load_digits  # slow to import, and needed here only

    scans, labels = load_digits(return_X_y=True)
    scans, labels = np.asarray(scans), np.asarray(labels)
    order = np.random.default_rng(0).permutation(len(scans))[slice(*SPLITS[split])]
    return (scans[order] * STEP - 1).astype(np.float32), labels[order]


def one_hot(labels) -> np.ndarray:
    """Labels [n] as condition vectors [n, 10]; ParameterError if a label is none of 0 to 9."""
    values = np.asarray(labels)
    if not np.issubdtype(values.dtype, np.integer) or np.any((values < 0) | (values >= NUM_CLASSES)):
        raise ParameterError(f"labels must be whole numbers from 0 to {NUM_CLASSES - 1}; got {shown(labels)}.")
    return np.eye(NUM_CLASSES, dtype=np.float32)[values]


def dequantise(rng_key: jax.Array, x) -> jax.Array:
    """x plus uniform noise of one grey value."""
    check_key(rng_key)
    return x + STEP * (jax.random.uniform(rng_key, jnp.shape(x)) - 0.5)


def sampler(rng_key: jax.Array, num_samples: int) -> jax.Array:
    """Dequantised training images [num_samples, 64]."""
    return labelled_sampler(rng_key, num_samples)[0]


def labelled_sampler(rng_key: jax.Array, num_samples: int, split: str = "train") -> tuple[jax.Array, jax.Array]:
    """Dequantised images [num_samples, 64] of a split, and their labels, one-hot [num_samples, 10]."""
    which, noise = jax.random.split(check_key(rng_key))
    num_samples = check_integer("num_samples", num_samples)
    x, labels = images(split)
    index = jax.random.randint(which, (num_samples,), 0, len(x))
    return dequantise(noise, jnp.asarray(x)[index]), jnp.asarray(one_hot(labels))[index]


def by_class(density, x) -> np.ndarray:
    """log p(x | class) [n, 10] of a class-conditional density for images x [n, 64], at its least noise."""
    return np.stack([np.asarray(density.given(one).log_prob(x)) for one in np.eye(NUM_CLASSES)], axis=1)
