"""The digits, their splits, and the density of them that ships."""

import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ParameterError


@pytest.mark.slow
def test_the_pretrained_digits_are_conditional():
    density = nd.load_pretrained("digits")
    assert isinstance(density, nd.EnergyDensity) and density.config.condition_size == 10
    x, labels = nd.datasets.digits.images("train")
    by_class = nd.datasets.digits.by_class(density, x[:50])
    assert np.mean(by_class.argmax(1) == labels[:50]) > 0.9
    assert np.all(np.isfinite(density.log_prob(x[:50])))


def test_splits_of_the_digits_part_the_training_scans():
    digits = nd.datasets.digits
    (train, labels), (some, _), (rest, last) = (digits.images(split) for split in ("train", "fit", "validation"))
    np.testing.assert_array_equal(np.concatenate([some, rest]), train)
    np.testing.assert_array_equal(digits.one_hot(last).argmax(1), labels[len(some) :])
    with pytest.raises(ParameterError, match="split must be one of"):
        digits.images("all")
