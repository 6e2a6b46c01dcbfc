"""Copies with other fields."""

import pytest

from numpyro_diffusion.density import exact
from numpyro_diffusion.pytree import replace


def test_replace_changes_a_copy_alone():
    box = exact.UniformBox([0.0], [2.0], name="p")
    moved = replace(box, name="q", centre=box.centre + 1)
    assert (box.name, moved.name, type(moved)) == ("p", "q", exact.UniformBox)
    assert (box.low[0], moved.low[0], moved.high[0]) == (0.0, 1.0, 3.0)


def test_replace_refuses_a_field_that_is_none():
    with pytest.raises(AttributeError, match="nmae"):
        replace(exact.UniformBox([0.0], [2.0]), nmae="q")
