"""Architectures that cannot be."""

import pytest
from images import SHAPE
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ParameterError

#: What is refused: (call, error, words of the message: rule, value, remedy).
REFUSED = {
    "width zero": (
        lambda: nd.NetworkConfig(width=0), ParameterError,
        r"width must be an integer from 1 to .*; got 0. The default is 128"),
    "width not whole": (lambda: nd.NetworkConfig(width=2.5), ParameterError, r"width must be an integer"),  # pyright: ignore
    "embedding odd": (lambda: nd.NetworkConfig(embedding_size=5), ParameterError, r"even; got 5"),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)


BAD = [
    ({"shape": (4, 4)}, "height, width, channels"),
    ({"shape": (6, 4, 1), "multipliers": (1, 2, 2)}, "divisible by 4"),
    ({"shape": SHAPE, "attention": (3,)}, "attention must name heights"),
    ({"shape": SHAPE, "compute_dtype": "float16"}, "compute_dtype"),
    ({"shape": SHAPE, "position_width": 0.0}, "position_width"),
    ({"shape": SHAPE, "width": 0}, "width must be an integer"),
    ({"shape": SHAPE, "multipliers": ()}, "divisible|multiplier"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_architectures_are_refused(settings, message):
    with pytest.raises(ParameterError, match=message):
        nd.UNetConfig(**settings)
