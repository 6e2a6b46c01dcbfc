"""Files to be read, altered and written."""

import numpy as np
import pytest

from numpyro_diffusion.disk import checkpoint


@pytest.fixture
def path(tmp_path):
    """Where a checkpoint may be written."""
    return tmp_path / "density.safetensors"


@pytest.fixture
def small(path):
    """A small checkpoint at `path`."""
    checkpoint.write(
        path, {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1, 2])}, {"kind": "energy"}
    )
    return path
