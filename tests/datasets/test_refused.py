"""Data sets: bad input."""

import jax
import numpy as np
import pytest
from refusals import assert_short

from numpyro_diffusion.datasets import cubes, digits, planar, targets
from numpyro_diffusion.errors import ParameterError, UnknownNameError

KEY = jax.random.key(0)
TARGET = targets.target("mixture")


SHORT = {
    "labels beyond nine": lambda: digits.one_hot([10]),
    "negative labels": lambda: digits.one_hot([-1]),
    "labels with fractions": lambda: digits.one_hot([0.5]),
    "a split of its own": lambda: digits.images("mine"),
    "a split that is a list": lambda: digits.images(["train"]),
    "a size of True": lambda: cubes.labelled(True),
    "a size with a fraction": lambda: cubes.labelled(16.0),
    "a size that is a list": lambda: cubes.sampler([16]),
    "no draws of a target": lambda: TARGET.sample(0),
    "half a draw of a target": lambda: TARGET.sample(0.5),
    "a target's seed below zero": lambda: TARGET.sample(3, -1),
    "a place of a seed": lambda: cubes.positions(0, 2),
    "True cubes": lambda: cubes.positions(KEY, True),
    "holes of nothing": lambda: targets.hole_fraction(np.zeros((0, 2))),
}


@pytest.mark.parametrize("what", SHORT)
def test_refused_with_a_short_text(what):
    assert_short(SHORT[what])


def test_names_that_are_none():
    for name in ("circle", ["ring"], None, "x" * 10_000, "\x1b[31m"):
        for call in (planar.exact, planar.sampler, targets.target):
            with pytest.raises(UnknownNameError) as caught:
                call(name)
            assert len(str(caught.value)) < 300 and str(caught.value).isprintable()


@pytest.mark.parametrize("size", [7, 0, 16.0, "16", True])
def test_sizes_that_cannot_be(size):
    for call in (cubes.sampler, cubes.labelled, lambda n: cubes.render(cubes.sample_scene(jax.random.key(0)), n)):
        with pytest.raises(ParameterError, match=r"size must be an integer >= 8.*got .*Take 16"):
            call(size)


@pytest.mark.parametrize("count", [0, 6, 2.0, True])
def test_numbers_of_cubes_that_cannot_be(count):
    with pytest.raises(ParameterError, match=r"num_cubes must be an integer from 1 to 5; got"):
        cubes.sample_scene(jax.random.key(0), count)
    with pytest.raises(ParameterError, match=r"count must be an integer from 1 to 5; got"):
        cubes.positions(jax.random.key(0), count)
