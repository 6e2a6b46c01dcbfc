"""Probability flows that begin where next to nothing moves: the solver's first step would lead beyond all levels."""

import numpy as np

import numpyro_diffusion as nd


def test_log_densities_inside_of_a_box():
    x = np.array([[0.0464, 0.4256], [-0.0665, 0.5294], [-0.0387, -0.7778], [0.0, 0.1]])
    # A bar of width 0.2 and height 2.
    np.testing.assert_allclose(nd.load_pretrained("bar_score").log_prob(x), -np.log(0.4), atol=0.2)
