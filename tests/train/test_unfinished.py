"""Whether fits that are not done say so, and only those."""

import jax
import numpy as np
import pytest
from densities import network

import numpyro_diffusion as nd
from numpyro_diffusion.datasets import planar
from numpyro_diffusion.train import unfinished

KEY = jax.random.key(0)
RING = np.asarray(planar.sampler("ring")(jax.random.key(3), 1000))


@pytest.mark.parametrize(("off", "found"), [(0.0, None), (0.2, "above"), (-0.2, "below")])
def test_a_trained_density_is_fine_unless_its_height_is_off(off, found, monkeypatch):
    known = unfinished.noised_log_probs
    monkeypatch.setattr(unfinished, "noised_log_probs", lambda *args: (known(*args)[0], known(*args)[1] + off))
    finding = unfinished.unfinished(nd.load_pretrained("ring"), RING, None, KEY)
    assert finding is None if found is None else f"0.2 {found} that of" in finding


def test_ends_are_log_densities_of_smoothed_data():
    data, points = np.array([[0.0], [1.0], [3.0]]), np.array([[0.5], [2.0]])
    alike = np.array([[True, True, False], [True, True, True]])
    ends = unfinished._smoothed(points, data, 0.7, np.array([0, 2]), alike)
    normal = lambda x, mean: np.exp(-0.5 * ((x - mean) / 0.7) ** 2) / (0.7 * np.sqrt(2 * np.pi))
    own = [(normal(0.5, 0) + normal(0.5, 1)) / 2, (normal(2, 0) + normal(2, 1) + normal(2, 3)) / 3]
    without = [normal(0.5, 1), (normal(2, 0) + normal(2, 1)) / 2]
    np.testing.assert_allclose(np.exp(ends), [own, without], rtol=1e-9)


def test_nothing_is_said_of_what_has_no_log_density_to_judge():
    score = network("score")
    assert unfinished.unfinished(score, RING, None, KEY) is None
    assert unfinished.unfinished(network(calibrated=False), RING, None, KEY) is None
