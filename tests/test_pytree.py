"""Copies with other fields."""

import pytest

from numpyro_diffusion.density import exact
from numpyro_diffusion.pytree import replace


def test_replace_changes_a_copy_alone():
    density = exact.gaussian([0.0, 1.0])
    renamed = replace(density, name="q", mean=density.mean + 1)
    assert (density.name, renamed.name) != ("q", density.name) and type(renamed) is type(density)
    assert renamed.mean[0] == density.mean[0] + 1


def test_replace_refuses_a_field_that_is_none():
    with pytest.raises(AttributeError, match="nmae"):
        replace(exact.gaussian([0.0, 1.0]), nmae="q")
