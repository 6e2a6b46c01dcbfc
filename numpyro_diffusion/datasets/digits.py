"""The 8x8 handwritten digits that ship with scikit-learn (1,797 scans), scaled to [-1, 1] and dequantised.

Grey values 0..16 are integers; uniform noise of one grey value makes their density finite, and log likelihoods of
different models comparable.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

#: One grey value in units of the scaled images.
STEP = 1 / 8
NUM_TRAIN = 1500


def images(split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 64] in [-1, 1] and labels [n]; the first 1,500 of a fixed shuffle are "train", the rest "test"."""
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test'; got {split!r}.")
    from sklearn.datasets import load_digits  # slow to import, and needed here only

    scans, labels = load_digits(return_X_y=True)
    scans, labels = np.asarray(scans), np.asarray(labels)
    order = np.random.default_rng(0).permutation(len(scans))
    order = order[:NUM_TRAIN] if split == "train" else order[NUM_TRAIN:]
    return (scans[order] * STEP - 1).astype(np.float32), labels[order]


def dequantise(rng_key: jax.Array, x) -> jax.Array:
    """x plus uniform noise of one grey value."""
    return x + STEP * (jax.random.uniform(rng_key, jnp.shape(x)) - 0.5)


def sampler(rng_key: jax.Array, num_samples: int) -> jax.Array:
    """Dequantised training images [num_samples, 64]."""
    which, noise = jax.random.split(rng_key)
    train = jnp.asarray(images("train")[0])
    return dequantise(noise, train[jax.random.randint(which, (num_samples,), 0, len(train))])
