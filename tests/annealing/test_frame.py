"""A frame's two directions are inverse to each other, with a preconditioner and without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_problems import P2

from numpyro_diffusion.annealing.frame import frame_at


@pytest.mark.parametrize("frame_kind", ["whitened", "identity"])
def test_coordinates_undo_points(frame_kind):
    scale, v = jnp.asarray([[0.5, 0.0], [1.0, 2.0]]), jax.random.normal(jax.random.key(0), (2,))
    frame = frame_at(P2, 0.3, frame_kind)
    for made in (frame, frame.scaled(scale)):
        np.testing.assert_allclose(made.coordinates(made.point(v, (2,))), v, atol=1e-5)
    np.testing.assert_allclose(frame.scaled(scale).point(v, (2,)), frame.point(scale @ v, (2,)), atol=1e-5)
    np.testing.assert_allclose(frame.scaled(scale).unscaled(scale @ v), v, atol=1e-5)
