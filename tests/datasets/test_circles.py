"""Three overlapping discs: closed forms that noise well, and the regions they cut from the plane."""

import jax
import numpy as np
from refusals import assert_refused, refusals

from numpyro_diffusion.datasets import circles
from numpyro_diffusion.errors import ParameterError, ShapeError


def test_a_disc_fills_its_circle_evenly():
    for i, density in enumerate(circles.densities()):
        x = density.sample(jax.random.key(i), 4000)
        assert np.all(np.abs(x.mean(0) - circles.CENTRES[i]) < 5 * x.std(0) / np.sqrt(4000))
        inside = (circles.region(x) >> i) & 1
        assert 0.85 < inside.mean() < 1 and repr(density) == f"p{i + 1}"
        angles = np.linspace(0, 2 * np.pi, 7)[:-1]
        ring = circles.CENTRES[i] + 0.25 * np.stack([np.cos(angles), np.sin(angles)], -1)
        assert np.ptp(density.log_prob(ring)) < 0.2


def test_regions_are_named_by_their_discs():
    middle = np.zeros((1, 2))
    ends = circles.CENTRES * 2
    assert list(circles.region(np.vstack([middle, ends, [[9, 9]]]))) == [7, 1, 2, 4, 0]
    between = -circles.CENTRES
    assert list(circles.region(between)) == [6, 5, 3]


@refusals({
    "a fourth disc": (lambda: circles.exact(4), ParameterError, "1, 2 and 3"),
    "a disc of zero": (lambda: circles.exact(0), ParameterError, "from 1 to 3; got 0"),
    "one point": (lambda: circles.region(np.zeros(2)), ShapeError, r"\[n, 2\]; got \(2,\)"),
})  # fmt: skip
def test_refused(call, error, words):
    assert_refused(call, error, words)
